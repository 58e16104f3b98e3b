/* sql/bicycle--0.1--0.2.sql: what ALTER EXTENSION bicycle UPDATE does to the objects of 0.1 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION bicycle UPDATE TO '0.2'" to load this file. \quit

-- Each change of bicycle.sql is made here, too: test/t/022_update.pl compares what comes out.

-- ---- Inference ------------------------------

CREATE FUNCTION @extschema@.bicycle_check(image bytea) RETURNS text
	AS 'MODULE_PATHNAME', 'bicycle_check' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION @extschema@.bicycle_check(bytea) IS
	'why an image cannot be used, from all its pixels; NULL if it can';

CREATE FUNCTION @extschema@.bicycle_mean_add(state float8[], z float4[]) RETURNS float8[]
	AS 'MODULE_PATHNAME', 'bicycle_mean_add' LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION @extschema@.bicycle_mean_combine(state float8[], other float8[]) RETURNS float8[]
	AS 'MODULE_PATHNAME', 'bicycle_mean_combine' LANGUAGE C IMMUTABLE PARALLEL SAFE;
CREATE FUNCTION @extschema@.bicycle_mean_final(state float8[]) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_mean_final' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE AGGREGATE @extschema@.bicycle_mean(z float4[]) (
	SFUNC = @extschema@.bicycle_mean_add, STYPE = float8[],
	COMBINEFUNC = @extschema@.bicycle_mean_combine, FINALFUNC = @extschema@.bicycle_mean_final,
	PARALLEL = SAFE
);
COMMENT ON AGGREGATE @extschema@.bicycle_mean(float4[]) IS 'the mean of latent codes';
COMMENT ON FUNCTION @extschema@.bicycle_mean_add(float8[], float4[]) IS
	'a step of bicycle_mean: counts a latent code and adds it';
COMMENT ON FUNCTION @extschema@.bicycle_mean_combine(float8[], float8[]) IS
	'a step of bicycle_mean: adds what two workers have';
COMMENT ON FUNCTION @extschema@.bicycle_mean_final(float8[]) IS
	'a step of bicycle_mean: divides the sums';

-- ---- Models ------------------------------

CREATE FUNCTION @extschema@.bicycle_rename(model text, new_name text) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_rename' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.bicycle_rename(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_rename(text, text) IS
	'gives a model another name, with its versions, counter and finished jobs';
