-- Who may do what: roles, row security, search_path, a resident model that the role may not read.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
GRANT SELECT ON file TO PUBLIC;
CREATE TABLE public.regress_picture AS SELECT pg_temp.file('pairs/00_A.png') AS image;
GRANT SELECT ON public.regress_picture TO PUBLIC;
CREATE ROLE regress_bicycle_user;
CREATE ROLE regress_bicycle_maker;
SELECT bicycle_import('mine', pg_temp.file('G.pth'), pg_temp.file('E.pth')) AS version;
SELECT bicycle_import('theirs', pg_temp.file('G.pth'), config => '{"nl": "elu"}') AS version;
-- Both are resident now.
SELECT octet_length(bicycle_translate(image, bicycle_latent(8, 1), m)) > 0 AS used
	FROM regress_picture, unnest('{mine,theirs}'::text[]) AS m;
SELECT count(*) >= 2 AS resident FROM bicycle_cache() WHERE model IS NOT NULL;

-- Without SELECT on both tables no form works, resident or not; drawing, interpolating and looking
-- at a header need nothing.
SET ROLE regress_bicycle_user;
SELECT pg_temp.fails($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'mine')
	FROM regress_picture$$);
SELECT pg_temp.fails($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'mine', 1)
	FROM regress_picture$$);
SELECT pg_temp.fails($$SELECT bicycle_translate_many(ARRAY[image], bicycle_latent(8, 1), 'mine')
	FROM regress_picture$$);
SELECT pg_temp.fails($$SELECT bicycle_encode(image, 'mine') FROM regress_picture$$);
SELECT pg_temp.fails($$SELECT bicycle_encode(image, 'mine', 1) FROM regress_picture$$);
SELECT pg_temp.fails($$SELECT bicycle_encode_posterior(image, 'mine') FROM regress_picture$$);
SELECT pg_temp.fails($$SELECT bicycle_sample(image, 1, 1, 'mine') FROM regress_picture$$);
-- Not even whether a model exists is told.
SELECT pg_temp.fails($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'no such model')
	FROM regress_picture$$);
SELECT cardinality(bicycle_latent(8, 1)), (bicycle_image_info(image)).width,
	bicycle_interpolate('{1}', '{1}', 0) FROM regress_picture;
SELECT count(model) AS names, count(hash) AS hashes, count(*) >= 2 AS resident FROM bicycle_cache();
SELECT pid IS NOT NULL AS engine FROM bicycle_engine();
-- Nor does EXECUTE on what writes come by itself.
SELECT pg_temp.fails($$SELECT bicycle_import('m', 'x')$$),
	pg_temp.fails($$SELECT bicycle_create('m')$$);
SELECT pg_temp.fails($$SELECT bicycle_deploy('mine', 1)$$),
	pg_temp.fails($$SELECT bicycle_drop('mine')$$),
	pg_temp.fails($$SELECT bicycle_export('mine')$$);
RESET ROLE;
-- One of the two does not do.
GRANT SELECT ON bicycle_models TO regress_bicycle_user;
SET ROLE regress_bicycle_user;
SELECT pg_temp.fails($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'mine')
	FROM regress_picture$$);
RESET ROLE;
GRANT SELECT ON bicycle_tensors TO regress_bicycle_user;
SET ROLE regress_bicycle_user;
SELECT octet_length(bicycle_translate(image, bicycle_latent(8, 1), 'mine')) > 0 AS used
	FROM regress_picture;
-- A plan made with the right is stopped when it is gone.
PREPARE use AS SELECT octet_length(bicycle_translate(image, bicycle_latent(8, 1), 'mine')) > 0
	AS used FROM regress_picture;
EXECUTE use;
RESET ROLE;
REVOKE SELECT ON bicycle_tensors FROM regress_bicycle_user;
SET ROLE regress_bicycle_user;
EXECUTE use;
RESET ROLE;
GRANT SELECT ON bicycle_tensors TO regress_bicycle_user;
SET ROLE regress_bicycle_user;
EXECUTE use;
RESET ROLE;
-- In a SECURITY DEFINER function the definer's rights count.
CREATE FUNCTION public.regress_shared(bytea) RETURNS bytea LANGUAGE sql SECURITY DEFINER
	SET search_path = pg_catalog, public
	AS $$SELECT bicycle_translate($1, bicycle_latent(8, 1), 'mine')$$;
REVOKE SELECT ON bicycle_tensors FROM regress_bicycle_user;
SET ROLE regress_bicycle_user;
SELECT octet_length(regress_shared(image)) > 0 AS lent FROM regress_picture;
RESET ROLE;
GRANT SELECT ON bicycle_tensors TO regress_bicycle_user;

-- Row security on bicycle_models hides models, resident or not, by name, by version and in
-- bicycle_cache.
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON bicycle_models FOR SELECT USING (model = 'mine');
SET ROLE regress_bicycle_user;
SELECT octet_length(bicycle_translate(image, bicycle_latent(8, 1), 'mine')) > 0 AS used
	FROM regress_picture;
SELECT pg_temp.fails($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'theirs')
	FROM regress_picture$$);
SELECT pg_temp.fails($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'theirs', 1)
	FROM regress_picture$$);
-- The hash of a model that is hidden is, too: who may insert versions could name it in one, and use
-- the weights that are resident.
SELECT string_agg(model, ', ') AS named, count(hash) AS hashes, count(*) >= 2 AS resident
	FROM bicycle_cache();
RESET ROLE;
-- The owner of the tables is not bound.
SELECT octet_length(bicycle_translate(image, bicycle_latent(8, 1), 'theirs')) > 0 AS used
	FROM regress_picture;
DROP POLICY own ON bicycle_models;
ALTER TABLE bicycle_models DISABLE ROW LEVEL SECURITY;
-- The engine may ask for a model while something else is waited for as another user, here for the
-- second row's argument: it is read as who translates. Nor is who translates left waiting for it,
-- or without the reason, where what was waited for catches all errors.
SET client_min_messages = warning;
SELECT bicycle_import(m, pg_temp.file('G.pth'), config => format('{"alpha": "drop", "nl": "%s"}',
	nl)::jsonb) AS version
	FROM (VALUES ('late', 'elu'), ('later', 'lrelu'), ('damaged', 'relu')) AS v (m, nl);
RESET client_min_messages;
UPDATE bicycle_tensors SET dtype = 'F64' WHERE model = 'damaged';
CREATE FUNCTION public.regress_busy(image bytea) RETURNS int LANGUAGE plpgsql SECURITY DEFINER
	SET search_path = pg_catalog, public AS $$
BEGIN
	FOR n IN 1 .. 20 LOOP PERFORM bicycle_check(image); END LOOP;
	RETURN 1;
END $$;
ALTER FUNCTION regress_busy(bytea) OWNER TO regress_bicycle_maker;
CREATE FUNCTION public.regress_caught(image bytea) RETURNS int LANGUAGE plpgsql AS $$
BEGIN
	RETURN regress_busy(image);
EXCEPTION WHEN OTHERS THEN
	RETURN 1;
END $$;
SET statement_timeout = '60s';
SET ROLE regress_bicycle_user;
SELECT count(bicycle_translate(image, bicycle_latent(8, n + regress_busy(image)), 'late'))
	FROM regress_picture, generate_series(1, 3) AS n;
SELECT count(bicycle_translate(image, bicycle_latent(8, n + regress_caught(image)), 'later'))
	FROM regress_picture, generate_series(1, 3) AS n;
SELECT pg_temp.fails($$SELECT count(bicycle_translate(image,
		bicycle_latent(8, n + regress_caught(image)), 'damaged'))
	FROM regress_picture, generate_series(1, 3) AS n$$);
RESET ROLE;
RESET statement_timeout;
DROP FUNCTION regress_caught(bytea), regress_busy(bytea);
-- A policy that itself uses a model is stopped, not recursed into.
ALTER TABLE bicycle_tensors ENABLE ROW LEVEL SECURITY;
CREATE POLICY loop ON bicycle_tensors
	USING (bicycle_image_info((SELECT image FROM regress_picture)) IS NOT NULL);
SELECT bicycle_import('looped', pg_temp.file('G.pth'), config => '{"nl": "elu", "size": 384}')
	AS version;
SET ROLE regress_bicycle_user;
SELECT pg_temp.fails($$SELECT bicycle_translate(image, bicycle_latent(8, 1), 'looped')
	FROM regress_picture$$);
RESET ROLE;
DROP POLICY loop ON bicycle_tensors;
ALTER TABLE bicycle_tensors DISABLE ROW LEVEL SECURITY;

-- Making models takes EXECUTE and the tables' own privileges.
GRANT EXECUTE ON FUNCTION bicycle_import(text, bytea, bytea, jsonb), bicycle_deploy(text, int),
	bicycle_drop(text, int), bicycle_export(text, text, int, text)
	TO regress_bicycle_maker;
GRANT SELECT ON bicycle_models, bicycle_tensors TO regress_bicycle_maker;
SET ROLE regress_bicycle_maker;
SELECT pg_temp.fails($$SELECT bicycle_import('made', pg_temp.file('G.pth'))$$);
SELECT pg_temp.fails($$SELECT bicycle_deploy('mine', 1)$$),
	pg_temp.fails($$SELECT bicycle_drop('mine')$$);
SELECT octet_length(bicycle_export('mine')) > 0 AS exported;
RESET ROLE;
GRANT SELECT, INSERT, UPDATE, DELETE ON bicycle_models, bicycle_tensors,
	bicycle_counters TO regress_bicycle_maker;
SET ROLE regress_bicycle_maker;
SELECT bicycle_import('made', pg_temp.file('G.pth')) AS version;
SELECT created_by FROM bicycle_models WHERE model = 'made';
SELECT bicycle_deploy('made', 1), bicycle_drop('made');
RESET ROLE;
-- A model has one current version, also if row security hides it: what would make another one
-- current is refused, training before it trains.
GRANT EXECUTE ON FUNCTION bicycle_create(text, jsonb), bicycle_train(text, text, jsonb)
	TO regress_bicycle_maker;
ALTER ROLE regress_bicycle_maker LOGIN;
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
CREATE POLICY own ON bicycle_models USING (created_by = current_user);
SET ROLE regress_bicycle_maker;
SELECT pg_temp.fails($$SELECT bicycle_import('mine', pg_temp.file('G.pth'))$$),
	pg_temp.fails($$SELECT bicycle_create('mine', '{"size": 64, "ngf": 4}')$$);
SELECT pg_temp.fails($$SELECT bicycle_train('mine', 'SELECT image, image FROM regress_picture')$$);
SELECT bicycle_import('made', pg_temp.file('G.pth')) AS version;
RESET ROLE;
-- The same where it is shown, but not to be changed.
UPDATE bicycle_models SET is_current = false WHERE model = 'made';
INSERT INTO bicycle_models (model, version, method, config, hash, iterations, created_by,
	is_current) SELECT model, 9, method, config, hash, iterations, 'other', true FROM bicycle_models
	WHERE model = 'made';
CREATE POLICY shown ON bicycle_models FOR SELECT USING (true);
SET ROLE regress_bicycle_maker;
SELECT pg_temp.fails($$SELECT bicycle_deploy('made', 2)$$),
	pg_temp.fails($$SELECT bicycle_import('made', pg_temp.file('G.pth'))$$);
RESET ROLE;
DROP POLICY shown ON bicycle_models;
DROP POLICY own ON bicycle_models;
ALTER TABLE bicycle_models DISABLE ROW LEVEL SECURITY;
SELECT version, is_current FROM bicycle_models WHERE model = 'made' ORDER BY version;
DELETE FROM bicycle_models WHERE model = 'made';

-- Names in other schemas, even temporary ones and operators, are never found instead.
CREATE SCHEMA regress_evil;
GRANT ALL ON SCHEMA regress_evil TO PUBLIC;
SET ROLE regress_bicycle_user;
CREATE TABLE regress_evil.bicycle_models (LIKE public.bicycle_models);
CREATE TEMP TABLE bicycle_tensors (LIKE public.bicycle_tensors);
CREATE FUNCTION regress_evil.texteq(text, text) RETURNS boolean
	LANGUAGE plpgsql AS $$BEGIN RAISE 'found the wrong operator'; END$$;
CREATE OPERATOR regress_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = regress_evil.texteq);
SET search_path = regress_evil, pg_temp, pg_catalog;
SELECT pg_catalog.octet_length(public.bicycle_translate(image, public.bicycle_latent(8, 1), 'mine'))
	OPERATOR(pg_catalog.>) 0 AS right_tables FROM public.regress_picture;
SELECT pg_catalog.octet_length(public.bicycle_translate(image, public.bicycle_latent(8, 1),
	'theirs', 1)) OPERATOR(pg_catalog.>) 0 AS right_tables FROM public.regress_picture;
RESET search_path;
DROP TABLE pg_temp.bicycle_tensors;
RESET ROLE;
SET search_path = regress_evil, public, pg_catalog;
SELECT pg_catalog.octet_length(public.bicycle_export('mine')) OPERATOR(pg_catalog.>) 0
	AS right_tables;
RESET search_path;
SET client_min_messages = warning;
DROP SCHEMA regress_evil CASCADE;
RESET client_min_messages;

SELECT bicycle_drop('mine'), bicycle_drop('theirs'), bicycle_drop('looped');
SELECT bicycle_drop(m) FROM unnest('{late,later,damaged}'::text[]) AS m;
DROP FUNCTION regress_shared(bytea);
DROP TABLE regress_picture;
DROP OWNED BY regress_bicycle_user, regress_bicycle_maker;
DROP ROLE regress_bicycle_user, regress_bicycle_maker;
