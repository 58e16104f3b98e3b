-- bicycle_encode and bicycle_encode_posterior, against what the official code computes.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_import('enc', pg_temp.file('G.pth'), pg_temp.file('E.pth')) AS version;
SELECT bicycle_import('eng', pg_temp.file('G.pth')) AS version;
SET bicycle.model = 'enc';
CREATE TEMP TABLE expected
	AS SELECT (r ->> 'pair')::int AS pair,
		ARRAY(SELECT jsonb_array_elements_text(r -> 'mu')::float4)
		AS mu, ARRAY(SELECT jsonb_array_elements_text(r -> 'logvar')::float4) AS logvar,
		pg_temp.file(format('pairs/0%s_B.png', r ->> 'pair')) AS image
	FROM jsonb_array_elements(pg_read_file(:'testdata' || '/edges2emoji/expected.json')::jsonb)
		AS r;
SELECT pair, (SELECT max(abs(a - b)) < 1e-3 FROM unnest(e.mu, p.mu) AS u(a, b)) AS mu,
	(SELECT max(abs(a - b)) < 1e-3 FROM unnest(e.logvar, p.logvar) AS u(a, b)) AS logvar
FROM expected AS e, LATERAL bicycle_encode_posterior(image) AS p ORDER BY pair;
SELECT bool_and(bicycle_encode(image) = (bicycle_encode_posterior(image)).mu
	AND bicycle_encode(image) = bicycle_encode(image, 'enc', 1)
	AND bicycle_encode(image, 'enc') = (bicycle_encode_posterior(image, 'enc', 1)).mu)
		AS all_forms_agree FROM expected;
-- A style goes from one image to another.
SELECT count(DISTINCT bicycle_translate(pg_temp.file('pairs/03_A.png'), bicycle_encode(image)))
	AS styles FROM expected;
SELECT bicycle_encode(NULL) IS NULL AS image, bicycle_encode('x', NULL, 1) IS NULL AS model,
	bicycle_encode_posterior(NULL) IS NULL AS posterior;
SELECT pg_temp.fails($$SELECT bicycle_encode('x', 'eng')$$),
	pg_temp.fails($$SELECT bicycle_encode_posterior('x', 'eng')$$);
SELECT pg_temp.state($$SELECT bicycle_encode('x')$$);
SELECT bicycle_drop('enc'), bicycle_drop('eng');
