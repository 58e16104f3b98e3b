/* sql/bicycle--0.1--0.2.sql: what ALTER EXTENSION bicycle UPDATE does to the objects of 0.1 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION bicycle UPDATE TO '0.2'" to load this file. \quit

-- Each change of bicycle.sql is made here, too: test/t/022_update.pl compares what comes out.

-- ---- Inference ------------------------------

CREATE FUNCTION @extschema@.bicycle_check(image bytea) RETURNS text
	AS 'MODULE_PATHNAME', 'bicycle_check' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION @extschema@.bicycle_check(bytea) IS
	'why an image cannot be used, from all its pixels; NULL if it can';

-- ---- Models ------------------------------

CREATE FUNCTION @extschema@.bicycle_rename(model text, new_name text) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_rename' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.bicycle_rename(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_rename(text, text) IS
	'gives a model another name, with its versions, counter and finished jobs';
