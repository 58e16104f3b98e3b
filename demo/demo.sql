-- What bicycle does, on real images: a model learns to turn one picture into another, in as many
-- ways as one likes. demo/run.sh runs this in a throw-away cluster, for the task of the variable
-- TASK:
--
--	maps	relief to satellite picture, of NOAA and NASA
--	icons	outlines to icons in 26 colours, of the icon theme Papirus
--	emoji	outlines to emoji, of the font Noto Color Emoji
--
-- demo/pairs.sh makes the pairs of a task; what it is trained with stands in demo/TASK.json, for
-- images of another size than 64 in demo/TASK-SIZE.json.

CREATE EXTENSION bicycle;

-- Images are plain bytea columns, PNG or JPEG.
CREATE TABLE pairs (
	id int PRIMARY KEY,
	subject int NOT NULL,		-- the same for all answers to one input
	held_out bool NOT NULL,		-- not for training; with a subject, all its pairs are
	input bytea NOT NULL,
	target bytea NOT NULL,
	variant bytea
);
\copy pairs (id, subject, held_out, input, target) FROM PROGRAM '$DEMO/pairs.sh'
SELECT held_out, count(*) AS pairs, count(DISTINCT subject) AS subjects FROM pairs GROUP BY held_out
	ORDER BY held_out;

-- Training runs in the background; the defaults are those of the paper, for images of 256 x 256.
-- Here images are small, and so are the networks (ngf, nef, ndf: widths of generator, encoder and
-- discriminators), which learn faster at a higher rate and with more weight on the distance to the
-- target (lambda_l1) and on codes being normally distributed, as drawn ones are (lambda_kl).
-- Images have the model's size, and load_size takes them as they are: else they would be enlarged,
-- which blurs them, and cropped.
-- Upsampling by interpolation leaves no pattern in the picture, and no sharp edge, so icons do
-- without. The model gets the weights' running average (ema).
\set options `cat $RECIPE`
SELECT :'options'::jsonb->>'size' AS size \gset
\getenv budget BUDGET
\if :{?budget}
	-- As many iterations as there are minutes for: a short job tells how long one takes.
	SELECT bicycle_train('trial', 'SELECT input, target FROM pairs WHERE NOT held_out',
		:'options'::jsonb || '{"iterations": 200}') AS trial \gset
	CALL bicycle_wait(:trial);
	SELECT :'options'::jsonb || jsonb_build_object('iterations',
		ceil(200 * 60 * :budget / extract(epoch FROM updated_at - started_at))) AS options
	FROM bicycle_jobs WHERE job = :trial \gset
\endif
SELECT bicycle_train('demo', 'SELECT input, target FROM pairs WHERE NOT held_out', :'options')
	AS job \gset
CALL bicycle_wait(:job);

SELECT state, iteration, updated_at - started_at AS took, version, notes FROM bicycle_jobs
	WHERE job = :job;
SELECT encode(bicycle_loss_plot(:job), 'base64')
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/losses.png

-- Eight answers to each of some inputs that the model has never seen. With a seed they are the same
-- rows each time.
SET bicycle.model = 'demo';
CREATE TABLE chosen AS
SELECT DISTINCT ON (pairs, md5(subject::text)) *
FROM (SELECT *, count(*) OVER (PARTITION BY subject) AS pairs FROM pairs WHERE held_out) AS counted
ORDER BY pairs DESC, md5(subject::text), md5(id::text) LIMIT 12;

SELECT encode(bicycle_grid(array_agg(tile ORDER BY subject, place), 10, size => :size), 'base64')
FROM (SELECT subject, -1 AS place, input AS tile FROM chosen
	  UNION ALL SELECT subject, 0, target FROM chosen
	  UNION ALL SELECT subject, sample, image FROM chosen, bicycle_sample(input, 8, seed => 3)) AS
	  	samples
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/samples.png

-- And of three of them.
SELECT encode(bicycle_grid(array_agg(tile ORDER BY subject, place), 10,
	size => greatest(:size, 88)), 'base64')
FROM (SELECT * FROM chosen ORDER BY md5(subject::text) LIMIT 3) AS first,
	LATERAL (SELECT -1 AS place, input AS tile
			 UNION ALL SELECT 0, target
			 UNION ALL SELECT sample, image FROM bicycle_sample(input, 8, seed => 3)) AS samples
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/strip.png

-- One answer to every unseen input, kept in the table. bicycle_latent draws the latent code from
-- its seed. The picture shows the first of them.
UPDATE pairs SET variant = bicycle_translate(input, bicycle_latent(8, id)) WHERE held_out;

SELECT encode(bicycle_grid_agg(tile, 24 ORDER BY id, place), 'base64')
FROM (SELECT id, 1 AS place, input AS tile FROM pairs WHERE held_out
	  UNION ALL SELECT id, 2, variant FROM pairs WHERE held_out
	  ORDER BY id, place LIMIT 96) AS variants
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/variants.png

-- The style of one image, given to others: the encoder reads a latent code from a real picture.
-- First row: where the styles come from.
CREATE TABLE styles AS
SELECT id, target, bicycle_encode(target) AS z FROM pairs WHERE held_out ORDER BY md5(target)
	LIMIT 8;

SELECT encode(bicycle_grid(array_agg(tile ORDER BY subject, style), 9, size => :size), 'base64')
FROM (SELECT -1 AS subject, -1 AS style, NULL::bytea AS tile
	  UNION ALL SELECT -1, id, target FROM styles
	  UNION ALL SELECT subject, -1, input FROM chosen
	  UNION ALL SELECT subject, styles.id, bicycle_translate(input, z) FROM chosen, styles) AS
	  	transfers
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/styles.png

-- From one style to another, step by step: the two whose codes are farthest apart.
CREATE TABLE ends AS
SELECT a.z AS first, b.z AS last
FROM styles a, styles b
ORDER BY (SELECT sum((p - q) ^ 2) FROM unnest(a.z, b.z) AS code (p, q)) DESC, a.id LIMIT 1;

SELECT encode(bicycle_grid(array_agg(
	bicycle_translate(input, bicycle_interpolate(first, last, step / 9.0))
		ORDER BY subject, step), 10, size => :size), 'base64')
FROM ends, chosen, generate_series(0, 9) step
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/interpolation.png

-- The same in numbers (doc/evaluation.md says what they mean); after make lpips also by what a
-- network sees.
SELECT metric, round(value::numeric, 3) AS value, round(stderr::numeric, 3) AS stderr, n
FROM bicycle_evaluate('demo', 'SELECT input, target FROM pairs WHERE held_out ORDER BY id',
	'{"inputs": 40, "samples": 8}');

-- Who did the work.
SELECT device, precision, requests, batches, round(mean_batch::numeric, 1) AS mean_batch
	FROM bicycle_engine();
