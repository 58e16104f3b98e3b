-- Rows of training jobs: nobody can forge one, whatever is granted; nobody sees one of a role whose
-- privileges they lack, whatever they put into a query.
BEGIN;
SELECT * FROM no_plan();

CREATE ROLE alice LOGIN;
CREATE ROLE bob LOGIN;
CREATE ROLE alices LOGIN IN ROLE alice;
CREATE ROLE forger LOGIN;
CREATE ROLE writer LOGIN IN ROLE pg_write_all_data, pg_read_all_data;
GRANT ALL ON ALL TABLES IN SCHEMA public TO forger;
GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO forger, writer;
GRANT CREATE ON SCHEMA public TO alice, bob, forger, writer;
-- pgTAP's own bookkeeping, for roles that run tests
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO alice, bob, alices, forger, writer;
GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO alice, bob, alices, forger, writer;

INSERT INTO bicycle_training_jobs (job, model, owner, system_identifier, database, pairs,
	search_path, options, state)
SELECT n, 'model of ' || r.rolname, r.oid, c.system_identifier, d.oid, 'SELECT 1', 'public',
	'{"method": "bicycle", "batch_size": 2}', 'paused'
FROM (VALUES (1, 'alice'), (2, 'bob'), (3, current_user)) AS v (n, name)
	JOIN pg_roles r ON r.rolname = name, pg_control_system() c, pg_database d
WHERE d.datname = current_database();
INSERT INTO bicycle_training_losses SELECT n, 1, 'D', n FROM generate_series(1, 3) n;
INSERT INTO bicycle_training_previews SELECT n, 1, 'x' FROM generate_series(1, 3) n;

-- Whose a job is: the same role's under its name of the moment, of one that was dropped nobody's,
-- of a name without a role whoever has it later.
CREATE ROLE anna;
CREATE TEMP TABLE whose AS SELECT n, name::bicycle_role AS role
	FROM (VALUES (1, 'anna'), (2, 'nobody yet'), (3, repeat('x', 70))) AS v (n, name);
SELECT results_eq('SELECT role::text, role::oid <> 0 FROM whose ORDER BY n',
	$$VALUES ('anna', true), ('nobody yet', false), (repeat('x', 63), false)$$, 'roles and names');
ALTER ROLE anna RENAME TO bella;
CREATE ROLE anna;
CREATE ROLE "nobody yet";
SELECT results_eq('SELECT role::text, role::oid::regrole::text FROM whose WHERE n < 3 ORDER BY n',
	$$VALUES ('bella', 'bella'), ('nobody yet', '"nobody yet"')$$,
	'roles that were renamed and created');
DROP ROLE bella;
SELECT results_eq('SELECT role::text, role::text::bicycle_role::oid FROM whose WHERE n = 1',
	$$VALUES ('', 0::oid)$$, 'a role that was dropped');
SELECT is((10::oid)::bicycle_role::text, pg_get_userbyid(10)::text COLLATE "default",
	'a role by its OID');

-- What is seen
PREPARE seen AS SELECT string_agg(job::text, ' '
	ORDER BY job) || '; ' || (SELECT string_agg(job::text, ' ' ORDER BY job)
	FROM bicycle_losses) || '; '
	|| (SELECT string_agg(job::text, ' ' ORDER BY job) FROM bicycle_previews) FROM bicycle_jobs;
SELECT results_eq('seen', $$VALUES ('1 2 3; 1 2 3; 1 2 3')$$,
	'a superuser sees all jobs, losses and previews');
UPDATE bicycle_training_jobs SET state = 'running', iteration = 10, iterations = v.iterations,
	images_per_second = 4
FROM (VALUES (1, 30), (2, 9007199254740992)) AS v (job, iterations)
	WHERE bicycle_training_jobs.job = v.job;
SELECT results_eq('SELECT eta FROM bicycle_jobs WHERE job < 3 ORDER BY job',
	$$VALUES ('10 seconds'::interval), ('876600 hours')$$, 'how long jobs will take');
SET LOCAL ROLE alice;
SELECT results_eq('seen', $$VALUES ('1; 1; 1')$$, 'a role sees its own');
SET LOCAL ROLE alices;
SELECT results_eq('seen', $$VALUES ('1; 1; 1')$$, 'a member sees those of its role');
SET LOCAL ROLE bob;
SELECT results_eq('seen', $$VALUES ('2; 2; 2')$$, 'and another its own');

-- A cheap function in the query is not shown rows before the views have chosen theirs.
CREATE TEMP TABLE leaked (what text);
CREATE FUNCTION pg_temp.leak(what text) RETURNS boolean
	LANGUAGE plpgsql COST 0.0000001 AS $$BEGIN INSERT INTO leaked VALUES (what); RETURN true; END$$;
SELECT lives_ok($$SELECT count(*) FROM bicycle_jobs WHERE pg_temp.leak(model)$$,
	'a query with a function on bicycle_jobs');
SELECT lives_ok($$SELECT count(*) FROM bicycle_losses WHERE pg_temp.leak(value::text)$$,
	'one on bicycle_losses');
SELECT lives_ok($$SELECT count(*) FROM bicycle_previews WHERE pg_temp.leak(job::text)$$,
	'one on bicycle_previews');
SELECT set_eq('SELECT what FROM leaked', ARRAY['model of bob', '2'], 'is shown nothing of others');

-- Without privileges the tables can be neither read nor written, nor got at by what PostgreSQL lets
-- one attach to a table.
SELECT throws_ok(q, '42501', NULL, 'refused: ' || q)
FROM unnest('{bicycle_training_jobs,bicycle_training_losses,bicycle_training_previews,
	bicycle_training_checkpoints}'::text[]) t,
	unnest(ARRAY['SELECT 1 FROM ' || t, 'DELETE FROM ' || t, 'UPDATE ' || t || ' SET job = 1',
		'INSERT INTO ' || t || ' (job) VALUES (9)', 'TRUNCATE ' || t,
		'LOCK TABLE ' || t || ' IN ACCESS EXCLUSIVE MODE',
			'CREATE TABLE child () INHERITS (' || t || ')', 'CREATE INDEX ON ' || t || ' (job)',
		'CREATE TRIGGER t BEFORE UPDATE ON ' || t ||
			' EXECUTE FUNCTION suppress_redundant_updates_trigger()',
			'ALTER TABLE ' || t || ' DISABLE TRIGGER ALL',
		'CREATE RULE r AS ON SELECT TO ' || t || ' DO INSTEAD SELECT 1', 'CREATE POLICY p ON ' || t,
			'ALTER TABLE ' || t || ' OWNER TO bob',
		'CREATE TABLE refers (job bigint REFERENCES bicycle_training_jobs)']) q;
SELECT throws_ok(q, '42501', NULL, 'refused: ' || q)
FROM unnest(ARRAY[$$SELECT nextval('bicycle_training_job_ids')$$,
	$$SELECT setval('bicycle_training_job_ids', 1)$$, $$SELECT bicycle_guard()$$]) q;
SELECT throws_ok(q, '55000', NULL, 'no such thing: ' || q)
FROM unnest(ARRAY[$$UPDATE bicycle_jobs SET owner = 'postgres'$$, $$INSERT INTO bicycle_jobs (job)
	VALUES (9)$$, $$DELETE FROM bicycle_jobs$$]) q;
SELECT throws_ok('SELECT bicycle_' || f || '(1)', '42501', NULL, 'not one''s own: bicycle_' || f)
	FROM unnest('{pause,resume,cancel,loss_plot}'::text[]) f;

-- With privileges, by whatever way they came, a row still cannot be made to say what it should not.
RESET ROLE;
CREATE TEMP TABLE forgery AS SELECT q FROM unnest(ARRAY[
	$$INSERT INTO bicycle_training_jobs SELECT 9, 'm', 10::oid, system_identifier, database,
		'SELECT evil()', search_path, options, 1, 'queued' FROM bicycle_training_jobs$$,
	$$INSERT INTO bicycle_training_jobs SELECT * FROM bicycle_training_jobs ON CONFLICT (job)
		DO UPDATE SET owner = 10::oid$$,
	$$UPDATE bicycle_training_jobs SET owner = 10::oid, state = 'queued' WHERE job = 1$$,
	$$UPDATE bicycle_training_jobs SET pairs = 'x' WHERE false$$,
	$$WITH w AS (UPDATE bicycle_training_jobs SET owner = 10::oid RETURNING 1) SELECT * FROM w$$,
	$$MERGE INTO bicycle_training_jobs USING (VALUES (1)) v ON true WHEN MATCHED THEN UPDATE
		SET owner = 10::oid$$]) q;
GRANT SELECT ON forgery TO forger, writer;
SET LOCAL ROLE forger;
SELECT throws_ok(q, '42501', 'permission denied for table bicycle_training_jobs',
	'with all privileges: ' || q) FROM forgery;
SET LOCAL ROLE writer;
SELECT throws_ok(q, '42501', 'permission denied for table bicycle_training_jobs',
	'as a member of pg_write_all_data: ' || q) FROM forgery;
SET LOCAL ROLE forger;
SELECT throws_ok('ALTER TABLE bicycle_training_jobs DISABLE TRIGGER bicycle_guard_jobs', '42501',
	NULL, 'nor is the guard turned off');
SELECT throws_ok('SET session_replication_role = replica', '42501', NULL, 'or passed by');
RESET ROLE;
SELECT results_eq('SELECT count(*)::int, min(pairs) FROM bicycle_training_jobs',
	$$VALUES (3, 'SELECT 1')$$, 'nothing has changed');

SELECT * FROM finish();
ROLLBACK;
