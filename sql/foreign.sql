-- Foreign tables: what the other server computes is left to it, all else goes through the plan
-- node.
SELECT count(*) = 0 AS missing FROM pg_available_extensions WHERE name = 'postgres_fdw' \gset
\if :missing
\quit
\endif
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_create('far',
	'{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2, "encoder_size": 64}')
	AS version;
CREATE TABLE public.regress_far (id int PRIMARY KEY, sketch bytea, model text, variant bytea);
INSERT INTO regress_far SELECT i, pg_temp.file('pairs/0' || i || '_A.png'), 'far'
	FROM generate_series(0, 3) AS i;
SET client_min_messages = warning;
CREATE EXTENSION postgres_fdw;
RESET client_min_messages;
DO $$
BEGIN
	EXECUTE format('CREATE SERVER regress_here FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host %L,
		port %L, dbname %L, extensions ''bicycle'')',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'),
			current_database());
	EXECUTE format('CREATE USER MAPPING FOR CURRENT_USER SERVER regress_here OPTIONS (user %L)',
		current_user);
END $$;
CREATE FOREIGN TABLE near (id int, sketch bytea, model text, variant bytea) SERVER regress_here
	OPTIONS (schema_name 'public', table_name 'regress_far');
CREATE TEMP TABLE expected AS SELECT id, bicycle_translate(sketch, ARRAY[id, 1], 'far') AS variant
	FROM regress_far;

-- A scan is read ahead.
EXPLAIN (COSTS OFF) SELECT id, bicycle_translate(sketch, ARRAY[id, 1], 'far') FROM near;
SELECT count(*) FROM (SELECT id, bicycle_translate(sketch, ARRAY[id, 1], 'far') AS variant
	FROM near OFFSET 0) AS n JOIN expected USING (id) WHERE n.variant = expected.variant;
-- So are the rows of an update whose values are computed here.
EXPLAIN (COSTS OFF) UPDATE near SET variant = bicycle_translate(sketch, ARRAY[id, 1], 'far');
UPDATE near SET variant = bicycle_translate(sketch, ARRAY[id, 1], 'far');
SELECT count(*) FROM regress_far JOIN expected USING (id)
	WHERE regress_far.variant = expected.variant;
-- An update that the other server does as a whole is its own.
EXPLAIN (COSTS OFF) UPDATE near SET variant = bicycle_translate(sketch, '{2,1}', model, 1);
UPDATE near SET variant = bicycle_translate(sketch, '{2,1}', model, 1);
SELECT count(*) FROM regress_far WHERE variant = bicycle_translate(sketch, '{2,1}', 'far');
UPDATE near SET variant = bicycle_translate(sketch, '{2,3}', model, 1) WHERE id < 2
	RETURNING id, variant = bicycle_translate(sketch, '{2,3}', 'far') AS right_image;

SET client_min_messages = warning;
DROP EXTENSION postgres_fdw CASCADE;
RESET client_min_messages;
SELECT bicycle_drop('far');
DROP TABLE regress_far;
