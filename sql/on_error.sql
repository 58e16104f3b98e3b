-- Rows fail alone: bicycle_check says which images cannot be used, and with bicycle.on_error = null
-- these give NULL, with one WARNING a statement; whatever else is wrong stays an error.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_create('oe', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2,
	"encoder_size": 64}') AS version;
SET bicycle.model = 'oe';
CREATE TABLE regress_rows (id int PRIMARY KEY, image bytea, variant bytea, style float4[]);
INSERT INTO regress_rows SELECT i, pg_temp.file('pairs/0' || i % 4 || '_A.png')
	FROM generate_series(1, 12) AS i;
-- One is empty, one is cut off behind its header, one is missing.
UPDATE regress_rows SET image = '' WHERE id = 4;
UPDATE regress_rows SET image = substr(image, 1, 60) WHERE id = 7;
UPDATE regress_rows SET image = NULL WHERE id = 10;
VACUUM (FULL, ANALYZE) regress_rows;

-- Every pixel is looked at, not the header alone.
SELECT id, left(bicycle_check(image), 20) AS reason FROM regress_rows
	WHERE bicycle_check(image) IS NOT NULL ORDER BY id;
SELECT (bicycle_image_info(image)).format FROM regress_rows WHERE id = 7;
SELECT count(*) AS usable FROM regress_rows
	WHERE image IS NOT NULL AND bicycle_check(image) IS NULL;
SELECT id, left(reason, 20) AS reason
	FROM (SELECT id, bicycle_check(image) AS reason FROM regress_rows OFFSET 0) AS c
	WHERE reason IS NOT NULL ORDER BY id;
SELECT bicycle_check('') AS empty, bicycle_check(NULL) AS "null";
-- It is the image's own: limits are errors.
SET bicycle.max_image_pixels = 100;
SELECT pg_temp.state($$SELECT bicycle_check(image) FROM regress_rows WHERE id = 1$$);
SET bicycle.on_error = 'null';
SELECT pg_temp.state($$SELECT bicycle_check(image) FROM regress_rows WHERE id = 1$$);
RESET bicycle.on_error;
RESET bicycle.max_image_pixels;
SET bicycle.max_request_size = '1kB';
SELECT pg_temp.fails($$SELECT bicycle_check(decode(repeat('00', 1025), 'hex'))$$);
RESET bicycle.max_request_size;

-- An error says where its row lies, alone and in a batch.
UPDATE regress_rows SET variant = bicycle_translate(image, '{0,0}');
SELECT bicycle_translate(r.image, '{0,0}') FROM regress_rows AS r JOIN generate_series(3, 4) AS i
	ON r.id = i;
SELECT bicycle_translate(image, ARRAY['NaN'::float4, id]) FROM regress_rows WHERE id = 3;
SELECT bicycle_translate_many(array_agg(image ORDER BY id), '{0,0}') FROM regress_rows;

SET bicycle.on_error = 'null';
-- Bad images give NULL, the others what they gave before.
UPDATE regress_rows SET style = bicycle_encode(image) WHERE id < 6;
\set VERBOSITY terse
UPDATE regress_rows SET variant = bicycle_translate(image, '{0,0}'), style = bicycle_encode(image);
SELECT id, variant IS NULL AS no_variant, style IS NULL AS no_style FROM regress_rows
	WHERE variant IS NULL OR style IS NULL ORDER BY id;
-- Each function that takes the model of the session does, by the node and without it.
SELECT count(*), count(v) FROM (SELECT bicycle_translate(image, '{0,0}') AS v FROM regress_rows
	OFFSET 0) AS x;
SET bicycle.batching = off;
SELECT count(*), count(v) FROM (SELECT bicycle_translate(image, '{0,0}') AS v FROM regress_rows
	OFFSET 0) AS x;
SELECT count(*), count(v) FROM (SELECT bicycle_encode(image) AS v FROM regress_rows OFFSET 0) AS x;
RESET bicycle.batching;
SELECT array_length(v, 1), array_positions(v, NULL)
	FROM (SELECT bicycle_translate_many(array_agg(image ORDER BY id), '{0,0}') AS v
		FROM regress_rows) AS x;
SELECT id, p.mu IS NULL AS no_mu, p.logvar IS NULL AS no_logvar
	FROM regress_rows, bicycle_encode_posterior(image) AS p WHERE id IN (3, 4) ORDER BY id;
SELECT id, sample, z IS NULL AS no_z, s.image IS NULL AS no_image
	FROM regress_rows AS r, bicycle_sample(r.image, 2, 1) AS s WHERE id IN (3, 4)
	ORDER BY id, sample;
-- Too many pixels are the image's fault, too, and so are too many bytes.
SET bicycle.max_image_pixels = 100;
SELECT bicycle_translate(image, '{0,0}') FROM regress_rows WHERE id = 1;
RESET bicycle.max_image_pixels;
SET bicycle.max_request_size = '1kB';
SELECT bicycle_translate(decode(repeat('00', 1025), 'hex'), '{0,0}') AS alone;
SELECT bicycle_translate(decode(repeat('00', 1024 + id), 'hex'), '{0,0}') FROM regress_rows
	WHERE id = 1;
SELECT bicycle_translate_many(ARRAY[decode(repeat('00', 1025), 'hex')], '{0,0}') AS many;
SELECT sample, image FROM bicycle_sample(decode(repeat('00', 1025), 'hex'), 2, 1);
RESET bicycle.max_request_size;

-- All else is an error still: latent codes, models, and calls that name a version.
SELECT pg_temp.fails($$SELECT bicycle_translate('\x00', '{0}')$$);
SELECT pg_temp.fails($$SELECT bicycle_translate(image, ARRAY[id, NULL]) FROM regress_rows$$);
SELECT pg_temp.fails($$SELECT bicycle_translate('\x00', '{0,0}', 'no such model')$$);
SELECT pg_temp.state($$SELECT bicycle_translate(image, '{0,0}', 'oe', 1) FROM regress_rows$$);
SELECT pg_temp.state($$SELECT bicycle_encode(image, 'oe', 1) FROM regress_rows$$);
SELECT pg_temp.state($$SELECT bicycle_encode_posterior('\x00', 'oe', 1)$$);
SELECT pg_temp.state($$SELECT bicycle_translate_many('{x}', '{0,0}', 'oe', 1)$$);
SELECT pg_temp.state($$SELECT bicycle_sample('\x00', 1, 1, 'oe', 1)$$);
SELECT pg_temp.state($$SELECT bicycle_image_info('\x00')$$);
SET bicycle.max_samples = 5;
SELECT pg_temp.report($$SELECT bicycle_sample('\x00', 6, 1)$$);
RESET bicycle.max_samples;

-- Nothing is swallowed while a statement is planned, when constants are folded and estimated.
EXPLAIN (COSTS OFF) SELECT bicycle_translate('\x00', '{0,0}', 'oe', 1);
PREPARE folded AS SELECT bicycle_encode('\x00', 'oe', 1) FROM regress_rows;
EXECUTE folded;
DEALLOCATE folded;
CREATE FUNCTION pg_temp.immutable(image bytea) RETURNS bytea LANGUAGE plpgsql IMMUTABLE
	AS $$ BEGIN RETURN bicycle_translate(image, '{0,0}'); END $$;
SELECT pg_temp.state($$PREPARE p AS SELECT pg_temp.immutable('\x00'); EXECUTE p$$);
SELECT pg_temp.state($$EXPLAIN SELECT id FROM regress_rows WHERE variant = bicycle_translate('\x00',
	'{0,0}')$$);
EXPLAIN (COSTS OFF) SELECT bicycle_translate(image, '{0,0}') FROM regress_rows;

-- A plan that is kept follows the setting.
SET plan_cache_mode = force_generic_plan;
PREPARE q(int) AS SELECT id, bicycle_translate(image, '{0,0}') IS NULL AS bad FROM regress_rows
	WHERE id = $1;
EXECUTE q(4);
SET bicycle.on_error = 'error';
EXECUTE q(4);
SET bicycle.on_error = 'null';
EXECUTE q(4);
EXECUTE q(3);
DEALLOCATE q;
RESET plan_cache_mode;

-- A loop in PL/pgSQL is one statement, however it calls: simple expressions and statements.
DO $$
DECLARE
	r record;
	v bytea;
	n int := 0;
BEGIN
	FOR r IN SELECT image FROM regress_rows ORDER BY id LOOP
		v := bicycle_translate(r.image, '{0,0}');
		n := n + (v IS NULL)::int;
	END LOOP;
	FOR r IN SELECT bicycle_translate(image, '{0,0}') AS v FROM regress_rows LOOP
		n := n + (r.v IS NULL)::int;
	END LOOP;
	RAISE NOTICE '% are NULL', n;
END $$;
CREATE FUNCTION pg_temp.variant(image bytea) RETURNS bytea LANGUAGE plpgsql AS $$
BEGIN
	RETURN (SELECT bicycle_translate(image, '{0,0}'));
END $$;
SELECT count(*) AS "null" FROM regress_rows WHERE pg_temp.variant(image) IS NULL;

-- Triggers count with the statement that fires them; what waits for the COMMIT is told there.
CREATE FUNCTION pg_temp.fill() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	IF TG_WHEN = 'AFTER' THEN
		PERFORM bicycle_encode(NEW.image);
		RETURN NULL;
	END IF;
	NEW.variant := bicycle_translate(NEW.image, '{0,0}');
	RETURN NEW;
END $$;
CREATE TABLE regress_filled (LIKE regress_rows);
CREATE TRIGGER fill BEFORE INSERT ON regress_filled FOR EACH ROW
	EXECUTE FUNCTION pg_temp.fill();
INSERT INTO regress_filled (id, image) SELECT id, image FROM regress_rows;
SELECT count(*), count(variant) FROM regress_filled;
CREATE TRIGGER filled AFTER INSERT ON regress_filled FOR EACH ROW
	EXECUTE FUNCTION pg_temp.fill();
INSERT INTO regress_filled (id, image) VALUES (20, '\x00') RETURNING id, variant;
DROP TRIGGER filled ON regress_filled;
DROP TRIGGER fill ON regress_filled;
CREATE CONSTRAINT TRIGGER later AFTER INSERT ON regress_filled INITIALLY DEFERRED FOR EACH ROW
	EXECUTE FUNCTION pg_temp.fill();
BEGIN;
INSERT INTO regress_filled (id, image) VALUES (21, '\x00');
COMMIT;
-- COPY and CREATE TABLE AS are statements as well.
CREATE TEMP TABLE copied AS SELECT id, bicycle_translate(image, '{0,0}') AS v FROM regress_rows;
COPY (SELECT id FROM (SELECT id, bicycle_encode(image) AS v FROM regress_rows OFFSET 0) AS x
	WHERE v IS NULL) TO STDOUT;

-- A cursor tells of the rows that are fetched.
BEGIN;
DECLARE c NO SCROLL CURSOR FOR SELECT id, bicycle_translate(image, '{0,0}') IS NULL AS bad
	FROM regress_rows ORDER BY id;
FETCH 3 FROM c;
FETCH 2 FROM c;
CLOSE c;
COMMIT;

-- Rows that were read ahead, and that nobody wanted, are not told of: 7 is in the round of 5.
SELECT id FROM (SELECT id, bicycle_encode(image) AS v FROM regress_rows ORDER BY id OFFSET 0) AS x
	WHERE v IS NOT NULL LIMIT 4;

-- An error takes the counts of what it undoes with it.
SELECT bicycle_translate(image, '{0,0}') IS NULL, 1 / (id - 8) FROM regress_rows;
SELECT 1 AS "nothing is left over";
BEGIN;
SAVEPOINT s;
SELECT count(v) FROM (SELECT bicycle_encode(image) AS v FROM regress_rows WHERE id = 4 OFFSET 0) x;
SELECT bicycle_encode(image), 1 / (id - 4) FROM regress_rows WHERE id = 4;
ROLLBACK TO s;
SELECT count(v) FROM (SELECT bicycle_encode(image) AS v FROM regress_rows WHERE id = 3 OFFSET 0) x;
COMMIT;
DO $$
BEGIN
	PERFORM bicycle_encode(image) FROM regress_rows WHERE id = 4;
	BEGIN
		PERFORM bicycle_encode(image), 1 / (id - 8) FROM regress_rows ORDER BY id;
	EXCEPTION WHEN division_by_zero THEN
		RAISE NOTICE 'caught';
	END;
END $$;
-- A procedure that commits is one statement.
CREATE PROCEDURE pg_temp.steps() LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bicycle_encode(image) FROM regress_rows WHERE id = 4;
	COMMIT;
	PERFORM bicycle_encode(image) FROM regress_rows WHERE id = 7;
	ROLLBACK;
END $$;
CALL pg_temp.steps();
-- So is a function that sets it for itself.
RESET bicycle.on_error;
CREATE FUNCTION pg_temp.lenient() RETURNS bigint LANGUAGE sql SET bicycle.on_error = 'null'
	AS $$ SELECT count(v) FROM (SELECT bicycle_encode(image) AS v FROM regress_rows OFFSET 0) x $$;
SELECT pg_temp.lenient();
SELECT pg_temp.state('SELECT bicycle_encode(image) FROM regress_rows');

-- EXPLAIN ANALYZE shows how many failed.
CREATE FUNCTION pg_temp.failed(query text) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
	plan jsonb;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, FORMAT JSON) ' || query INTO plan;
	RETURN jsonb_path_query_first(plan, 'strict $.**?(@."Custom Plan Provider" == "BicycleBatch")')
		->> 'Images Failed';
END $$;
SELECT pg_temp.failed('SELECT bicycle_check(image) FROM regress_rows');
SET bicycle.on_error = 'null';
SELECT pg_temp.failed($$SELECT bicycle_translate(image, '{0,0}') FROM regress_rows$$);

-- Workers' counts are added up, those of plain calls are told by each worker.
ALTER TABLE regress_rows SET (parallel_workers = 2);
SET parallel_setup_cost = 0;
SET parallel_tuple_cost = 0;
SET min_parallel_table_scan_size = 0;
SET max_parallel_workers_per_gather = 2;
SET parallel_leader_participation = off;
EXPLAIN (COSTS OFF) SELECT id, bicycle_translate(image, '{0,0}') FROM regress_rows;
CREATE TEMP TABLE parallel AS SELECT id, bicycle_translate(image, '{0,0}') AS v FROM regress_rows;
SELECT id FROM parallel WHERE v IS NULL ORDER BY id;
SELECT pg_temp.failed($$SELECT bicycle_translate(image, '{0,0}') FROM regress_rows$$);
SET max_parallel_workers_per_gather = 1;
SELECT count(*) FROM regress_rows WHERE bicycle_translate(image, '{0,0}') IS NULL;

SELECT queued FROM bicycle_engine();
SELECT bicycle_drop('oe');
DROP TABLE regress_rows, regress_filled;
