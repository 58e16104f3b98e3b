-- Pictures of any size: the setting bicycle.fit, the config key fit, and what each makes of images
-- that are not of the model's size.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_create('square',
	'{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "encoder_size": 64}') AS version;
SELECT bicycle_create('input', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4,
	"encoder_size": 64, "fit": "input"}') AS version;
SELECT model, config ->> 'fit' AS fit FROM bicycle_models ORDER BY model DESC;
CREATE TEMP TABLE picture AS SELECT name, pg_read_binary_file(:'testdata' || '/' || name) AS image
	FROM unnest('{jpeg/rgb.jpg,png/cdfn2c08.png,png/cdhn2c08.png,png/s40n3p04.png,png/alpha.png,
		edges2emoji/pairs/00_A.png}'::text[]) AS name;
CREATE FUNCTION pg_temp.size(bytea) RETURNS text LANGUAGE sql
	AS 'SELECT width || '' x '' || height FROM bicycle_image_info($1)';
CREATE FUNCTION pg_temp.sizes() RETURNS TABLE (name text, own text, square text, input text)
	LANGUAGE sql AS $$
	SELECT name, pg_temp.size(image),
		pg_temp.size(bicycle_translate(image, bicycle_latent(8, 1), 'square')),
		pg_temp.size(bicycle_translate(image, bicycle_latent(8, 1), 'input'))
	FROM picture ORDER BY name COLLATE "C" $$;

-- As the models say; then as the session says.
SHOW bicycle.fit;
SELECT * FROM pg_temp.sizes();
SET bicycle.fit = input;
SELECT * FROM pg_temp.sizes();
SET bicycle.fit = square;
SELECT * FROM pg_temp.sizes();

-- A call with a version asks its config only.
SELECT bicycle_translate(image, bicycle_latent(8, 1), 'input', 1) AS v,
	pg_temp.size(bicycle_translate(image, bicycle_latent(8, 1), 'input', 1)) AS size
	FROM picture WHERE name = 'jpeg/rgb.jpg' \gset
SELECT :'size' AS input;
SET bicycle.fit = input;
SELECT pg_temp.size(bicycle_translate(image, bicycle_latent(8, 1), 'square', 1)) AS square,
	bicycle_translate(image, bicycle_latent(8, 1), 'input', 1) = :'v'::bytea AS same,
	bicycle_translate(image, bicycle_latent(8, 1), 'input') = :'v'::bytea AS as_the_session
	FROM picture WHERE name = 'jpeg/rgb.jpg';

-- The same with many, with samples, and where rows are read ahead; in any of them the same bytes.
CREATE TEMP TABLE answer AS SELECT name, bicycle_translate(image, bicycle_latent(8, 5), 'square')
	AS image FROM picture;
SELECT count(*) AS n, count(DISTINCT pg_temp.size(image)) AS sizes FROM answer;
SET bicycle.batching = off;
SELECT count(*) AS same FROM picture JOIN answer USING (name)
	WHERE bicycle_translate(picture.image, bicycle_latent(8, 5), 'square') = answer.image;
RESET bicycle.batching;
SELECT bicycle_translate_many(array_agg(picture.image ORDER BY name), bicycle_latent(8, 5),
	'square') = array_agg(answer.image ORDER BY name) AS many FROM picture JOIN answer USING (name);
SELECT sample, pg_temp.size(s.image)
	FROM picture, bicycle_sample(image, 3, 1, 'square') AS s WHERE name = 'jpeg/rgb.jpg';
SELECT sample, pg_temp.size(s.image),
	s.image = bicycle_translate(picture.image, s.z, 'input', 1) AS same
	FROM picture, bicycle_sample(image, 2, 1, 'input', 1) AS s WHERE name = 'jpeg/rgb.jpg';

-- At the model's own size there is nothing to fit: the same bytes.
SELECT count(DISTINCT b) AS distinct_results FROM
	(SELECT bicycle_translate(image, bicycle_latent(8, 1), 'square', 1) AS small FROM answer
	WHERE name = 'jpeg/rgb.jpg') AS of, LATERAL (VALUES
	(bicycle_translate(small, bicycle_latent(8, 2), 'square')),
	(bicycle_translate(small, bicycle_latent(8, 2), 'square', 1))) AS x(b);

-- An encoder reads images at its own size.
SELECT bicycle_encode(image, 'square') = bicycle_encode(image, 'square', 1) AS same,
	cardinality(bicycle_encode(image, 'square')) AS nz
	FROM picture WHERE name = 'jpeg/rgb.jpg';

-- An image that EXIF turns has the answer of its turned size.
SELECT pg_read_binary_file(:'testdata' || '/jpeg/rotated_by_exif.jpg') AS turned \gset
SELECT pg_temp.size(bicycle_translate(:'turned', bicycle_latent(8, 1), 'square')) AS as_it_lies;
SET bicycle.exif = on;
SELECT pg_temp.size(bicycle_translate(:'turned', bicycle_latent(8, 1), 'square')) AS upright;
RESET bicycle.exif;

-- What cannot be: a shape, a value.
SELECT pg_temp.report(format('SELECT bicycle_translate(%L, bicycle_latent(8, 1), %L)', image,
	'square')) FROM (SELECT pg_read_binary_file(:'testdata' || '/fit/long.png') AS image) AS long;
SET bicycle.on_error = 'null';
SELECT bicycle_translate(pg_read_binary_file(:'testdata' || '/fit/long.png'), bicycle_latent(8, 1),
	'square') IS NULL AS fails_alone;
RESET bicycle.on_error;
SET bicycle.fit = stretch;
SELECT pg_temp.report($$SELECT bicycle_create('x', '{"fit": "stretch"}')$$);
SELECT pg_temp.report($$SELECT bicycle_create('x', '{"fit": "model"}')$$);
RESET bicycle.fit;
SELECT bicycle_drop('square'), bicycle_drop('input');
