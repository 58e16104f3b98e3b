-- bicycle_translate and bicycle_translate_many: forms, NULLs, shapes of latents, formats, settings.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_import('t', pg_temp.file('G.pth'), pg_temp.file('E.pth')) AS version;
SET bicycle.model = 't';
CREATE TEMP TABLE picture AS SELECT row_number() OVER (ORDER BY name)::int AS id, bytes AS image
	FROM file WHERE name LIKE '%A.png';

SELECT i.* FROM bicycle_image_info(bicycle_translate(pg_temp.file('pairs/00_A.png'),
	bicycle_latent(8, 1))) AS i;
-- The same arguments give the same bytes, by default model, name, version and many; another latent
-- or image gives others.
SELECT count(DISTINCT b) AS distinct_results FROM unnest(ARRAY[
	bicycle_translate(pg_temp.file('pairs/00_A.png'), bicycle_latent(8, 1)),
	bicycle_translate(pg_temp.file('pairs/00_A.png'), bicycle_latent(8, 1), NULL),
	bicycle_translate(pg_temp.file('pairs/00_A.png'), bicycle_latent(8, 1), 't'),
	bicycle_translate(pg_temp.file('pairs/00_A.png'), bicycle_latent(8, 1), model => 't'),
	bicycle_translate(pg_temp.file('pairs/00_A.png'), bicycle_latent(8, 1), 't', 1),
	(bicycle_translate_many(ARRAY[pg_temp.file('pairs/00_A.png')], bicycle_latent(8, 1)))[1]]) AS b;
SELECT count(DISTINCT bicycle_translate(image, bicycle_latent(8, s))) AS distinct_results
	FROM picture, generate_series(1, 5) AS s;

-- Any image that can be decoded is taken: gray, colour, 16 bit, transparent, other sizes.
SELECT name, (bicycle_image_info(bicycle_translate(pg_read_binary_file(:'testdata' || '/png/' ||
	name), bicycle_latent(8, 1)))).*
FROM unnest('{basn0g01.png,basn0g16.png,basn2c08.png,basn3p08.png,basn6a16.png}'::text[]) AS name;

-- NULLs.
SELECT bicycle_translate(NULL, '{1}') IS NULL AS image, bicycle_translate('x', NULL) IS NULL AS z,
	bicycle_translate('x', '{1}', NULL, 1) IS NULL AS model,
	bicycle_translate('x', '{1}', 't', NULL) IS NULL AS version,
		bicycle_translate_many(NULL, '{1}') IS NULL AS images,
		bicycle_translate_many('{}', NULL) IS NULL AS zs;
SELECT bicycle_translate_many('{}', bicycle_latent(8, 1)) AS empty;

-- Many: a row of latents each, one for all in one or two dimensions, NULL images, order of results,
-- lower bounds.
CREATE TEMP TABLE many AS SELECT array_agg(image ORDER BY id) AS images,
	array_agg(bicycle_latent(8, id) ORDER BY id) AS z FROM picture;
SELECT (SELECT array_agg(bicycle_translate(image, bicycle_latent(8, id)) ORDER BY id)
	FROM picture) = bicycle_translate_many(images, z) AS a_row_each FROM many;
SELECT (SELECT array_agg(bicycle_translate(image, bicycle_latent(8, 1)) ORDER BY id)
	FROM picture) = bicycle_translate_many(images, bicycle_latent(8, 1)) AS one_for_all,
	bicycle_translate_many(images, ARRAY[bicycle_latent(8, 1)]) = bicycle_translate_many(images,
		bicycle_latent(8, 1)) AS one_row FROM many;
SELECT array_positions(array_agg(r IS NULL ORDER BY o), true) AS nulls
FROM many, unnest(bicycle_translate_many(ARRAY[NULL, images[1], NULL, images[2], NULL],
	bicycle_latent(8, 1))) WITH ORDINALITY AS u(r, o);
SELECT array_dims(bicycle_translate_many('[0:1]={NULL,NULL}', bicycle_latent(8, 1)));
SELECT bicycle_translate_many(images, z, 't', 1) = bicycle_translate_many(images, z) AS versioned
	FROM many;
-- 200 images, through a window of 32, of 2 and without one; by a small model, so that it is quick.
SELECT bicycle_create('small',
	'{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 8, "encoder_size": 64}')
	AS version;
SET bicycle.model = 'small';
CREATE TEMP TABLE wide AS SELECT array_agg(image ORDER BY s, id) AS images,
	array_agg(bicycle_latent(8, s) ORDER BY s, id) AS z FROM picture, generate_series(1, 50) AS s;
SELECT cardinality(images) AS n, sha256(bicycle_translate_many(images, z)::text::bytea) AS sum
	FROM wide \gset
SET bicycle.prefetch = 2;
SELECT sha256(bicycle_translate_many(images, z)::text::bytea) = :'sum' AS same FROM wide;
RESET bicycle.prefetch;
SET bicycle.batching = off;
SELECT sha256(bicycle_translate_many(images[1:20], z[1:20])::text::bytea) =
	(SELECT sha256(array_agg(bicycle_translate(i, bicycle_latent(8, s)) ORDER BY s, o)::text::bytea)
	FROM (SELECT image AS i, s, id AS o FROM picture, generate_series(1, 5) AS s) AS x) AS same
		FROM wide;
RESET bicycle.batching;
SET bicycle.model = 't';

-- The session chooses the format; a version does not ask the session.
SET bicycle.output_format = jpeg;
SELECT (bicycle_image_info(bicycle_translate(image, bicycle_latent(8, 1)))).format,
	(bicycle_image_info(bicycle_translate(image, bicycle_latent(8, 1), 't', 1))).format AS versioned
FROM picture WHERE id = 1;
SELECT length(bicycle_translate(image, bicycle_latent(8, 1))) AS best FROM picture
	WHERE id = 1 \gset
SET bicycle.jpeg_quality = 10;
SELECT length(bicycle_translate(image, bicycle_latent(8, 1))) < :best AS smaller FROM picture
	WHERE id = 1;
SET bicycle.output_format = webp;
SELECT (bicycle_image_info(bicycle_translate(image, bicycle_latent(8, 1)))).format,
	(bicycle_image_info(bicycle_translate(image, bicycle_latent(8, 1), 't', 1))).format
		AS versioned,
	length(bicycle_translate(image, bicycle_latent(8, 1))) AS low FROM picture WHERE id = 1 \gset
SELECT :'format' AS format, :'versioned' AS versioned;
SET bicycle.jpeg_quality = 100;
SELECT length(bicycle_translate(image, bicycle_latent(8, 1))) > :low AS larger FROM picture
	WHERE id = 1;
-- Without loss it is the PNG: translated once more, both give the same.
SET bicycle.output_format = webp_lossless;
CREATE TEMP TABLE lossless
	AS SELECT bicycle_translate(image, bicycle_latent(8, 1)) AS webp,
		bicycle_translate(image, bicycle_latent(8, 1), 't', 1) AS png FROM picture WHERE id = 1;
SELECT (bicycle_image_info(webp)).format, bicycle_translate(webp, bicycle_latent(8, 2), 't', 1) =
	bicycle_translate(png, bicycle_latent(8, 2), 't', 1) AS same FROM lossless;
RESET bicycle.output_format;
RESET bicycle.jpeg_quality;
-- So are PNGs of all levels, which a version does not ask for either.
SET bicycle.png_level = 0;
CREATE TEMP TABLE levels AS SELECT 0 AS level,
	bicycle_translate(image, bicycle_latent(8, 1)) AS png,
	bicycle_translate(image, bicycle_latent(8, 1), 't', 1) AS versioned FROM picture WHERE id = 1;
SET bicycle.png_level = 6;
INSERT INTO levels SELECT 6, bicycle_translate(image, bicycle_latent(8, 1)),
	bicycle_translate(image, bicycle_latent(8, 1), 't', 1) FROM picture WHERE id = 1;
RESET bicycle.png_level;
INSERT INTO levels SELECT 1, bicycle_translate(image, bicycle_latent(8, 1)),
	bicycle_translate(image, bicycle_latent(8, 1), 't', 1) FROM picture WHERE id = 1;
SELECT count(DISTINCT png) AS files, count(DISTINCT bicycle_translate(png, bicycle_latent(8, 2),
	't', 1)) AS pictures, count(DISTINCT versioned) AS versioned, bool_or(png = versioned) FILTER
	(WHERE level = 1) AS "default" FROM levels;
SELECT length(zero.png) > length(one.png) AND length(one.png) >
	length(six.png) AS smaller FROM levels AS zero, levels AS one, levels AS six
	WHERE (zero.level, one.level, six.level) = (0, 1, 6);

-- EXIF: nothing is turned unless the session asks for it, and never for a version.
CREATE TEMP TABLE photo
	AS SELECT n, pg_read_binary_file(:'testdata' || '/exif/' || n || '.jpg') AS image
		FROM generate_series(1, 8) AS n;
SELECT count(DISTINCT bicycle_translate(image, bicycle_latent(8, 1))) FROM photo;
SET bicycle.exif = on;
SELECT count(DISTINCT bicycle_translate(image, bicycle_latent(8, 1))) AS turned,
	count(DISTINCT bicycle_translate(image, bicycle_latent(8, 1), 't', 1)) AS versioned FROM photo;
RESET bicycle.exif;

-- Transparency: over white, or dropped, as the model's configuration says.
SELECT bicycle_import('opaque', pg_temp.file('G.pth'), pg_temp.file('E.pth'),
	'{"alpha": "drop"}') AS version;
SELECT config->>'alpha' AS alpha FROM bicycle_models WHERE model = 'opaque';
SELECT a.hash <> b.hash AS other FROM bicycle_models AS a, bicycle_models AS b
	WHERE a.model = 'opaque' AND b.model = 't' AND b.is_current;
SELECT name, bicycle_translate(image, z, 'opaque') = bicycle_translate(image, z) AS same
FROM (SELECT name, pg_read_binary_file(:'testdata' || '/png/' || name || '.png') AS image,
	bicycle_latent(8, 1) AS z FROM unnest('{basn2c08,basn6a08,tbbn3p08}'::text[]) AS name) AS x;
SELECT pg_temp.fails($$SELECT bicycle_import('o', pg_temp.file('G.pth'),
	config => '{"alpha": "black"}')$$);
SELECT bicycle_drop('opaque');

-- Latents that are refused, in the order the checks are made.
SELECT z, pg_temp.fails(format('SELECT bicycle_translate(%L, %L)', image, z))
FROM picture, unnest('{"{{1,2}}","{1,NULL}","{NaN,1}","{1,-Infinity}","{}","{1,2,3}"}'::text[]) AS z
	WHERE id = 1;
SELECT z, pg_temp.fails(format('SELECT bicycle_translate_many(ARRAY[%L,%1$L]::bytea[], %L)', image,
	z))
FROM picture, unnest('{"{{{1}}}","{{1},{2},{3}}","{{1,NULL},{1,2}}","{{1,Infinity},{1,2}}",
	"{{1,2},{3,4}}"}'::text[]) AS z WHERE id = 1;
SELECT pg_temp.fails($$SELECT bicycle_translate_many('{{x},{y}}', '{1}')$$);
-- One bad image fails the whole call, and the connection is good afterwards.
SELECT pg_temp.state($$SELECT bicycle_translate_many(images || ARRAY['bad'::bytea] || images,
	bicycle_latent(8, 1)) FROM many$$);
-- An error says of which image it speaks, also while others are in flight.
DO $$
DECLARE
	context text;
BEGIN
	PERFORM bicycle_translate_many(images || ARRAY['bad'::bytea] || images, bicycle_latent(8, 1))
		FROM many;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS context = PG_EXCEPTION_CONTEXT;
	RAISE NOTICE '%', split_part(context, E'\n', 1);
END $$;
SELECT cardinality(bicycle_translate_many(images, z)) FROM many;

-- The usual job, and the same under a trigger.
ALTER TABLE picture ADD variant bytea;
UPDATE picture SET variant = bicycle_translate(image, bicycle_latent(8, id));
SELECT count(DISTINCT variant) FROM picture;
CREATE FUNCTION pg_temp.translate() RETURNS trigger
	LANGUAGE plpgsql AS 'BEGIN NEW.variant := bicycle_translate(NEW.image, bicycle_latent(8,
		NEW.id)); RETURN NEW; END';
CREATE TRIGGER translate BEFORE INSERT ON picture FOR EACH ROW EXECUTE FUNCTION pg_temp.translate();
INSERT INTO picture (id, image) SELECT id, image FROM picture;
SELECT count(*), count(DISTINCT variant) FROM picture;
SELECT bicycle_drop('t'), bicycle_drop('small');
