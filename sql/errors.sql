-- Every SQLSTATE of the contract that needs no crash, with message, detail and hint of the
-- library's own ones.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_import('err', pg_temp.file('G.pth'), pg_temp.file('E.pth')) AS version;
SELECT bicycle_import('erg', pg_temp.file('G.pth')) AS version;
CREATE TEMP TABLE picture AS SELECT pg_temp.file('pairs/00_A.png') AS image;
\pset format unaligned
\pset tuples_only on

-- 22P03: images and model files that cannot be read; worded by the engine.
SELECT pg_temp.state($$SELECT bicycle_translate('rubbish', bicycle_latent(8, 1), 'err')$$),
	pg_temp.state($$SELECT bicycle_encode('', 'err')$$),
	pg_temp.state($$SELECT bicycle_translate(substr(image, 1, 200), bicycle_latent(8, 1), 'err')
		FROM picture$$), pg_temp.state($$SELECT bicycle_image_info('\x00')$$),
	pg_temp.state($$SELECT bicycle_inspect('rubbish')$$),
		pg_temp.state($$SELECT bicycle_import('m', 'rubbish')$$);
SELECT pg_temp.report($$SELECT bicycle_import('m', '')$$);
-- 22023: latents and options.
SELECT pg_temp.report($$SELECT bicycle_translate('x', '{1,2}', 'err')$$);
SELECT pg_temp.report($$SELECT bicycle_translate('x', '{1,NaN}', 'err')$$);
SELECT pg_temp.report($$SELECT bicycle_sample('x', -1, model => 'err')$$);
SELECT pg_temp.report($$SELECT bicycle_export('err', 'F')$$);
SELECT pg_temp.state($$SELECT bicycle_create('m', '{"no_such_option": 1}')$$);
-- 22004: NULL where there must be none.
SELECT pg_temp.report($$SELECT bicycle_translate('x', '{1,NULL}', 'err')$$);
SELECT pg_temp.report($$SELECT bicycle_deploy(NULL, 1)$$);
-- 2202E: dimensions.
SELECT pg_temp.report($$SELECT bicycle_translate('x', '{{1,2}}', 'err')$$);
SELECT pg_temp.report($$SELECT bicycle_translate_many('{x,y}', '{{1},{2},{3}}', 'err')$$);
-- 42704: no such model, version, or no name at all.
SELECT pg_temp.report($$SELECT bicycle_translate('x', '{1}', 'no such model')$$);
SELECT pg_temp.report($$SELECT bicycle_translate('x', '{1}', 'err', 7)$$);
SELECT pg_temp.report($$SELECT bicycle_translate('x', '{1}')$$);
SELECT pg_temp.report($$SELECT bicycle_drop('no such model')$$);
SELECT pg_temp.report(format('SELECT bicycle_encode(%L, %L)', 'x', repeat('long', 100)));
-- 25006: read-only transactions compute, and write nothing.
BEGIN READ ONLY;
SELECT octet_length(bicycle_translate(image, bicycle_latent(8, 1), 'err')) > 0 FROM picture;
SELECT pg_temp.report($$SELECT bicycle_import('m', pg_temp.file('G.pth'))$$);
SELECT pg_temp.report($$SELECT bicycle_create('m')$$);
SELECT pg_temp.report($$SELECT bicycle_deploy('err', 1)$$);
SELECT pg_temp.report($$SELECT bicycle_drop('err')$$);
COMMIT;
-- 54000: beyond a limit.
SELECT pg_temp.report($$SELECT bicycle_sample('x', 1001, model => 'err')$$);
SELECT pg_temp.report($$SELECT bicycle_latent(4097, 1)$$);
SET bicycle.max_request_size = '1kB';
SELECT pg_temp.report($$SELECT bicycle_translate(decode(repeat('00', 1025), 'hex'),
	bicycle_latent(8, 1), 'err')$$);
SELECT pg_temp.report($$SELECT bicycle_translate_many(ARRAY[decode(repeat('00', 1025), 'hex')],
	bicycle_latent(8, 1), 'err')$$);
RESET bicycle.max_request_size;
SET bicycle.max_image_pixels = 16383;
SELECT pg_temp.state($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'err') FROM picture$$);
RESET bicycle.max_image_pixels;
-- 55000: no encoder, no such network.
SELECT pg_temp.report($$SELECT bicycle_encode('x', 'erg')$$);
SELECT pg_temp.report($$SELECT bicycle_export('erg', 'E')$$);
-- 55006: the current version.
SELECT bicycle_import('err', pg_temp.file('G.pth'));
SELECT pg_temp.report($$SELECT bicycle_drop('err', 2)$$);
-- 57014: cancelled in the middle; what was in flight is withdrawn.
SET statement_timeout = '200ms';
SET bicycle.max_samples = 100000;
SELECT count(s.image) FROM picture AS p, bicycle_sample(p.image, 100000, 1, 'erg') AS s;
RESET bicycle.max_samples;
RESET statement_timeout;
SELECT octet_length(bicycle_translate(image, bicycle_latent(8, 1), 'err')) > 0 FROM picture;
-- XX001: a version whose rows are not what was imported.
SELECT bicycle_import('erx', pg_temp.file('G.pth'), config => '{"nl": "elu", "size": 512}');
BEGIN;
DELETE FROM bicycle_tensors WHERE model = 'erx' AND name = 'model.down.0.bias';
SELECT pg_temp.state($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'erx') FROM picture$$);
ROLLBACK;
BEGIN;
UPDATE bicycle_tensors SET chunk = 1 WHERE model = 'erx' AND name = 'model.down.0.bias';
SELECT pg_temp.report($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'erx')
	FROM picture$$);
ROLLBACK;
BEGIN;
INSERT INTO bicycle_tensors SELECT model, version, network, name, 1, dtype, shape || 1, data
	FROM bicycle_tensors WHERE model = 'erx' AND name = 'model.down.0.bias';
SELECT pg_temp.report($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'erx')
	FROM picture$$);
ROLLBACK;
BEGIN;
UPDATE bicycle_models SET hash = sha256('') WHERE model = 'erx';
SELECT pg_temp.state($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'erx') FROM picture$$);
ROLLBACK;
SELECT bicycle_drop('err'), bicycle_drop('erg'), bicycle_drop('erx');
