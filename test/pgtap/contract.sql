-- The SQL surface is what users' queries and views are written against: tables, settings, and calls
-- that resolve without casts. Functions keep their marks and rights by test/t/022_update.pl.
BEGIN;
SELECT * FROM no_plan();

CREATE ROLE somebody;

-- Nothing of ours runs with its owner's rights, and nothing can be captured through search_path.
SELECT is_empty($$SELECT p.oid::regprocedure FROM pg_proc p
	JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
		WHERE e.extname = 'bicycle' AND p.prosecdef$$, 'no function is SECURITY DEFINER');
SELECT is(e.extrelocatable, false, 'the extension is not relocatable') FROM pg_extension e
	WHERE extname = 'bicycle';

-- Tables
SELECT columns_are('public', 'bicycle_models', ARRAY['model', 'version', 'method', 'config', 'hash',
	'iterations', 'created_at', 'created_by', 'is_current']);
SELECT columns_are('public', 'bicycle_tensors', ARRAY['model', 'version', 'network', 'name',
	'chunk', 'dtype', 'shape', 'data']);
SELECT columns_are('public', 'bicycle_jobs', ARRAY['job', 'model', 'owner', 'state', 'method',
	'epoch', 'epochs', 'iteration', 'iterations', 'images_per_second', 'eta',
	'losses', 'started_at', 'updated_at', 'version', 'notes', 'error']);
SELECT columns_are('public', 'bicycle_losses', ARRAY['job', 'iteration', 'name', 'value']);
SELECT columns_are('public', 'bicycle_previews', ARRAY['job', 'iteration', 'image']);
SELECT table_privs_are('public', name, 'somebody', '{}'::name[])
	FROM unnest('{bicycle_training_jobs,bicycle_training_losses,bicycle_training_previews,
		bicycle_training_checkpoints}'::name[]) AS name;
SELECT col_is_pk('public', 'bicycle_models', ARRAY['model', 'version'],
	'bicycle_models has its key');
SELECT col_is_pk('public', 'bicycle_tensors', ARRAY['model', 'version', 'network', 'name', 'chunk'],
	'bicycle_tensors has its key');
SELECT table_privs_are('public', 'bicycle_models', 'somebody', '{}'::name[]);
SELECT table_privs_are('public', 'bicycle_tensors', 'somebody', '{}'::name[]);
SELECT is(attstorage::text, 'e', 'bicycle_tensors.data is stored uncompressed, out of line')
	FROM pg_attribute WHERE attrelid = 'bicycle_tensors'::regclass AND attname = 'data';
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c
	JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'bicycle' AND c.relkind IN ('r', 'S') AND NOT c.oid = ANY (e.extconfig)$$,
		'every table and sequence is dumped');
SELECT is_empty($$SELECT c.oid::regclass FROM pg_class c
	JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e'
	JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
	WHERE e.extname = 'bicycle' AND c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_constraint k
		WHERE k.conrelid = c.oid AND k.contype = 'p')$$, 'every table has a primary key');

-- Settings
SELECT is(context, wanted, name || ' can be set by ' || wanted)
FROM (VALUES ('device', 'sighup'), ('precision', 'sighup'), ('threads', 'sighup'),
	('cache_size', 'sighup'), ('engine_memory', 'sighup'), ('gpu_memory', 'sighup'),
	('max_batch', 'sighup'), ('queue_memory', 'sighup'), ('max_model_size', 'sighup'),
	('max_image_pixels', 'superuser'), ('max_request_size', 'superuser'),
	('stuck_timeout', 'sighup'), ('debug', 'sighup'), ('debug_device_fault', 'sighup'),
	('max_training_jobs', 'sighup'),
	('training_device', 'sighup'), ('training_share', 'sighup'),
	('train_memory', 'sighup'), ('train_disk', 'sighup'), ('train_checkpoint_interval', 'sighup'),
	('train_stuck_timeout', 'sighup'), ('debug_fault', 'superuser'),
	('model', 'user'), ('prefetch', 'user'), ('batching', 'user'), ('priority', 'user'),
	('on_error', 'user'), ('max_samples', 'user'), ('force_drop', 'user'), ('fit', 'user'),
	('output_format', 'user'), ('jpeg_quality', 'user'), ('png_level', 'user'),
	('exif', 'user'),
	('request_timeout', 'user')) AS
	contract(suffix, wanted)
LEFT JOIN pg_settings ON name = 'bicycle.' || suffix;
SELECT is(setting::bigint, 64::bigint * 1024 * 1024, 'bicycle.max_image_pixels is 64M by default')
	FROM pg_settings WHERE name = 'bicycle.max_image_pixels';

-- Calls as client libraries send them, with parameters whose types are not said, resolve without
-- casts.
PREPARE translate3 AS SELECT bicycle_translate($1, $2, $3);
PREPARE translate2 AS SELECT bicycle_translate($1, $2);
PREPARE translate4 AS SELECT bicycle_translate($1, $2, $3, $4);
PREPARE named AS SELECT bicycle_translate($1, $2, model => $3);
PREPARE many AS SELECT bicycle_translate_many($1, $2, $3);
PREPARE encode AS SELECT bicycle_encode($1, $2);
PREPARE sample AS SELECT * FROM bicycle_sample($1, $2, $3);
PREPARE import AS SELECT bicycle_import($1, $2, $3);
PREPARE checks AS SELECT bicycle_check($1);
PREPARE distances AS SELECT bicycle_lpips($1, $2);
PREPARE mean AS SELECT bicycle_mean($1);
SELECT is(parameter_types::text, wanted, name || ' resolves')
FROM (VALUES ('translate2', '{bytea,real[]}'), ('translate3', '{bytea,real[],text}'),
	('translate4', '{bytea,real[],text,integer}'), ('named', '{bytea,real[],text}'),
	('many', '{bytea[],real[],text}'), ('encode', '{bytea,text}'),
	('sample', '{bytea,integer,bigint}'), ('import', '{text,bytea,bytea}'), ('checks', '{bytea}'),
	('mean', '{real[]}')) AS
	contract(name, wanted)
LEFT JOIN pg_prepared_statements USING (name);

SELECT * FROM finish();
ROLLBACK;
