-- Latent codes: the same bits everywhere, normally distributed, interpolated along the great
-- circle.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common

-- These digits are a promise: they depend on nothing but the arguments.
SELECT bicycle_latent(8, 1);
SELECT bicycle_latent(3, 0), bicycle_latent(3, -1), bicycle_latent(3, 9223372036854775807),
	bicycle_latent(3, -9223372036854775808);
SELECT bicycle_latent(1, 42), bicycle_latent(0, 42), cardinality(bicycle_latent(4096, 42));
-- A longer code begins with the shorter one.
SELECT (bicycle_latent(64, 7))[1:8] = bicycle_latent(8, 7) AS prefix;
SELECT bicycle_latent(NULL, 1) IS NULL AS a, bicycle_latent(8, NULL) IS NULL AS b;
-- 409,600 values: mean, variance, skewness and kurtosis of the normal distribution within five
-- standard errors, no value twice in a row.
SELECT abs(avg(v)) < 0.008 AS mean, abs(avg(v * v) - 1) < 0.012 AS variance,
	abs(avg(v * v * v)) < 0.02 AS skewness, abs(avg(v * v * v * v) - 3) < 0.08 AS kurtosis
FROM generate_series(1, 100) AS seed, unnest(bicycle_latent(4096, seed)::float8[]) AS v;
SELECT count(*), count(DISTINCT z) FROM (SELECT bicycle_latent(8, s) AS z
	FROM generate_series(-5000, 5000) AS s) AS x;
SELECT pg_temp.fails('SELECT bicycle_latent(-1, 1)');
SELECT pg_temp.fails('SELECT bicycle_latent(4097, 1)');

-- Ends and middle.
SELECT bicycle_interpolate('{1,0}', '{0,1}', 0), bicycle_interpolate('{1,0}', '{0,1}', 1),
	bicycle_interpolate('{1,0}', '{0,1}', 0.5);
SELECT bicycle_interpolate('{2,0}', '{0,4}', 1.0 / 3) AS lengths_are_kept;
-- Parallel directions go straight; between opposite ones there is no great circle, but something
-- finite.
SELECT bicycle_interpolate('{1,2}', '{2,4}', 0.25), bicycle_interpolate('{0,0}', '{0,0}', 0.5);
SELECT bool_and(v BETWEEN -10 AND 10) AS finite
	FROM unnest(bicycle_interpolate('{1,2}', '{-1,-2}', 0.25)) AS v;
SELECT bicycle_interpolate('{}', '{}', 0.5),
	bicycle_interpolate(NULL, '{1}', 0.5) IS NULL AS is_null;
-- Lower bounds do not matter.
SELECT bicycle_interpolate('[0:1]={1,0}', '{0,1}', 0);
-- Against the formula.
WITH p AS (SELECT bicycle_latent(8, 1) AS a, bicycle_latent(8, 2) AS b),
	d AS (SELECT acos(sum(x::float8 * y) / sqrt(sum(x::float8 * x)) / sqrt(sum(y::float8 * y)))
		AS omega FROM p, unnest(a, b) AS u(x, y))
SELECT bool_and(abs(got - (sin((1 - t) * omega) * x + sin(t * omega) * y) / sin(omega)) < 1e-6)
	AS as_the_formula
FROM p, d, generate_series(0, 1, 0.125) AS s(t_num), LATERAL (SELECT t_num::float8 AS t) AS c,
	unnest(a, b, bicycle_interpolate(a, b, t)) AS u(x, y, got);
SELECT pg_temp.fails($$SELECT bicycle_interpolate('{1}', '{1,2}', 0.5)$$);
SELECT pg_temp.fails($$SELECT bicycle_interpolate('{1}', '{2}', 'NaN')$$);
SELECT pg_temp.fails($$SELECT bicycle_interpolate('{1}', '{2}', 'Infinity')$$);
SELECT pg_temp.fails($$SELECT bicycle_interpolate('{{1}}', '{2}', 0.5)$$);
SELECT pg_temp.fails($$SELECT bicycle_interpolate('{NULL}', '{2}', 0.5)$$);
SELECT pg_temp.fails($$SELECT bicycle_interpolate('{Infinity}', '{2}', 0.5)$$);

-- The mean of codes, as that of each value; NULLs do not count, and nothing has none.
SELECT bicycle_mean(z), bicycle_mean(z) FILTER (WHERE z IS NULL) AS of_nulls,
	bicycle_mean(DISTINCT z) AS of_two
	FROM (VALUES ('{1,2}'::float4[]), (NULL), ('{3,-4}'), ('{3,-4}'), (NULL)) AS v(z);
SELECT bicycle_mean(z) AS of_none FROM (SELECT bicycle_latent(8, 1) AS z WHERE false) AS v;
SELECT bicycle_mean('{}') AS empty, bicycle_mean('[0:1]={1,2}') AS bounds;
SELECT max(abs(mean - m)) < 1e-6 AS same
FROM (SELECT bicycle_mean(bicycle_latent(4, s)) AS z FROM generate_series(1, 1000) AS s) AS b,
	unnest(b.z) WITH ORDINALITY AS u(m, i)
	JOIN (SELECT i, avg(v) AS mean FROM generate_series(1, 1000) AS s,
		unnest(bicycle_latent(4, s)) WITH ORDINALITY AS v(v, i) GROUP BY i) AS a USING (i);
-- Sums are of double precision: in float4 the ones would be lost.
SELECT bicycle_mean(z) FROM (SELECT '{1e8}'::float4[] AS z UNION ALL
	SELECT '{1}' FROM generate_series(1, 99)) AS v;
-- Values that are not finite go through it as through avg.
SELECT bicycle_mean(z) FROM (VALUES ('{NaN,Infinity,Infinity,3e38}'::float4[]),
	('{1,1,-Infinity,3e38}')) AS v(z);
SELECT i, bicycle_mean(bicycle_latent(2, i)) OVER (ORDER BY i) = bicycle_latent(2, 1) AS first,
	bicycle_mean(bicycle_latent(2, i)) OVER (ORDER BY i DESC) = bicycle_latent(2, 3) AS last
	FROM generate_series(1, 3) AS i ORDER BY i;
SELECT pg_temp.report($$SELECT bicycle_mean(z)
	FROM (VALUES ('{1}'::float4[]), ('{1,2}')) AS v(z)$$);
SELECT pg_temp.report($$SELECT bicycle_mean('{1,NULL}')$$);
SELECT pg_temp.report($$SELECT bicycle_mean('{{1,2},{3,4}}')$$);
-- Its steps take care of what they are given by hand, and change nothing of it.
SELECT pg_temp.fails(format('SELECT bicycle_mean_final(%L)', s)),
	pg_temp.fails(format('SELECT bicycle_mean_add(%L, %L)', s, '{1}'))
	FROM unnest('{"{}","{NULL}","{{1},{2}}"}'::text[]) AS s;
SELECT bicycle_mean_add(s, '{1}'), bicycle_mean_combine(s, s), bicycle_mean_combine(s, NULL),
	bicycle_mean_combine(NULL, s), bicycle_mean_combine(NULL, NULL), s
	FROM (SELECT '{2,3}'::float8[] AS s) AS v;
SELECT pg_temp.fails($$SELECT bicycle_mean_combine('{1,2}', '{1,2,3}')$$);
