/* sql/bicycle.sql, the source of bicycle--VERSION.sql */

-- complain if script is sourced in psql, rather than via CREATE EXTENSION
\echo Use "CREATE EXTENSION bicycle" to load this file. \quit

-- ---- Tables ------------------------------
-- Nobody is granted anything on them here. Using a model takes SELECT on bicycle_models and
-- bicycle_tensors; writing one takes INSERT, UPDATE and SELECT on all three, dropping one DELETE on
-- bicycle_models.

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
	network text NOT NULL CHECK (network IN ('G', 'E', 'D', 'D2', 'L')),
	name text NOT NULL CHECK (octet_length(name) BETWEEN 1 AND 255),
	chunk int NOT NULL CHECK (chunk >= 0),
	dtype text NOT NULL CHECK (dtype IN ('F32', 'F64', 'F16', 'BF16', 'I64', 'I32', 'U8')),
	shape int[] NOT NULL,
	data bytea NOT NULL CHECK (octet_length(data) <= 4194304),
	PRIMARY KEY (model, version, network, name, chunk)
);
-- Weights do not compress; plain slices are read faster.
ALTER TABLE @extschema@.bicycle_tensors ALTER COLUMN data SET STORAGE EXTERNAL;

CREATE TABLE @extschema@.bicycle_counters (
	model text NOT NULL PRIMARY KEY,
	last_version int NOT NULL CHECK (last_version > 0)
);

-- Tensors go with their version. A foreign key would say so, too; but parallel pg_restore fills the
-- tables of an extension in any order, and it would fail.
CREATE FUNCTION @extschema@.bicycle_drop_tensors() RETURNS trigger
	AS 'MODULE_PATHNAME', 'bicycle_drop_tensors' LANGUAGE C;
REVOKE ALL ON FUNCTION @extschema@.bicycle_drop_tensors() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_drop_tensors() IS
	'drops the tensors of a version that is dropped';
CREATE TRIGGER bicycle_drop_tensors AFTER DELETE ON @extschema@.bicycle_models
	FOR EACH ROW EXECUTE FUNCTION @extschema@.bicycle_drop_tensors();
CREATE TRIGGER bicycle_keep_version AFTER UPDATE ON @extschema@.bicycle_models
	FOR EACH ROW WHEN ((OLD.model, OLD.version) IS DISTINCT
		FROM (NEW.model, NEW.version)) EXECUTE FUNCTION @extschema@.bicycle_drop_tensors();

COMMENT ON TABLE @extschema@.bicycle_models IS
	'versions of models; written by bicycle_import and bicycle_create';
COMMENT ON COLUMN @extschema@.bicycle_models.method IS 'how the model is trained';
COMMENT ON COLUMN @extschema@.bicycle_models.config IS
	'shape of the networks, as bicycle_import inferred it';
COMMENT ON COLUMN @extschema@.bicycle_models.hash IS
	'SHA-256 over configuration and tensors, checked by the engine';
COMMENT ON COLUMN @extschema@.bicycle_models.iterations IS
	'training iterations behind these weights; 0 if they were imported';
COMMENT ON COLUMN @extschema@.bicycle_models.is_current IS
	'whether calls that name no version mean this one';
COMMENT ON INDEX @extschema@.bicycle_models_current IS 'one current version of each model';
COMMENT ON TABLE @extschema@.bicycle_tensors IS
	'weights of models, a row for each 4 MiB of a tensor';
COMMENT ON COLUMN @extschema@.bicycle_tensors.network IS
	'G generator, E encoder, D and D2 discriminators';
COMMENT ON TABLE @extschema@.bicycle_counters IS
	'last version number of each model name, dropped versions included';

SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_models', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_tensors', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_counters', '');

-- ---- Roles and rows that others run for ------------------------------
-- A role that keeps its name through renaming, dumps and replication: see role.c.
CREATE TYPE @extschema@.bicycle_role;
CREATE FUNCTION @extschema@.bicycle_role_in(cstring) RETURNS @extschema@.bicycle_role
	AS 'MODULE_PATHNAME', 'bicycle_role_in' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.bicycle_role_out(@extschema@.bicycle_role) RETURNS cstring
	AS 'MODULE_PATHNAME', 'bicycle_role_out' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.bicycle_role_recv(internal) RETURNS @extschema@.bicycle_role
	AS 'MODULE_PATHNAME', 'bicycle_role_recv' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.bicycle_role_send(@extschema@.bicycle_role) RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_role_send' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE TYPE @extschema@.bicycle_role (
	INPUT = @extschema@.bicycle_role_in, OUTPUT = @extschema@.bicycle_role_out,
	RECEIVE = @extschema@.bicycle_role_recv, SEND = @extschema@.bicycle_role_send,
	INTERNALLENGTH = VARIABLE, ALIGNMENT = int4, STORAGE = plain
);
CREATE FUNCTION @extschema@.bicycle_role(role oid) RETURNS @extschema@.bicycle_role
	AS 'MODULE_PATHNAME', 'bicycle_role_of' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE;
CREATE FUNCTION @extschema@.bicycle_role_oid(role @extschema@.bicycle_role) RETURNS oid
	AS 'MODULE_PATHNAME', 'bicycle_role_oid' LANGUAGE C STABLE STRICT PARALLEL SAFE;
CREATE CAST (oid AS @extschema@.bicycle_role)
	WITH FUNCTION @extschema@.bicycle_role(oid) AS ASSIGNMENT;
CREATE CAST (@extschema@.bicycle_role AS oid)
	WITH FUNCTION @extschema@.bicycle_role_oid(@extschema@.bicycle_role);

COMMENT ON TYPE @extschema@.bicycle_role IS
	'a role of this cluster, written as the name that it has now; or a name, if there was no such '
	'role';
COMMENT ON FUNCTION @extschema@.bicycle_role_in(cstring) IS 'the role of that name';
COMMENT ON FUNCTION @extschema@.bicycle_role_out(@extschema@.bicycle_role) IS
	'its name; empty if it was dropped';
COMMENT ON FUNCTION @extschema@.bicycle_role_recv(internal) IS 'the role of that name';
COMMENT ON FUNCTION @extschema@.bicycle_role_send(@extschema@.bicycle_role) IS
	'its name; empty if it was dropped';
COMMENT ON FUNCTION @extschema@.bicycle_role(oid) IS 'the role of that OID';
COMMENT ON FUNCTION @extschema@.bicycle_role_oid(@extschema@.bicycle_role) IS
	'its OID; 0 if there is no role of that name';

-- Some rows do more than they say to whom they are restored or run for. That no privilege is
-- granted on their tables does not do: default privileges, GRANT ON ALL TABLES and membership in
-- pg_write_all_data include these, too.
CREATE FUNCTION @extschema@.bicycle_guard() RETURNS trigger LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp AS $$
BEGIN
	IF NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = TG_RELID), 'USAGE') THEN
		RAISE insufficient_privilege USING MESSAGE = format('permission denied for table %I', TG_TABLE_NAME),
			DETAIL = 'Only its owner and the functions of bicycle write it.', HINT = TG_ARGV[0];
	END IF;
	RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION @extschema@.bicycle_guard() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_guard() IS
	'refuses rows that bicycle has not written, whatever is granted';

-- ---- Row security and dumps ------------------------------
-- pg_dump does not dump the row-security policies of tables that belong to an extension; after a
-- restore models would be visible to roles they were hidden from. So policies are noted in a table
-- that is dumped, whenever DDL changes them, and made again when rows come into that table.

CREATE TABLE @extschema@.bicycle_policies (
	tablename name NOT NULL CHECK (tablename IN ('bicycle_models', 'bicycle_tensors',
		'bicycle_counters')),
	policyname name NOT NULL,
	permissive boolean,
	roles @extschema@.bicycle_role[],
	cmd text CHECK (cmd IN ('ALL', 'SELECT', 'INSERT', 'UPDATE', 'DELETE')),
	qual text,
	with_check text,
	enabled boolean,
	forced boolean,
	PRIMARY KEY (tablename, policyname),
	CHECK (CASE WHEN policyname = '' THEN enabled IS NOT NULL AND forced IS NOT NULL
		ELSE permissive IS NOT NULL AND cardinality(roles) > 0 AND cmd IS NOT NULL END)
);
COMMENT ON TABLE @extschema@.bicycle_policies IS
	'row-security policies of the tables of bicycle, kept for pg_dump; a row without policyname '
		'says whether row security is enabled';
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_policies', '');

-- What a row says is executed by who restores it.
CREATE TRIGGER bicycle_guard_policies BEFORE INSERT OR UPDATE ON @extschema@.bicycle_policies
	FOR EACH STATEMENT EXECUTE FUNCTION
		@extschema@.bicycle_guard('Use CREATE POLICY, ALTER POLICY and ALTER TABLE.');

-- Fires for everybody's DDL, and does nothing for those who may not write what it would note:
-- whoever may change the policies owns that table too. If somebody else drops, with CASCADE, what a
-- policy depends on, it is noted with the next change, and a restore before that warns. The schema
-- is looked up each time, because it may be renamed.
CREATE FUNCTION @extschema@.bicycle_note_policies() RETURNS event_trigger LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	notes oid := (SELECT c.oid FROM pg_extension e JOIN pg_class c ON c.relnamespace = e.extnamespace AND c.relname = 'bicycle_policies' WHERE e.extname = 'bicycle');
	schema name := (SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'bicycle');
	present text := format($query$
		SELECT relname AS tablename, ''::name AS policyname, NULL::boolean, NULL::%1$I.bicycle_role[], NULL, NULL, NULL, relrowsecurity, relforcerowsecurity FROM pg_class
		WHERE relnamespace = %2$L::regnamespace AND relname IN ('bicycle_models', 'bicycle_tensors', 'bicycle_counters')
			AND (relrowsecurity OR relforcerowsecurity)
		UNION ALL
		SELECT p.tablename, p.policyname, p.permissive = 'PERMISSIVE',
			ARRAY(SELECT CASE r WHEN 0 THEN 'public'::%1$I.bicycle_role ELSE r::%1$I.bicycle_role END FROM unnest(o.polroles) AS r), p.cmd, p.qual, p.with_check, NULL, NULL
		FROM pg_policies AS p JOIN pg_policy AS o ON o.polname = p.policyname AND o.polrelid = format('%%I.%%I', p.schemaname, p.tablename)::regclass
		WHERE p.schemaname = %3$L AND p.tablename IN ('bicycle_models', 'bicycle_tensors', 'bicycle_counters')$query$, schema, quote_ident(schema), schema);
BEGIN
	-- Within a trigger it is bicycle_restore_policy that makes what is noted already.
	IF pg_trigger_depth() > 0 OR notes IS NULL OR NOT pg_has_role((SELECT relowner FROM pg_class WHERE oid = notes), 'USAGE') THEN
		RETURN;
	END IF;
	IF TG_EVENT = 'sql_drop' THEN
		IF NOT EXISTS (SELECT FROM pg_event_trigger_dropped_objects() WHERE object_type = 'policy') THEN
			RETURN;
		END IF;
	END IF;
	EXECUTE format('DELETE FROM %I.bicycle_policies AS o WHERE NOT EXISTS (SELECT FROM (%s) AS n WHERE n::text = o::text)', schema, present);
	EXECUTE format('INSERT INTO %1$I.bicycle_policies SELECT * FROM (%2$s) AS n WHERE (tablename, policyname) NOT IN (SELECT tablename, policyname FROM %1$I.bicycle_policies)',
		schema, present);
END $$;

-- A policy that cannot be made here (its role or function is missing) takes nothing else with it:
-- row security is enabled all the same, and denies what no policy allows. One that restricts others
-- is replaced by one that denies everything, as without it they would allow more than they did.
CREATE FUNCTION @extschema@.bicycle_restore_policy() RETURNS trigger LANGUAGE plpgsql
	SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	target text := format('%I.%I', TG_TABLE_SCHEMA, NEW.tablename);
	command text;
BEGIN
	IF NEW.policyname = '' THEN
		command := format('ALTER TABLE %s %s ROW LEVEL SECURITY, %s ROW LEVEL SECURITY', target, CASE WHEN NEW.enabled THEN 'ENABLE' ELSE 'DISABLE' END,
			CASE WHEN NEW.forced THEN 'FORCE' ELSE 'NO FORCE' END);
		IF EXISTS (SELECT FROM pg_class WHERE oid = target::regclass AND (relrowsecurity, relforcerowsecurity) = (NEW.enabled, NEW.forced)) THEN
			RETURN NULL;
		END IF;
	ELSE
		command := format('CREATE POLICY %I ON %s AS %s FOR %s TO %s', NEW.policyname, target, CASE WHEN NEW.permissive THEN 'PERMISSIVE' ELSE 'RESTRICTIVE' END,
				NEW.cmd, (SELECT string_agg(CASE r::text WHEN 'public' THEN 'PUBLIC' ELSE quote_ident(r::text) END, ', ') FROM unnest(NEW.roles) AS r))
			|| coalesce(' USING (' || NEW.qual || ')', '') || coalesce(' WITH CHECK (' || NEW.with_check || ')', '');
		IF EXISTS (SELECT FROM pg_policy WHERE polrelid = target::regclass AND polname = NEW.policyname) THEN
			RETURN NULL;
		END IF;
	END IF;
	-- A parallel restore may be copying into bicycle_tensors, and then looks into bicycle_models: locks are taken in that order.
	EXECUTE format('LOCK TABLE %1$I.bicycle_tensors, %1$I.bicycle_models, %1$I.bicycle_counters IN ACCESS EXCLUSIVE MODE', TG_TABLE_SCHEMA);
	IF NEW.policyname = '' THEN
		EXECUTE command;
		RETURN NULL;
	END IF;
	BEGIN
		EXECUTE command;
	EXCEPTION WHEN OTHERS THEN
		RAISE WARNING USING ERRCODE = SQLSTATE, DETAIL = SQLERRM, MESSAGE = format('could not restore policy "%s" on table "%s"', NEW.policyname, NEW.tablename),
			HINT = CASE WHEN NEW.permissive THEN 'Nothing is allowed by it; create it again.' ELSE 'A policy of its name that denies everything takes its place; drop that, and create it again.' END;
		IF NOT NEW.permissive THEN
			EXECUTE format('CREATE POLICY %I ON %s AS RESTRICTIVE FOR %s TO PUBLIC %s (false)', NEW.policyname, target, NEW.cmd,
				CASE NEW.cmd WHEN 'INSERT' THEN 'WITH CHECK' ELSE 'USING' END);
		END IF;
	END;
	RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION @extschema@.bicycle_note_policies() FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_restore_policy() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_note_policies() IS
	'notes the row-security policies of the tables of bicycle for pg_dump';
COMMENT ON FUNCTION @extschema@.bicycle_restore_policy() IS
	'makes a policy that pg_dump has carried here';

CREATE TRIGGER bicycle_restore_policy AFTER INSERT ON @extschema@.bicycle_policies
	FOR EACH ROW EXECUTE FUNCTION @extschema@.bicycle_restore_policy();
CREATE EVENT TRIGGER bicycle_note_policies ON ddl_command_end
	WHEN TAG IN ('CREATE POLICY', 'ALTER POLICY', 'DROP POLICY', 'ALTER TABLE', 'DROP OWNED')
	EXECUTE FUNCTION @extschema@.bicycle_note_policies();
COMMENT ON EVENT TRIGGER bicycle_note_policies IS
	'notes the row-security policies of the tables of bicycle for pg_dump';
CREATE EVENT TRIGGER bicycle_note_dropped_policies ON sql_drop
	EXECUTE FUNCTION @extschema@.bicycle_note_policies();
COMMENT ON EVENT TRIGGER bicycle_note_dropped_policies IS
	'notes that policies have gone with what they depend on';

-- ---- Inference ------------------------------

CREATE FUNCTION @extschema@.bicycle_translate(image bytea, z float4[], model text DEFAULT NULL)
	RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_translate' LANGUAGE C STABLE PARALLEL SAFE COST 100000;

CREATE FUNCTION @extschema@.bicycle_translate(image bytea, z float4[], model text,
	version int) RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_translate_version'
		LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000;

CREATE FUNCTION @extschema@.bicycle_translate_many(images bytea[], z float4[][],
	model text DEFAULT NULL, version int DEFAULT NULL) RETURNS bytea[]
	AS 'MODULE_PATHNAME', 'bicycle_translate_many' LANGUAGE C STABLE PARALLEL SAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_encode(image bytea, model text DEFAULT NULL) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_encode' LANGUAGE C STABLE PARALLEL SAFE COST 50000;

CREATE FUNCTION @extschema@.bicycle_encode(image bytea, model text, version int) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_encode_version'
		LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 50000;

CREATE FUNCTION @extschema@.bicycle_encode_posterior(image bytea, model text DEFAULT NULL,
	version int DEFAULT NULL, OUT mu float4[], OUT logvar float4[])
	AS 'MODULE_PATHNAME', 'bicycle_encode_posterior' LANGUAGE C STABLE PARALLEL SAFE COST 50000;

CREATE FUNCTION @extschema@.bicycle_lpips(a bytea, b bytea, net text DEFAULT 'alex',
	version text DEFAULT '0.1') RETURNS float8
	AS 'MODULE_PATHNAME', 'bicycle_lpips' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 50000;

CREATE FUNCTION @extschema@.bicycle_sample(image bytea, n int, seed bigint DEFAULT NULL,
	model text DEFAULT NULL, version int DEFAULT NULL)
	RETURNS TABLE (sample int, z float4[], image bytea)
	AS 'MODULE_PATHNAME', 'bicycle_sample' LANGUAGE C VOLATILE PARALLEL SAFE COST 1000000 ROWS 10;

CREATE FUNCTION @extschema@.bicycle_latent(nz int, seed bigint) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_latent' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 50;

CREATE FUNCTION @extschema@.bicycle_interpolate(z0 float4[], z1 float4[], t float8) RETURNS float4[]
	AS 'MODULE_PATHNAME', 'bicycle_interpolate' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 50;

CREATE FUNCTION @extschema@.bicycle_image_info(image bytea, OUT format text, OUT width int,
	OUT height int, OUT channels int, OUT bit_depth int)
	AS 'MODULE_PATHNAME', 'bicycle_image_info' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 1000;

CREATE FUNCTION @extschema@.bicycle_check(image bytea) RETURNS text
	AS 'MODULE_PATHNAME', 'bicycle_check' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;

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

COMMENT ON FUNCTION @extschema@.bicycle_translate(bytea, float4[], text) IS
	'the image that a model makes of an image and a latent code';
COMMENT ON FUNCTION @extschema@.bicycle_translate(bytea, float4[], text, int) IS
	'the image that a version of a model makes of an image and a latent code; the session''s '
		'settings do not count';
COMMENT ON FUNCTION @extschema@.bicycle_translate_many(bytea[], float4[], text, int) IS
	'bicycle_translate of each image, under one latent code or a row of codes';
COMMENT ON FUNCTION @extschema@.bicycle_encode(bytea, text) IS
	'the latent code of an image: mean of the encoder''s posterior';
COMMENT ON FUNCTION @extschema@.bicycle_encode(bytea, text, int) IS
	'the latent code of an image by a version of a model; the session''s settings do not count';
COMMENT ON FUNCTION @extschema@.bicycle_encode_posterior(bytea, text, int) IS
	'mean and logarithm of the variance of the encoder''s posterior';
COMMENT ON FUNCTION @extschema@.bicycle_lpips(bytea, bytea, text, text) IS
	'how different two images look, by LPIPS; 0: not at all';
COMMENT ON FUNCTION @extschema@.bicycle_sample(bytea, int, bigint, text, int) IS
	'n translations of an image under latent codes drawn at random; with a seed and a version '
		'always the same';
COMMENT ON FUNCTION @extschema@.bicycle_latent(int, bigint) IS
	'nz standard normal values drawn from a seed, the same everywhere';
COMMENT ON FUNCTION @extschema@.bicycle_interpolate(float4[], float4[], float8) IS
	'a latent code between two, along the great circle';
COMMENT ON FUNCTION @extschema@.bicycle_image_info(bytea) IS
	'format, size, channels and bit depth of an image, from its header';
COMMENT ON FUNCTION @extschema@.bicycle_check(bytea) IS
	'why an image cannot be used, from all its pixels; NULL if it can';
COMMENT ON AGGREGATE @extschema@.bicycle_mean(float4[]) IS 'the mean of latent codes';
COMMENT ON FUNCTION @extschema@.bicycle_mean_add(float8[], float4[]) IS
	'a step of bicycle_mean: counts a latent code and adds it';
COMMENT ON FUNCTION @extschema@.bicycle_mean_combine(float8[], float8[]) IS
	'a step of bicycle_mean: adds what two workers have';
COMMENT ON FUNCTION @extschema@.bicycle_mean_final(float8[]) IS
	'a step of bicycle_mean: divides the sums';

-- ---- Looking ------------------------------

CREATE FUNCTION @extschema@.bicycle_grid(images bytea[], columns int DEFAULT NULL,
	labels text[] DEFAULT NULL, size int DEFAULT NULL) RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_grid' LANGUAGE C STABLE PARALLEL SAFE COST 100000;
CREATE FUNCTION @extschema@.bicycle_grid_add(state internal, image bytea, columns int)
	RETURNS internal
	AS 'MODULE_PATHNAME', 'bicycle_grid_add' LANGUAGE C STABLE PARALLEL RESTRICTED;
CREATE FUNCTION @extschema@.bicycle_grid_final(state internal) RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_grid_final' LANGUAGE C STABLE PARALLEL RESTRICTED COST 100000;
CREATE AGGREGATE @extschema@.bicycle_grid_agg(image bytea, columns int) (
	SFUNC = @extschema@.bicycle_grid_add, STYPE = internal,
	FINALFUNC = @extschema@.bicycle_grid_final, PARALLEL = RESTRICTED
);
COMMENT ON FUNCTION @extschema@.bicycle_grid(bytea[], int, text[], int) IS
	'many images on one page, each with its label';
COMMENT ON AGGREGATE @extschema@.bicycle_grid_agg(bytea, int) IS
	'the images of rows on one page, in the order of ORDER BY';
COMMENT ON FUNCTION @extschema@.bicycle_grid_add(internal, bytea, int) IS
	'a step of bicycle_grid_agg: adds a cell';
COMMENT ON FUNCTION @extschema@.bicycle_grid_final(internal) IS
	'a step of bicycle_grid_agg: draws the page';

CREATE FUNCTION @extschema@.bicycle_report(model text, pairs text, options jsonb DEFAULT '{}')
	RETURNS text
	AS 'MODULE_PATHNAME', 'bicycle_report' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 10000000;
COMMENT ON FUNCTION @extschema@.bicycle_report(text, text, jsonb) IS
	'a page of HTML that shows what a model does with pairs that a query gives';

-- ---- Measuring ------------------------------

CREATE FUNCTION @extschema@.bicycle_evaluate(model text, pairs text, options jsonb DEFAULT '{}')
	RETURNS TABLE (metric text, value float8, stderr float8, n bigint)
	AS 'MODULE_PATHNAME', 'bicycle_evaluate' LANGUAGE C VOLATILE PARALLEL UNSAFE
	COST 10000000 ROWS 15;

COMMENT ON FUNCTION @extschema@.bicycle_evaluate(text, text, jsonb) IS
	'how good a model is on pairs that a query gives: diversity, distances from the truth, codes';

-- ---- Models ------------------------------

CREATE FUNCTION @extschema@.bicycle_import(model text, generator bytea, encoder bytea DEFAULT NULL,
	config jsonb DEFAULT '{}') RETURNS int
	AS 'MODULE_PATHNAME', 'bicycle_import' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_export(model text, network text DEFAULT 'G',
	version int DEFAULT NULL, format text DEFAULT 'safetensors') RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_export' LANGUAGE C STABLE PARALLEL SAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_inspect(file bytea) RETURNS TABLE (name text, dtype text,
	shape int[])
	AS 'MODULE_PATHNAME', 'bicycle_inspect'
		LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 100000 ROWS 100;

CREATE FUNCTION @extschema@.bicycle_import_lpips(net text, backbone bytea, heads bytea,
	version text DEFAULT '0.1') RETURNS int
	AS 'MODULE_PATHNAME', 'bicycle_import_lpips' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_create(model text, config jsonb DEFAULT '{}') RETURNS int
	AS 'MODULE_PATHNAME', 'bicycle_create' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;

CREATE FUNCTION @extschema@.bicycle_deploy(model text, version int) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_deploy' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION @extschema@.bicycle_drop(model text, version int DEFAULT NULL) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_drop' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION @extschema@.bicycle_rename(model text, new_name text) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_rename' LANGUAGE C VOLATILE PARALLEL UNSAFE;

REVOKE ALL ON FUNCTION @extschema@.bicycle_import(text, bytea, bytea, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_export(text, text, int, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_import_lpips(text, bytea, bytea, text) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_create(text, jsonb) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_deploy(text, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_drop(text, int) FROM PUBLIC;
REVOKE ALL ON FUNCTION @extschema@.bicycle_rename(text, text) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.bicycle_import(text, bytea, bytea, jsonb) IS
	'reads a model from .pth or safetensors files as a new version and makes it current; returns '
		'its number';
COMMENT ON FUNCTION @extschema@.bicycle_export(text, text, int, text) IS
	'a network of a model as a safetensors or .pth file';
COMMENT ON FUNCTION @extschema@.bicycle_inspect(bytea) IS
	'names, types and shapes of the tensors in a model file';
COMMENT ON FUNCTION @extschema@.bicycle_import_lpips(text, bytea, bytea, text) IS
	'reads the weights of LPIPS from .pth or safetensors files; returns the number of the version';
COMMENT ON FUNCTION @extschema@.bicycle_create(text, jsonb) IS
	'makes a new model with fresh weights; returns the number of its version';
COMMENT ON FUNCTION @extschema@.bicycle_deploy(text, int) IS
	'makes a version of a model the current one';
COMMENT ON FUNCTION @extschema@.bicycle_drop(text, int) IS
	'drops a version that is not current, or a whole model; numbers are not used again';
COMMENT ON FUNCTION @extschema@.bicycle_rename(text, text) IS
	'gives a model another name, with its versions, counter and finished jobs';

-- ---- Training ------------------------------
-- The script grants nobody any privilege on the tables: they are written by the extension's
-- functions alone, and read through the views.

CREATE SEQUENCE @extschema@.bicycle_training_job_ids;

CREATE TABLE @extschema@.bicycle_training_jobs (
	job bigint NOT NULL PRIMARY KEY
		DEFAULT pg_catalog.nextval('@extschema@.bicycle_training_job_ids'::regclass),
	model text NOT NULL,
	owner @extschema@.bicycle_role NOT NULL,
	system_identifier bigint NOT NULL,
	database oid NOT NULL,
	pairs text NOT NULL,
	search_path text NOT NULL,
	options jsonb NOT NULL,
	start_version int,
	state text NOT NULL CHECK (state IN ('queued', 'running', 'paused', 'done', 'cancelled',
		'failed')),
	wanted text NOT NULL DEFAULT 'running' CHECK (wanted IN ('running', 'paused', 'cancelled')),
	attempts int NOT NULL DEFAULT 0,
	next_attempt timestamptz NOT NULL DEFAULT now(),
	epoch int,
	epochs int,
	iteration bigint NOT NULL DEFAULT 0,
	iterations bigint,
	checkpoint bigint NOT NULL DEFAULT 0,
	images_per_second float8,
	losses jsonb,
	data_digest bytea,
	platform text,
	created_at timestamptz NOT NULL DEFAULT now(),
	started_at timestamptz,
	updated_at timestamptz NOT NULL DEFAULT now(),
	version int,
	notes text,
	noted int NOT NULL DEFAULT 0,
	error text,
	sqlstate text
);
ALTER SEQUENCE @extschema@.bicycle_training_job_ids OWNED BY @extschema@.bicycle_training_jobs.job;

CREATE TABLE @extschema@.bicycle_training_losses (
	job bigint NOT NULL,
	iteration bigint NOT NULL,
	name text NOT NULL,
	value float8 NOT NULL,
	PRIMARY KEY (job, iteration, name)
);

CREATE TABLE @extschema@.bicycle_training_previews (
	job bigint NOT NULL,
	iteration bigint NOT NULL,
	image bytea NOT NULL,
	PRIMARY KEY (job, iteration)
);
ALTER TABLE @extschema@.bicycle_training_previews ALTER COLUMN image SET STORAGE EXTERNAL;

-- Its rows are not dumped: a checkpoint is large, and what it is for does not outlive the cluster.
CREATE TABLE @extschema@.bicycle_training_checkpoints (
	job bigint NOT NULL,
	iteration bigint NOT NULL,
	chunk int NOT NULL,
	data bytea NOT NULL,
	PRIMARY KEY (job, iteration, chunk)
);
ALTER TABLE @extschema@.bicycle_training_checkpoints ALTER COLUMN data SET STORAGE EXTERNAL;

COMMENT ON SEQUENCE @extschema@.bicycle_training_job_ids IS 'numbers of training jobs';
COMMENT ON TABLE @extschema@.bicycle_training_jobs IS 'training jobs; see the view bicycle_jobs';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.owner IS
	'role that started the job, as which it runs';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.system_identifier IS
	'cluster that runs the job; in any other it is shown paused';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.pairs IS 'query that gives the pairs';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.search_path IS
	'setting under which the query was given';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.start_version IS
	'version that the job continues; null: fresh weights';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.wanted IS
	'what the trainer should bring the job to';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.attempts IS 'tries since the last checkpoint';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.checkpoint IS
	'iteration of the last checkpoint; 0: there is none';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.noted IS
	'causes, as bits, of notes that a job gets only once';
COMMENT ON COLUMN @extschema@.bicycle_training_jobs.data_digest IS
	'SHA-256 over the pairs, which with the platform tells whether results can be the same bits '
	'after an interruption; then the hashes of the pairs that are skipped';
COMMENT ON TABLE @extschema@.bicycle_training_losses IS
	'losses of training jobs; see the view bicycle_losses';
COMMENT ON TABLE @extschema@.bicycle_training_previews IS
	'previews of training jobs; see the view bicycle_previews';
COMMENT ON TABLE @extschema@.bicycle_training_checkpoints IS
	'states to resume training jobs from, in slices; the last two of each job';

-- A job runs as the owner that its row names, so a row of one's own making would be another role's
-- rights.
CREATE TRIGGER bicycle_guard_jobs BEFORE INSERT OR UPDATE ON @extschema@.bicycle_training_jobs
	FOR EACH STATEMENT EXECUTE FUNCTION
		@extschema@.bicycle_guard('Use bicycle_train, bicycle_pause, bicycle_resume and '
		'bicycle_cancel.');

-- What a job has left goes with its row; not by foreign keys, as with tensors.
CREATE FUNCTION @extschema@.bicycle_drop_job() RETURNS trigger
	AS 'MODULE_PATHNAME', 'bicycle_drop_job' LANGUAGE C COST 100;
REVOKE ALL ON FUNCTION @extschema@.bicycle_drop_job() FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_drop_job() IS
	'drops losses, previews and checkpoints of a job whose row is deleted';
CREATE TRIGGER bicycle_drop_job AFTER DELETE ON @extschema@.bicycle_training_jobs
	FOR EACH ROW EXECUTE FUNCTION @extschema@.bicycle_drop_job();

SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_training_job_ids', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_training_jobs', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_training_losses', '');
SELECT pg_catalog.pg_extension_config_dump('@extschema@.bicycle_training_previews', '');
SELECT pg_catalog.pg_extension_config_dump(
	'@extschema@.bicycle_training_checkpoints', 'WHERE false');

-- Jobs of roles whose privileges the caller has. One that was restored or replicated from elsewhere
-- is paused here until bicycle_resume takes it over. What is called here is PostgreSQL's: functions
-- are qualified, and an operator has the very types of its operands, or one that somebody has put
-- into this schema beforehand could be nearer.
CREATE VIEW @extschema@.bicycle_jobs WITH (security_barrier) AS
	SELECT job, model,
		coalesce(nullif(owner::text, '')::name, pg_catalog.pg_get_userbyid(owner::oid)) AS owner,
		CASE WHEN here OR state NOT IN ('queued', 'running') THEN state ELSE 'paused' END AS state,
		options ->> 'method'::text AS method, epoch, epochs, iteration, iterations,
		CASE WHEN here AND state = 'running' THEN images_per_second END AS images_per_second,
		CASE WHEN here AND state = 'running' AND images_per_second > 0::float8 THEN
			-- a century at most: intervals are finite, and iterations may be any number
			pg_catalog.make_interval(secs =>
				least((iterations - iteration)::float8 * ((options ->> 'batch_size'::text)::float8 /
				images_per_second), 3155760000::float8)) END AS eta,
		losses, started_at, updated_at, version, notes, error
	FROM (SELECT *, system_identifier = (SELECT c.system_identifier
				FROM pg_catalog.pg_control_system() AS c)
			AND database = (SELECT d.oid FROM pg_catalog.pg_database AS d
				WHERE d.datname = current_database()) AS here
		FROM @extschema@.bicycle_training_jobs) AS j
	WHERE pg_catalog.pg_has_role(owner::oid, 'USAGE'::text);

CREATE VIEW @extschema@.bicycle_losses WITH (security_barrier) AS
	SELECT l.job, l.iteration, l.name, l.value FROM @extschema@.bicycle_training_losses AS l
	WHERE EXISTS (SELECT FROM @extschema@.bicycle_jobs AS j WHERE j.job = l.job);

CREATE VIEW @extschema@.bicycle_previews WITH (security_barrier) AS
	SELECT p.job, p.iteration, p.image FROM @extschema@.bicycle_training_previews AS p
	WHERE EXISTS (SELECT FROM @extschema@.bicycle_jobs AS j WHERE j.job = p.job);

GRANT SELECT ON @extschema@.bicycle_jobs, @extschema@.bicycle_losses,
	@extschema@.bicycle_previews TO PUBLIC;
COMMENT ON VIEW @extschema@.bicycle_jobs IS
	'training jobs that the caller may see, and how far they are';
COMMENT ON VIEW @extschema@.bicycle_losses IS 'losses of those jobs, means since the row before';
COMMENT ON VIEW @extschema@.bicycle_previews IS
	'contact sheets of those jobs: input, truth, reconstruction, samples';

CREATE FUNCTION @extschema@.bicycle_train(model text, pairs text, options jsonb DEFAULT '{}')
	RETURNS bigint
	AS 'MODULE_PATHNAME', 'bicycle_train' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;

CREATE FUNCTION @extschema@.bicycle_pause(job bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_pause' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION @extschema@.bicycle_resume(job bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_resume' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE FUNCTION @extschema@.bicycle_cancel(job bigint) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_cancel' LANGUAGE C VOLATILE PARALLEL UNSAFE;

CREATE PROCEDURE @extschema@.bicycle_wait(job bigint, timeout interval DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'bicycle_wait' LANGUAGE C;

CREATE FUNCTION @extschema@.bicycle_loss_plot(job bigint, width int DEFAULT 800,
	height int DEFAULT 500) RETURNS bytea
	AS 'MODULE_PATHNAME', 'bicycle_loss_plot' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 100000;

REVOKE ALL ON FUNCTION @extschema@.bicycle_train(text, text, jsonb) FROM PUBLIC;

COMMENT ON FUNCTION @extschema@.bicycle_train(text, text, jsonb) IS
	'trains a model in the background on the pairs that a query gives: input and target image; '
		'returns the job';
COMMENT ON FUNCTION @extschema@.bicycle_pause(bigint) IS
	'stops a job after the iteration that runs, with a checkpoint';
COMMENT ON FUNCTION @extschema@.bicycle_resume(bigint) IS
	'lets a job go on from its last checkpoint';
COMMENT ON FUNCTION @extschema@.bicycle_cancel(bigint) IS
	'ends a job after the iteration that runs';
COMMENT ON PROCEDURE @extschema@.bicycle_wait(bigint, interval) IS
	'waits for the end of a job and tells its progress; an error if the job fails';
COMMENT ON FUNCTION @extschema@.bicycle_loss_plot(bigint, int, int) IS
	'the losses of a job as curves, a PNG';

-- ---- Filling a column ------------------------------

CREATE PROCEDURE @extschema@.bicycle_fill(target regclass, target_column name, expression text,
	condition text DEFAULT NULL, chunk int DEFAULT 256, error_column name DEFAULT NULL)
	AS 'MODULE_PATHNAME', 'bicycle_fill' LANGUAGE C;

CREATE FUNCTION @extschema@.bicycle_fill_slots()
	RETURNS TABLE (pid int, owner name, relation regclass, target_column name, done bigint,
		bad bigint, locked bigint, suppressed bigint, still_null bigint, progress float8,
		started_at timestamptz, updated_at timestamptz, eta interval)
	AS 'MODULE_PATHNAME', 'bicycle_fill_slots' LANGUAGE C VOLATILE PARALLEL RESTRICTED ROWS 10;

CREATE VIEW @extschema@.bicycle_fills AS SELECT * FROM @extschema@.bicycle_fill_slots();

GRANT SELECT ON @extschema@.bicycle_fills TO PUBLIC;
COMMENT ON PROCEDURE @extschema@.bicycle_fill(regclass, name, text, text, int, name) IS
	'computes a column for the rows in which it is null, in transactions of a few rows each';
COMMENT ON FUNCTION @extschema@.bicycle_fill_slots() IS
	'how far each bicycle_fill is that runs here; see the view bicycle_fills';
COMMENT ON VIEW @extschema@.bicycle_fills IS
	'calls of bicycle_fill that run in this database, of roles that the caller is a member of';

-- ---- Watching ------------------------------

CREATE FUNCTION @extschema@.bicycle_engine(OUT pid int, OUT device text, OUT "precision" text,
	OUT protocol int, OUT uptime interval, OUT restarts bigint,
	OUT requests bigint, OUT batches bigint, OUT mean_batch float8, OUT queued bigint,
		OUT memory bigint, OUT gpu_memory bigint,
	OUT gpu_memory_limit bigint, OUT last_error text)
	AS 'MODULE_PATHNAME', 'bicycle_engine' LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000;

CREATE FUNCTION @extschema@.bicycle_engines()
	RETURNS TABLE (number int, state text, pid int, device text, "precision" text, protocol int,
		uptime interval, restarts bigint, requests bigint, batches bigint, mean_batch float8,
		queued bigint, memory bigint, gpu_memory bigint, gpu_memory_limit bigint, last_error text)
	AS 'MODULE_PATHNAME', 'bicycle_engines' LANGUAGE C VOLATILE PARALLEL RESTRICTED
	COST 1000 ROWS 2;

CREATE FUNCTION @extschema@.bicycle_cache()
	RETURNS TABLE (hash bytea, model text, version int, "precision" text, bytes bigint, hits bigint,
		loaded_at timestamptz, used_at timestamptz,
		pins int, databases int)
	AS 'MODULE_PATHNAME', 'bicycle_cache' LANGUAGE C VOLATILE PARALLEL RESTRICTED COST 1000 ROWS 10;

COMMENT ON FUNCTION @extschema@.bicycle_engine() IS
	'what the engine is and has done since it started; if it does not run, why';
COMMENT ON FUNCTION @extschema@.bicycle_engines() IS
	'what each engine is and has done since it started: one a GPU, or one in all';
COMMENT ON FUNCTION @extschema@.bicycle_cache() IS
	'models resident in the engine; names and hashes only of those the caller may read';
