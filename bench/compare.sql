-- One run of bench/compare.sh: trains a model called :run with :options on the pairs, and measures
-- it on held-out pairs. image_distance is a program of tools/; $WORK is a directory for what passes
-- between it and psql, and gets the run's sheet and row.
SET client_min_messages = warning;
SELECT bicycle_train(:'run', 'SELECT outline, emoji FROM colored WHERE NOT held_out',
	:'options') AS job \gset
-- raises the error of a job that has failed, which ends psql under ON_ERROR_STOP
CALL bicycle_wait(:job);

SELECT set_config('bicycle.model', :'run', false) AS model \gset
SELECT config ->> 'net_e' <> 'none' AS has_encoder FROM bicycle_models WHERE model = :'run' \gset

-- Eight answers to each held-out outline, under the same eight codes; and, where there is an
-- encoder, what it makes of the truth, and of answers under codes of which each is another.
CREATE TEMP TABLE answers AS SELECT glyph, sample, image
	FROM colored, bicycle_sample(outline, 8, seed => 1) WHERE held_out;
CREATE TEMP TABLE reconstructions (glyph int, image bytea);
CREATE TEMP TABLE codes (drawn float4[], found float4[]);
\if :has_encoder
	INSERT INTO reconstructions SELECT glyph, bicycle_translate(outline, bicycle_encode(emoji))
		FROM colored WHERE held_out;
	INSERT INTO codes SELECT z, bicycle_encode(image)
		FROM colored, bicycle_sample(outline, 8, seed => glyph) WHERE held_out;
\endif

SELECT 'pairwise', glyph, a.image, b.image FROM answers a JOIN answers b USING (glyph)
	WHERE a.sample < b.sample
UNION ALL SELECT 'answer', glyph, image, emoji FROM answers JOIN colored USING (glyph)
UNION ALL SELECT 'reconstruction', glyph, image, emoji FROM reconstructions JOIN colored
	USING (glyph)
\g (format=unaligned tuples_only=on fieldsep='\t') | image_distance >$WORK/distances
CREATE TEMP TABLE distances (kind text, glyph int, value float8, color float8);
\copy distances FROM PROGRAM 'cat $WORK/distances'

-- The columns of the table in doc/comparison.md.
WITH inputs AS (
	SELECT glyph, avg(value) FILTER (WHERE kind = 'pairwise') AS diversity,
		avg(color) FILTER (WHERE kind = 'pairwise') AS color_diversity,
		   min(value) FILTER (WHERE kind = 'answer') AS best,
		   	avg(value) FILTER (WHERE kind = 'reconstruction') AS reconstruction
	FROM distances GROUP BY glyph),
latent AS (
	SELECT avg(error) AS error, sum(shown) AS read
	FROM (SELECT avg(abs(d - f)) AS error, coalesce(corr(d, f) ^ 2, 0) AS shown
		  FROM codes, unnest(drawn, found) WITH ORDINALITY AS code (d, f, place)
		  	GROUP BY place) AS numbers)
SELECT :'run', iterations, round(avg(diversity)::numeric, 3), round(avg(color_diversity)::numeric,
	1),
	   round(100 * avg((diversity < 0.01)::int), 1),
	   	coalesce(round(avg(reconstruction)::numeric, 3)::text, '-'),
	   coalesce(round((SELECT error FROM latent)::numeric, 3)::text, '-'),
	   	coalesce(round((SELECT read FROM latent)::numeric, 1)::text, '-'),
	   round(avg(best)::numeric, 3)
FROM inputs, bicycle_models WHERE model = :'run' AND is_current
GROUP BY iterations
\g (format=unaligned tuples_only=on fieldsep='|') | cat >$WORK/row

-- The same outlines in each run's sheet: outline, truth, eight answers.
WITH shown AS (SELECT DISTINCT ON (variants, shape) * FROM colored WHERE held_out
	ORDER BY variants DESC, shape, glyph LIMIT 5)
SELECT encode(bicycle_grid_agg(tile, 10 ORDER BY glyph, place), 'base64')
FROM (SELECT glyph, -1 AS place, outline AS tile FROM shown
	  UNION ALL SELECT glyph, 0, emoji FROM shown
	  UNION ALL SELECT glyph, sample, image FROM answers
	  	WHERE glyph IN (SELECT glyph FROM shown)) AS tiles
\g (format=unaligned tuples_only=on) | base64 -d >$WORK/sheet.png
