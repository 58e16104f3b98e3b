-- bicycle_encode and bicycle_encode_posterior, against what the official code computes.
\getenv testdata BICYCLE_TESTDATA
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bicycle;
RESET client_min_messages;
CREATE TEMP TABLE file AS
	SELECT name, pg_read_binary_file(:'testdata' || '/edges2emoji/' || name) AS bytes
	FROM unnest('{G.pth,E.pth,pairs/00_A.png,pairs/00_B.png,pairs/01_A.png,pairs/01_B.png,pairs/02_A.png,pairs/02_B.png,pairs/03_A.png}'::text[]) AS name;
CREATE FUNCTION pg_temp.file(text) RETURNS bytea LANGUAGE sql STABLE AS 'SELECT bytes FROM pg_temp.file WHERE name = $1';
-- What a statement fails with: SQLSTATE and message, or only the SQLSTATE where the engine words the message.
CREATE FUNCTION pg_temp.fails(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE query;
	RETURN 'succeeded';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || sqlerrm;
END $$;
CREATE FUNCTION pg_temp.state(query text) RETURNS text LANGUAGE sql AS 'SELECT split_part(pg_temp.fails($1), '' '', 1)';
SELECT bicycle_import('enc', pg_temp.file('G.pth'), pg_temp.file('E.pth')) AS version;
SELECT bicycle_import('eng', pg_temp.file('G.pth')) AS version;
SET bicycle.model = 'enc';
CREATE TEMP TABLE expected AS
	SELECT (r ->> 'pair')::int AS pair, ARRAY(SELECT jsonb_array_elements_text(r -> 'mu')::float4) AS mu, ARRAY(SELECT jsonb_array_elements_text(r -> 'logvar')::float4) AS logvar,
		pg_temp.file(format('pairs/0%s_B.png', r ->> 'pair')) AS image
	FROM jsonb_array_elements(pg_read_file(:'testdata' || '/edges2emoji/expected.json')::jsonb) AS r;
SELECT pair, (SELECT max(abs(a - b)) < 1e-3 FROM unnest(e.mu, p.mu) AS u(a, b)) AS mu, (SELECT max(abs(a - b)) < 1e-3 FROM unnest(e.logvar, p.logvar) AS u(a, b)) AS logvar
FROM expected AS e, LATERAL bicycle_encode_posterior(image) AS p ORDER BY pair;
SELECT bool_and(bicycle_encode(image) = (bicycle_encode_posterior(image)).mu AND bicycle_encode(image) = bicycle_encode(image, 'enc', 1)
	AND bicycle_encode(image, 'enc') = (bicycle_encode_posterior(image, 'enc', 1)).mu) AS all_forms_agree FROM expected;
-- A style goes from one image to another.
SELECT count(DISTINCT bicycle_translate(pg_temp.file('pairs/03_A.png'), bicycle_encode(image))) AS styles FROM expected;
SELECT bicycle_encode(NULL) IS NULL AS image, bicycle_encode('x', NULL, 1) IS NULL AS model, bicycle_encode_posterior(NULL) IS NULL AS posterior;
SELECT pg_temp.fails($$SELECT bicycle_encode('x', 'eng')$$), pg_temp.fails($$SELECT bicycle_encode_posterior('x', 'eng')$$);
SELECT pg_temp.state($$SELECT bicycle_encode('x')$$);
SELECT bicycle_drop('enc'), bicycle_drop('eng');
