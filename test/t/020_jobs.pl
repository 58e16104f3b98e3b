# Jobs and what happens around them: stops while pairs are read, models that cannot be stored,
# memory and disk for pairs, notes, checkpoints by the clock, databases that somebody wants for
# himself, shutdowns, worker slots.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

# reading it takes for ever
my $endless = 'SELECT sketch, photo FROM outlines WHERE pg_sleep(600) IS NOT NULL';

# Waits until CONDITION over the columns of the job's row holds.
sub row_comes_to
{
	my ($node, $job, $condition, $database) = @_;

	return 1 if $node->poll_query_until($database // 'postgres',
		"SELECT $condition FROM bicycle_training_jobs WHERE job = $job");
	diag($node->psql($database // 'postgres',
		"SELECT * FROM bicycle_training_jobs WHERE job = $job"));
	return 0;
}

sub trainers { return "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bicycle "
	. "trainer'"; }

sub reads_pairs { return $_[0]->poll_query_until('postgres',
	trainers() . " AND query LIKE '%pg_sleep%' AND state = 'active'", 1); }

sub waits_for_lock { return $_[0]->poll_query_until('postgres',
	trainers() . " AND wait_event_type = 'Lock'", 1); }

my $node = new_node('main');
load_pairs($node, 'postgres');
# What an interrupted DROP DATABASE leaves.
$node->safe_psql('postgres', $_) foreach 'CREATE DATABASE half_dropped',
	"UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'half_dropped'";

# While the pairs are read: stops are immediate, wherever the query is.
my $job = train($node, 'read', '"iterations": 3', pairs => $endless);
ok(reads_pairs($node), 'a job reads its pairs');
$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
ok(row_comes_to($node, $job, "state = 'paused'"), 'a pause interrupts the query');
$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
ok(reads_pairs($node), 'a resumed job reads its pairs again');
$node->safe_psql('postgres',
	"BEGIN; SAVEPOINT s; SELECT bicycle_cancel($job); ROLLBACK TO s; COMMIT");
$node->safe_psql('postgres', "BEGIN; SELECT bicycle_cancel($job); ROLLBACK");
ok(reads_pairs($node), 'a cancel that is rolled back does not end it');
$node->restart;
ok(reads_pairs($node), 'nor does a restart of the server');
is($node->safe_psql('postgres',
	"SELECT attempts, error FROM bicycle_training_jobs WHERE job = $job"), '1|',
	'which is no failure of the job');
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'");
ok(row_comes_to($node, $job, "state = 'failed' AND sqlstate = '57014'"),
	'who cancels the query itself ends the job with 57014');
$job = train($node, 'read', '"iterations": 3', pairs => $endless);
ok(reads_pairs($node), 'another job reads its pairs');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(row_comes_to($node, $job, "state = 'cancelled'"), 'a cancel interrupts the query too');
is($node->safe_psql('postgres', "SELECT error IS NULL FROM bicycle_jobs WHERE job = $job"), 't',
	'and is no error');

# A shutdown is no try of a job, whatever its query makes of the interruption.
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION interrupted_twice() RETURNS boolean LANGUAGE plpgsql AS
	$$BEGIN RETURN pg_sleep(600) IS NULL; EXCEPTION WHEN query_canceled THEN RETURN pg_sleep(600) IS
		NULL; END$$;
CREATE FUNCTION complains() RETURNS boolean LANGUAGE plpgsql AS
	$$BEGIN RETURN pg_sleep(600) IS NULL; EXCEPTION WHEN query_canceled THEN RAISE 'interrupted';
		END$$;
SQL
foreach my $function ('interrupted_twice', 'complains')
{
	$job = train($node, 'read', '"iterations": 3',
		pairs => "SELECT sketch, photo FROM outlines WHERE $function() /* pg_sleep */");
	ok(reads_pairs($node), 'a job reads its pairs');
	$node->restart;
	ok(reads_pairs($node), "$function: and again after a shutdown");
	is($node->safe_psql('postgres',
		"SELECT attempts, error FROM bicycle_training_jobs WHERE job = $job"), '1|',
		"$function: which is no failure");
	$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
	ok(row_comes_to($node, $job, "state = 'cancelled'"), 'the job is cancelled');
}

# What cannot be stored is not lost: the job keeps its last iteration, and its model is the one that
# it would have been.
$node->safe_psql('postgres', <<'SQL');
CREATE ROLE painter LOGIN;
GRANT EXECUTE ON FUNCTION bicycle_train TO painter;
GRANT SELECT, INSERT, UPDATE ON bicycle_models, bicycle_tensors, bicycle_counters TO painter;
GRANT SELECT ON outlines TO painter;
CREATE TABLE theirs AS SELECT * FROM outlines;
GRANT SELECT ON theirs TO painter;
SQL
my $options = '"iterations": 200, "seed": 7';
$job = train($node, 'whole', $options);
$node->safe_psql('postgres', "CALL bicycle_wait($job)");
$job = train($node, 'kept', $options, before => 'SET ROLE painter;',
	pairs => 'SELECT sketch, photo FROM theirs');
ok(row_comes_to($node, $job, "iterations > 0"), 'a job trains');
$node->safe_psql('postgres', 'REVOKE INSERT ON bicycle_models FROM painter');
ok(row_comes_to($node, $job, "state = 'failed' AND sqlstate = '42501'"),
	'without the right to store its model it fails');
is($node->safe_psql('postgres',
	"SELECT error ~ 'permission denied for table bicycle_models', iteration, checkpoint, version "
	. "IS NULL FROM bicycle_training_jobs WHERE job = $job"),
	't|200|200|t', 'with the error, and the checkpoint of its last iteration');
$node->safe_psql('postgres',
	"DROP TABLE theirs; GRANT INSERT ON bicycle_models TO painter; SELECT bicycle_resume($job)");
ok(row_comes_to($node, $job, "state = 'done'"), 'resumed, it stores the model, without its pairs');
is(weights($node, 'kept'), weights($node, 'whole'), 'which is bit for bit what it would have been');
is($node->safe_psql('postgres',
	"SELECT count(*) FROM bicycle_training_checkpoints WHERE job = $job"), 0,
	'and its checkpoints are gone');
is($node->safe_psql('postgres', "SELECT notes IS NULL FROM bicycle_jobs WHERE job = $job"), 't',
	'nothing is noted of pairs that were not read');
configure($node, 'SET bicycle.max_training_jobs = 0');
$job = train($node, 'denied', '"iterations": 3', before => 'SET ROLE painter;');
$node->safe_psql('postgres', 'REVOKE INSERT ON bicycle_tensors FROM painter');
configure($node, 'RESET bicycle.max_training_jobs');
ok(row_comes_to($node, $job, "state = 'failed' AND error ~ 'bicycle_tensors'"),
	'rights that are lost before the start are missed at the start');
is($node->safe_psql('postgres', "SELECT iteration FROM bicycle_jobs WHERE job = $job"), 0,
	'before anything is trained');

# Pairs take memory, then disk, then are too many.
my $many = 'SELECT sketch, photo FROM outlines, generate_series(1, 150)';
is($node->safe_psql('postgres',
	"SELECT sum(octet_length(sketch) + octet_length(photo)) > 1.5 * 1024 * 1024 FROM ($many) p"),
	't', 'there are pairs for more than one megabyte');
configure($node, "SET bicycle.train_memory = '1MB'", 'SET bicycle.train_disk = 0');
$job = train($node, 'many', '"iterations": 3', pairs => $many);
ok(row_comes_to($node, $job,
	"state = 'failed' AND sqlstate = '54000' AND error ~ 'bicycle.train_memory'"),
	'too many pairs for memory and disk fail with 54000');
configure($node, 'RESET bicycle.train_disk');
$job = train($node, 'many', '"iterations": 3', pairs => $many);
ok(row_comes_to($node, $job, "state = 'done'"), 'on disk there is room for them');
configure($node, 'RESET bicycle.train_memory');

# Collapse is noted once, however often the job is interrupted. With such a rate nothing is learnt,
# z included. It takes many iterations: they are small ones.
$job = $node->safe_psql('postgres',
	qq{SELECT bicycle_train('flat', '$PAIRS', '{"method": "pix2pix_noise",
	"size": 64, "load_size": 64, "ngf": 1,
	"nz": 1, "batch_size": 1,
	"lambda_gan": 0, "lr": 1e-12, "iterations": 3000}')});
ok(job_comes_to($node, $job, "notes ~ 'hardly vary'"), 'samples that do not vary with z are noted');
$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
ok(row_comes_to($node, $job, "state = 'paused'"), 'the job is paused');
ok($node->safe_psql('postgres',
	"SELECT iteration BETWEEN 1250 AND 2500 FROM bicycle_jobs WHERE job = $job") eq 't',
	'soon enough to be noted again');
$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
ok(job_comes_to($node, $job, "state = 'done'"), 'it goes on to the end');
is($node->safe_psql('postgres',
	"SELECT count(*) FROM bicycle_jobs, regexp_matches(notes, 'hardly vary', 'g') WHERE job = "
	. "$job"), 1, 'with one note');

# Checkpoints come by the clock.
configure($node, "SET bicycle.train_checkpoint_interval = '1s'");
$job = train($node, 'clock', '"iterations": 100000');
ok(row_comes_to($node, $job, 'checkpoint > 0'), 'a checkpoint comes when it is time');
my $first = $node->safe_psql('postgres',
	"SELECT checkpoint FROM bicycle_training_jobs WHERE job = $job");
ok(row_comes_to($node, $job, "checkpoint > $first"), 'and another one');
is($node->safe_psql('postgres',
	"SELECT count(DISTINCT iteration) <= 2 FROM bicycle_training_checkpoints WHERE job = $job"),
	't', 'of which two are kept');

# A smart shutdown does not wait for jobs.
$node->stop('smart');
$node->start;
ok(row_comes_to($node, $job, "state = 'running' AND updated_at > pg_postmaster_start_time()"),
	'a job goes on after a smart shutdown');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(row_comes_to($node, $job, "state = 'cancelled'"), 'until it is cancelled');

# Nor does a fast one, not even for a job that waits for a lock to store its model; whose model is
# stored afterwards.
$job = train($node, 'held', '"iterations": 200');
ok(row_comes_to($node, $job, 'iterations > 0'), 'another job trains');
$node->safe_psql('postgres',
	"BEGIN; SELECT bicycle_create('held', '{$TINY}'); PREPARE TRANSACTION 'held'");
ok(waits_for_lock($node), 'its trainer waits for a lock that survives the shutdown');
foreach my $time ('a', 'another')
{
	$node->restart;
	ok(waits_for_lock($node), "and again after $time shutdown");
	is($node->safe_psql('postgres', "SELECT attempts FROM bicycle_training_jobs WHERE job = $job"),
		1, 'which is no failure');
}
$node->safe_psql('postgres', "ROLLBACK PREPARED 'held'");
ok(row_comes_to($node, $job, "state = 'done'"), 'and stores the model when the lock is gone');

# Nor for one whose checkpoint cannot be stored in time.
$node->safe_psql('postgres',
	"BEGIN; LOCK TABLE bicycle_training_checkpoints IN SHARE MODE; PREPARE TRANSACTION 'held'");
$job = train($node, 'slow', '"iterations": 200, "checkpoint_every": 8');
ok(waits_for_lock($node), 'a checkpoint takes long');
$node->restart;
ok(waits_for_lock($node), 'the same after a shutdown');
is($node->safe_psql('postgres', "SELECT attempts FROM bicycle_training_jobs WHERE job = $job"), 1,
	'which is no failure');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'held'");
ok(row_comes_to($node, $job, "state = 'done'"), 'the job is done when checkpoints can be stored');

# Of a job that is deleted nothing is left, whatever its trainer is about to write.
sub all_ends
{
	my ($what) = @_;

	ok($node->poll_query_until('postgres', trainers(), 0), "$what: the trainer ends");
	is($node->safe_psql('postgres', "SELECT (SELECT count(*) FROM bicycle_training_losses
		WHERE job = $job) + (SELECT count(*) FROM bicycle_training_previews WHERE job = $job) +
		(SELECT count(*) FROM bicycle_training_checkpoints WHERE job = $job) +
		(SELECT count(*) FROM bicycle_models WHERE model = 'deleted')"), 0,
		"$what: nothing is left");
	return;
}
$job = train($node, 'deleted', '"iterations": 3', pairs => $endless);
ok(reads_pairs($node), 'a job reads its pairs');
$node->safe_psql('postgres', "DELETE FROM bicycle_training_jobs WHERE job = $job");
all_ends('deleted while it reads');
$job = train($node, 'deleted', '"iterations": 100000');
ok(row_comes_to($node, $job, 'iteration > 0'), 'another one trains');
$node->safe_psql('postgres', "DELETE FROM bicycle_training_jobs WHERE job = $job");
all_ends('deleted while it trains');
$job = train($node, 'deleted', '"iterations": 200');
ok(row_comes_to($node, $job, 'iterations > 0'), 'another one trains');
$node->safe_psql('postgres',
	"BEGIN; SELECT bicycle_create('deleted', '{$TINY}'); PREPARE TRANSACTION 'held'");
ok(waits_for_lock($node), 'its trainer waits for the lock of its model');
$node->safe_psql('postgres', $_) foreach "DELETE FROM bicycle_training_jobs WHERE job = $job",
	"ROLLBACK PREPARED 'held'";
all_ends('deleted before its model is stored');
$node->safe_psql('postgres',
	"BEGIN; LOCK TABLE bicycle_training_checkpoints IN SHARE MODE; PREPARE TRANSACTION 'held'");
$job = train($node, 'deleted', '"iterations": 200, "checkpoint_every": 8');
ok(waits_for_lock($node), 'another one waits to store a checkpoint');
my $deletes = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c',
	"DELETE FROM bicycle_training_jobs WHERE job = $job" ]);
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'DELETE%' "
	. "AND wait_event_type = 'Lock'"),
	'a session that deletes it waits');
$node->safe_psql('postgres', "ROLLBACK PREPARED 'held'");
ok($deletes->finish, 'and goes on');
all_ends('deleted while it stores a checkpoint');

# DROP DATABASE does not wait for a job to end, and CREATE DATABASE can copy a database in which one
# runs.
$node->safe_psql('postgres', 'CREATE DATABASE doomed');
load_pairs($node, 'doomed');
$job = train($node, 'tiny', '"iterations": 100000', database => 'doomed');
ok(row_comes_to($node, $job, 'iteration > 0', 'doomed'), 'a job trains in another database');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE doomed');
ok(row_comes_to($node, $job,
	"updated_at > clock_timestamp() - interval '1 s' AND attempts <= 1 AND error IS NULL",
	'doomed'), 'it makes way for a copy of its database and goes on');
is($node->safe_psql('copy', 'SELECT state FROM bicycle_jobs'), 'paused',
	'in the copy it is paused');
$node->safe_psql('postgres', 'DROP DATABASE doomed');
ok($node->poll_query_until('postgres', trainers(), 0),
	'its database can be dropped, and the trainer is gone');
$node->safe_psql('copy', "SELECT bicycle_resume($job)");
ok(row_comes_to($node, $job, 'iteration > 0', 'copy'), 'the copy can be resumed');
$node->safe_psql('copy', "SELECT bicycle_pause($job)");
ok(row_comes_to($node, $job, "state = 'paused'", 'copy'), 'and paused');
$job = train($node, 'slow', '"iterations": 3', database => 'copy',
	pairs => "$PAIRS, generate_series(1, 100000) WHERE pg_sleep(0.01) IS NOT NULL");
ok(reads_pairs($node), 'another job reads many pairs in the copy');
$node->safe_psql('postgres', 'DROP DATABASE copy');
ok($node->poll_query_until('postgres', trainers(), 0), 'which can be dropped, too');

# Who drops the extension and creates it again has jobs of the same numbers, with which a trainer of
# the old ones has nothing to do.
$node->safe_psql('postgres', 'CREATE DATABASE anew');
load_pairs($node, 'anew');
$job = train($node, 'old', '"iterations": 100000', database => 'anew');
ok(row_comes_to($node, $job, 'iteration > 3', 'anew'), 'a job trains');
$node->safe_psql('anew', 'BEGIN; DROP EXTENSION bicycle; CREATE EXTENSION bicycle; COMMIT');
is(train($node, 'new', '"iterations": 3', database => 'anew'), $job,
	'a job of another extension has its number');
ok(row_comes_to($node, $job, "state = 'done'", 'anew'), 'and is done');
is($node->safe_psql('anew', "SELECT string_agg(DISTINCT model, ' '), max(l.iteration) FROM "
	. "bicycle_models, bicycle_losses l"), 'new|3', 'with its own model and losses');
$node->safe_psql('postgres', 'DROP DATABASE anew');

# Jobs of one transaction start in the order of the calls.
my $jobs = join(', ', split(/\n/,
	$node->safe_psql('postgres',
	"SELECT bicycle_train('queue' || n, '$PAIRS', '{$TINY, \"iterations\": 1}') FROM "
	. "generate_series(1, 4) n")));
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 4 FROM bicycle_jobs WHERE state = 'done' AND job IN ($jobs)"),
	'jobs that were started together end');
is($node->safe_psql('postgres',
	"SELECT string_agg(model, ' ' ORDER BY started_at) FROM bicycle_jobs WHERE job IN ($jobs)"),
	'queue1 queue2 queue3 queue4', 'in their order');
unlike(slurp_file($node->logfile), qr/cannot connect to invalid database/,
	'no database was looked at that cannot be connected to');
$node->stop;

# Worker slots.  One is left beside the workers that are always there.
$node = new_node('slots', 'max_worker_processes = 4');
load_pairs($node, 'postgres');
# the launcher's first look is over
$node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bicycle job scan'");
$job = train($node, 'first', '"iterations": 100000');
ok(row_comes_to($node, $job, 'iteration > 0'), 'one slot is enough for a job');
my $second = train($node, 'second', '"iterations": 3');
is($node->safe_psql('postgres', "SELECT state FROM bicycle_jobs WHERE job = $second"), 'queued',
	'another one may wait for it');
configure($node, 'SET bicycle.max_training_jobs = 2');
my ($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nSELECT bicycle_train('third', '$PAIRS', '{$TINY}')");
my $told = "DETAIL:  All background worker slots are in use.\nHINT:  Raise max_worker_processes.";
like($err, qr/ERROR:  53000: could not start a training job\n\Q$told\E/,
	'one that could start, but for a slot, is refused');
is($node->safe_psql('postgres', "SELECT count(*) FROM bicycle_jobs WHERE model = 'third'"), 0,
	'and leaves nothing behind');
ok($node->wait_for_log(qr/training jobs wait for a background worker slot/),
	'the log tells that jobs wait for a slot');
($status, $out, $err) = $node->psql('postgres', "CALL bicycle_wait($second, '100 ms')");
like($err, qr/WARNING:  training job $second waits for a background worker slot/,
	'and so does bicycle_wait');
configure($node, 'RESET bicycle.max_training_jobs');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(row_comes_to($node, $second, "state = 'done'"), 'which starts in the slot of the first');
$node->stop;
done_testing();
