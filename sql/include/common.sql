\set ECHO none
-- What most tests begin with; included by each, in a session of its own.
\getenv testdata BICYCLE_TESTDATA
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bicycle;
RESET client_min_messages;
CREATE TEMP TABLE file
	AS SELECT name, pg_read_binary_file(:'testdata' || '/edges2emoji/' || name) AS bytes
	FROM unnest('{G.pth,E.pth,pairs/00_A.png,pairs/00_B.png,pairs/01_A.png,pairs/01_B.png,
		pairs/02_A.png,pairs/02_B.png,pairs/03_A.png}'::text[]) AS name;
CREATE FUNCTION pg_temp.file(text) RETURNS bytea
	LANGUAGE sql STABLE AS 'SELECT bytes FROM pg_temp.file WHERE name = $1';
-- What a statement fails with: SQLSTATE, message, detail and hint; the first two; only the
-- SQLSTATE, where the engine words the message.
CREATE FUNCTION pg_temp.report(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	detail text;
	hint text;
BEGIN
	EXECUTE query;
	RETURN 'succeeded';
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
	RETURN concat_ws(E'\n', sqlstate || ' ' || sqlerrm, nullif(detail, ''), nullif(hint, ''));
END $$;
CREATE FUNCTION pg_temp.fails(query text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN
	EXECUTE query;
	RETURN 'succeeded';
EXCEPTION WHEN OTHERS THEN
	RETURN sqlstate || ' ' || sqlerrm;
END $$;
CREATE FUNCTION pg_temp.state(query text) RETURNS text
	LANGUAGE sql AS 'SELECT split_part(pg_temp.fails($1), '' '', 1)';
\set ECHO all
