-- Parallel query: workers translate, each by a connection of its own, with the same results.
\getenv testdata BICYCLE_TESTDATA
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS bicycle;
RESET client_min_messages;
CREATE TEMP TABLE file AS
	SELECT name, pg_read_binary_file(:'testdata' || '/edges2emoji/' || name) AS bytes
	FROM unnest('{G.pth,E.pth,pairs/00_A.png,pairs/00_B.png,pairs/01_A.png,pairs/01_B.png,pairs/02_A.png,pairs/02_B.png,pairs/03_A.png}'::text[]) AS name;
CREATE FUNCTION pg_temp.file(text) RETURNS bytea LANGUAGE sql STABLE AS 'SELECT bytes FROM pg_temp.file WHERE name = $1';
SELECT bicycle_create('p', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2, "encoder_size": 64}') AS version;
CREATE TABLE regress_parallel AS SELECT i AS id, pg_temp.file('pairs/0' || i % 4 || '_A.png') AS image FROM generate_series(1, 40) AS i;
ALTER TABLE regress_parallel SET (parallel_workers = 2);
ANALYZE regress_parallel;
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
EXPLAIN (COSTS OFF) SELECT count(bicycle_translate(image, ARRAY[id, 0], 'p')) FROM regress_parallel;
CREATE TEMP TABLE parallel AS SELECT id, md5(bicycle_translate(image, ARRAY[id, 0], 'p')) AS sum FROM regress_parallel;
SELECT count(DISTINCT bicycle_translate(image, ARRAY[id, 0], 'p')) FROM regress_parallel;
SELECT count(*) AS of_workers FROM regress_parallel WHERE octet_length(bicycle_translate(image, ARRAY[id, 0], 'p', 1)) > 0;
SET max_parallel_workers_per_gather = 0;
SELECT count(*) AS same FROM regress_parallel JOIN parallel USING (id) WHERE md5(bicycle_translate(image, ARRAY[id, 0], 'p')) = sum;
SET max_parallel_workers_per_gather = 2;
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
