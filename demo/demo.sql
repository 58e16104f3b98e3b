-- What bicycle does, on real images: a model learns to turn outlines of emoji into emoji, each in
-- as many colourings as one likes. demo/run.sh runs this in a throw-away cluster. The program
-- emoji_pairs makes the pairs from the font Noto Color Emoji.

CREATE EXTENSION bicycle;

-- Images are plain bytea columns, PNG or JPEG.
CREATE TABLE pairs (
	glyph int PRIMARY KEY,
	shape int NOT NULL,			-- the same for all skin tones and variants of an emoji
	variants int NOT NULL,		-- how many those are
	held_out bool NOT NULL,		-- not for training; with a shape, all its variants are
	outline bytea NOT NULL,
	emoji bytea NOT NULL,
	variant bytea
);
\copy pairs (glyph, shape, variants, held_out, outline, emoji) FROM PROGRAM 'emoji_pairs 64'

-- Hands and people, mostly: shapes that come in several colourings.
CREATE VIEW colored AS SELECT * FROM pairs WHERE variants BETWEEN 5 AND 50;
SELECT held_out, count(*) AS pairs, count(DISTINCT shape) AS shapes FROM colored GROUP BY held_out
	ORDER BY held_out;

-- Training runs in the background; the defaults are those of the paper, for images of 256 x 256.
-- Here images are small, and so are the networks (ngf, nef, ndf: widths of generator, encoder and
-- discriminators), which learn faster at a higher rate and with more weight on the distance to the
-- target (lambda_l1) and on codes being normally distributed, as drawn ones are (lambda_kl).
-- Upsampling by interpolation leaves no pattern in the picture. The model gets the weights' running
-- average (ema).
SELECT bicycle_train('emoji', 'SELECT outline, emoji FROM colored WHERE NOT held_out', '{
	"size": 64, "input_nc": 1, "ngf": 16, "nef": 16, "ndf": 16, "upsample": "bilinear",
	"iterations": 5000, "batch_size": 4, "lr": 0.0005, "lambda_l1": 20, "lambda_kl": 0.03,
		"ema": 0.99}') AS job \gset
CALL bicycle_wait(:job);

SELECT state, iteration, updated_at - started_at AS took, version, notes FROM bicycle_jobs
	WHERE job = :job;
SELECT encode(bicycle_loss_plot(:job), 'base64')
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/losses.png

-- Eight answers to each of some outlines that the model has never seen. With a seed they are the
-- same rows each time.
SET bicycle.model = 'emoji';
CREATE TABLE chosen AS
SELECT DISTINCT ON (variants, shape) * FROM colored WHERE held_out ORDER BY variants DESC, shape,
	glyph LIMIT 12;

SELECT encode(bicycle_grid(array_agg(tile ORDER BY shape, place), 10, size => 88), 'base64')
FROM (SELECT shape, -1 AS place, outline AS tile FROM chosen
	  UNION ALL SELECT shape, 0, emoji FROM chosen
	  UNION ALL SELECT shape, sample, image FROM chosen, bicycle_sample(outline, 8, seed => 3)) AS
	  	samples
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/samples.png

-- One colouring of every unseen outline, kept in the table. bicycle_latent draws the latent code
-- from its seed.
UPDATE colored SET variant = bicycle_translate(outline, bicycle_latent(8, glyph)) WHERE held_out;

SELECT encode(bicycle_grid_agg(tile, 24 ORDER BY glyph, place), 'base64')
FROM (SELECT glyph, 1 AS place, outline AS tile FROM colored WHERE held_out UNION ALL
	SELECT glyph, 2, variant FROM colored WHERE held_out) AS variants
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/variants.png

-- The style of one image, given to others: the encoder reads a latent code from a real emoji. First
-- row: where the styles come from.
CREATE TABLE styles AS
SELECT glyph, emoji, bicycle_encode(emoji) AS z FROM colored WHERE held_out ORDER BY md5(emoji)
	LIMIT 8;

SELECT encode(bicycle_grid(array_agg(tile ORDER BY shape, style), 9, size => 88), 'base64')
FROM (SELECT -1 AS shape, -1 AS style, NULL::bytea AS tile
	  UNION ALL SELECT -1, glyph, emoji FROM styles
	  UNION ALL SELECT shape, -1, outline FROM chosen
	  UNION ALL SELECT shape, styles.glyph, bicycle_translate(outline, z)
	  	FROM chosen, styles) AS transfers
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/styles.png

-- From one style to another, step by step: the two whose codes are farthest apart.
CREATE TABLE ends AS
SELECT a.z AS first, b.z AS last
FROM styles a, styles b
ORDER BY (SELECT sum((p - q) ^ 2) FROM unnest(a.z, b.z) AS code (p, q)) DESC, a.glyph LIMIT 1;

SELECT encode(bicycle_grid(array_agg(bicycle_translate(outline,
	bicycle_interpolate(first, last, step / 9.0)) ORDER BY shape, step), 10, size => 88), 'base64')
FROM ends, chosen, generate_series(0, 9) step
\g (format=unaligned tuples_only=on) | base64 -d >$SHEETS/interpolation.png

-- Who did the work.
SELECT device, precision, requests, batches, round(mean_batch::numeric, 1) AS mean_batch
	FROM bicycle_engine();
