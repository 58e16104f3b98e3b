-- bicycle_import, export, inspect, create: files become rows and rows become files, without loss.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common

SELECT bicycle_import('imported', pg_temp.file('G.pth'), pg_temp.file('E.pth')) AS version;
SELECT model, version, method, iterations, is_current, created_by = current_user AS mine,
	octet_length(hash) AS hash,
	config -> 'nz' AS nz, config -> 'size' AS size, config -> 'levels' AS levels,
		config -> 'ngf' AS ngf, config -> 'net_e' AS net_e
FROM bicycle_models WHERE model = 'imported';
SELECT network, count(*), sum(octet_length(data)) AS bytes, max(chunk) AS last_chunk
	FROM bicycle_tensors WHERE model = 'imported' GROUP BY network ORDER BY network;
-- The bytes of each tensor are those its shape says.
SELECT network, name FROM bicycle_tensors GROUP BY network, name, shape
HAVING sum(octet_length(data)) <> 4 * (SELECT coalesce(exp(sum(ln(n)))::numeric(20), 1)
	FROM unnest(shape) AS n);

-- Both formats come back as the same tensors and so as the same content.
SELECT bicycle_import('again', bicycle_export('imported'), bicycle_export('imported', 'E'))
	AS safetensors;
SELECT bicycle_import('again', bicycle_export('imported', 'G', 1, 'pth'),
	bicycle_export('imported', 'E', format => 'pth')) AS pth;
SELECT count(DISTINCT hash) AS contents FROM bicycle_models WHERE model IN ('imported', 'again');
SELECT count(*) AS different FROM bicycle_tensors a JOIN bicycle_tensors b
	USING (network, name, chunk)
WHERE a.model = 'imported' AND b.model = 'again' AND (a.data, a.shape, a.dtype) IS DISTINCT
	FROM (b.data, b.shape, b.dtype);
SELECT (SELECT array_agg(name || dtype || shape::text ORDER BY name)
	FROM bicycle_inspect(pg_temp.file('G.pth')))
	= (SELECT array_agg(name || dtype || shape::text ORDER BY name)
		FROM bicycle_inspect(bicycle_export('imported'))) AS same_names;
SELECT count(*), min(dtype), max(cardinality(shape)) FROM bicycle_inspect(pg_temp.file('E.pth'));
SELECT * FROM bicycle_inspect(pg_temp.file('G.pth')) LIMIT 2;
SELECT count(*) FROM bicycle_inspect(NULL);

-- Without the encoder it is another model, and config says what the files cannot.
SELECT bicycle_import('generator', pg_temp.file('G.pth'), config => '{"size": 256, "nl": "relu"}')
	AS version;
SELECT config -> 'size' AS size, config -> 'net_e' AS net_e FROM bicycle_models
	WHERE model = 'generator';
SELECT pg_temp.fails($$SELECT bicycle_export('generator', 'E')$$);

-- Fresh weights.
SELECT bicycle_create('fresh',
	'{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2, "encoder_size": 64}')
	AS version;
SELECT config -> 'size' AS size, config -> 'nz' AS nz FROM bicycle_models WHERE model = 'fresh';
SELECT octet_length(bicycle_translate(pg_temp.file('pairs/00_A.png'), '{0,0}', 'fresh')) > 0
	AS runs;

-- What is not accepted.
SELECT pg_temp.fails($$SELECT bicycle_import('', 'x')$$);
SELECT pg_temp.fails($$SELECT bicycle_import(repeat('x', 256), 'x')$$);
SELECT pg_temp.fails($$SELECT bicycle_import(NULL, 'x')$$);
SELECT pg_temp.fails($$SELECT bicycle_import('m', NULL)$$);
SELECT pg_temp.state($$SELECT bicycle_import('m', '')$$),
	pg_temp.state($$SELECT bicycle_import('m', 'rubbish')$$),
	pg_temp.state($$SELECT bicycle_import('m', substr(pg_temp.file('G.pth'), 1, 100000))$$),
		pg_temp.state($$SELECT * FROM bicycle_inspect('rubbish')$$);
SELECT pg_temp.state($$SELECT bicycle_import('m', pg_temp.file('E.pth'))$$) AS encoder_as_generator,
	pg_temp.state($$SELECT bicycle_import('m', pg_temp.file('G.pth'), pg_temp.file('G.pth'))$$)
		AS generator_as_encoder;
SELECT pg_temp.state($$SELECT bicycle_import('m', pg_temp.file('G.pth'),
	config => '{"no_such_option": 1}')$$) AS unknown,
	pg_temp.state($$SELECT bicycle_import('m', pg_temp.file('G.pth'), config => '{"size": 100}')$$)
		AS size,
	pg_temp.state($$SELECT bicycle_import('m', pg_temp.file('G.pth'), config => '[]')$$)
		AS not_an_object,
	pg_temp.state($$SELECT bicycle_create('m', '{"nz": -1}')$$) AS nz;
SELECT pg_temp.fails($$SELECT bicycle_create('m', jsonb_build_object('x', repeat('x', 20000)))$$);
-- As bicycle_train does.
SELECT pg_temp.fails($$SELECT bicycle_create('m', '{"seed": -5}')$$);
SELECT pg_temp.fails($$SELECT bicycle_export('imported', 'X')$$),
	pg_temp.fails($$SELECT bicycle_export('imported', format => 'onnx')$$);
SELECT pg_temp.fails($$SELECT bicycle_export('imported', version => 9)$$),
	pg_temp.fails($$SELECT bicycle_export(NULL)$$);
-- The last weight of the file becomes a NaN.
SELECT pg_temp.fails($$SELECT bicycle_import('m', overlay(file PLACING '\x0000c07f'
	FROM octet_length(file) - 3)) FROM bicycle_export('imported') AS file$$);
-- A failed import leaves nothing.
SELECT count(*) FROM bicycle_models WHERE model = 'm';
SELECT count(*) FROM bicycle_counters WHERE model = 'm';

-- Files as programs save them: the weights are found behind what wraps them, and are the same.
\getenv testdata BICYCLE_TESTDATA
CREATE TEMP TABLE saved
	AS SELECT f AS name, pg_read_binary_file(:'testdata' || '/saved/' || f) AS bytes
	FROM pg_ls_dir(:'testdata' || '/saved') AS f;
CREATE FUNCTION pg_temp.saved(text) RETURNS bytea
	LANGUAGE sql STABLE AS 'SELECT bytes FROM pg_temp.saved WHERE name = $1';
SELECT name, bicycle_import('saved', bytes, config => config::jsonb) AS version
	FROM saved JOIN (VALUES ('averaged.pth', '{}'), ('flat.pth', '{"entry": "netG"}'),
		('gan.pth', '{"entry": {"G": "netG"}}'), ('generator.pth', '{}'), ('lightning.ckpt', '{}'))
	AS v (name, config) USING (name) ORDER BY name;
SELECT count(DISTINCT hash) AS contents, count(*) FROM bicycle_models WHERE model = 'saved';
SELECT bicycle_import('saved', pg_temp.saved('gan.pth'), pg_temp.saved('gan.pth'),
	'{"entry": {"G": "netG", "E": "netE"}}') AS version;
SELECT bicycle_import('saved', pg_temp.saved('generator.pth'), bytes) AS version
	FROM saved WHERE name LIKE 'protocol%' ORDER BY name;
SELECT count(DISTINCT hash) AS contents, count(*) FROM bicycle_models
	WHERE model = 'saved' AND version > 5;
SELECT array_agg(name ORDER BY name) FILTER (WHERE name LIKE '%fc.%' OR name LIKE '%model.up.%')
	FROM bicycle_inspect(pg_temp.saved('gan.pth'));
-- What is meant has to be said, and what is no network's weights is told, with what to do.
SELECT pg_temp.report($$SELECT bicycle_import('m', pg_temp.saved('gan.pth'))$$);
SELECT pg_temp.report($$SELECT bicycle_import('m', pg_temp.saved('generator.pth'),
	pg_temp.saved('gan.pth'))$$);
SELECT pg_temp.report($$SELECT bicycle_import('m', pg_temp.saved('gan.pth'),
	config => '{"entry": "netD"}')$$);
SELECT pg_temp.report($$SELECT bicycle_import('m', pg_temp.saved('flat.pth'))$$);
SELECT pg_temp.report($$SELECT bicycle_import('m', pg_temp.saved('gan.pth'),
	config => '{"entry": 1}')$$);
SELECT name, pg_temp.report(format($$SELECT bicycle_import('m', pg_temp.saved(%L))$$, name))
	FROM saved WHERE name ~ '^(module|optimiser|list|script|plain|graph|spectral|weight_norm)'
	ORDER BY name COLLATE "C";

-- Generators of pix2pix: known by what only they have, or told; a picture without a latent code,
-- the same each time, as test_nn_pix2pix compares it with PyTorch's.
SELECT bicycle_import('pix', pg_temp.saved('pix2pix.pth')) AS version;
SELECT bicycle_import('pix', pg_temp.saved('pix2pix.pth'),
	config => '{"statistics": "image", "test_dropout": 9}') AS version;
SELECT bicycle_import('pix', pg_temp.saved('pix2pix.pth'),
	config => '{"statistics": "image", "test_dropout": 10}') AS version;
SELECT pg_temp.report($$SELECT bicycle_import('m', pg_temp.saved('pix2pix_instance.pth'))$$);
SELECT bicycle_import('pix', pg_temp.saved('pix2pix_instance.pth'), config => '{"nz": 0}')
	AS version;
SELECT bicycle_import('pix', pg_temp.saved('pix2pix_instance.pth'),
	config => '{"family": "pix2pix", "test_dropout": 0}') AS version;
SELECT version, config ->> 'family' AS family, config ->> 'norm' AS norm,
	config ->> 'statistics' AS statistics, config -> 'test_dropout' AS test_dropout,
	config -> 'nz' AS nz FROM bicycle_models WHERE model = 'pix' ORDER BY version;
SELECT count(DISTINCT picture),
	bool_and(picture = bicycle_translate(image, '{}', 'pix', v)) AS same,
	bool_and((bicycle_image_info(picture)).width = 64) AS sized
	FROM (SELECT v, bytes AS image, bicycle_translate(bytes, '{}', 'pix', v) AS picture
		FROM generate_series(1, 5) AS v, pg_temp.file WHERE name = 'pairs/00_B.png') AS p;
SELECT pg_temp.report($$SELECT bicycle_translate(pg_temp.file('pairs/00_B.png'), '{1}', 'pix')$$);
SELECT bicycle_import('pix', bicycle_export('pix', version => 2, format => 'pth'),
	config => '{"statistics": "image", "test_dropout": 9}') AS version;
SELECT count(DISTINCT hash) FROM bicycle_models WHERE model = 'pix' AND version IN (2, 6);
SELECT pg_temp.report($$SELECT bicycle_train('pix', 'SELECT NULL::bytea, NULL::bytea',
	'{"method": "pix2pix_noise"}')$$);
SELECT pg_temp.report($$SELECT bicycle_create('m', '{"family": "pix2pix", "nz": 4}')$$);
SELECT pg_temp.report($$SELECT bicycle_create('m', '{"statistics": "image"}')$$);

-- A row that is missing or changed is noticed, not used. The model is dropped from the engine's
-- cache by nothing: its content is new here.
SELECT bicycle_import('damaged', pg_temp.file('G.pth'), config => '{"nl": "lrelu"}') AS version;
BEGIN;
DELETE FROM bicycle_tensors WHERE model = 'damaged' AND name = 'model.down.0.bias';
SELECT pg_temp.state($$SELECT bicycle_translate(pg_temp.file('pairs/00_A.png'),
	bicycle_latent(8, 1), 'damaged')$$) AS missing;
ROLLBACK;
BEGIN;
UPDATE bicycle_tensors SET data = set_byte(data, 5, (get_byte(data, 5) + 1) % 256)
	WHERE model = 'damaged' AND name = 'model.down.0.bias';
SELECT pg_temp.state($$SELECT bicycle_translate(pg_temp.file('pairs/00_A.png'),
	bicycle_latent(8, 1), 'damaged')$$) AS changed;
ROLLBACK;
BEGIN;
UPDATE bicycle_tensors SET data = substr(data, 5) WHERE model = 'damaged'
	AND name = 'model.down.0.bias';
SELECT pg_temp.fails($$SELECT bicycle_translate(pg_temp.file('pairs/00_A.png'),
	bicycle_latent(8, 1), 'damaged')$$) AS shortened;
ROLLBACK;
SELECT octet_length(bicycle_translate(pg_temp.file('pairs/00_A.png'), bicycle_latent(8, 1),
	'damaged')) > 0 AS whole_again;

SELECT bicycle_drop(m)
	FROM unnest('{imported,again,generator,fresh,saved,pix,damaged}'::text[]) AS m;
