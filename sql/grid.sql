-- Many images come out on one page, each in its cell, with its label; what cannot be used is
-- treated as it is elsewhere, and limits hold.
\getenv data BICYCLE_TESTDATA
\set VERBOSITY terse
CREATE TABLE shown AS
SELECT n, pg_read_binary_file(:'data' || format('/edges2emoji/pairs/%s_B.png',
	lpad(n::text, 2, '0'))) AS image
	FROM generate_series(0, 5) AS n;
CREATE FUNCTION size(page bytea) RETURNS text LANGUAGE sql
	AS 'SELECT concat_ws('' '', format, width, height, channels) FROM bicycle_image_info(page)';

-- Columns, rows and gaps; about a square, if nothing is said; the images' own size.
SELECT size(bicycle_grid(array_agg(image))) AS alone,
	size(bicycle_grid(array_agg(image), 6)) AS row,
	size(bicycle_grid(array_agg(image), 1, size => 32)) AS "column",
	size(bicycle_grid(array_agg(image), 100)) AS narrow FROM shown;
-- Each image is in its cell.
SELECT bicycle_grid(ARRAY[a.image, b.image], 2) = bicycle_grid(ARRAY[b.image, a.image], 2) AS same,
	bicycle_grid(ARRAY[a.image, NULL], 2) = bicycle_grid(ARRAY[a.image], 2) AS narrower,
	bicycle_grid(ARRAY[NULL, a.image], 2) = bicycle_grid(ARRAY[a.image, NULL], 2) AS elsewhere
	FROM shown a, shown b WHERE (a.n, b.n) = (0, 1);
-- The aggregate is the same, in the order of its rows.
SELECT bicycle_grid_agg(image, 3 ORDER BY n DESC) = bicycle_grid(array_agg(image
	ORDER BY n DESC), 3) AS same,
	bicycle_grid_agg(image, 3 ORDER BY n) = bicycle_grid_agg(image, 3 ORDER BY n DESC) AS other
	FROM shown;
SELECT n % 2 AS half, size(bicycle_grid_agg(CASE WHEN n > 1 THEN image END, NULL)) FROM shown
	GROUP BY 1 ORDER BY 1;
SELECT n, size(bicycle_grid_agg(image, 2) OVER (ORDER BY n)) FROM shown ORDER BY n;
-- Nothing gives nothing.
SELECT bicycle_grid(NULL) IS NULL AS a, bicycle_grid('{}') IS NULL AS b,
	bicycle_grid_agg(image, 2) IS NULL AS c
	FROM shown WHERE false;
SELECT size(bicycle_grid(ARRAY[NULL, NULL]::bytea[])) AS empty;

-- A page is in the session's format, as other images are.
SET bicycle.output_format = jpeg;
SELECT size(bicycle_grid(array_agg(image), 3, array_agg(n::text))) FROM shown;
SET bicycle.output_format = webp;
SELECT size(bicycle_grid_agg(image, 3)) FROM shown;
SELECT bicycle_grid(array_fill(NULL::bytea, ARRAY[300]), 300, size => 64);
SET bicycle.output_format = webp_lossless;
CREATE TEMP TABLE pages AS SELECT 'webp' AS name, bicycle_grid(ARRAY[image], size => 32) AS page
	FROM shown WHERE n = 0;
RESET bicycle.output_format;
SET bicycle.png_level = 0;
INSERT INTO pages SELECT 'stored', bicycle_grid(ARRAY[image], size => 32) FROM shown WHERE n = 0;
RESET bicycle.png_level;
INSERT INTO pages SELECT 'png', bicycle_grid(ARRAY[image], size => 32) FROM shown WHERE n = 0;
SELECT name, size(page) FROM pages ORDER BY length(page) DESC;
SELECT count(DISTINCT bicycle_grid(ARRAY[page])) AS pictures FROM pages;

-- Labels stand below, are cut to the cell, and may be of any characters.
SELECT size(bicycle_grid(array_agg(image), 3, array_agg(n::text))) AS labelled,
	size(bicycle_grid(array_agg(image), 3, array_agg(repeat('long ', 100)), 64)) AS long,
	size(bicycle_grid(array_agg(image), 3, array_agg(NULL::text))) AS no_words,
	count(DISTINCT bicycle_grid(ARRAY[image], labels => ARRAY[label])) AS differ
	FROM shown, (VALUES ('a'), ('b'), (E'\u00e9\u4e2d\U0001F600'), (E'\x01\n')) AS l (label)
	WHERE n < 2;
SELECT bicycle_grid(ARRAY[image], labels => ARRAY['same'])
	= bicycle_grid(ARRAY[image], labels => ARRAY['same']) AS same FROM shown WHERE n = 0;

-- The proportions of an image are kept.
SELECT size(bicycle_grid(ARRAY[wide], size => 100)),
	bicycle_grid(ARRAY[wide], size => 100) = bicycle_grid(ARRAY[image], size => 100) AS same
	FROM (SELECT image, bicycle_grid(ARRAY[image, image], 2) AS wide FROM shown WHERE n = 0) AS w;

-- EXIF's orientation counts where it does elsewhere.
SET bicycle.exif = on;
SELECT bicycle_grid(ARRAY[image], size => 32) AS turned
	FROM pg_read_binary_file(:'data' || '/jpeg/rotated_by_exif.jpg') AS image \gset
RESET bicycle.exif;
SELECT bicycle_grid(ARRAY[image], size => 32) = :'turned' AS same
	FROM pg_read_binary_file(:'data' || '/jpeg/rotated_by_exif.jpg') AS image;

-- What cannot be used.
SELECT bicycle_grid(ARRAY[image, 'x'::bytea]) FROM shown WHERE n = 0;
\set VERBOSITY default
SELECT bicycle_grid(ARRAY[NULL, image, 'not an image'::bytea, 'x']) FROM shown WHERE n = 0;
SELECT bicycle_grid_agg(CASE n WHEN 1 THEN 'x' ELSE image END, 2 ORDER BY n) FROM shown;
SET bicycle.on_error = 'null';
SELECT bicycle_grid(ARRAY[image, 'not an image', NULL, '', 'x', 'y', 'z'])
	= bicycle_grid(ARRAY[image, NULL, NULL, NULL, NULL, NULL, NULL]) AS empty_cells
	FROM shown WHERE n = 0;
RESET bicycle.on_error;

-- Limits.
SET bicycle.max_image_pixels = 100000;
SELECT bicycle_grid(array_agg(image), 6, size => 128) FROM shown;
SELECT bicycle_grid(array_fill(NULL::bytea, ARRAY[2000]));
SET bicycle.max_image_pixels = 4000;
SELECT bicycle_grid(ARRAY[image], size => 32) FROM shown WHERE n = 0;
RESET bicycle.max_image_pixels;
SELECT bicycle_grid(array_fill(NULL::bytea, ARRAY[20]), 20, size => 4096);
SET bicycle.max_request_size = '16 kB';
\set VERBOSITY terse
SELECT bicycle_grid(array_agg(image)) FROM shown, generate_series(1, 10);
SELECT bicycle_grid_agg(image, 3) FROM shown, generate_series(1, 10);
SELECT bicycle_grid(ARRAY[''::bytea], labels => ARRAY[repeat('x', 20000)]);
SELECT bicycle_grid(ARRAY[convert_to(repeat('x', 20000), 'UTF8')]);
SET bicycle.on_error = 'null';
SELECT size(bicycle_grid(ARRAY[convert_to(repeat('x', 20000), 'UTF8')]));
RESET bicycle.on_error;
RESET bicycle.max_request_size;

-- Arguments.
SELECT bicycle_grid(array_agg(image), 0) FROM shown;
SELECT bicycle_grid(array_agg(image), size => 7) FROM shown;
SELECT bicycle_grid(array_agg(image), size => 5000) FROM shown;
SELECT bicycle_grid(array_agg(image), labels => '{a}') FROM shown;
SELECT bicycle_grid(ARRAY[array_agg(image)]) FROM shown;
SELECT bicycle_grid(array_agg(image), labels => '{{a}}') FROM shown;
SELECT bicycle_grid_agg(image, n + 1) FROM shown;
SELECT bicycle_grid_agg(image, 0) FROM shown;
DROP TABLE shown;
DROP FUNCTION size(bytea);
