-- Parallel query: workers translate, each by a connection of its own, with the same results.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_create('p', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2,
	"encoder_size": 64}') AS version;
CREATE TABLE regress_parallel
	AS SELECT i AS id, pg_temp.file('pairs/0' || i % 4 || '_A.png') AS image
	FROM generate_series(1, 40) AS i;
ALTER TABLE regress_parallel SET (parallel_workers = 2);
ANALYZE regress_parallel;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT count(bicycle_translate(image, ARRAY[id, 0], 'p')) FROM regress_parallel;
CREATE TEMP TABLE parallel AS SELECT id, md5(bicycle_translate(image, ARRAY[id, 0], 'p')) AS sum
	FROM regress_parallel;
SELECT count(DISTINCT bicycle_translate(image, ARRAY[id, 0], 'p')) FROM regress_parallel;
SELECT count(*) AS of_workers FROM regress_parallel
	WHERE octet_length(bicycle_translate(image, ARRAY[id, 0], 'p', 1)) > 0;
-- Below a partial aggregate, too, whose states are combined.
EXPLAIN (COSTS OFF) SELECT bicycle_mean(bicycle_encode(image, 'p')) FROM regress_parallel;
CREATE TEMP TABLE mean AS SELECT bicycle_mean(bicycle_encode(image, 'p')) AS z
	FROM regress_parallel;
SET max_parallel_workers_per_gather = 0;
SELECT max(abs(a - b)) < 1e-5 AS same FROM mean,
	(SELECT bicycle_mean(bicycle_encode(image, 'p')) AS z FROM regress_parallel) AS here,
	unnest(mean.z, here.z) AS v(a, b);
SELECT count(*) AS same FROM regress_parallel JOIN parallel USING (id)
	WHERE md5(bicycle_translate(image, ARRAY[id, 0], 'p')) = sum;
SET max_parallel_workers_per_gather = 2;
-- EXPLAIN counts what workers do, too.
SET parallel_leader_participation = off;
CREATE FUNCTION pg_temp.explained(query text) RETURNS jsonb LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT JSON) ' || query INTO plan;
	RETURN jsonb_path_query_first(plan, 'strict $.**?(@."Custom Plan Provider" == "BicycleBatch")');
END $$;
SELECT e ->> 'Images' AS images, (e ->> 'Rounds')::int BETWEEN 6
	AND 12 AS rounds, (e ->> 'Images per Round')::float8 BETWEEN 3 AND 7 AS images_per_round,
	(e ->> 'Wait')::float8 > 0 AS waited
FROM pg_temp.explained($$SELECT bicycle_translate(image, ARRAY[id, 0], 'p')
	FROM regress_parallel$$) AS e;
RESET parallel_leader_participation;
-- A worker's error reaches the user, and the next statement works.
UPDATE regress_parallel SET image = 'bad' WHERE id = 17;
DO $$
BEGIN
	PERFORM count(bicycle_translate(image, ARRAY[id, 0], 'p')) FROM regress_parallel;
EXCEPTION WHEN OTHERS THEN
	RAISE NOTICE '%', sqlstate;
END $$;
SELECT count(bicycle_translate(image, ARRAY[id, 0], 'p')) FROM regress_parallel WHERE id <> 17;
SELECT bicycle_drop('p');
DROP TABLE regress_parallel;
