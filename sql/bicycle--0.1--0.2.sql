/* sql/bicycle--0.1--0.2.sql: what ALTER EXTENSION bicycle UPDATE does to the objects of 0.1 */

-- complain if script is sourced in psql, rather than via ALTER EXTENSION
\echo Use "ALTER EXTENSION bicycle UPDATE TO '0.2'" to load this file. \quit

-- Each change of bicycle.sql is made here, too: test/t/022_update.pl compares what comes out.

-- ---- Row security and dumps ------------------------------

CREATE OR REPLACE FUNCTION @extschema@.bicycle_note_policies() RETURNS event_trigger LANGUAGE plpgsql
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

CREATE OR REPLACE FUNCTION @extschema@.bicycle_restore_policy() RETURNS trigger LANGUAGE plpgsql
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

CREATE EVENT TRIGGER bicycle_note_dropped_policies ON sql_drop
	EXECUTE FUNCTION @extschema@.bicycle_note_policies();
COMMENT ON EVENT TRIGGER bicycle_note_dropped_policies IS
	'notes that policies have gone with what they depend on';

-- ---- Inference ------------------------------

CREATE FUNCTION @extschema@.bicycle_check(image bytea) RETURNS text
	AS 'MODULE_PATHNAME', 'bicycle_check' LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE COST 10000;
COMMENT ON FUNCTION @extschema@.bicycle_check(bytea) IS
	'why an image cannot be used, from all its pixels; NULL if it can';

CREATE FUNCTION @extschema@.bicycle_lpips(a bytea, b bytea, net text DEFAULT 'alex',
	version text DEFAULT '0.1') RETURNS float8
	AS 'MODULE_PATHNAME', 'bicycle_lpips' LANGUAGE C STABLE STRICT PARALLEL SAFE COST 50000;
COMMENT ON FUNCTION @extschema@.bicycle_lpips(bytea, bytea, text, text) IS
	'how different two images look, by LPIPS; 0: not at all';

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

-- ---- Models ------------------------------

ALTER TABLE @extschema@.bicycle_tensors DROP CONSTRAINT bicycle_tensors_network_check,
	ADD CONSTRAINT bicycle_tensors_network_check CHECK (network IN ('G', 'E', 'D', 'D2', 'L'));

CREATE FUNCTION @extschema@.bicycle_import_lpips(net text, backbone bytea, heads bytea,
	version text DEFAULT '0.1') RETURNS int
	AS 'MODULE_PATHNAME', 'bicycle_import_lpips' LANGUAGE C VOLATILE PARALLEL UNSAFE COST 1000000;
REVOKE ALL ON FUNCTION @extschema@.bicycle_import_lpips(text, bytea, bytea, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_import_lpips(text, bytea, bytea, text) IS
	'reads the weights of LPIPS from .pth or safetensors files; returns the number of the version';

CREATE FUNCTION @extschema@.bicycle_rename(model text, new_name text) RETURNS void
	AS 'MODULE_PATHNAME', 'bicycle_rename' LANGUAGE C VOLATILE PARALLEL UNSAFE;
REVOKE ALL ON FUNCTION @extschema@.bicycle_rename(text, text) FROM PUBLIC;
COMMENT ON FUNCTION @extschema@.bicycle_rename(text, text) IS
	'gives a model another name, with its versions, counter and finished jobs';

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

-- ---- Measuring ------------------------------

CREATE FUNCTION @extschema@.bicycle_evaluate(model text, pairs text, options jsonb DEFAULT '{}')
	RETURNS TABLE (metric text, value float8, stderr float8, n bigint)
	AS 'MODULE_PATHNAME', 'bicycle_evaluate' LANGUAGE C VOLATILE PARALLEL UNSAFE
	COST 10000000 ROWS 15;

COMMENT ON FUNCTION @extschema@.bicycle_evaluate(text, text, jsonb) IS
	'how good a model is on pairs that a query gives: diversity, distances from the truth, codes';

-- ---- Watching ------------------------------

CREATE FUNCTION @extschema@.bicycle_engines()
	RETURNS TABLE (number int, state text, pid int, device text, "precision" text, protocol int,
		uptime interval, restarts bigint, requests bigint, batches bigint, mean_batch float8,
		queued bigint, memory bigint, gpu_memory bigint, gpu_memory_limit bigint, last_error text)
	AS 'MODULE_PATHNAME', 'bicycle_engines' LANGUAGE C VOLATILE PARALLEL RESTRICTED
	COST 1000 ROWS 2;

COMMENT ON FUNCTION @extschema@.bicycle_engines() IS
	'what each engine is and has done since it started: one a GPU, or one in all';
COMMENT ON FUNCTION @extschema@.bicycle_cache() IS
	'models resident in the engine; names and hashes only of those the caller may read';

-- ---- Training ------------------------------

COMMENT ON COLUMN @extschema@.bicycle_training_jobs.data_digest IS
	'SHA-256 over the pairs, which with the platform tells whether results can be the same bits '
	'after an interruption; then the hashes of the pairs that are skipped';

-- It is replaced, not dropped: the trigger stays.
CREATE OR REPLACE FUNCTION @extschema@.bicycle_drop_job() RETURNS trigger
	AS 'MODULE_PATHNAME', 'bicycle_drop_job' LANGUAGE C COST 100;

-- What 0.1 may have found in the extension's schema is PostgreSQL's from here on.
ALTER TABLE @extschema@.bicycle_training_jobs ALTER job
	SET DEFAULT pg_catalog.nextval('@extschema@.bicycle_training_job_ids'::regclass);
CREATE OR REPLACE VIEW @extschema@.bicycle_jobs WITH (security_barrier) AS
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
