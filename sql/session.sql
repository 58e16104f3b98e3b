-- One session: cursors side by side, savepoints, errors caught by the thousand, cancelled
-- statements, functions within functions.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_create('c', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2,
	"encoder_size": 64}') AS version;
SET bicycle.model = 'c';
CREATE TEMP TABLE picture AS SELECT i AS id, pg_temp.file('pairs/0' || i % 4 || '_A.png') AS image
	FROM generate_series(1, 20) AS i;

-- Two cursors, fetched in turns, and an error between.
BEGIN;
DECLARE a CURSOR FOR SELECT id, octet_length(bicycle_translate(image, ARRAY[id, 0])) > 0
	AS translated FROM picture ORDER BY id;
DECLARE b CURSOR FOR SELECT id, s.sample FROM picture, bicycle_sample(image, 3, id) AS s
	ORDER BY id, s.sample;
FETCH 2 FROM a;
FETCH 2 FROM b;
SAVEPOINT s;
FETCH 1 FROM a;
SELECT bicycle_translate('bad', '{1,2}');
ROLLBACK TO s;
FETCH 2 FROM b;
FETCH 2 FROM a;
CLOSE a;
FETCH 1 FROM b;
COMMIT;

-- Errors in subtransactions: nothing piles up.
DO $$
DECLARE
	errors int := 0;
	before bigint;
	after bigint;
BEGIN
	FOR i IN 1..3000 LOOP
		BEGIN
			IF i % 3 = 0 THEN
				PERFORM bicycle_translate('bad', '{1,2}');
			ELSIF i % 3 = 1 THEN
				PERFORM bicycle_translate_many(ARRAY['bad'::bytea, 'worse', 'worst'], '{1,2}');
			ELSE
				PERFORM bicycle_image_info('bad');
			END IF;
		EXCEPTION WHEN invalid_binary_representation THEN
			errors := errors + 1;
		END;
		IF i = 300 THEN
			SELECT sum(total_bytes) INTO before FROM pg_backend_memory_contexts;
		END IF;
	END LOOP;
	SELECT sum(total_bytes) INTO after FROM pg_backend_memory_contexts;
	RAISE NOTICE '% errors, memory grew by more than 1 MB: %', errors, after > before + 1024 * 1024;
END $$;
-- An error while other requests are in flight: they are withdrawn while the transaction goes on,
-- and later answers are not mistaken.
DO $$
DECLARE
	images bytea[] := (SELECT array_agg(image ORDER BY id) FROM picture);
	expected bytea := bicycle_translate(images[7], '{7,0}');
	errors int := 0;
	right_answers int := 0;
BEGIN
	FOR i IN 1..30 LOOP
		BEGIN
			PERFORM bicycle_translate_many('bad'::bytea || images, '{1,2}');
		EXCEPTION WHEN invalid_binary_representation THEN
			errors := errors + 1;
		END;
		IF bicycle_translate(images[7], '{7,0}') = expected THEN
			right_answers := right_answers + 1;
		END IF;
	END LOOP;
	RAISE NOTICE '% errors, % right answers', errors, right_answers;
END $$;
-- A cancelled statement.
SET bicycle.max_samples = 10000;
SET statement_timeout = '100ms';
SELECT count(s.image) FROM picture, bicycle_sample(image, 10000, 1) AS s;
RESET statement_timeout;
SELECT count(bicycle_translate(image, ARRAY[id, 0])) FROM picture;
-- A trigger on the tables of the extension may itself use a model while another is being imported.
CREATE FUNCTION pg_temp.use() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM public.bicycle_translate(image, '{1,2}', 'c', 1) FROM pg_temp.picture WHERE id = 1;
	RETURN NEW;
END $$;
CREATE TRIGGER use AFTER INSERT ON bicycle_models FOR EACH ROW EXECUTE FUNCTION pg_temp.use();
SELECT bicycle_create('aside',
	'{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2, "encoder_size": 64}')
	AS version;
SELECT bicycle_import('c', bicycle_export('aside'), bicycle_export('aside', 'E')) AS version;
SELECT bicycle_drop('aside');
DROP TRIGGER use ON bicycle_models;
-- Nothing waits in the engine for us any more.
SELECT queued FROM bicycle_engine();
SELECT bicycle_drop('c');
