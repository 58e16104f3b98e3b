-- bicycle_evaluate: numbers as PyTorch and single calls give them, seeds, bad pairs, options,
-- rights, cancelling.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SET client_min_messages = warning;
SELECT bicycle_import('emoji', pg_temp.file('G.pth'), pg_temp.file('E.pth')) AS version;
SELECT bicycle_import('blind', pg_temp.file('G.pth')) AS version;
CREATE TABLE public.regress_pairs AS
	SELECT i AS id, pg_temp.file(format('pairs/0%s_A.png', i)) AS a,
		pg_temp.file(format('pairs/0%s_B.png', i)) AS b FROM generate_series(0, 2) AS i;
-- Two more truths of the first input, and one that is there already.
INSERT INTO regress_pairs SELECT 2 + n, a, pg_temp.file(format('pairs/0%s_B.png', n % 3))
	FROM regress_pairs, generate_series(1, 3) AS n WHERE id = 0;
\set pairs 'SELECT a, b, id FROM regress_pairs ORDER BY id'
RESET client_min_messages;

-- Without the weights of LPIPS what needs them is left out, with one NOTICE.
CREATE TEMP TABLE first AS
	SELECT * FROM bicycle_evaluate('emoji', :'pairs', '{"samples": 3, "seed": 7}');
SET client_min_messages = warning;

-- As the official networks, PyTorch and numpy say (test/gen/evaluate.py).
CREATE TEMP TABLE golden AS SELECT key AS metric, (value->>0)::float8 AS value,
		(value->>1)::float8 AS stderr, (value->>2)::bigint AS n
	FROM jsonb_each(pg_read_file(:'testdata' || '/edges2emoji/evaluate.json')::jsonb);
SELECT f.metric, abs(f.value - g.value) < 1e-3 AS value,
	f.stderr IS NOT DISTINCT FROM g.stderr OR abs(f.stderr - g.stderr) < 1e-3 AS stderr,
		f.n = g.n AS n
	FROM first AS f JOIN golden AS g USING (metric);

-- The samples are those of bicycle_sample.
SELECT abs(avg(abs(z.v - r.v)) -
	(SELECT value FROM first WHERE metric = 'latent_l1')) < 1e-6 AS latent_l1
FROM generate_series(0, 2) AS i JOIN regress_pairs AS p ON p.id = i,
	bicycle_sample(p.a, 3, 7 + i, 'emoji', 1) AS s,
	unnest(s.z) WITH ORDINALITY AS z(v, d)
	JOIN LATERAL unnest(bicycle_encode(s.image, 'emoji', 1)) WITH ORDINALITY AS r(v, d) USING (d);

-- The same rows from the same seed, whatever the session's settings; others from another seed.
SET bicycle.output_format = 'jpeg';
SET bicycle.fit = 'input';
SET bicycle.prefetch = 1;
SELECT count(*) AS same, (SELECT count(*) FROM first) AS "of"
	FROM bicycle_evaluate('emoji', :'pairs', '{"samples": 3, "seed": 7}')
		JOIN first USING (metric, value);
RESET bicycle.output_format;
RESET bicycle.fit;
RESET bicycle.prefetch;
SELECT metric FROM bicycle_evaluate('emoji', :'pairs', '{"samples": 3, "seed": 8}')
	JOIN first USING (metric, value) ORDER BY metric;
-- Truths of any size are brought to that of the answers.
SELECT bicycle_create('small', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2,
	"encoder_size": 64}') AS version;
SELECT metric, value > 0 AS value, n FROM bicycle_evaluate('small', :'pairs',
	'{"samples": 2, "metrics": ["reconstruction_l1", "best_l1"]}');

-- Pairs may lie side by side in one image.
SELECT metric, value > 0 AS value, n FROM bicycle_evaluate('small',
	'SELECT b, id FROM regress_pairs WHERE id < 3',
	'{"samples": 2, "side_by_side": true, "metrics": ["reconstruction_l1", "best_l1"]}');
-- Each number of z; as many inputs as are asked for; what comes of one input has no error.
SELECT metric, value IS NOT NULL AS value, stderr IS NOT NULL AS stderr, n
	FROM bicycle_evaluate('small', :'pairs',
		'{"samples": 2, "metrics": ["kl", "latent_read"], "each_number": true}');
RESET client_min_messages;
SELECT metric, value IS NOT NULL AS value, stderr, n
	FROM bicycle_evaluate('emoji', :'pairs',
		'{"inputs": 1, "samples": 2, "metrics": ["best_l1", "kl"]}');
SET client_min_messages = warning;
-- Inputs of a single truth have no modes: left out, or, if named, nothing.
SELECT * FROM bicycle_evaluate('emoji', 'SELECT a, b FROM regress_pairs WHERE id IN (1, 2)',
	'{"samples": 2, "metrics": ["coverage_l1", "precision_l1"]}');
SELECT count(*) FILTER (WHERE metric ~ 'coverage|precision') AS modes, count(*) > 0 AS others
	FROM bicycle_evaluate('emoji',
		'SELECT a, b FROM regress_pairs WHERE id IN (1, 2)', '{"samples": 2}');

-- Without an encoder, without a code: what makes sense is left.
SELECT metric, n FROM bicycle_evaluate('blind', :'pairs', '{"samples": 2}');
SELECT bicycle_create('flat', '{"size": 64, "levels": 6, "ngf": 4, "nz": 0, "where_add": "input",
	"net_e": "none"}') AS version;
SELECT metric, n FROM bicycle_evaluate('flat', :'pairs');
SELECT pg_temp.report(format('SELECT bicycle_evaluate(%L, %L, %L)', model, :'pairs', options))
FROM (VALUES ('blind', '{"metrics": ["best_l1", "kl"]}'), ('flat', '{"metrics": ["diversity_l1"]}'),
	('emoji', '{"metrics": ["diversity_l1"], "samples": 1}'), ('emoji', '{"metrics": ["mmd"]}'))
	AS x(model, options);

-- Options.
SELECT pg_temp.report(format('SELECT bicycle_evaluate(%L, %L, %L)', 'emoji', :'pairs', options))
FROM unnest('{"{\"sample\": 3}","{\"samples\": 0}","{\"samples\": 2.5}","{\"samples\": \"3\"}",
	"{\"seed\": 9223372036854775808}","{\"metrics\": []}",
	"{\"metrics\": [\"fid\"]}","{\"metrics\": {}}","{\"metrics\": \"mmd\"}","{\"bad_pairs\": true}",
	"{\"lpips_version\": 0.1}","{\"each_number\": 1}",
	"{\"version\": 2}","{\"samples\": 1001}","[]"}'::text[]) AS options;
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji', NULL)$$);
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji', 'SELECT 1', NULL)$$);
SELECT pg_temp.fails($$SELECT bicycle_evaluate('nothing', 'SELECT 1')$$);
SELECT count(*) > 0 AS seeds FROM bicycle_evaluate('small', :'pairs',
	'{"samples": 2, "seed": -9223372036854775808, "inputs": 2, "version": 1}');

-- Queries that training would not take either; temporary tables are there.
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji', 'SELECT 1')$$);
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji',
	'DELETE FROM regress_pairs RETURNING a, b')$$);
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji', 'SELECT 1; SELECT 2')$$);
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji',
	'SELECT a, b FROM regress_pairs WHERE false')$$);
CREATE FUNCTION public.regress_writes(bytea) RETURNS bytea LANGUAGE plpgsql AS
	$$BEGIN DELETE FROM regress_pairs; RETURN $1; END$$;
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji',
	'SELECT regress_writes(a), b FROM regress_pairs')$$);
-- ... and what follows can write.
CREATE TEMP TABLE mine AS SELECT a, b FROM regress_pairs WHERE id = 1;
SELECT metric, n FROM bicycle_evaluate('emoji', 'SELECT * FROM mine',
	'{"samples": 2, "metrics": ["best_l1"]}');

-- With weights of LPIPS: what bicycle_lpips says of the same pictures.
\set lpips :srcdir '/sql/include/lpips.sql'
\i :lpips
-- Its version depends on which tests have had that model before.
SELECT bicycle_import_lpips('alex', backbone, heads, '0.0') > 0 AS imported FROM files;
CREATE TEMP TABLE seen AS
	SELECT * FROM bicycle_evaluate('emoji', :'pairs', '{"samples": 3, "seed": 7}');
SELECT metric, value IS NOT NULL AS value, stderr > 0 AS stderr, n FROM seen;
CREATE TEMP TABLE sampled AS SELECT i AS input, s.sample, s.image
	FROM generate_series(0, 2) AS i JOIN regress_pairs AS p ON p.id = i,
	bicycle_sample(p.a, 3, 7 + i, 'emoji', 1) AS s;
CREATE TEMP TABLE far AS SELECT CASE WHEN id > 2 THEN 0 ELSE id END AS input, id,
	bicycle_lpips(bicycle_translate(a, bicycle_encode(b, 'emoji', 1), 'emoji', 1), b,
		version => '0.0') AS made,
	(SELECT min(bicycle_lpips(image, b, version => '0.0')) FROM sampled AS s
		WHERE s.input = CASE WHEN id > 2 THEN 0 ELSE id END) AS best FROM regress_pairs;
WITH one (metric, value) AS (
	SELECT 'diversity_lpips', avg(bicycle_lpips(s.image, t.image, version => '0.0'))
		FROM sampled AS s JOIN sampled AS t ON t.input = s.input AND t.sample = s.sample + 1
	UNION ALL SELECT 'reconstruction_lpips', avg(made)
		FROM (SELECT avg(made) AS made FROM far GROUP BY input) AS x
	UNION ALL SELECT 'best_lpips', avg(best)
		FROM (SELECT avg(best) AS best FROM far GROUP BY input) AS x)
SELECT metric, abs(one.value - seen.value) < 1e-6 * abs(seen.value) AS same
	FROM one JOIN seen USING (metric) ORDER BY metric;
-- Alone, MMD takes a distance a pair.
SELECT count(*) AS same FROM bicycle_evaluate('emoji', :'pairs',
	'{"samples": 3, "seed": 7, "metrics": ["mmd"]}') JOIN seen USING (metric, value, stderr, n);
SELECT bicycle_drop('lpips-alex-0.0');

-- A pair that cannot be used is an error that names it, or is skipped.
INSERT INTO regress_pairs VALUES (10, NULL, 'x'), (11, 'not an image', 'x'),
	(12, (SELECT a FROM regress_pairs WHERE id = 0), 'nor this'),
	(13, (SELECT a FROM regress_pairs WHERE id = 0), NULL);
CREATE FUNCTION pg_temp.context(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	context text;
BEGIN
	EXECUTE query;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RETURN sqlstate || ' ' || split_part(context, E'\n', 1);
END $$;
SELECT pg_temp.report(format('SELECT bicycle_evaluate(%L, %L)', 'emoji', :'pairs'));
SELECT pg_temp.context(format('SELECT bicycle_evaluate(%L, %L)', model,
	format('SELECT a, b, id FROM regress_pairs WHERE id IN (0, %s) ORDER BY id', id)))
	FROM unnest('{11,12}'::int[]) AS id, unnest('{emoji,blind}'::text[]) AS model;
SELECT pg_temp.context($$SELECT bicycle_evaluate('small',
	'SELECT b, id FROM regress_pairs WHERE id IN (0, 12)', '{"side_by_side": true}')$$);
RESET client_min_messages;
SELECT metric, n FROM bicycle_evaluate('small',
	'SELECT b, id FROM regress_pairs WHERE id IN (0, 12)',
	'{"samples": 2, "side_by_side": true, "bad_pairs": "skip", "metrics": ["best_l1"]}');
CREATE TEMP TABLE rest AS
	SELECT * FROM bicycle_evaluate('emoji', :'pairs',
		'{"samples": 3, "seed": 7, "bad_pairs": "skip"}');
SELECT pg_temp.fails($$SELECT bicycle_evaluate('emoji',
	'SELECT a, b FROM regress_pairs WHERE id = 11',
	'{"bad_pairs": "skip", "metrics": ["kl"]}')$$);
SET client_min_messages = warning;
SELECT count(*) AS same, (SELECT count(*) FROM first) AS "of"
	FROM rest JOIN first USING (metric, value, n);
DELETE FROM regress_pairs WHERE id > 9;

-- Memory is bounded, and a wait can be cancelled.
SET maintenance_work_mem = '1MB';
SELECT pg_temp.report(format('SELECT bicycle_evaluate(%L, %L, %L)', 'emoji', :'pairs',
	'{"samples": 300, "inputs": 1, "metrics": ["latent_l1"]}'));
RESET maintenance_work_mem;
\set VERBOSITY sqlstate
SET statement_timeout = '100ms';
SELECT bicycle_evaluate('emoji', :'pairs', '{"samples": 1000, "metrics": ["latent_l1"]}');
RESET statement_timeout;
\set VERBOSITY default

-- As the caller: rights on the model and on the pairs, row security of both.
CREATE ROLE regress_bicycle_user;
SET ROLE regress_bicycle_user;
SELECT pg_temp.fails(format('SELECT bicycle_evaluate(%L, %L)', 'emoji', :'pairs'));
RESET ROLE;
GRANT SELECT ON bicycle_models, bicycle_tensors TO regress_bicycle_user;
SET ROLE regress_bicycle_user;
SELECT pg_temp.fails(format('SELECT bicycle_evaluate(%L, %L)', 'emoji', :'pairs'));
RESET ROLE;
GRANT SELECT ON regress_pairs TO regress_bicycle_user;
ALTER TABLE regress_pairs ENABLE ROW LEVEL SECURITY;
CREATE POLICY one ON regress_pairs USING (id = 1);
SET ROLE regress_bicycle_user;
SELECT metric, n FROM bicycle_evaluate('emoji', :'pairs',
	'{"samples": 2, "metrics": ["best_l1", "kl"]}');
RESET ROLE;
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON bicycle_models FOR SELECT USING (model = 'blind');
SET ROLE regress_bicycle_user;
SELECT pg_temp.fails(format('SELECT bicycle_evaluate(%L, %L)', 'emoji', :'pairs'));
-- In a transaction that only reads, too.
BEGIN READ ONLY;
SELECT metric, n FROM bicycle_evaluate('blind', :'pairs', '{"samples": 2, "metrics": ["best_l1"]}');
COMMIT;
RESET ROLE;
DROP POLICY own ON bicycle_models;
ALTER TABLE bicycle_models DISABLE ROW LEVEL SECURITY;
DROP TABLE regress_pairs;
DROP FUNCTION regress_writes;
DROP OWNED BY regress_bicycle_user;
DROP ROLE regress_bicycle_user;
SELECT bicycle_drop(model) FROM unnest('{emoji,blind,small,flat}'::text[]) AS model;
