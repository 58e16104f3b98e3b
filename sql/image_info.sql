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
