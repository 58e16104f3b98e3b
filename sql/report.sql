-- A report is one well-formed page that refers to nothing outside of it and holds no script,
-- whatever names say; it shows what its caller may see, and its pairs are only read.
\getenv data BICYCLE_TESTDATA
\set VERBOSITY terse
SELECT bicycle_import('m"><script>alert(1)</script>&amp;',
	pg_read_binary_file(:'data' || '/edges2emoji/G.pth'),
	pg_read_binary_file(:'data' || '/edges2emoji/E.pth'));
SELECT bicycle_import('alone', pg_read_binary_file(:'data' || '/edges2emoji/G.pth'));
CREATE TABLE pairs AS
SELECT n, pg_read_binary_file(:'data' || format('/edges2emoji/pairs/0%s_A.png', n)) AS a,
	pg_read_binary_file(:'data' || format('/edges2emoji/pairs/0%s_B.png', n)) AS b
	FROM generate_series(0, 3) AS n;

-- What is wrong with the nesting of a page's elements; NULL if nothing is.
CREATE FUNCTION misnested(page text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	open text[] := '{}';
	tag text[];
BEGIN
	FOR tag IN SELECT regexp_matches(page, '<(/?)([a-z0-9]+)((?: [a-z-]+="[^"<>]*")*)>', 'g')
	LOOP
		IF tag[2] IN ('meta', 'img') THEN
			CONTINUE;
		ELSIF tag[1] = '' THEN
			open := open || tag[2];
		ELSIF open[cardinality(open)] IS DISTINCT FROM tag[2] THEN
			RETURN format('</%s> in %s', tag[2], open);
		ELSE
			open := trim_array(open, 1);
		END IF;
	END LOOP;
	-- There is no other < or > than of those.
	RETURN coalesce(nullif(array_to_string(open, ' '), ''), substring(regexp_replace(page,
		'<(!DOCTYPE html|/?[a-z0-9]+(?: [a-z-]+="[^"<>]*")*)>', '', 'g') FROM '[<>].*'));
END $$;
-- What is to be true of every page.
CREATE FUNCTION sound(page text) RETURNS text LANGUAGE sql AS $$
SELECT coalesce(misnested(page), CASE
	WHEN regexp_replace(page, '="[^"]*"', '', 'g') ~* '<script|<[^>]* on[a-z]+|@import|url *\(|://'
		THEN 'script or address'
	WHEN (SELECT bool_or(link[2]
		!~ '^(data:image/(png|jpeg|webp);base64,[A-Za-z0-9+/]+=*|#[a-z]+)$')
		FROM regexp_matches(page, ' (src|href|srcset|action|poster|data)="([^"]*)"', 'g') AS link)
		THEN 'refers to something'
	WHEN page ~ '[^\n\t -~]' THEN 'not ASCII'
	WHEN (SELECT count(*) <> count(DISTINCT id)
		FROM regexp_matches(page, ' id="([^"]*)"', 'g') AS id) THEN 'an id twice'
	WHEN (SELECT bool_or(page !~ format(' id="%s"', link[1]))
		FROM regexp_matches(page, '(?:href="#|labelledby=")([^"]*)"', 'g') AS link)
		THEN 'a link to nothing'
	WHEN page ~ '<img (?!alt="[^"]+" )' THEN 'no alt'
	WHEN page !~ concat(' http-equiv="Content-Security-Policy" content="default-src ''none''; ',
		'img-src data:; style-src ''unsafe-inline''; ') THEN 'no policy' ELSE 'sound' END) $$;
CREATE FUNCTION images(page text) RETURNS bigint LANGUAGE sql
	AS 'SELECT count(*) FROM regexp_matches(page, ''<img '', ''g'')';
SET bicycle.output_format = 'jpeg';
CREATE TABLE made AS SELECT bicycle_report('m"><script>alert(1)</script>&amp;',
	'SELECT a, b, ''<img src=x onerror=alert(1)>"'' || n AS id FROM pairs ORDER BY n',
	'{"rows": 2, "samples": 2, "steps": 3, "sweep": 2, "evaluation": false,
	"title": "Gr\u00f6\u00dfe \u4e2d </title><script>\u0007"}') AS page;
RESET bicycle.output_format;
SELECT sound(page), images(page),
	substring(page FROM '<title>(.*)</title>\n') AS title FROM made;
-- Input, truth, encoded and two samples of two pairs; three steps; eight numbers at two values.
SELECT string_agg(heading[1], ', ') AS headings FROM made,
	regexp_matches(page, '<h[1-6][^>]*>([^<]*)<', 'g') AS heading WHERE heading[1] !~ '&';
SELECT string_agg(head[1], ', ') AS columns FROM made,
	regexp_matches(substring(page FROM '<table>.*?</thead>'), '<th scope="col">([^<]*)<', 'g')
	AS head;
-- The pictures are those of the functions.
SELECT position(translate(encode(image, 'base64'), E'\n', '') IN page) > 0 AS shown
	FROM pairs, bicycle_sample(a, 2, 7, 'alone'),
	bicycle_report('alone', 'SELECT a, b FROM pairs WHERE n = 1', '{"seed": 7, "samples": 2,
		"steps": 0, "sweep": 0, "evaluation": false}') AS page
	WHERE n = 1 ORDER BY sample;

-- Its evaluation is that of bicycle_evaluate, of the same version and seed.
SET client_min_messages = warning;
CREATE TABLE pages AS SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"rows": 1,
	"samples": 1, "steps": 0, "sweep": 0, "seed": 7, "evaluation": {"inputs": 2, "samples": 2}}')
	AS page;
SELECT sound(page), count(*) > 1 AS several, bool_and(abs(value - substring(page
	FROM format('<th scope="row">%s</th><td>([^<]*)<', metric))::float8) <= abs(value) / 1000)
	AS same
	FROM pages, bicycle_evaluate('alone', 'SELECT a, b FROM pairs',
		'{"inputs": 2, "samples": 2, "seed": 7}') GROUP BY page;
RESET client_min_messages;

-- A model without encoder; images that are not there or cannot be used.
SELECT sound(page), images(page) FROM bicycle_report('alone', 'SELECT a, b FROM pairs',
	'{"samples": 1, "steps": 0, "sweep": 0, "evaluation": false}') AS page;
SELECT sound(page), images(page), page ~ '>none<' AS none FROM bicycle_report('alone',
	'SELECT CASE WHEN n > 0 THEN a END, CASE WHEN n > 1 THEN b END FROM pairs ORDER BY n',
	'{"samples": 1, "steps": 2, "sweep": 0, "evaluation": false}') AS page;
\set VERBOSITY default
SELECT bicycle_report('alone', 'SELECT ''x''::bytea, b, 12 AS id FROM pairs',
	'{"evaluation": false}');
SET bicycle.on_error = 'null';
SELECT sound(page), images(page), page ~ '>not an image<' AS said FROM bicycle_report('alone',
	'SELECT CASE n WHEN 1 THEN ''<svg onload="x">'' ELSE a END, b FROM pairs ORDER BY n',
	'{"samples": 1, "steps": 0, "sweep": 0, "evaluation": false}') AS page;
RESET bicycle.on_error;

-- Who asks sees what he may see.
CREATE ROLE regress_bicycle_guest;
GRANT SELECT ON pairs TO regress_bicycle_guest;
SET ROLE regress_bicycle_guest;
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs');
RESET ROLE;
GRANT SELECT ON bicycle_models, bicycle_tensors TO regress_bicycle_guest;
ALTER TABLE pairs ENABLE ROW LEVEL SECURITY;
CREATE POLICY one ON pairs USING (n = 1);
SET ROLE regress_bicycle_guest;
SELECT images(bicycle_report('alone', 'SELECT a, b FROM pairs', '{"samples": 1, "steps": 0,
	"sweep": 0, "evaluation": false}'));
RESET ROLE;
DROP POLICY one ON pairs;
SET ROLE regress_bicycle_guest;
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs');
RESET ROLE;
ALTER TABLE pairs DISABLE ROW LEVEL SECURITY;

-- The job that made a version is shown to those who may see it. Its number is given back: others
-- count on theirs.
SELECT last_value, is_called FROM bicycle_training_job_ids \gset
SET client_min_messages = warning;
SELECT bicycle_train('trained', 'SELECT a, b FROM pairs', '{"size": 64, "ngf": 4, "nef": 4,
	"ndf": 4, "iterations": 4, "preview_every": 1}') AS job \gset
SET test.job = :job;
CALL bicycle_wait(:job);
RESET client_min_messages;
CREATE FUNCTION pg_temp.of_job(options jsonb) RETURNS text LANGUAGE sql AS $$
SELECT bicycle_report('trained', 'SELECT a, b FROM pairs', '{"rows": 1, "samples": 1, "steps": 0,
	"sweep": 0, "evaluation": false}' || options) $$;
SELECT sound(page), images(page), substring(page FROM 'of iteration.*of iteration 4') IS NOT NULL
	AS last, page ~ '<th scope="row">preview_every</th><td>1</td>' AS options
	FROM pg_temp.of_job('{"previews": 3}') AS page;
SELECT images(pg_temp.of_job('{"previews": 1}')) AS one, images(pg_temp.of_job('{"previews": 0}'))
	AS none, images(pg_temp.of_job('{}')) AS every;
GRANT SELECT ON pairs TO regress_bicycle_guest;
SET ROLE regress_bicycle_guest;
SELECT sound(page), page ~ '>Training<' AS training FROM pg_temp.of_job('{}') AS page;
DO $$ BEGIN
	PERFORM pg_temp.of_job(jsonb_build_object('job', current_setting('test.job')::bigint));
EXCEPTION WHEN undefined_object THEN
	RAISE NOTICE 'it is not there for others';
END $$;
RESET ROLE;

-- The pairs are only read, also by functions in them, and by one query.
CREATE FUNCTION writes() RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
	DELETE FROM pairs;
	RETURN NULL;
END $$;
\set SHOW_CONTEXT never
SELECT bicycle_report('alone', 'SELECT writes(), b FROM pairs');
SELECT bicycle_report('alone', 'DELETE FROM pairs RETURNING a, b');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs; SELECT 1');
SELECT bicycle_report('alone', 'SELECT a FROM pairs');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs WHERE false');
INSERT INTO pairs VALUES (9);
DELETE FROM pairs WHERE n = 9;
-- Nobody's operators and functions are taken for PostgreSQL's.
CREATE SCHEMA bad;
CREATE FUNCTION bad.taken(text, int) RETURNS text LANGUAGE plpgsql
	AS $$ BEGIN RAISE 'taken'; END $$;
CREATE FUNCTION bad.to_char(timestamp, text) RETURNS text LANGUAGE sql AS 'SELECT bad.taken($2, 1)';
CREATE FUNCTION bad.jsonb_each_text(jsonb) RETURNS TABLE (key text, value text) LANGUAGE sql
	AS 'SELECT bad.taken('''', 1), ''''';
CREATE OPERATOR bad.|| (LEFTARG = text, RIGHTARG = int, FUNCTION = bad.taken);
SET search_path = bad, public, pg_catalog;
CREATE TABLE public.other AS SELECT public.bicycle_report('alone', 'SELECT a, b FROM pairs',
	'{"rows": 1, "samples": 1, "steps": 0, "sweep": 0, "evaluation": false}') AS page;
RESET search_path;
SELECT sound(page) FROM other;

-- Options.
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"row": 1}');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"rows": 0}');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"samples": 1.5}');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"title": 1}');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"evaluation": [1]}');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"version": 9}');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '{"job": 99}');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', '[]');
SELECT bicycle_report('alone', 'SELECT a, b FROM pairs', NULL);
SELECT bicycle_report('alone', NULL);
DROP SCHEMA bad CASCADE;
DROP FUNCTION writes(), misnested(text), sound(text), images(text);
DROP TABLE pairs, made, other, pages;
SELECT bicycle_drop(model) FROM (SELECT DISTINCT model FROM bicycle_models) AS m;
DELETE FROM bicycle_training_jobs WHERE job = :job;
SELECT setval('bicycle_training_job_ids', :last_value, :'is_called') AS number \gset
REVOKE ALL ON bicycle_models, bicycle_tensors FROM regress_bicycle_guest;
DROP ROLE regress_bicycle_guest;
