-- bicycle_rename moves a model with all that belongs to it, or nothing; neither it nor bicycle_drop
-- takes away a version that objects of the database name.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
CREATE TABLE public.regress_drawn (image bytea, z float4[] DEFAULT '{1,2}', drawn bytea);
INSERT INTO regress_drawn (image) SELECT pg_temp.file('pairs/00_A.png');
CREATE FUNCTION pg_temp.make(model text) RETURNS int LANGUAGE sql AS $$
	SELECT bicycle_create(model, '{"size": 64, "ngf": 2, "nef": 2, "ndf": 2, "nz": 2,
		"encoder_size": 64}') $$;
SELECT pg_temp.make('old');
SELECT bicycle_import('old', bicycle_export('old'), bicycle_export('old', 'E'));
CREATE TEMP TABLE before AS
	SELECT network, version, name, chunk, data FROM bicycle_tensors WHERE model = 'old';
UPDATE regress_drawn SET drawn = bicycle_translate(image, z, 'old', 1);

-- All of it moves, and none is left.
SELECT bicycle_rename('old', 'it''s new');
SELECT model, version, is_current FROM bicycle_models WHERE model IN ('old', 'it''s new')
	ORDER BY version;
SELECT model, last_version FROM bicycle_counters WHERE model IN ('old', 'it''s new');
SELECT count(*) = (SELECT count(*) FROM before) AS all,
	count(*) FILTER (WHERE t.data IS DISTINCT FROM b.data) AS changed
	FROM bicycle_tensors AS t LEFT JOIN before AS b USING (network, version, name, chunk)
	WHERE model = 'it''s new';
SELECT count(*) FROM bicycle_tensors WHERE model = 'old';
SELECT bicycle_translate(image, z, 'it''s new', 1) = drawn AS same FROM regress_drawn;
SELECT pg_temp.fails($$SELECT bicycle_translate(image, z, 'old', 1) FROM regress_drawn$$);
SELECT bicycle_import('it''s new', bicycle_export('it''s new')) AS goes_on;
SELECT pg_temp.make('old') AS free_again;
-- In a transaction that is rolled back nothing is renamed.
BEGIN;
SELECT bicycle_rename('it''s new', 'never');
SELECT count(*) FROM bicycle_models WHERE model = 'never';
ROLLBACK;
SELECT count(*) FROM bicycle_models WHERE model IN ('it''s new', 'never');

-- Both names are locked, and finished jobs go along; one that is not finished is in the way.
BEGIN;
INSERT INTO bicycle_training_jobs (model, owner, system_identifier, database, pairs, search_path,
	options, state) VALUES ('it''s new', (SELECT oid FROM pg_roles WHERE rolname = current_user), 1,
	1, 'SELECT', '', '{}', 'done');
SELECT bicycle_rename('it''s new', 'never');
SELECT model, state FROM bicycle_jobs;
SELECT count(*), bool_and(mode = 'ExclusiveLock' AND classid = 'bicycle_models'::regclass)
	AS by_name FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid();
ROLLBACK;
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT bicycle_train('old', 'SELECT image, image FROM public.regress_drawn', '{"iterations": 1}')
	IS NOT NULL AS job;
SELECT pg_temp.fails($$SELECT bicycle_rename('old', 'other')$$);
ROLLBACK;

-- What is refused.
SELECT pg_temp.report($$SELECT bicycle_rename('old', 'it''s new')$$);
SELECT pg_temp.report($$SELECT bicycle_rename('old', 'old')$$);
SELECT pg_temp.make('gone'), bicycle_drop('gone');
SELECT pg_temp.report($$SELECT bicycle_rename('old', 'gone')$$);
SELECT pg_temp.report($$SELECT bicycle_rename('none', 'other')$$);
SELECT pg_temp.fails($$SELECT bicycle_rename(NULL, 'other')$$),
	pg_temp.fails($$SELECT bicycle_rename('old', '')$$),
	pg_temp.fails($$SELECT bicycle_rename('old', repeat('x', 256))$$);
SELECT pg_temp.report($$UPDATE bicycle_models SET model = 'other' WHERE model = 'old'$$);
BEGIN READ ONLY;
SELECT bicycle_rename('old', 'other');
ROLLBACK;

-- Who names a version keeps it: an index, a partial index, a default, a generated column, a
-- constraint, a policy, a trigger, statistics, a partition key; by position, by name and by a
-- version that is not a constant. Which are found is what the detail says.
SELECT pg_temp.make('named');
SELECT bicycle_import('named', bicycle_export('named'), bicycle_export('named', 'E'));
CREATE TABLE public.regress_named (id int, image bytea, z float4[] DEFAULT '{1,2}', v int,
	style float4[] DEFAULT bicycle_encode('x', 'named', 1),
	made bytea GENERATED ALWAYS AS (bicycle_translate(image, z, version => 1, model => 'named'))
		STORED,
	CONSTRAINT regress_check CHECK (bicycle_encode(image, 'named', v) IS NOT NULL) NOT VALID);
CREATE INDEX regress_index ON regress_named (md5(bicycle_translate(image, z, 'named', 1)));
CREATE INDEX regress_partial ON regress_named (id)
	WHERE bicycle_encode(image, 'named'::varchar, 1) IS NOT NULL;
CREATE INDEX regress_other ON regress_named (md5(bicycle_translate(image, z, 'named', 2)));
CREATE INDEX regress_another ON regress_named (md5(bicycle_translate(image, z, 'old', 1)));
CREATE POLICY regress_policy ON regress_named USING (id IN (SELECT 1
	FROM bicycle_encode_posterior(image, 'named', 1)));
CREATE FUNCTION pg_temp.nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
CREATE TRIGGER regress_trigger AFTER INSERT ON regress_named FOR EACH ROW
	WHEN (bicycle_encode(NEW.image, 'named', 1) IS NULL) EXECUTE FUNCTION pg_temp.nothing();
CREATE STATISTICS regress_statistics ON (bicycle_encode(image, 'named', 1)), id FROM regress_named;
CREATE TABLE public.regress_parts (image bytea)
	PARTITION BY HASH ((md5(bicycle_translate(image, '{1,2}', 'named', 1))));
-- Neither a view, which fails alone, nor what names no version.
CREATE VIEW public.regress_view AS SELECT bicycle_encode(image, 'named', 1) FROM regress_named;
CREATE TABLE public.regress_current (image bytea,
	style float4[] DEFAULT bicycle_encode('x', 'named'));
SELECT pg_temp.report($$SELECT bicycle_drop('named', 1)$$);
SELECT pg_temp.report($$SELECT bicycle_rename('named', 'other')$$);
SELECT pg_temp.report($$SELECT bicycle_drop('old')$$);
-- Another model's, and another version.
SELECT bicycle_deploy('named', 1);
DROP INDEX regress_another;
SELECT bicycle_drop('old');
SELECT pg_temp.report($$SELECT bicycle_drop('named', 2)$$);
DROP INDEX regress_other;
ALTER TABLE regress_named DROP CONSTRAINT regress_check;
SELECT bicycle_drop('named', 2);
-- Of many, twenty are named.
DO $$ BEGIN FOR i IN 1 .. 20 LOOP
	EXECUTE format('CREATE INDEX ON regress_named (length(bicycle_translate(image, z, ''named'',
		1)))');
END LOOP; END $$;
SELECT split_part(pg_temp.report($$SELECT bicycle_drop('named')$$), E'\n', 22);
-- Or all are left broken.
SET bicycle.force_drop = on;
SELECT bicycle_rename('named', 'other');
RESET bicycle.force_drop;
SELECT pg_temp.report($$INSERT INTO regress_named (image) SELECT image FROM regress_drawn$$);

-- Rights: EXECUTE, and UPDATE on two tables; row security hides no part of what is renamed.
CREATE ROLE regress_bicycle_renamer;
GRANT SELECT, UPDATE ON bicycle_models TO regress_bicycle_renamer;
SET ROLE regress_bicycle_renamer;
SELECT pg_temp.fails($$SELECT bicycle_rename('other', 'ours')$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION bicycle_rename TO regress_bicycle_renamer;
SET ROLE regress_bicycle_renamer;
SELECT pg_temp.fails($$SELECT bicycle_rename('other', 'ours')$$);
RESET ROLE;
GRANT SELECT, UPDATE ON bicycle_counters TO regress_bicycle_renamer;
CREATE POLICY regress_ours ON bicycle_models FOR ALL TO regress_bicycle_renamer
	USING (version > 1 OR model <> 'it''s new');
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
SET ROLE regress_bicycle_renamer;
SELECT pg_temp.report($$SELECT bicycle_rename('it''s new', 'ours')$$);
SELECT bicycle_rename('other', 'ours');
RESET ROLE;
ALTER TABLE bicycle_models DISABLE ROW LEVEL SECURITY;
DROP POLICY regress_ours ON bicycle_models;
DROP OWNED BY regress_bicycle_renamer;
DROP ROLE regress_bicycle_renamer;
SELECT model, count(*) FROM bicycle_models WHERE model IN ('ours', 'it''s new') GROUP BY model
	ORDER BY model;
DROP TABLE regress_named, regress_parts, regress_current, regress_drawn CASCADE;
-- Later tests name their jobs by number.
ALTER SEQUENCE bicycle_training_job_ids RESTART;
SELECT bicycle_drop('ours'), bicycle_drop('it''s new');
