-- What CREATE EXTENSION makes: grants and comments; tables with their keys; what is dumped.
\getenv testdata BICYCLE_TESTDATA
SET client_min_messages = warning;
DROP EXTENSION IF EXISTS bicycle CASCADE;
RESET client_min_messages;
CREATE EXTENSION bicycle;
CREATE ROLE regress_bicycle_nobody;

CREATE TEMP VIEW member
	AS SELECT d.classid, d.objid FROM pg_depend d
		JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'bicycle' AND d.deptype = 'e';

-- What is not for everybody.
SELECT p.oid::regprocedure AS function
FROM member m JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
WHERE NOT has_function_privilege('regress_bicycle_nobody', p.oid, 'EXECUTE')
ORDER BY p.oid::regprocedure::text COLLATE "C";

-- Nobody is granted anything on the tables.
SELECT c.oid::regclass AS "table", c.relacl, has_table_privilege('regress_bicycle_nobody', c.oid,
	'SELECT, INSERT, UPDATE, DELETE, TRUNCATE') AS any_right
FROM member m JOIN pg_class c ON m.classid = 'pg_class'::regclass AND m.objid = c.oid
	AND c.relkind = 'r'
ORDER BY 1;

SELECT conrelid::regclass AS "table", contype, pg_get_constraintdef(oid) AS definition
FROM pg_constraint WHERE conrelid IN (SELECT objid FROM member WHERE classid = 'pg_class'::regclass)
	AND contype <> 'n'
ORDER BY conrelid::regclass::text, contype, pg_get_constraintdef(oid) COLLATE "C";

SELECT attname, attstorage FROM pg_attribute WHERE attrelid = 'bicycle_tensors'::regclass
	AND attname = 'data';
SELECT indexdef FROM pg_indexes WHERE indexname = 'bicycle_models_current';
SELECT unnest(extconfig)::regclass AS dumped, unnest(extcondition) AS condition, extrelocatable
	FROM pg_extension WHERE extname = 'bicycle' ORDER BY 1;

-- Every function and table has a comment.
SELECT pg_describe_object(m.classid, m.objid, 0) AS without_comment
FROM member m
WHERE m.classid IN ('pg_proc'::regclass, 'pg_class'::regclass)
	AND obj_description(m.objid, CASE WHEN m.classid = 'pg_proc'::regclass THEN 'pg_proc' ELSE
		'pg_class' END) IS NULL
	AND pg_describe_object(m.classid, m.objid, 0) !~ '_pkey$';

-- A damaged row is refused.
\set VERBOSITY terse
INSERT INTO bicycle_models (model, version, config, hash) VALUES ('m', 1, '{}', 'short');
INSERT INTO bicycle_models (model, version, config, hash) VALUES ('', 1, '{}', sha256(''));
INSERT INTO bicycle_models (model, version, config, hash, is_current)
	VALUES ('m', 1, '{}', sha256(''), true);
INSERT INTO bicycle_models (model, version, config, hash, is_current)
	VALUES ('m', 2, '{}', sha256(''), true);
INSERT INTO bicycle_tensors VALUES ('m', 1, 'G', 'w', 0, 'F32', '{1}',
	convert_to(repeat('x', 4194305), 'UTF8'));
-- Tensors belong to a version, with which they go, and which keeps its number.
INSERT INTO bicycle_tensors VALUES ('m', 1, 'G', 'w', 0, 'F32', '{1}', '\x00000000');
UPDATE bicycle_models SET version = 7;
DELETE FROM bicycle_models;
SELECT count(*) FROM bicycle_tensors;
\set VERBOSITY default

-- Nothing of that name may be there beforehand: the script replaces nothing.
\set SHOW_CONTEXT never
DROP EXTENSION bicycle;
CREATE FUNCTION bicycle_latent(nz int, seed bigint) RETURNS float4[]
	LANGUAGE sql AS 'SELECT NULL::float4[]';
CREATE EXTENSION bicycle;
DROP FUNCTION bicycle_latent(int, bigint);
\set SHOW_CONTEXT errors

-- Any schema does, and search_path need not name it.
CREATE SCHEMA "Odd schema";
CREATE EXTENSION bicycle SCHEMA "Odd schema";
SELECT "Odd schema".bicycle_import('m', pg_read_binary_file(:'testdata' || '/edges2emoji/G.pth'));
SELECT length("Odd schema".bicycle_translate(pg_read_binary_file(:'testdata' ||
	'/edges2emoji/pairs/00_A.png'), "Odd schema".bicycle_latent(8, 1), 'm')) > 0 AS translated;
ALTER SCHEMA "Odd schema" RENAME TO "Another";
SELECT length("Another".bicycle_translate(pg_read_binary_file(:'testdata' ||
	'/edges2emoji/pairs/00_A.png'), "Another".bicycle_latent(8, 1), 'm')) > 0 AS translated;
SELECT "Another".bicycle_import('m', pg_read_binary_file(:'testdata' || '/edges2emoji/G.pth'));
SELECT "Another".bicycle_drop('m');
SELECT count(*) FROM "Another".bicycle_tensors;
ALTER EXTENSION bicycle SET SCHEMA public;
DROP EXTENSION bicycle;
DROP SCHEMA "Another";
CREATE EXTENSION bicycle;
SELECT bicycle_translate('x', '{1}', 'm');

-- Who lacks a table of a newer release is told how to get it, and not to drop what he has.
BEGIN;
ALTER TABLE bicycle_tensors RENAME TO bicycle_later;
SELECT bicycle_translate('x', '{1}', 'm');
ROLLBACK;
BEGIN;
ALTER TABLE bicycle_counters RENAME TO bicycle_later;
SELECT bicycle_import('m', pg_read_binary_file(:'testdata' || '/edges2emoji/G.pth'));
ROLLBACK;
BEGIN;
ALTER TABLE bicycle_training_jobs RENAME TO bicycle_later;
SELECT bicycle_pause(1);
ROLLBACK;
DROP ROLE regress_bicycle_nobody;

-- What somebody has put into the schema beforehand is not found in place of PostgreSQL's own, by
-- the scripts nor by what they make, however near its types are.
SET client_min_messages = warning;
DROP EXTENSION bicycle CASCADE;
CREATE SCHEMA regress_planted;
SET search_path = regress_planted;
CREATE FUNCTION planted(float8, int) RETURNS boolean LANGUAGE sql AS 'SELECT true';
CREATE OPERATOR > (LEFTARG = float8, RIGHTARG = int, FUNCTION = planted);
CREATE FUNCTION planted(bigint, float8) RETURNS float8 LANGUAGE sql AS 'SELECT 1::float8';
CREATE OPERATOR * (LEFTARG = bigint, RIGHTARG = float8, FUNCTION = planted);
CREATE FUNCTION nextval(text) RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint';
RESET search_path;
CREATE VIEW planted_used AS
	SELECT pg_describe_object(classid, objid, objsubid) AS what,
		pg_describe_object(refclassid, refobjid, 0) AS uses FROM pg_depend
	WHERE refclassid = 'pg_operator'::regclass AND refobjid IN (SELECT oid FROM pg_operator
			WHERE oprnamespace = 'regress_planted'::regnamespace)
		OR refclassid = 'pg_proc'::regclass AND refobjid IN (SELECT oid FROM pg_proc
			WHERE pronamespace = 'regress_planted'::regnamespace AND proname NOT LIKE 'bicycle%')
			AND classid <> 'pg_operator'::regclass;
CREATE EXTENSION bicycle SCHEMA regress_planted VERSION '0.1';
SELECT count(*) > 0 AS found_by_0_1 FROM planted_used;
ALTER EXTENSION bicycle UPDATE;
SELECT * FROM planted_used;
DROP EXTENSION bicycle;
SET search_path = regress_planted;
CREATE FUNCTION planted(jsonb, jsonb) RETURNS text LANGUAGE sql AS 'SELECT ''1''';
CREATE OPERATOR ->> (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = planted);
CREATE FUNCTION pg_extension_config_dump(text, text) RETURNS void
	LANGUAGE plpgsql AS $$BEGIN RAISE 'found the wrong function'; END$$;
RESET search_path;
CREATE EXTENSION bicycle SCHEMA regress_planted;
SELECT * FROM planted_used;
DROP EXTENSION bicycle;
DROP VIEW planted_used;
DROP SCHEMA regress_planted CASCADE;
CREATE EXTENSION bicycle;
RESET client_min_messages;
