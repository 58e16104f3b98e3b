-- Calls as client libraries send them: parameters and literals without types, named and positional.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_create('u', '{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 2,
	"encoder_size": 64}') AS version;
SET bicycle.model = 'u';
CREATE TEMP TABLE picture AS SELECT pg_temp.file('pairs/00_A.png') AS image;
SELECT image FROM picture \gset

PREPARE t2 AS SELECT octet_length(bicycle_translate($1, $2)) > 0;
PREPARE t3 AS SELECT octet_length(bicycle_translate($1, $2, $3)) > 0;
PREPARE t4 AS SELECT octet_length(bicycle_translate($1, $2, $3, $4)) > 0;
PREPARE m2 AS SELECT cardinality(bicycle_translate_many($1, $2));
PREPARE m4 AS SELECT cardinality(bicycle_translate_many($1, $2, $3, $4));
PREPARE e1 AS SELECT cardinality(bicycle_encode($1));
PREPARE e2 AS SELECT cardinality(bicycle_encode($1, $2));
PREPARE e3 AS SELECT cardinality(bicycle_encode($1, $2, $3));
PREPARE p3 AS SELECT cardinality(mu) FROM bicycle_encode_posterior($1, $2, $3);
PREPARE s2 AS SELECT count(*) FROM bicycle_sample($1, $2);
PREPARE s5 AS SELECT count(*) FROM bicycle_sample($1, $2, $3, $4, $5);
PREPARE l AS SELECT cardinality(bicycle_latent($1, $2));
PREPARE i AS SELECT bicycle_interpolate($1, $2, $3);
PREPARE h AS SELECT (bicycle_image_info($1)).width;
SELECT name, parameter_types FROM pg_prepared_statements ORDER BY name COLLATE "C";
EXECUTE t2(:'image', '{1,2}');
EXECUTE t3(:'image', '{1,2}', 'u');
EXECUTE t3(:'image', '{1,2}', NULL);
EXECUTE t4(:'image', '{1,2}', 'u', 1);
EXECUTE m4(ARRAY[:'image'::bytea, NULL], '{1,2}', NULL, NULL);
EXECUTE e1(:'image');
EXECUTE e3(:'image', 'u', 1);
EXECUTE p3(:'image', NULL, NULL);
EXECUTE s5(:'image', 3, 1, NULL, NULL);
EXECUTE i('{1,0}', '{0,1}', '0.5');
EXECUTE h(:'image');
-- Literals, as psycopg sends them.
SELECT octet_length(bicycle_translate(:'image', '{1,2}')) > 0,
	octet_length(bicycle_translate(:'image', '{1,2}', 'u')) > 0,
	octet_length(bicycle_translate(:'image', '{1,2}', 'u', '1')) > 0,
		octet_length(bicycle_translate(:'image', '{1,2}', NULL)) > 0;
SELECT octet_length(bicycle_translate(:'image', ARRAY[1, 2])) > 0 AS int,
	octet_length(bicycle_translate(:'image', ARRAY[0.5, 2])) > 0 AS numeric,
	octet_length(bicycle_translate(:'image', ARRAY[0.5::float8, 2]::float4[])) > 0 AS float8;
SELECT count(*) FROM bicycle_sample(:'image', '3', '1');
-- Named.
SELECT octet_length(bicycle_translate(z => '{1,2}', image => :'image')) > 0,
	octet_length(bicycle_translate(:'image', model => 'u', z => '{1,2}')) > 0,
	octet_length(bicycle_translate(:'image', '{1,2}', model => 'u', version => 1)) > 0;
SELECT count(*) FROM bicycle_sample(:'image', n => 2, model => 'u', version => 1);
-- A prepared statement follows the current version, and a generic plan does too.
SET plan_cache_mode = force_generic_plan;
PREPARE current AS SELECT octet_length(bicycle_translate($1, $2)) > 0;
EXECUTE current(:'image', '{1,2}');
SELECT bicycle_create('again',
	'{"size": 64, "levels": 6, "ngf": 4, "nef": 4, "ndf": 4, "nz": 3, "encoder_size": 64}')
	AS version;
SELECT bicycle_import('u', bicycle_export('again'), bicycle_export('again', 'E')) AS version;
SELECT bicycle_drop('again');
EXECUTE current(:'image', '{1,2,3}');
EXECUTE t4(:'image', '{1,2}', 'u', 1);
RESET plan_cache_mode;
-- The versioned form is folded into the plan; the other is not.
EXPLAIN (COSTS OFF, VERBOSE) SELECT bicycle_translate(:'image', '{1,2}', 'u', 1) IS NULL;
SELECT bicycle_drop('u');
