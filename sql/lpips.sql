-- Images are compared by LPIPS: weights come in from files, and distances are the same row by row,
-- in rounds and below aggregates. The weights here are of no use but have AlexNet's shapes;
-- test_nn_lpips and test/t/033_lpips.pl compare numbers.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
\set weights :srcdir '/sql/include/lpips.sql'
\i :weights

SELECT pg_temp.report($$SELECT bicycle_lpips('x', 'y')$$);
SELECT pg_temp.report($$SELECT bicycle_lpips('x', 'y', 'squeeze')$$);
SELECT pg_temp.report($$SELECT bicycle_lpips('x', 'y', version => '1.0')$$);
SELECT bicycle_import_lpips('alex', backbone, heads) AS version FROM files;
-- Its version depends on which tests have had that model before.
SELECT bicycle_import_lpips('alex', backbone, heads, '0.0') > 0 AS imported FROM files;
SELECT model, method, config, is_current FROM bicycle_models ORDER BY model;
SELECT count(*), sum(octet_length(data)) FROM bicycle_tensors
	WHERE model = 'lpips-alex-0.1' AND network = 'L';
-- Which file is which, their tensors' names tell.
SELECT bicycle_import_lpips('alex', heads, backbone) AS version FROM files;
SELECT count(DISTINCT hash) AS hashes FROM bicycle_models WHERE model = 'lpips-alex-0.1';
SELECT pg_temp.report($$SELECT bicycle_import_lpips('vgg', backbone, heads) FROM files$$);
SELECT pg_temp.state($$SELECT bicycle_import_lpips('alex', backbone, 'x') FROM files$$);
SELECT pg_temp.fails($$SELECT bicycle_import_lpips('alex', backbone, NULL) FROM files$$);
SELECT pg_temp.fails($$SELECT bicycle_import_lpips('alex', backbone, heads, '2') FROM files$$);

CREATE TABLE looks (id int PRIMARY KEY, a bytea, b bytea);
INSERT INTO looks SELECT i, pg_temp.file('pairs/0' || i % 3 || '_A.png'),
	pg_temp.file('pairs/0' || i % 3 || '_B.png') FROM generate_series(1, 9) AS i;
ANALYZE looks;
SELECT bicycle_lpips(a, a) = 0 AS same, bicycle_lpips(a, b) > 0 AS other,
	bicycle_lpips(a, b) = bicycle_lpips(a, b, 'alex', '0.1') AS defaults,
	bicycle_lpips(a, b) <> bicycle_lpips(a, b, version => '0.0') AS versions_differ,
	bicycle_lpips(NULL, b) IS NULL AS "null" FROM looks WHERE id = 1;
-- The other image is brought to the size of the first.
SELECT count(DISTINCT d) > 1 AS differ, bool_and(d > 0) AS all_positive
	FROM (SELECT bicycle_lpips(x, y) AS d FROM (VALUES
		(pg_temp.file('pairs/00_A.png'), pg_read_binary_file(:'testdata' || '/lpips/ex_ref.png')),
		(pg_read_binary_file(:'testdata' || '/lpips/ex_ref.png'), pg_temp.file('pairs/00_A.png')))
		AS v(x, y)) AS d;
-- The node runs many rows at once, also below an aggregate.
EXPLAIN (COSTS OFF) SELECT id, bicycle_lpips(a, b) FROM looks;
EXPLAIN (COSTS OFF) SELECT avg(bicycle_lpips(a, b)) FROM looks;
SELECT count(*), sum(bicycle_lpips(a, b)) > 0 AS sum FROM looks;
CREATE TEMP TABLE batched AS SELECT id, bicycle_lpips(a, b) AS d FROM looks;
SET bicycle.batching = off;
SELECT bool_and(d = bicycle_lpips(a, b)) AS same_alone FROM batched JOIN looks USING (id);
RESET bicycle.batching;
SELECT count(DISTINCT d) AS distances FROM batched;
-- What cannot be used is an error, or NULL; so is an image that is too small.
UPDATE looks SET b = substr(b, 1, 60) WHERE id = 5;
SELECT pg_temp.state($$SELECT bicycle_lpips(a, b) FROM looks$$);
SELECT pg_temp.report($$SELECT bicycle_lpips(
	decode('89504e470d0a1a0a0000000d49484452000000010000000108000000003a7e9b55'
	'0000000a49444154789c63f80f0001010100'
	'1b0dc4c50000000049454e44ae426082', 'hex'), a) FROM looks WHERE id = 1$$);
-- The error says which of the two it is.
SELECT pg_temp.report($$SELECT bicycle_lpips('x', a) FROM looks WHERE id = 1$$);
SELECT pg_temp.report($$SELECT bicycle_lpips(a, 'x') FROM looks WHERE id = 1$$);
SELECT pg_temp.report($$SELECT bicycle_lpips(substr(a, 1, 60), a) FROM looks WHERE id = 1$$);
SELECT pg_temp.report($$SELECT bicycle_lpips(a, substr(a, 1, 60)) FROM looks WHERE id = 1$$);
\set VERBOSITY terse
SET bicycle.on_error = 'null';
SELECT count(*), count(d) FROM (SELECT bicycle_lpips(a, b) AS d FROM looks OFFSET 0) AS x;
RESET bicycle.on_error;
\set VERBOSITY default

-- Other functions refuse the model, and it others; its name is its own.
SELECT pg_temp.report($$SELECT bicycle_encode(a, 'lpips-alex-0.1') FROM looks$$);
SELECT pg_temp.fails($$SELECT bicycle_translate(a, '{}', 'lpips-alex-0.1') FROM looks$$);
SELECT pg_temp.fails($$SELECT * FROM bicycle_sample('x', 1, model => 'lpips-alex-0.1')$$);
SELECT pg_temp.fails($$SELECT bicycle_export('lpips-alex-0.1')$$);
SELECT pg_temp.report($$SELECT bicycle_import('lpips-alex-0.1', backbone) FROM files$$);
SELECT pg_temp.fails($$SELECT bicycle_create('lpips-mine')$$),
	pg_temp.fails($$SELECT bicycle_train('lpips-mine', 'SELECT a, b FROM looks')$$),
	pg_temp.fails($$SELECT bicycle_rename('lpips-alex-0.1', 'mine')$$),
	pg_temp.fails($$SELECT bicycle_import('mine', backbone, config => '{"lpips": "0.1"}')
		FROM files$$);
SELECT bicycle_create('generator', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2,
	"encoder_size": 64}') AS version;
SELECT pg_temp.fails($$SELECT bicycle_rename('generator', 'lpips-vgg-0.1')$$);

-- Validation of a job measures by it what a session would get, and may choose by it; both compute
-- in fp32. Its number is given back: other tests count on theirs.
SELECT last_value, is_called FROM bicycle_training_job_ids \gset
SET client_min_messages = warning;
SELECT bicycle_train('validated', 'SELECT a, b FROM looks WHERE id < 4', '{"size": 64, "ngf": 4,
	"nef": 4, "ndf": 4, "nz": 2, "iterations": 3, "validate_every": 1, "keep": "best",
	"keep_metric": "val_lpips", "precision": "fp32",
	"validation": "SELECT a, b FROM looks WHERE id IN (6, 7, 8)"}') AS job \gset
CALL bicycle_wait(:job);
RESET client_min_messages;
SELECT state, notes ~ 'whose val_lpips is' AS chosen FROM bicycle_jobs WHERE job = :job;
SELECT name, count(*), min(value) > 0 AS positive FROM bicycle_losses
	WHERE job = :job AND name LIKE 'val%' GROUP BY name ORDER BY name COLLATE "C";
SELECT m.iterations = (SELECT iteration FROM bicycle_losses WHERE job = :job
		AND name = 'val_lpips' ORDER BY value, iteration LIMIT 1) AS kept,
	abs(min(value) - avg(bicycle_lpips(bicycle_translate(a, bicycle_encode(b, 'validated'),
		'validated'), b))) < 1e-6 AS same
FROM bicycle_models AS m, looks, bicycle_losses WHERE m.model = 'validated' AND id IN (6, 7, 8)
	AND job = :job AND name = 'val_lpips' AND iteration = m.iterations GROUP BY m.iterations;
SELECT octet_length(bicycle_loss_plot(:job)) > 0 AS plotted;
DELETE FROM bicycle_training_jobs WHERE job = :job;
SELECT setval('bicycle_training_job_ids', :last_value, :'is_called') AS number \gset
SELECT bicycle_drop('validated');

-- Rights: importing is for nobody at first, comparing for who may read the model.
CREATE ROLE regress_looker;
GRANT SELECT ON looks TO regress_looker;
SET ROLE regress_looker;
SELECT pg_temp.state($$SELECT bicycle_lpips(a, b) FROM looks$$),
	pg_temp.state($$SELECT bicycle_import_lpips('alex', 'x', 'y')$$);
RESET ROLE;
GRANT SELECT ON bicycle_models, bicycle_tensors TO regress_looker;
SET ROLE regress_looker;
SELECT bicycle_lpips(a, a) AS allowed FROM looks WHERE id = 1;
RESET ROLE;
REVOKE ALL ON looks, bicycle_models, bicycle_tensors FROM regress_looker;
DROP ROLE regress_looker;
SELECT bicycle_drop('lpips-alex-0.1'), bicycle_drop('lpips-alex-0.0'), bicycle_drop('generator');
DROP TABLE looks;
