-- Settings: choices, ranges, who may set them, and that the prefix is reserved.
\getenv srcdir PG_ABS_SRCDIR
\set common :srcdir '/sql/include/common.sql'
\i :common
SELECT bicycle_latent(0, 0);	-- loads the library if nothing has yet
SELECT name, enumvals FROM pg_settings WHERE name LIKE 'bicycle.%' AND vartype = 'enum'
ORDER BY name COLLATE "C";
SELECT name FROM pg_settings WHERE name LIKE 'bicycle.%'
	AND (short_desc IS NULL OR short_desc !~ '\.$');
SET bicycle.no_such_setting = 1;
SET bicycle.prefetch = 0;
SET bicycle.jpeg_quality = 101;
SET bicycle.png_level = 7;
SET bicycle.output_format = gif;
SET bicycle.priority = high;
SET bicycle.device = cpu;
SET bicycle.max_image_pixels = 1;
RESET bicycle.max_image_pixels;
SELECT set_config('bicycle.model', repeat('x', 256), false);
SET bicycle.priority = bulk;
SHOW bicycle.priority;
RESET bicycle.priority;
SET bicycle.request_timeout = '2s';
SHOW bicycle.request_timeout;
RESET bicycle.request_timeout;
-- Only a superuser loosens the limits.
CREATE ROLE regress_bicycle_user;
SET ROLE regress_bicycle_user;
SET bicycle.max_image_pixels = 100000000;
SET bicycle.max_request_size = '100MB';
SET bicycle.debug_fault = 1;
SET bicycle.model = 'any';
RESET ROLE;
DROP ROLE regress_bicycle_user;
-- A value that the engine could not use is refused where it is set.
ALTER SYSTEM SET bicycle.device = 'tpu';
ALTER SYSTEM SET bicycle.device = 'cuda:x';
ALTER SYSTEM SET bicycle.device = 'cuda:0,cpu';
ALTER SYSTEM SET bicycle.device = 'cuda:0,cuda:all';
ALTER SYSTEM SET bicycle.device = 'cuda:1,cuda:0,cuda:1';
ALTER SYSTEM SET bicycle.device = 'cuda:0,';
ALTER SYSTEM SET bicycle.device = 'cuda:0 cuda:1,cuda:2';
-- Several GPUs are a list. It is not read here.
ALTER SYSTEM SET bicycle.device = 'cuda:0, cuda:1';
ALTER SYSTEM SET bicycle.device = 'cuda:all';
ALTER SYSTEM RESET bicycle.device;
ALTER SYSTEM SET bicycle.training_device = 'cuda:0,cuda:1';
ALTER SYSTEM SET bicycle.training_share = 101;
ALTER SYSTEM SET bicycle.max_batch = 0;
-- The wording of ranges with a unit differs between versions of the server.
\set VERBOSITY sqlstate
ALTER SYSTEM SET bicycle.train_memory = 0;
ALTER SYSTEM SET bicycle.train_disk = -1;
ALTER SYSTEM SET bicycle.train_checkpoint_interval = '100ms';
ALTER SYSTEM SET bicycle.train_stuck_timeout = 0;
\set VERBOSITY default
-- A reload reaches the engine, which goes on.
SELECT pid AS engine FROM bicycle_engine() \gset
ALTER SYSTEM SET bicycle.max_batch = 4;
SELECT pg_reload_conf();
SELECT pg_sleep(0.3);
SELECT pid = :engine AS same_engine FROM bicycle_engine();
-- One engine is one row, and the same as the sums.
SELECT e.number, e.state, s.pid = e.pid AND s.device = e.device AS same,
	s.requests >= e.requests AS requests, s.restarts = e.restarts AS restarts
	FROM bicycle_engines() e, bicycle_engine() s;
ALTER SYSTEM RESET bicycle.max_batch;
SELECT pg_reload_conf();
