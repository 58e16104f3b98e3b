-- Who may do what: using a model takes SELECT on both tables, changing models takes EXECUTE and the
-- tables' privileges, row security on bicycle_models holds.
\getenv data BICYCLE_TESTDATA
\set edges2emoji :data '/edges2emoji/'
BEGIN;
SELECT * FROM no_plan();

CREATE ROLE reader;
CREATE ROLE writer;
CREATE ROLE stranger;
SELECT bicycle_import('emoji', pg_read_binary_file(:'edges2emoji' || 'G.pth'),
	pg_read_binary_file(:'edges2emoji' || 'E.pth'));
SELECT bicycle_import('hidden', pg_read_binary_file(:'edges2emoji' || 'G.pth'));
CREATE TABLE picture AS SELECT pg_read_binary_file(:'edges2emoji' || 'pairs/00_A.png') AS a,
	pg_read_binary_file(:'edges2emoji' || 'pairs/00_B.png') AS b,
	pg_read_binary_file(:'edges2emoji' || 'E.pth') AS file;
GRANT SELECT ON picture TO PUBLIC;
GRANT SELECT ON bicycle_models, bicycle_tensors TO reader, writer;
GRANT INSERT, UPDATE, DELETE ON bicycle_models, bicycle_tensors TO writer;
-- pgTAP's own bookkeeping, for roles that run tests
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO reader, writer, stranger;
GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO reader, writer, stranger;

PREPARE translate AS SELECT bicycle_translate(a, bicycle_latent(8, 1), model => 'emoji')
	FROM picture;
PREPARE translate_version AS SELECT bicycle_translate(a, bicycle_latent(8, 1), 'emoji', 1)
	FROM picture;
PREPARE translate_many AS SELECT bicycle_translate_many(ARRAY[a], ARRAY[bicycle_latent(8, 1)],
	model => 'emoji') FROM picture;
PREPARE encode AS SELECT bicycle_encode(b, 'emoji') FROM picture;
PREPARE posterior AS SELECT bicycle_encode_posterior(b, 'emoji') FROM picture;
PREPARE sample AS SELECT s.sample FROM picture, bicycle_sample(a, 1, seed => 1, model => 'emoji') s;
PREPARE info AS SELECT bicycle_image_info(a) FROM picture;

SELECT lives_ok('EXECUTE translate', 'the owner translates');	-- and now the model is resident

SET LOCAL ROLE stranger;
SELECT throws_ok('EXECUTE ' || q, '42501', NULL, 'without rights on the tables: ' || q)
	FROM unnest('{translate, translate_version, translate_many, encode, posterior, sample}'::text[])
	q;
SELECT lives_ok('EXECUTE info', 'without rights on the tables: info needs none');

SET LOCAL ROLE reader;
SELECT lives_ok('EXECUTE ' || q, 'with SELECT on the tables: ' || q)
	FROM unnest('{translate, translate_version, translate_many, encode, posterior, sample}'::text[])
	q;
SELECT throws_ok(q, '42501', NULL, 'a reader may not: ' || q)
FROM unnest(ARRAY[$$SELECT bicycle_import('x', file) FROM picture$$, $$SELECT bicycle_create('x')$$,
	$$SELECT bicycle_deploy('emoji', 1)$$, $$SELECT bicycle_drop('emoji')$$,
				  $$SELECT bicycle_export('emoji')$$]) q;

-- EXECUTE alone is not enough: the functions run as their caller.
RESET ROLE;
GRANT EXECUTE ON FUNCTION bicycle_drop(text, int), bicycle_deploy(text, int),
	bicycle_export(text, text, int, text) TO reader, writer, stranger;
SET LOCAL ROLE reader;
SELECT throws_ok($$SELECT bicycle_drop('emoji')$$, '42501', NULL,
	'dropping needs DELETE on the tables too');
SELECT throws_ok($$SELECT bicycle_deploy('emoji', 1)$$, '42501', NULL,
	'deploying needs UPDATE on bicycle_models too');
SET LOCAL ROLE stranger;
SELECT throws_ok($$SELECT bicycle_export('emoji')$$, '42501', NULL,
	'exporting needs SELECT on the tables too');
SET LOCAL ROLE writer;
SELECT lives_ok($$SELECT bicycle_deploy('emoji', 1)$$, 'with all of them one deploys');

-- Row security
RESET ROLE;
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
CREATE POLICY not_hidden ON bicycle_models FOR SELECT TO reader USING (model <> 'hidden');
SELECT lives_ok($$SELECT bicycle_translate(a, bicycle_latent(8, 1), model => 'hidden')
	FROM picture$$, 'the owner sees the hidden model');
SET LOCAL ROLE reader;
SELECT lives_ok('EXECUTE translate', 'row security lets the reader use a model that it shows');
SELECT throws_ok($$SELECT bicycle_translate(a, bicycle_latent(8, 1), model => 'hidden')
	FROM picture$$, '42704', NULL, 'and there is no hidden model for it');
SELECT throws_ok($$SELECT bicycle_translate(a, bicycle_latent(8, 1), 'hidden', 1)
	FROM picture$$, '42704', NULL, 'nor its version, although it is resident');
RESET ROLE;

-- What is noted of policies is executed by who restores a dump: nobody else writes it, by whatever
-- way the privileges came. Own policies are everybody's affair.
CREATE ROLE clerk IN ROLE pg_write_all_data, pg_read_all_data;
GRANT ALL ON bicycle_policies TO stranger;
GRANT CREATE ON SCHEMA public TO clerk, stranger;
GRANT ALL ON ALL TABLES IN SCHEMA pg_temp TO clerk;
GRANT ALL ON ALL SEQUENCES IN SCHEMA pg_temp TO clerk;
CREATE FUNCTION pg_temp.cannot_forge(who text) RETURNS SETOF text LANGUAGE plpgsql AS $$
BEGIN
	RETURN QUERY SELECT throws_ok(q, '42501', 'permission denied for table bicycle_policies',
		who || ': ' || q) FROM unnest(ARRAY[
		$q$UPDATE bicycle_policies SET qual = 'true); DROP TABLE picture; --'$q$,
		$q$INSERT INTO bicycle_policies SELECT *
			FROM bicycle_policies ON CONFLICT (tablename, policyname) DO UPDATE
			SET qual = 'forged()'$q$,
		$q$INSERT INTO bicycle_policies (tablename, policyname, enabled, forced)
			VALUES ('bicycle_tensors', '', false, false)$q$]) q;
	RETURN NEXT lives_ok(format('CREATE TABLE of_%s (a int)', who),
		who || ': a table of one''s own');
	RETURN NEXT lives_ok(format('CREATE POLICY p ON of_%s USING (a > 0)', who),
		who || ': and a policy of it');
END $$;
SET LOCAL ROLE clerk;
SELECT pg_temp.cannot_forge('clerk');
SET LOCAL ROLE stranger;
SELECT pg_temp.cannot_forge('stranger');
RESET ROLE;
SELECT is((SELECT string_agg(tablename || ' ' || policyname, ', ' ORDER BY policyname)
	FROM bicycle_policies), 'bicycle_models , bicycle_models not_hidden',
	'what is noted is what there is');

SELECT * FROM finish();
ROLLBACK;
