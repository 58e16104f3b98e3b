/* sql/bicycle.sql, the source of bicycle--VERSION.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION bicycle" to load this file. \quit

-- ---- Tables ---------------------------------------------------------------------------------------------------------------------------------
-- Nobody is granted anything on them here.  Using a model takes SELECT on bicycle_models and bicycle_tensors; writing one takes INSERT, UPDATE and SELECT on
-- all three, dropping one DELETE on bicycle_models.

CREATE TABLE @extschema@.bicycle_models (
	model text NOT NULL CHECK (octet_length(model) BETWEEN 1 AND 255),
	version int NOT NULL CHECK (version > 0),
	method text NOT NULL DEFAULT 'bicycle',
	config jsonb NOT NULL CHECK (jsonb_typeof(config) = 'object'),
	hash bytea NOT NULL CHECK (octet_length(hash) = 32),
	iterations bigint NOT NULL DEFAULT 0 CHECK (iterations >= 0),
	created_at timestamptz NOT NULL DEFAULT now(),
	created_by name NOT NULL DEFAULT current_user,
	is_current boolean NOT NULL DEFAULT false,
	PRIMARY KEY (model, version)
);
CREATE UNIQUE INDEX bicycle_models_current ON @extschema@.bicycle_models (model) WHERE is_current;

CREATE TABLE @extschema@.bicycle_tensors (
	model text NOT NULL,
	version int NOT NULL,
	network text NOT NULL CHECK (network IN ('G', 'E', 'D', 'D2')),
	name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
	chunk int NOT NULL CHECK (chunk >= 0),
	dtype text NOT NULL CHECK (dtype IN ('F32', 'F64', 'F16', 'BF16', 'I64', 'I32', 'U8')),
	shape int[] NOT NULL,
	data bytea NOT NULL CHECK (octet_length(data) <= 4194304),
	PRIMARY KEY (model, version, network, name, chunk),
	FOREIGN KEY (model, version) REFERENCES @extschema@.bicycle_models ON DELETE CASCADE
);
-- Weights do not compress; plain slices are read faster.
ALTER TABLE @extschema@.bicycle_tensors ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE @extschema@.bicycle_counters (
	model text NOT NULL PRIMARY KEY,
	last_version int NOT NULL CHECK (last_version > 0)
);

COMMENT ON TABLE @extschema@.bicycle_models IS 'versions of models; written by bicycle_import and bicycle_create';
COMMENT ON COLUMN @extschema@.bicycle_models.method IS 'how the model is trained';
COMMENT ON COLUMN @extschema@.bicycle_models.config IS 'shape of the networks, as bicycle_import inferred it';
COMMENT ON COLUMN @extschema@.bicycle_models.hash IS 'SHA-256 over configuration and tensors, checked by the engine';
COMMENT ON COLUMN @extschema@.bicycle_models.iterations IS 'training iterations behind these weights; 0 if they were imported';
COMMENT ON COLUMN @extschema@.bicycle_models.is_current IS 'whether calls that name no version mean this one';
COMMENT ON INDEX @extschema@.bicycle_models_current IS 'one current version of each model';
COMMENT ON TABLE @extschema@.bicycle_tensors IS 'weights of models, a row for each 4 MiB of a tensor';
COMMENT ON COLUMN @extschema@.bicycle_tensors.network IS 'G generator, E encoder, D and D2 discriminators';
COMMENT ON TABLE @extschema@.bicycle_counters IS 'last version number of each model name, dropped versions included';

SELECT pg_extension_config_dump('@extschema@.bicycle_models', '');
SELECT pg_extension_config_dump('@extschema@.bicycle_tensors', '');
SELECT pg_extension_config_dump('@extschema@.bicycle_counters', '');

-- ---- Inference ------------------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.bicycle_translate(image bytea, z float4[], model text DEFAULT NULL) RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_translate' LANGUAGE C STABLE PARALLEL SAFE COST 100000;

CREATE FUNCTION @extschema@.bicycle_translate(image bytea, z float4[], model text, version int) RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_translate_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;

CREATE FUNCTION @extschema@.bicycle_translate_many(images bytea[], z float4[][], model text DEFAULT NULL, version int DEFAULT NULL) RETURNS bytea[]
	AS 'MODULE_PATHNAME', 'bicycle_translate_many' LANGUAGE C STABLE PARALLEL SAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_encode(image bytea, model text DEFAULT NULL) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_encode' LANGUAGE C STABLE PARALLEL SAFE COST 50000;

CREATE FUNCTION @extschema@.bicycle_encode(image bytea, model text, version int) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_encode_version' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 50000;

CREATE FUNCTION @extschema@.bicycle_encode_posterior(image bytea, model text DEFAULT NULL, version int DEFAULT NULL, OUT mu float4[], OUT logvar float4[])
	AS 'MODULE_PATHNAME', 'bicycle_encode_posterior' LANGUAGE C STABLE PARALLEL SAFE COST 50000;

CREATE FUNCTION @extschema@.bicycle_sample(image bytea, n int, seed bigint DEFAULT NULL, model text DEFAULT NULL, version int DEFAULT NULL)
	RETURNS TABLE (sample int, z float4[], image bytea)
	AS 'MODULE_PATHNAME', 'bicycle_sample' LANGUAGE C VOLATILE PARALLEL SAFE COST 1000000 ROWS 10;

CREATE FUNCTION @extschema@.bicycle_latent(nz int, seed bigint) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_latent' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 50;

CREATE FUNCTION @extschema@.bicycle_interpolate(z0 float4[], z1 float4[], t float8) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_interpolate' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 50;

CREATE FUNCTION @extschema@.bicycle_image_info(image bytea, OUT format text, OUT width int, OUT height int, OUT channels int, OUT bit_depth int)
	AS 'MODULE_PATHNAME', 'bicycle_image_info' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;

COMMENT ON FUNCTION @extschema@.bicycle_translate(bytea, float4[], text) IS
	'the image that a model makes of an image and a latent code';
COMMENT ON FUNCTION @extschema@.bicycle_translate(bytea, float4[], text, int) IS
	'the image that a version of a model makes of an image and a latent code; the session''s settings do not count';
COMMENT ON FUNCTION @extschema@.bicycle_translate_many(bytea[], float4[], text, int) IS
	'bicycle_translate of each image, under one latent code or a row of codes';
COMMENT ON FUNCTION @extschema@.bicycle_encode(bytea, text) IS
	'the latent code of an image: mean of the encoder''s posterior';
COMMENT ON FUNCTION @extschema@.bicycle_encode(bytea, text, int) IS
	'the latent code of an image by a version of a model; the session''s settings do not count';
COMMENT ON FUNCTION @extschema@.bicycle_encode_posterior(bytea, text, int) IS
	'mean and logarithm of the variance of the encoder''s posterior';
COMMENT ON FUNCTION @extschema@.bicycle_sample(bytea, int, bigint, text, int) IS
	'n translations of an image under latent codes drawn at random; with a seed and a version always the same';
COMMENT ON FUNCTION @extschema@.bicycle_latent(int, bigint) IS
	'nz standard normal values drawn from a seed, the same everywhere';
COMMENT ON FUNCTION @extschema@.bicycle_interpolate(float4[], float4[], float8) IS
	'a latent code between two, along the great circle';
COMMENT ON FUNCTION @extschema@.bicycle_image_info(bytea) IS
	'format, size, channels and bit depth of an image, from its header';

-- ---- Models ---------------------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.bicycle_import(model text, generator bytea, encoder bytea DEFAULT NULL, config jsonb DEFAULT '{}') RETURNS int
	AS 'MODULE_PATHNAME', 'bicycle_import' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_export(model text, network text DEFAULT 'G', version int DEFAULT NULL, format text DEFAULT 'safetensors') RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_export' LANGUAGE C STABLE PARALLEL SAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_inspect(file bytea) RETURNS TABLE (name text, dtype text, shape int[])
	AS 'MODULE_PATHNAME', 'bicycle_inspect' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000 ROWS 100;

CREATE FUNCTION @extschema@.bicycle_create(model text, config jsonb DEFAULT '{}') RETURNS int
	AS 'MODULE_PATHNAME', 'bicycle_create' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_deploy(model text, version int) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_deploy' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION @extschema@.bicycle_drop(model text, version int DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_drop' LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION @extschema@.bicycle_import(text, bytea, bytea, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_export(text, text, int, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_create(text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_deploy(text, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_drop(text, int) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.bicycle_import(text, bytea, bytea, jsonb) IS
	'reads a model from .pth or safetensors files as a new version and makes it current; returns its number';
COMMENT ON FUNCTION @extschema@.bicycle_export(text, text, int, text) IS
	'a network of a model as a safetensors or .pth file';
COMMENT ON FUNCTION @extschema@.bicycle_inspect(bytea) IS
	'names, types and shapes of the tensors in a model file';
COMMENT ON FUNCTION @extschema@.bicycle_create(text, jsonb) IS
	'makes a model with fresh weights as a new version and makes it current; returns its number';
COMMENT ON FUNCTION @extschema@.bicycle_deploy(text, int) IS
	'makes a version of a model the current one';
COMMENT ON FUNCTION @extschema@.bicycle_drop(text, int) IS
	'drops a version that is not current, or a whole model; numbers are not used again';

-- ---- Watching -------------------------------------------------------------------------------------------------------------------------------

CREATE FUNCTION @extschema@.bicycle_engine(OUT pid int, OUT device text, OUT "precision" text, OUT protocol int, OUT uptime interval, OUT restarts bigint,
	OUT requests bigint, OUT batches bigint, OUT mean_batch float8, OUT queued bigint, OUT memory bigint, OUT last_error text)
	AS 'MODULE_PATHNAME', 'bicycle_engine' LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;

CREATE FUNCTION @extschema@.bicycle_cache()
	RETURNS TABLE (hash bytea, model text, version int, "precision" text, bytes bigint, hits bigint, loaded_at timestamptz, used_at timestamptz,
		pins int, databases int)
	AS 'MODULE_PATHNAME', 'bicycle_cache' LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 10;

COMMENT ON FUNCTION @extschema@.bicycle_engine() IS
	'what the engine is and has done since it started; if it does not run, why';
COMMENT ON FUNCTION @extschema@.bicycle_cache() IS
	'models resident in the engine; names only of those the caller may read';
