-- Training jobs as far as no training is needed: what bicycle_train checks at the call, states and
-- rights of jobs that wait in the queue.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
CREATE TABLE public.regress_pairs
	AS SELECT pg_read_binary_file(:'testdata' || '/edges2emoji/pairs/00_A.png') AS a,
		pg_read_binary_file(:'testdata' || '/edges2emoji/pairs/00_B.png') AS b
	FROM generate_series(1, 4);
CREATE TEMP TABLE hidden AS SELECT a, b FROM regress_pairs;
CREATE VIEW pg_temp.half_hidden AS SELECT p.a, h.b FROM regress_pairs p, hidden h;
-- Nothing is started here.  The library must be there for its settings to be known.
SELECT bicycle_latent(1, 1) IS NOT NULL AS loaded;
ALTER SYSTEM SET bicycle.max_training_jobs = 0;
SELECT pg_reload_conf();
-- A session takes new settings between two statements, when they have come.
\set ECHO none
\o /dev/null
SELECT 'SELECT pg_sleep(0.1) WHERE current_setting(''bicycle.max_training_jobs'') <> ''0'''
	FROM generate_series(1, 600) \gexec
\o
\set ECHO all
SHOW bicycle.max_training_jobs;
\pset format unaligned
\pset tuples_only on

-- 42601, 42804: not one query of two bytea columns.
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs; SELECT 1')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', '')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', 'DELETE FROM regress_pairs RETURNING a, b')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m',
	'WITH d AS (DELETE FROM regress_pairs RETURNING a, b) SELECT a, b FROM d')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs FOR UPDATE')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b INTO x FROM regress_pairs')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', 'VACUUM')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a FROM regress_pairs')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m',
	'SELECT a, encode(b, ''hex'') AS text FROM regress_pairs')$$);
SELECT pg_temp.state($$SELECT bicycle_train('m', 'SELECT a, b FROM nowhere')$$);
-- A domain over bytea is such a column: what is refused then is the table.
CREATE DOMAIN pg_temp.picture AS bytea;
SELECT pg_temp.state($$SELECT bicycle_train('m', 'SELECT a::pg_temp.picture, b FROM hidden')$$);
-- 0A000: another process would not see them.
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM hidden')$$);
SELECT pg_temp.state($$SELECT bicycle_train('m', 'SELECT * FROM half_hidden')$$);
-- The query of the option validation is one, too, and what is made of it needs it.
SELECT o, pg_temp.report(format('SELECT bicycle_train(%L, %L, %L)', 'm',
	'SELECT a, b FROM regress_pairs', o))
FROM (VALUES ('{"validation": "SELECT a FROM regress_pairs"}'),
	('{"validation": "SELECT a, b FROM hidden"}'),
	('{"validation": "VACUUM"}'),
	('{"keep": "best"}'),
	('{"patience": 3}'),
	('{"validate_every": 3}'),
	('{"keep_metric": "G_L1"}'),
	('{"diff_augment": "colour"}'),
	('{"diff_augment": "cutout", "lambda_gan": 0, "lambda_gan2": 0}'),
	('{"validation": "SELECT a, b FROM regress_pairs", "patience": 2, "keep_metric": "val_lpips"}'),
	('{"validation": "SELECT a, b FROM regress_pairs", "keep": "best", "keep_metric": "val_z_L1", '
		'"method": "pix2pix_noise"}')) AS v (o);
-- What may follow the images, and what else there may be.
SELECT q, pg_temp.report(format('SELECT bicycle_train(%L, %L, %L)', 'm', q, o))
FROM (VALUES ('SELECT a, b, 1 AS n FROM regress_pairs', '{}'),
	('SELECT 1 AS id, a, b FROM regress_pairs', '{}'),
	('SELECT a, b, 1 AS id, 2 AS id FROM regress_pairs', '{}'),
	('SELECT a, b FROM regress_pairs', '{"side_by_side": true}'),
	('SELECT a FROM regress_pairs', '{"side_by_side": false}')) AS v (q, o);
CREATE DOMAIN public.regress_picture AS bytea;
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT count(bicycle_train('m' || n, q, o::jsonb)) FROM (VALUES
	(1, 'SELECT a, b, ''x''::text AS id FROM regress_pairs', '{"batch_size": 2.0}'),
	(2, 'SELECT a::regress_picture, b, NULL::json AS id FROM regress_pairs', '{}'),
	(3, 'SELECT a, row(1, 2) AS id FROM regress_pairs', '{"side_by_side": true}'),
	(4, 'SELECT a FROM regress_pairs', '{"side_by_side": true, "bad_pairs": "skip"}'))
	AS v (n, q, o);
ROLLBACK;
DROP DOMAIN regress_picture;
-- 22023, 22004: options are checked before there is a job.
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs', NULL)$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs',
	'{"size": 320}')$$);
SELECT split_part(pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs',
	'{"nonsense": 1}')$$), ':', 1);
SELECT o, pg_temp.state(format('SELECT bicycle_train(%L, %L, %L)', 'm',
	'SELECT a, b FROM regress_pairs', o))
FROM unnest('{"{\"batch_size\": 3}", "{\"accumulate\": 2}", "{\"size\": 100}",
	"{\"method\": \"gan\"}",
	"{\"lr\": \"fast\"}", "{\"nz\": 0}", "[]"}'::text[]) AS o;
SELECT pg_temp.report($$SELECT bicycle_train('', 'SELECT a, b FROM regress_pairs')$$);
SELECT pg_temp.report($$SELECT bicycle_train(NULL, 'SELECT a, b FROM regress_pairs')$$);
SELECT pg_temp.report($$SELECT bicycle_train('m', NULL)$$);
-- 25006
BEGIN TRANSACTION READ ONLY;
SAVEPOINT s;
SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs');
ROLLBACK TO s;
SELECT bicycle_pause(1);
ROLLBACK;
SELECT count(*) FROM bicycle_jobs;

-- A job belongs to its transaction.
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs') > 0;
SELECT count(*) FROM bicycle_jobs;
ROLLBACK;
SELECT count(*) FROM bicycle_jobs;
BEGIN;
SET LOCAL client_min_messages = warning;
SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs') > 0;
PREPARE TRANSACTION 'training';
ROLLBACK;

-- Roles: EXECUTE, rights to write models, LOGIN, and rights that do not last.
CREATE ROLE regress_bicycle_trainer LOGIN;
CREATE ROLE regress_bicycle_other LOGIN;
CREATE ROLE regress_bicycle_group;
GRANT SELECT ON regress_pairs TO regress_bicycle_trainer, regress_bicycle_other,
	regress_bicycle_group;
SET ROLE regress_bicycle_trainer;
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs')$$);
RESET ROLE;
GRANT EXECUTE ON FUNCTION bicycle_train TO regress_bicycle_trainer, regress_bicycle_other,
	regress_bicycle_group;
SET ROLE regress_bicycle_trainer;
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs')$$);
RESET ROLE;
GRANT SELECT, INSERT, UPDATE ON bicycle_models, bicycle_counters,
	bicycle_tensors TO regress_bicycle_trainer, regress_bicycle_other, regress_bicycle_group;
SET ROLE regress_bicycle_group;
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs')$$);
RESET ROLE;
CREATE FUNCTION public.regress_definer() RETURNS bigint LANGUAGE sql SECURITY DEFINER AS
	$$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs')$$;
SET ROLE regress_bicycle_trainer;
SELECT pg_temp.report('SELECT regress_definer()');
RESET ROLE;
DROP FUNCTION regress_definer();
-- Nor in an expression of an index or in a materialized view, where a table's owner runs what
-- somebody else wrote.
CREATE FUNCTION public.regress_restricted(n int) RETURNS bigint LANGUAGE sql IMMUTABLE AS
	$$SELECT public.bicycle_train('m', 'SELECT a, b FROM public.regress_pairs') + n$$;
CREATE TABLE public.regress_numbers AS SELECT 1 AS n;
SELECT pg_temp.report('CREATE INDEX ON regress_numbers (regress_restricted(n))');
SELECT pg_temp.report($$CREATE MATERIALIZED VIEW regress_view
	AS SELECT public.bicycle_train('m', 'SELECT a, b FROM public.regress_pairs')$$);
DROP TABLE regress_numbers;
DROP FUNCTION regress_restricted(int);
-- A role that cannot connect to the database is found out now, not by its trainer.
DO $$ BEGIN EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM PUBLIC', current_database()); END $$;
SET ROLE regress_bicycle_trainer;
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs')$$);
RESET ROLE;
DO $$ BEGIN EXECUTE format('GRANT CONNECT ON DATABASE %I TO PUBLIC', current_database()); END $$;

-- A job in the queue: its row, its options in full, and a second job on the model.
SET ROLE regress_bicycle_trainer;
SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs',
	'{"size": 64, "ngf": 4, "iterations": 10}') AS job \gset
SELECT pg_temp.report($$SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs')$$) ~
	'^55006 model "m" is being trained already\nJob [0-9]+ is not finished.\nWait';
SELECT model, owner, state, iteration, iterations, version, notes, error FROM bicycle_jobs;
-- The tables themselves are nobody's.
SELECT pg_temp.state('SELECT 1 FROM bicycle_training_jobs'),
	pg_temp.state('INSERT INTO bicycle_training_losses VALUES (1, 1, ''D'', 0)'),
	pg_temp.state('DELETE FROM bicycle_training_checkpoints'),
		pg_temp.state('UPDATE bicycle_jobs SET owner = ''postgres'''),
	pg_temp.state('SELECT nextval(''bicycle_training_job_ids'')');
RESET ROLE;
SELECT options ->> 'size', options ->> 'nef', options ->> 'load_size', options ->> 'method',
	search_path, start_version FROM bicycle_training_jobs;

-- Others see nothing of it and can do nothing to it; members of the owner can.
SET ROLE regress_bicycle_other;
SELECT count(*) FROM bicycle_jobs;
SELECT count(*) FROM bicycle_losses;
SELECT pg_temp.state(format('SELECT bicycle_%s(%s)', f, :job))
	FROM unnest('{pause,resume,cancel,loss_plot}'::text[]) AS f;
CALL bicycle_wait(:job);
RESET ROLE;
GRANT regress_bicycle_trainer TO regress_bicycle_other;
SET ROLE regress_bicycle_other;
SELECT owner, state FROM bicycle_jobs;
SELECT bicycle_pause(:job);
SELECT state FROM bicycle_jobs;
SELECT bicycle_pause(:job);
-- While it is paused another may train the model, and then it cannot be resumed.
SELECT bicycle_train('m', 'SELECT a, b FROM regress_pairs', '{"size": 64, "ngf": 4}') AS second
	\gset
SELECT pg_temp.state(format('SELECT bicycle_resume(%s)', :job));
SELECT bicycle_cancel(:second);
SELECT bicycle_resume(:job);
SELECT state FROM bicycle_jobs ORDER BY job;
BEGIN;
SELECT bicycle_pause(:job);
ROLLBACK;
SELECT state FROM bicycle_jobs WHERE job = :job;
CALL bicycle_wait(:job, '10 ms');
BEGIN;
CALL bicycle_wait(:job);
ROLLBACK;
SELECT bicycle_cancel(:job);
SELECT state FROM bicycle_jobs WHERE job = :job;
CALL bicycle_wait(:job);
RESET ROLE;
SELECT pg_temp.report($$SELECT bicycle_pause(999999999)$$);
SELECT pg_temp.report($$SELECT bicycle_cancel(NULL)$$);
SELECT pg_temp.state(format('SELECT bicycle_pause(%s)', :job));

-- The plot: a PNG of the size that was asked for.
INSERT INTO bicycle_training_losses SELECT :job, n, name, n / 100.0 FROM generate_series(1, 200) n,
	unnest('{D,G_L1}'::text[]) AS name;
SELECT format, width, height FROM bicycle_image_info(bicycle_loss_plot(:job));
SELECT width, height FROM bicycle_image_info(bicycle_loss_plot(:job, 400, 300));
SELECT pg_temp.state(format('SELECT bicycle_loss_plot(%s, 1, 1)', :job));
SELECT name, count(*) FROM bicycle_losses GROUP BY name ORDER BY name;

-- A row that came from elsewhere is paused, whatever it says, until it is taken over.
UPDATE bicycle_training_jobs SET state = 'running', system_identifier = 1 WHERE job = :job;
SELECT owner, state FROM bicycle_jobs WHERE job = :job;
SELECT bicycle_resume(:job);
SELECT owner, state FROM bicycle_jobs WHERE job = :job;
SELECT system_identifier = (SELECT system_identifier FROM pg_control_system()), owner
	FROM bicycle_training_jobs WHERE job = :job;

-- A model is not dropped while it is trained, nor the version that the job has started from.
SELECT bicycle_create('used', '{"size": 64, "ngf": 4, "nef": 4}');
SELECT bicycle_train('used', 'SELECT a, b FROM regress_pairs') AS job \gset
SELECT bicycle_import('used', bicycle_export('used'), bicycle_export('used', 'E'));
SELECT regexp_replace(pg_temp.report($$SELECT bicycle_drop('used')$$), '\d+(?= is not|\))', 'N',
	'g');
SELECT regexp_replace(pg_temp.report($$SELECT bicycle_drop('used', 1)$$), '\d+(?= is not|\))', 'N',
	'g');
SELECT bicycle_import('used', bicycle_export('used'), bicycle_export('used', 'E'));
SELECT bicycle_drop('used', 2);
SELECT bicycle_cancel(:job);
SELECT bicycle_drop('used');
-- A model's shape cannot change.
SELECT bicycle_create('shaped', '{"size": 64, "ngf": 4, "nef": 4}');
SELECT pg_temp.report($$SELECT bicycle_train('shaped', 'SELECT a, b FROM regress_pairs',
	'{"ngf": 8}')$$);

DELETE FROM bicycle_training_jobs;
SELECT count(*) FROM bicycle_training_losses;
ALTER SYSTEM RESET bicycle.max_training_jobs;
SELECT pg_reload_conf();
SELECT bicycle_drop('shaped');
DROP VIEW half_hidden;
DROP TABLE regress_pairs;
DROP OWNED BY regress_bicycle_trainer, regress_bicycle_other, regress_bicycle_group;
DROP ROLE regress_bicycle_trainer, regress_bicycle_other, regress_bicycle_group;
