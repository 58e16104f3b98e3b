-- bicycle_sample: the same rows from the same seed, rows in order, bounded memory.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_create('s', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 8,
	"encoder_size": 64}') AS version;
SET bicycle.model = 's';
CREATE TEMP TABLE picture AS SELECT pg_temp.file('pairs/00_A.png') AS image;

CREATE TEMP TABLE first AS SELECT s.* FROM picture AS p, bicycle_sample(p.image, 40, 7) AS s;
SELECT count(*), min(sample), max(sample), count(DISTINCT z), count(DISTINCT image) FROM first;
SELECT array_agg(sample) = array(SELECT generate_series(1, 40)) AS in_order FROM first;
SELECT count(*) AS same FROM first
	JOIN (SELECT s.* FROM picture AS p, bicycle_sample(p.image, 40, 7, model => 's') AS s) AS again
	USING (sample, z, image);
SELECT count(*) AS same FROM first
	JOIN (SELECT s.* FROM picture AS p, bicycle_sample(p.image, 5, 7, 's', 1) AS s) AS again
	USING (sample, z, image);
SELECT count(*) AS same FROM first AS f, picture AS p
	WHERE f.image = bicycle_translate(p.image, f.z);
-- The documented counter.
SELECT bool_and(z = bicycle_latent(8,
	(CASE WHEN c >= 9223372036854775808 THEN c - 18446744073709551616 ELSE c END)::bigint))
	AS as_documented
FROM (SELECT z, mod(7::numeric * 6364136223846793005 + sample, 18446744073709551616) AS c
	FROM first) AS x;
SELECT count(DISTINCT s.z) FROM picture AS p, generate_series(-3, 3) AS seed,
	bicycle_sample(p.image, 3, seed) AS s;
-- Without a seed, other rows each time.
SELECT count(DISTINCT s.z) FROM picture AS p, generate_series(1, 2) AS i,
	LATERAL bicycle_sample(p.image, 3 + 0 * i) AS s;
-- In the select list, with a limit, in a cursor.
SELECT (bicycle_sample(image, 3, 1)).sample FROM picture;
SELECT s.sample FROM picture AS p, bicycle_sample(p.image, 100, 1) AS s LIMIT 2;

SELECT count(*) FROM picture AS p, bicycle_sample(p.image, 0) AS s;
SELECT count(*) FROM bicycle_sample(NULL, 3) AS s;
SELECT count(*) FROM picture AS p, bicycle_sample(p.image, NULL) AS s;
SELECT pg_temp.fails($$SELECT bicycle_sample(image, -1) FROM picture$$);
SELECT pg_temp.fails($$SELECT bicycle_sample(image, 2147483647) FROM picture$$);
SELECT pg_temp.state($$SELECT bicycle_sample('bad', 3)$$);

-- The backend's memory does not grow with n: what 2000 samples leave behind, and take at most, is
-- far below their 7 MB.
SET work_mem = '64kB';
SET bicycle.max_samples = 2000;
SELECT count(*), count(DISTINCT s.image) FROM picture AS p, bicycle_sample(p.image, 2000, 1) AS s;
SELECT sum(total_bytes) < 2000000 AS bounded FROM pg_backend_memory_contexts
	WHERE name LIKE 'bicycle%';
RESET work_mem;
SELECT bicycle_drop('s');
