-- bicycle_image_info: what the header of a file says, without decoding it.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common

SELECT name, i.*
FROM unnest('{png/basn0g01,png/basn0g16,png/basi2c08,png/basn3p04,png/basi4a16,png/basn6a08,
	jpeg/rgb,jpeg/gray,jpeg/progressive}'::text[]) AS name,
	LATERAL bicycle_image_info(pg_read_binary_file(:'testdata' || '/' || name || CASE WHEN name LIKE
		'png/%' THEN '.png' ELSE '.jpg' END)) AS i;
SELECT bicycle_image_info(NULL) IS NULL AS strict;
SELECT pg_temp.state(format('SELECT bicycle_image_info(%L::bytea)', bytes))
FROM (VALUES (''::bytea), ('x'), ('\x89504e470d0a1a0a'), ('\xffd8ff')) AS v(bytes);
-- As a column, as a row, in an index.
CREATE TEMP TABLE picture
	AS SELECT name, pg_read_binary_file(:'testdata' || '/edges2emoji/pairs/' || name) AS image
		FROM unnest('{00_A.png,00_B.png}'::text[]) AS name;
SELECT name, (bicycle_image_info(image)).channels FROM picture ORDER BY name;
CREATE INDEX ON picture (((bicycle_image_info(image)).width));
SELECT count(*) FROM picture WHERE (bicycle_image_info(image)).width = 128;

-- The other formats that are read.
SELECT name, i.*
FROM unnest('{webp/lossy.webp,webp/lossless_alpha.webp,webp/animated.webp,jpeg/cmyk.jpg,
	jpeg/ycck.jpg,exif/6.jpg}'::text[]) AS name,
	LATERAL bicycle_image_info(pg_read_binary_file(:'testdata' || '/' || name)) AS i;

-- Texts of images: the hint has the SQL that makes the image of one, and it does.
CREATE FUNCTION pg_temp.mend(bytes bytea) RETURNS bytea LANGUAGE plpgsql AS $$
DECLARE
	hint text;
	mended bytea;
BEGIN
	PERFORM bicycle_image_info(bytes);
	RETURN NULL;
EXCEPTION WHEN OTHERS THEN
	GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
	EXECUTE format('SELECT %s FROM (SELECT $1 AS image) AS t',
		substring(hint FROM '^Its bytes are (.*)\.$')) INTO mended USING bytes;
	RETURN mended;
END $$;
SELECT name, kind, pg_temp.mend(convert_to(text, 'UTF8')) = bytes AS mended
FROM (SELECT name, pg_read_binary_file(:'testdata' || '/' || name) AS bytes
	FROM unnest('{png/basn2c08.png,jpeg/gray.jpg,webp/lossy.webp}'::text[]) AS name) AS file,
LATERAL (VALUES ('base64', encode(bytes, 'base64')),
	('data URI', 'data:image/x;base64,' || encode(bytes, 'base64')),
	('bytea as text', bytes::text),
	('hex', encode(bytes, 'hex')),
	('HEX', ' ' || upper(encode(bytes, 'hex'))),
	('0x', '0x' || encode(bytes, 'hex'))) AS t(kind, text);
SELECT pg_temp.report(format('SELECT bicycle_image_info(%L::bytea)', bytes))
FROM (VALUES ('GIF89a'::bytea), ('%PDF-1.4'), ('<svg/>'), ('\x0000001c6674797061766966'),
	('\x49492a00'), ('/home/me/1.png')) AS v(bytes);
