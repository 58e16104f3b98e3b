# A job runs as the role that started it: with its rights of the moment and nobody's else, whatever
# is set for that role, whatever its search_path would find, and whatever its query of the pairs
# tries to do or to leave behind.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

load_pairs($node, 'postgres');
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE painters;
CREATE ROLE painter LOGIN;
CREATE ROLE other LOGIN;
GRANT other TO painter;
GRANT EXECUTE ON FUNCTION bicycle_train TO painters;
GRANT SELECT, INSERT, UPDATE ON bicycle_models, bicycle_tensors, bicycle_counters TO painters;
GRANT painters TO painter;
CREATE TABLE owned AS SELECT *, CASE WHEN id < 4 THEN 'painter' ELSE 'other' END AS painter,
	id AS secret FROM outlines;
GRANT SELECT (sketch, photo, painter) ON owned TO painter;
CREATE VIEW mine WITH (security_barrier) AS SELECT sketch, photo FROM owned
	WHERE painter = current_user;
GRANT SELECT ON mine TO painters;
CREATE TABLE pictures AS TABLE outlines;
GRANT SELECT ON pictures TO painter;
CREATE SCHEMA studio AUTHORIZATION painter;
SQL

sub as_painter { return $node->safe_psql('postgres', $_[0], extra_params => [ '-U', 'painter' ]); }

# Starts a job as painter, who is the session's user; three iterations unless it says otherwise.
sub paint
{
	my ($model, $pairs, $options) = @_;

	$options //= '"iterations": 3';
	return as_painter("SET ROLE NONE; "
		. "SELECT public.bicycle_train('$model', \$\$$pairs\$\$, '{$TINY, $options}')");
}

sub ends
{
	my ($job, $expected, $what) = @_;

	ok(job_comes_to($node, $job, "state IN ('done', 'failed')"), "$what: the job ends");
	like(job_column($node, $job, "concat_ws(' ', owner, state, epochs, error)"), $expected, $what);
	return;
}

# Rows and columns.  Three iterations of two pairs are one epoch of eight rows, and two of four.
ends(paint('all', 'SELECT sketch, photo FROM pictures'), qr/^painter done 1$/,
	'a table that may be read');
ends(paint('view', 'SELECT sketch, photo FROM mine'), qr/^painter done 2$/,
	'a view shows what is for the owner of the job');
ends(paint('columns', "SELECT sketch, photo FROM owned WHERE painter IS NOT NULL"),
	qr/^painter done 1$/, 'columns that may be read');
ends(paint('column', 'SELECT sketch, photo FROM owned WHERE secret > 0'),
	qr/^painter failed permission denied for table owned$/, 'one that may not');
$node->safe_psql('postgres',
	'ALTER TABLE pictures ENABLE ROW LEVEL SECURITY; CREATE POLICY even ON pictures TO painter '
	. 'USING (id % 2 = 0)');
ends(paint('policy', 'SELECT sketch, photo FROM pictures'), qr/^painter done 2$/, 'row security');
is($node->safe_psql('postgres', "SELECT DISTINCT created_by FROM bicycle_models"), 'painter',
	'all versions are by the painter');

# Queries that write, and that start training.
as_painter(<<'SQL');
CREATE TABLE studio.log (at timestamptz);
CREATE FUNCTION studio.writes() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN INSERT INTO studio.log
	VALUES (now()); RETURN true; END$$;
CREATE FUNCTION studio.creates() RETURNS boolean
	LANGUAGE plpgsql AS $$BEGIN CREATE TABLE studio.left_behind (); RETURN true; END$$;
CREATE FUNCTION studio.may_write() RETURNS boolean LANGUAGE plpgsql AS $$BEGIN
	SET transaction_read_only = off; INSERT INTO studio.log VALUES (now()); RETURN true; END$$;
CREATE FUNCTION studio.trains() RETURNS boolean LANGUAGE plpgsql AS
	$$BEGIN RETURN public.bicycle_train('more', 'SELECT sketch, photo FROM pictures') > 0; END$$;
SQL
ends(paint('writes', 'SELECT sketch, photo FROM pictures WHERE studio.writes()'),
	qr/failed cannot execute INSERT in a read-only transaction/, 'a query that writes');
ends(paint('creates', 'SELECT sketch, photo FROM pictures WHERE studio.creates()'),
	qr/failed cannot execute CREATE TABLE in a read-only/, 'one that creates');
ends(paint('may_write', 'SELECT sketch, photo FROM pictures WHERE studio.may_write()'),
	qr/failed transaction read-write mode must be set before any query/, 'one that wants to');
ends(paint('trains', 'SELECT sketch, photo FROM pictures WHERE studio.trains()'),
	qr/failed cannot execute bicycle_train\(\) in a read-only/, 'one that trains');
is($node->safe_psql('postgres',
	"SELECT (SELECT count(*) FROM studio.log), to_regclass('studio.left_behind')"), '0|',
	'nothing was written');

# What a query sets ends with it: role, read-only transactions, where names are looked for.
as_painter(<<'SQL');
CREATE FUNCTION studio.meddles() RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
	PERFORM set_config('role', 'other', false), set_config('default_transaction_read_only', 'on',
		false), set_config('search_path', 'studio', false),
		set_config('lock_timeout', '1', false);
	RETURN true;
END $$;
SQL
ends(paint('meddles', 'SELECT sketch, photo FROM pictures WHERE studio.meddles()'),
	qr/^painter done 2$/, 'a query that changes settings');
is($node->safe_psql('postgres', "SELECT created_by FROM bicycle_models WHERE model = 'meddles'"),
	'painter', 'does so for itself only');

# Names that would be found before ours: functions, operators, types.
$node->safe_psql('postgres', <<'SQL');
CREATE SCHEMA evil;
CREATE TABLE evil.calls (name text);
GRANT USAGE ON SCHEMA evil TO PUBLIC;
GRANT ALL ON evil.calls TO PUBLIC;
CREATE FUNCTION evil.called(name text) RETURNS boolean
	LANGUAGE plpgsql AS $$BEGIN INSERT INTO evil.calls VALUES (name); RETURN false; END$$;
DO $$
DECLARE
	type text;
	op text;
BEGIN
	FOREACH type IN ARRAY '{bigint,int,text,oid,name,"\"char\"",float8,boolean,timestamptz}'::text[]
		LOOP
		EXECUTE format('CREATE FUNCTION evil.compare(%1$s, %1$s) RETURNS boolean
			LANGUAGE sql AS $f$SELECT evil.called(''operator of %1$s'')$f$', type);
		FOREACH op IN ARRAY '{=,<>,<,>,<=,>=}'::text[] LOOP
			EXECUTE format('CREATE OPERATOR evil.%1$s (LEFTARG = %2$s, RIGHTARG = %2$s,
				FUNCTION = evil.compare)', op, type);
		END LOOP;
	END LOOP;
	EXECUTE 'CREATE FUNCTION evil.add(timestamptz, interval) RETURNS timestamptz
		LANGUAGE sql AS $f$SELECT $1 FROM evil.called(''+'')$f$';
	EXECUTE 'CREATE OPERATOR evil.+ (LEFTARG = timestamptz, RIGHTARG = interval,
		FUNCTION = evil.add)';
	EXECUTE 'CREATE FUNCTION evil.times(float8, interval) RETURNS interval
		LANGUAGE sql AS $f$SELECT $2 FROM evil.called(''*'')$f$';
	EXECUTE 'CREATE OPERATOR evil.* (LEFTARG = float8, RIGHTARG = interval, FUNCTION = evil.times)';
	EXECUTE 'CREATE FUNCTION evil.joined(jsonb, jsonb) RETURNS jsonb
		LANGUAGE sql AS $f$SELECT $1 FROM evil.called(''||'')$f$';
	EXECUTE 'CREATE OPERATOR evil.|| (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = evil.joined)';
END $$;
CREATE FUNCTION evil.now() RETURNS timestamptz LANGUAGE sql AS $$SELECT pg_catalog.now()
	FROM evil.called('now')$$;
CREATE FUNCTION evil.concat_ws(text, text, text) RETURNS text LANGUAGE sql AS $$SELECT $3
	FROM evil.called('concat_ws')$$;
CREATE FUNCTION evil.octet_length(bytea) RETURNS int LANGUAGE sql AS $$SELECT 1
	FROM evil.called('octet_length')$$;
CREATE FUNCTION evil.array_position(text[], text) RETURNS int LANGUAGE sql AS $$SELECT 1
	FROM evil.called('array_position')$$;
CREATE FUNCTION evil.pg_has_role(oid, text) RETURNS boolean
	LANGUAGE sql AS $$SELECT evil.called('pg_has_role')$$;
CREATE FUNCTION evil.pg_get_userbyid(oid) RETURNS name LANGUAGE sql AS $$SELECT 'x'::name
	FROM evil.called('pg_get_userbyid')$$;
CREATE AGGREGATE evil.max(bigint) (SFUNC = int8larger, STYPE = bigint);
CREATE DOMAIN evil.jsonb AS pg_catalog.jsonb CHECK (evil.called('jsonb'));
CREATE DOMAIN evil.text AS pg_catalog.text CHECK (evil.called('text'));
CREATE DOMAIN evil.int8 AS pg_catalog.int8 CHECK (evil.called('int8'));
CREATE TABLE evil.bicycle_training_jobs (LIKE bicycle_training_jobs INCLUDING ALL);
CREATE TABLE evil.bicycle_models (LIKE bicycle_models INCLUDING ALL);
ALTER ROLE painter SET search_path = evil, pg_catalog;
SQL
is(as_painter('SELECT 1 WHERE 1 = 1'), '', 'the trap is set');
is($node->safe_psql('postgres',
	"WITH gone AS (DELETE FROM evil.calls RETURNING name) SELECT DISTINCT name FROM gone"),
	'operator of int', 'and notes what it catches');
my $job = paint('trapped', 'SELECT sketch, photo FROM public.pictures',
	'"iterations": 40, "checkpoint_every": 5, "preview_every": 10');
ok(stop_at_checkpoint($node, $job), 'a job runs under such a search_path');
ok(pause_halted($node, $job, user => 'painter'), 'is paused');
as_painter("SELECT public.bicycle_resume($job)");
as_painter("CALL public.bicycle_wait($job)");
is(job_column($node, $job, 'state'), 'done', 'and done');
as_painter("SELECT pg_catalog.count(state) FROM public.bicycle_jobs; SELECT "
	. "pg_catalog.count(value) FROM public.bicycle_losses; SELECT pg_catalog.count(image) FROM "
	. "public.bicycle_previews;"
		. " SELECT pg_catalog.length(public.bicycle_loss_plot($job))");
my $more = paint('trapped', 'SELECT sketch, photo FROM public.pictures', '"iterations": 3');
as_painter("CALL public.bicycle_wait($more)");
is(job_column($node, $more, 'version'), 2, 'so is one that continues its model');
$more = paint('trapped', 'SELECT sketch, photo FROM public.pictures', '"iterations": 100000');
as_painter("SELECT public.bicycle_cancel($more)");
ok(job_comes_to($node, $more, "state = 'cancelled'"), 'and another one cancelled');
is($node->safe_psql('postgres', 'SELECT string_agg(DISTINCT name, $$, $$) FROM evil.calls'), '',
	'nothing was called in place of ours');
is($node->safe_psql('postgres',
	'SELECT (SELECT count(*) FROM evil.bicycle_training_jobs), (SELECT count(*) FROM '
	. 'evil.bicycle_models)'), '0|0', 'nor written');

# A model of the same name that the owner cannot see costs the job its place, and not its weights.
configure($node, 'SET bicycle.max_training_jobs = 0');
$job = paint('hidden', 'SELECT sketch, photo FROM public.pictures');
$node->safe_psql('postgres', "SELECT bicycle_create('hidden', '{$TINY}');
	ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON bicycle_models USING (created_by = current_user)");
configure($node, 'RESET bicycle.max_training_jobs');
ends($job, qr/^painter done 2$/, 'beside a hidden model');
is($node->safe_psql('postgres', "SELECT string_agg(version || ' ' || is_current, ', ' ORDER BY
	version) FROM bicycle_models WHERE model = 'hidden'"), '1 true, 2 false',
	'its version is stored, and that one is current');
$node->safe_psql('postgres',
	'DROP POLICY own ON bicycle_models; ALTER TABLE bicycle_models DISABLE ROW LEVEL SECURITY');

# What is set for a role does not get in the way of its job.
$node->safe_psql('postgres', <<'SQL');
ALTER ROLE painter RESET search_path;
ALTER ROLE painter SET role = 'other';
ALTER ROLE painter SET lock_timeout = '10ms';
ALTER ROLE painter SET statement_timeout = '1s';
ALTER ROLE painter SET idle_in_transaction_session_timeout = '1s';
ALTER ROLE painter SET default_transaction_isolation = 'serializable';
ALTER ROLE painter SET default_transaction_read_only = on;
ALTER ROLE painter SET default_transaction_deferrable = on;
ALTER ROLE painter SET standard_conforming_strings = off;
ALTER ROLE painter SET array_nulls = off;
ALTER ROLE painter SET bytea_output = 'escape';
ALTER ROLE painter SET extra_float_digits = -15;
ALTER ROLE painter SET DateStyle = 'SQL, DMY';
ALTER ROLE painter SET IntervalStyle = 'iso_8601';
ALTER ROLE painter SET TimeZone = 'Pacific/Chatham';
ALTER ROLE painter SET row_security = off;
ALTER ROLE painter SET bicycle.model = 'nonsense';
ALTER ROLE painter SET work_mem = '64kB';
ALTER TABLE pictures DISABLE ROW LEVEL SECURITY;
SQL
my $begin = 'SET ROLE NONE; SET default_transaction_read_only = off; SET statement_timeout = 0; '
	. 'SET lock_timeout = 0;';
my $call = "SELECT bicycle_train('set', 'SELECT sketch, photo FROM pictures', '{$TINY, "
	. "\"iterations\": %s}')";
$job = as_painter($begin . sprintf($call, 3));
ends($job, qr/^painter done 1$/, 'a job of a role for which much is set');
is($node->safe_psql('postgres',
	"SELECT created_by, iterations FROM bicycle_models WHERE model = 'set'"), 'painter|3',
	'trains as who has started it');
is(job_column($node, $job, 'isfinite(updated_at) AND losses IS NOT NULL'), 't',
	'numbers and dates are what they are');
$job = as_painter($begin . sprintf($call, 100000));
ok(job_comes_to($node, $job, "state = 'running' AND iteration > 0"), 'a longer one');
$node->safe_psql('postgres', "BEGIN; SELECT bicycle_pause($job); SELECT pg_sleep(2.5); ROLLBACK");
is(job_column($node, $job, "concat_ws(' ', state, error)"), 'running',
	'waits for its row if it must');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(job_comes_to($node, $job, "state = 'cancelled'"), 'and goes on until it is cancelled');
$node->safe_psql('postgres', 'ALTER TABLE pictures ENABLE ROW LEVEL SECURITY');
my ($status, $out, $err) = $node->psql('postgres', $begin . sprintf($call, 3),
	extra_params => [ '-U', 'painter' ]);
like($err, qr/query would be affected by row-level security policy/,
	'row_security = off holds for the query');
$node->safe_psql('postgres', 'ALTER ROLE painter RESET ALL');

# Roles change while a job rests.
sub paused_job
{
	my ($model) = @_;
	my $paused = paint($model, 'SELECT sketch, photo FROM pictures', '"iterations": 100000');

	ok(job_comes_to($node, $paused, "state = 'running' AND iteration > 0"), 'a job runs');
	$node->safe_psql('postgres', "SELECT bicycle_pause($paused)");
	ok(job_comes_to($node, $paused, "state = 'paused'"), 'and is paused');
	return $paused;
}

$job = paused_job('renamed');
$node->safe_psql('postgres', "ALTER ROLE painter RENAME TO sculptor; SELECT bicycle_resume($job)");
ok(job_comes_to($node, $job,
	"state = 'running' AND owner = 'sculptor' AND updated_at > clock_timestamp() - interval '1 s'"),
	'a job of a role that was renamed goes on');
$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
ok(job_comes_to($node, $job, "state = 'paused'"), 'and is paused again');
$node->safe_psql('postgres',
	"ALTER ROLE sculptor RENAME TO painter; REVOKE CONNECT ON DATABASE postgres FROM PUBLIC; "
	. "SELECT bicycle_resume($job)");
ends($job,
	qr/^painter failed \d+ the role that started the job may not connect to the database any more$/,
	'that of a role without CONNECT');
$node->safe_psql('postgres',
	"GRANT CONNECT ON DATABASE postgres TO PUBLIC; SELECT bicycle_resume($job)");
ok(job_comes_to($node, $job,
	"state = 'running' AND error IS NULL AND updated_at > clock_timestamp() - interval '1 s'"),
	'which can be resumed when it has it again');
$node->safe_psql('postgres', "REVOKE painters FROM painter");
$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
ok(job_comes_to($node, $job, "state = 'paused'"),
	'a job is stopped as before when its role has lost its rights');
$node->safe_psql('postgres', 'DROP OWNED BY painter; DROP ROLE painter');
($status, $out, $err) = $node->psql('postgres', "SELECT bicycle_resume($job)");
is($status, 0, 'when the role is gone') or diag($err);
ok(job_comes_to($node, $job,
	"state = 'failed' AND error = 'the role that started the job does not exist any more'"),
	'its job fails');

$node->stop;
done_testing();
