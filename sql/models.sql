-- Versions: current one, deploy, drop; numbers are never used twice.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
CREATE TEMP TABLE picture AS SELECT pg_temp.file('pairs/00_A.png') AS image;
CREATE FUNCTION pg_temp.versions(text) RETURNS text LANGUAGE sql AS
	$$SELECT string_agg(version || CASE WHEN is_current THEN ' current' ELSE '' END, ', '
		ORDER BY version) FROM bicycle_models WHERE model = $1$$;

-- A further version with fresh weights.
CREATE FUNCTION pg_temp.again(model text, config jsonb, OUT version int) LANGUAGE plpgsql AS $$
BEGIN
	PERFORM bicycle_create('again', config);
	version := bicycle_import(model, bicycle_export('again'), bicycle_export('again', 'E'));
	PERFORM bicycle_drop('again');
END $$;

SELECT bicycle_create('v', '{"size": 64, "levels": 6, "ngf": 2, "nef": 2, "ndf": 2, "nz": 2,
	"encoder_size": 64}');
SELECT pg_temp.again('v', '{"size": 64, "levels": 6, "ngf": 3, "nef": 2, "ndf": 2, "nz": 3,
	"encoder_size": 64}');
SELECT pg_temp.fails($$SELECT bicycle_create('v')$$);
SELECT bicycle_create('it''s', '{"size": 64, "ngf": 2, "net_e": "none"}');
SELECT pg_temp.report($$SELECT bicycle_create('it''s')$$);
SELECT bicycle_drop('it''s');
SELECT bicycle_create('w', '{"size": 64, "levels": 6, "ngf": 2, "nef": 2, "ndf": 2, "nz": 2,
	"encoder_size": 64}');
SELECT pg_temp.versions('v') AS v, pg_temp.versions('w') AS w;
SELECT length(bicycle_translate(image, '{1,2}', 'v', 1)) > 0 AS one,
	length(bicycle_translate(image, '{1,2,3}', 'v', 2)) > 0 AS two,
	length(bicycle_translate(image, '{1,2,3}', 'v')) > 0 AS current FROM picture;
SELECT pg_temp.fails($$SELECT bicycle_translate(image, '{1,2}', 'v') FROM picture$$);
SELECT bicycle_deploy('v', 1);
SELECT pg_temp.versions('v'), length(bicycle_translate(image, '{1,2}', 'v')) > 0 AS current
	FROM picture;
SELECT bicycle_deploy('v', 1);
SELECT pg_temp.versions('v');
-- Rolled back, nothing has happened, not even to the counter.
BEGIN;
SELECT pg_temp.again('v', '{"size": 64, "levels": 6, "ngf": 2, "nef": 2, "ndf": 2, "nz": 2,
	"encoder_size": 64}');
SELECT bicycle_deploy('v', 2);
ROLLBACK;
SELECT pg_temp.versions('v');
-- In one transaction the new version is seen at once.
BEGIN;
SELECT pg_temp.again('v', '{"size": 64, "levels": 6, "ngf": 2, "nef": 2, "ndf": 2, "nz": 4,
	"encoder_size": 64}');
SELECT length(bicycle_translate(image, '{1,2,3,4}', 'v')) > 0 AS current FROM picture;
COMMIT;

-- Triggers of users run under one search_path, whoever writes a model.
CREATE FUNCTION pg_temp.path() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '% of version %: %', TG_OP, coalesce(NEW.version, OLD.version),
		current_setting('search_path');
	RETURN NULL;
END $$;
CREATE TRIGGER path AFTER INSERT OR UPDATE OR DELETE ON bicycle_models
	FOR EACH ROW EXECUTE FUNCTION pg_temp.path();
SELECT bicycle_create('path', '{"size": 64, "levels": 6, "ngf": 2, "net_e": "none"}');
SELECT bicycle_deploy('path', 1);
SELECT bicycle_drop('path');
SHOW search_path;
DROP TRIGGER path ON bicycle_models;

-- The writer of a model holds a lock on its name, and only on that.
BEGIN;
SELECT bicycle_deploy('v', 2);
SELECT count(*), bool_and(mode = 'ExclusiveLock' AND classid = 'bicycle_models'::regclass
	AND objsubid = 2) AS by_name FROM pg_locks
WHERE locktype = 'advisory' AND pid = pg_backend_pid();
COMMIT;

-- Drop.
SELECT pg_temp.fails($$SELECT bicycle_drop('v', 2)$$);
SELECT bicycle_drop('v', 1);
SELECT bicycle_drop('v', 3);
SELECT pg_temp.versions('v');
SELECT count(*) FROM bicycle_tensors WHERE model = 'v' AND version <> 2;
SELECT bicycle_drop('v', 2);
SELECT count(*) FROM bicycle_models WHERE model = 'v';
SELECT pg_temp.fails($$SELECT bicycle_drop('v', 2)$$), pg_temp.fails($$SELECT bicycle_drop('v')$$),
	pg_temp.fails($$SELECT bicycle_drop('none', 1)$$);
SELECT pg_temp.fails($$SELECT bicycle_deploy('v', 2)$$),
	pg_temp.fails($$SELECT bicycle_deploy('w', 2)$$),
	pg_temp.fails($$SELECT bicycle_deploy('w', NULL)$$);
SELECT bicycle_create('v', '{"size": 64, "levels": 6, "ngf": 2, "nef": 2, "ndf": 2, "nz": 2,
	"encoder_size": 64}') AS goes_on;
-- Also if rows came in by another way.
UPDATE bicycle_models SET version = 9 WHERE false;
INSERT INTO bicycle_models (model, version, config, hash) VALUES ('v', 20, '{}', sha256(''));
SELECT pg_temp.again('v', '{"size": 64, "levels": 6, "ngf": 2, "nef": 2, "ndf": 2, "nz": 2,
	"encoder_size": 64}') AS goes_on;

-- Without a current version the model has to be asked for by number.
UPDATE bicycle_models SET is_current = false WHERE model = 'w';
SELECT pg_temp.fails($$SELECT bicycle_translate(image, '{1,2}', 'w') FROM picture$$),
	length(bicycle_translate(image, '{1,2}', 'w', 1)) > 0 AS by_number FROM picture;

-- The engine holds one copy of one content, whatever it is called; bicycle_cache shows the name the
-- caller knows it by.
SELECT bicycle_import('twin', bicycle_export('v'), bicycle_export('v', 'E')) AS version;
SELECT bicycle_import('copy', bicycle_export('v', format => 'pth'), bicycle_export('v', 'E'))
	AS version;
SELECT bicycle_translate(image, '{1,2}', 'copy') = bicycle_translate(image, '{1,2}', 'twin') AS same
	FROM picture;
SELECT count(*) AS resident, min(model) AS model, min(version) AS version,
	bool_and(bytes > 0) AS bytes, bool_and(databases > 0) AS databases
FROM bicycle_cache() WHERE hash = (SELECT hash FROM bicycle_models WHERE model = 'twin');
SELECT bicycle_drop('v'), bicycle_drop('w'), bicycle_drop('twin'), bicycle_drop('copy');
