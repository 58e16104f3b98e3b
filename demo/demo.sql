-- What bicycle does, on real images: outlines of emoji become emoji, each in as many colourings as one likes.
-- demo/run.sh runs this in a throw-away cluster.  $BICYCLE_TESTDATA/edges2emoji holds a small model in the official BicycleGAN files, trained on Noto Color
-- Emoji, and pairs of images that it has not seen; contact_sheet lays the images of a query out on one picture.
\getenv data BICYCLE_TESTDATA
\set data :data '/edges2emoji/'

CREATE EXTENSION bicycle;

-- Images are plain bytea columns, PNG or JPEG.
CREATE TABLE outlines (
	id int PRIMARY KEY,
	sketch bytea NOT NULL,
	photo bytea NOT NULL,
	variant bytea
);
INSERT INTO outlines
SELECT n, pg_read_binary_file(format('%spairs/%s_A.png', :'data', to_char(n, 'FM00'))),
		  pg_read_binary_file(format('%spairs/%s_B.png', :'data', to_char(n, 'FM00')))
FROM generate_series(0, 31) n;

-- A model is its generator and, if styles are to be read from images, its encoder.  What kind of networks they are is seen from the files.
SELECT bicycle_import('emoji', pg_read_binary_file(:'data' || 'G.pth'), encoder => pg_read_binary_file(:'data' || 'E.pth')) AS version;
SELECT model, version, config->>'nz' AS nz, config->>'size' AS size FROM bicycle_models;

-- Eight answers to each outline.  With a seed they are the same rows each time.
CREATE VIEW chosen AS SELECT * FROM outlines WHERE id IN (12, 25, 23, 16, 31);

SELECT tile
FROM (SELECT id, -1 AS place, sketch AS tile FROM chosen
	  UNION ALL SELECT id, 0, photo FROM chosen
	  UNION ALL SELECT id, sample, image FROM chosen, bicycle_sample(sketch, 8, seed => 3, model => 'emoji')) AS samples
ORDER BY id, place
\g (format=unaligned tuples_only=on) | contact_sheet 10 88 >$SHEETS/samples.png

-- One colouring of every outline, kept in the table.  bicycle_latent draws the latent code from its seed.
SET bicycle.model = 'emoji';
UPDATE outlines SET variant = bicycle_translate(sketch, bicycle_latent(8, id));

SELECT tile
FROM (SELECT id, 1 AS place, sketch AS tile FROM outlines UNION ALL SELECT id, 2, variant FROM outlines) AS variants
ORDER BY id, place
\g (format=unaligned tuples_only=on) | contact_sheet 16 64 >$SHEETS/variants.png

-- The style of one image, given to others: the encoder reads a latent code from a real emoji.  First row: where the styles come from.
CREATE TABLE styles AS SELECT id, photo, bicycle_encode(photo) AS z FROM outlines WHERE id IN (0, 4, 12, 16, 20, 23, 25, 28);

SELECT tile
FROM (SELECT -1 AS shape, -1 AS style, NULL::bytea AS tile
	  UNION ALL SELECT -1, id, photo FROM styles
	  UNION ALL SELECT id, -1, sketch FROM chosen
	  UNION ALL SELECT chosen.id, styles.id, bicycle_translate(chosen.sketch, styles.z) FROM chosen, styles) AS transfers
ORDER BY shape, style
\g (format=unaligned tuples_only=on) | contact_sheet 9 88 >$SHEETS/styles.png

-- From one style to another, step by step: from the cat's to the clock's.
SELECT bicycle_translate(sketch, bicycle_interpolate(cat.z, clock.z, step / 9.0))
FROM styles cat, styles clock, chosen, generate_series(0, 9) step
WHERE cat.id = 23 AND clock.id = 16
ORDER BY chosen.id, step
\g (format=unaligned tuples_only=on) | contact_sheet 10 88 >$SHEETS/interpolation.png

-- Who did the work.
SELECT device, precision, requests, batches, round(mean_batch::numeric, 1) AS mean_batch FROM bicycle_engine();
