-- The SQL surface is what users' queries and views are written against: names, parameters with their defaults, results, volatility, strictness, rights.
BEGIN;
SELECT * FROM no_plan();

CREATE ROLE somebody;
CREATE TEMPORARY TABLE contract (signature text, parameters text, result text, volatility text, strict bool, everybody bool);
INSERT INTO contract VALUES
('bicycle_translate(bytea,real[],text)', 'image bytea, z real[], model text DEFAULT NULL::text', 'bytea', 's', false, true),
('bicycle_translate(bytea,real[],text,integer)', 'image bytea, z real[], model text, version integer', 'bytea', 'i', true, true),
('bicycle_translate_many(bytea[],real[],text,integer)',
 'images bytea[], z real[], model text DEFAULT NULL::text, version integer DEFAULT NULL::integer', 'bytea[]', 's', false, true),
('bicycle_encode(bytea,text)', 'image bytea, model text DEFAULT NULL::text', 'real[]', 's', false, true),
('bicycle_encode(bytea,text,integer)', 'image bytea, model text, version integer', 'real[]', 'i', true, true),
('bicycle_encode_posterior(bytea,text,integer)',
 'image bytea, model text DEFAULT NULL::text, version integer DEFAULT NULL::integer, OUT mu real[], OUT logvar real[]', 'record', 's', false, true),
('bicycle_sample(bytea,integer,bigint,text,integer)',
 'image bytea, n integer, seed bigint DEFAULT NULL::bigint, model text DEFAULT NULL::text, version integer DEFAULT NULL::integer',
 'TABLE(sample integer, z real[], image bytea)', 'v', false, true),
('bicycle_latent(integer,bigint)', 'nz integer, seed bigint', 'real[]', 'i', true, true),
('bicycle_interpolate(real[],real[],double precision)', 'z0 real[], z1 real[], t double precision', 'real[]', 'i', true, true),
('bicycle_image_info(bytea)', 'image bytea, OUT format text, OUT width integer, OUT height integer, OUT channels integer, OUT bit_depth integer',
 'record', 'i', true, true),
('bicycle_import(text,bytea,bytea,jsonb)',
 'model text, generator bytea, encoder bytea DEFAULT NULL::bytea, config jsonb DEFAULT ''{}''::jsonb', 'integer', 'v', false, false),
('bicycle_export(text,text,integer,text)',
 'model text, network text DEFAULT ''G''::text, version integer DEFAULT NULL::integer, format text DEFAULT ''safetensors''::text', 'bytea', NULL, false, false),
('bicycle_inspect(bytea)', 'file bytea', 'TABLE(name text, dtype text, shape integer[])', NULL, true, NULL),
('bicycle_create(text,jsonb)', 'model text, config jsonb DEFAULT ''{}''::jsonb', 'integer', 'v', false, false),
('bicycle_train(text,text,jsonb)', 'model text, pairs text, options jsonb DEFAULT ''{}''::jsonb', 'bigint', 'v', false, false),
('bicycle_pause(bigint)', 'job bigint', 'void', 'v', false, NULL),
('bicycle_resume(bigint)', 'job bigint', 'void', 'v', false, NULL),
('bicycle_cancel(bigint)', 'job bigint', 'void', 'v', false, NULL),
('bicycle_loss_plot(bigint,integer,integer)', 'job bigint, width integer DEFAULT 800, height integer DEFAULT 500', 'bytea', 'v', false, NULL),
('bicycle_deploy(text,integer)', 'model text, version integer', 'void', 'v', true, false),
('bicycle_drop(text,integer)', 'model text, version integer DEFAULT NULL::integer', 'void', 'v', false, false);

SELECT has_function('public', split_part(signature, '(', 1), signature) FROM contract GROUP BY split_part(signature, '(', 1), signature;
SELECT is(pg_get_function_arguments(to_regprocedure(signature)), parameters, signature || ' parameters') FROM contract;
SELECT is(pg_get_function_result(to_regprocedure(signature)), result, signature || ' result') FROM contract;
SELECT is(p.provolatile::text, c.volatility, signature || ' volatility') FROM contract c LEFT JOIN pg_proc p ON p.oid = to_regprocedure(signature) WHERE c.volatility IS NOT NULL;
SELECT is(p.proisstrict, c.strict, signature || ' strict') FROM contract c LEFT JOIN pg_proc p ON p.oid = to_regprocedure(signature) WHERE c.everybody;
SELECT is(p.proparallel::text, 's', signature || ' is parallel safe') FROM contract c LEFT JOIN pg_proc p ON p.oid = to_regprocedure(signature) WHERE c.everybody;
SELECT is(has_function_privilege('somebody', to_regprocedure(signature), 'EXECUTE'), everybody, signature || CASE WHEN everybody THEN ' is for everybody' ELSE ' is granted to nobody' END)
	FROM contract WHERE everybody IS NOT NULL;
SELECT cmp_ok(p.procost, '>=', 1000::real, signature || ' is known to be costly') FROM contract c LEFT JOIN pg_proc p ON p.oid = to_regprocedure(signature)
	WHERE signature ~ 'translate|encode|sample';

-- Nothing of ours runs with its owner's rights, and nothing can be captured through search_path.
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid WHERE e.extname = 'bicycle' AND p.prosecdef$$, 'no function is SECURITY DEFINER');
SELECT is(e.extrelocatable, false, 'the extension is not relocatable') FROM pg_extension e WHERE extname = 'bicycle';

-- Tables
SELECT columns_are('public', 'bicycle_models', ARRAY['model', 'version', 'method', 'config', 'hash', 'iterations', 'created_at', 'created_by', 'is_current']);
SELECT columns_are('public', 'bicycle_tensors', ARRAY['model', 'version', 'network', 'name', 'chunk', 'dtype', 'shape', 'data']);
SELECT columns_are('public', 'bicycle_jobs', ARRAY['job', 'model', 'owner', 'state', 'method', 'epoch', 'epochs', 'iteration', 'iterations', 'images_per_second', 'eta',
	'losses', 'started_at', 'updated_at', 'version', 'notes', 'error']);
SELECT columns_are('public', 'bicycle_losses', ARRAY['job', 'iteration', 'name', 'value']);
SELECT columns_are('public', 'bicycle_previews', ARRAY['job', 'iteration', 'image']);
SELECT table_privs_are('public', name, 'somebody', '{}'::name[]) FROM unnest('{bicycle_training_jobs,bicycle_training_losses,bicycle_training_previews,bicycle_training_checkpoints}'::name[]) AS name;
SELECT col_is_pk('public', 'bicycle_models', ARRAY['model', 'version'], 'bicycle_models has its key');
SELECT col_is_pk('public', 'bicycle_tensors', ARRAY['model', 'version', 'network', 'name', 'chunk'], 'bicycle_tensors has its key');
SELECT table_privs_are('public', 'bicycle_models', 'somebody', '{}'::name[]);
SELECT table_privs_are('public', 'bicycle_tensors', 'somebody', '{}'::name[]);
SELECT is(attstorage::text, 'e', 'bicycle_tensors.data is stored uncompressed, out of line') FROM pg_attribute WHERE attrelid = 'bicycle_tensors'::regclass AND attname = 'data';
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'bicycle' AND c.relkind IN ('r', 'S') AND NOT c.oid = ANY (e.extconfig)$$, 'every table and sequence is dumped');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'bicycle' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p')$$, 'every table has a primary key');

-- Settings
SELECT is(context, wanted, name || ' can be set by ' || wanted)
FROM (VALUES ('device', 'sighup'), ('precision', 'sighup'), ('threads', 'sighup'), ('cache_size', 'sighup'), ('engine_memory', 'sighup'), ('gpu_memory', 'sighup'),
			 ('max_batch', 'sighup'), ('queue_memory', 'sighup'), ('max_model_size', 'sighup'), ('max_image_pixels', 'superuser'), ('max_request_size', 'superuser'),
			 ('model', 'user'), ('prefetch', 'user'), ('batching', 'user'), ('priority', 'user'), ('output_format', 'user'), ('jpeg_quality', 'user'), ('request_timeout', 'user')) AS contract(suffix, wanted)
LEFT JOIN pg_settings ON name = 'bicycle.' || suffix;
SELECT is(setting::bigint, 64::bigint * 1024 * 1024, 'bicycle.max_image_pixels is 64M by default') FROM pg_settings WHERE name = 'bicycle.max_image_pixels';

-- Calls as client libraries send them, with parameters whose types are not said, resolve without casts.
PREPARE translate3 AS SELECT bicycle_translate($1, $2, $3);
PREPARE translate2 AS SELECT bicycle_translate($1, $2);
PREPARE translate4 AS SELECT bicycle_translate($1, $2, $3, $4);
PREPARE named AS SELECT bicycle_translate($1, $2, model => $3);
PREPARE many AS SELECT bicycle_translate_many($1, $2, $3);
PREPARE encode AS SELECT bicycle_encode($1, $2);
PREPARE sample AS SELECT * FROM bicycle_sample($1, $2, $3);
PREPARE import AS SELECT bicycle_import($1, $2, $3);
SELECT is(parameter_types::text, wanted, name || ' resolves')
FROM (VALUES ('translate2', '{bytea,real[]}'), ('translate3', '{bytea,real[],text}'), ('translate4', '{bytea,real[],text,integer}'), ('named', '{bytea,real[],text}'),
			 ('many', '{bytea[],real[],text}'), ('encode', '{bytea,text}'), ('sample', '{bytea,integer,bigint}'), ('import', '{text,bytea,bytea}')) AS contract(name, wanted)
LEFT JOIN pg_prepared_statements USING (name);

SELECT * FROM finish();
ROLLBACK;
