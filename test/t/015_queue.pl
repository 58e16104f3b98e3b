# The queue of jobs: how many run at once, who is next when one ends in whatever way, in one
# database and in several; what changes while a scan looks; five tries with growing pauses for a
# job whose engine dies; and what does no harm to a running job, or to those in the queue:
# sessions that keep rows or tables locked, a session that waits for the end of a job, a database
# that is dropped.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $node = new_node('main');
my $long = '"iterations": 100000';

load_pairs($node, 'postgres');

sub set_max_jobs { configure($node, "SET bicycle.max_training_jobs = $_[0]"); return; }

sub states { return $node->safe_psql('postgres',
	"SELECT string_agg(model || ' ' || state, ', ' ORDER BY job) FROM bicycle_jobs WHERE job IN "
	. "($_[0])"); }

sub order							# of the starts of jobs, by the names of their models
{
	my ($jobs, $database) = @_;

	return $node->safe_psql($database // 'postgres',
		"SELECT string_agg(model, ' ' ORDER BY started_at) FROM bicycle_jobs WHERE job IN ($jobs)");
}

# What the kernel knows of a process: the scheduling policy (5: SCHED_IDLE), and how its session is
# to share processors, where the kernel looks at that.
sub priority
{
	my ($pid) = @_;
	my $policy = (split ' ', slurp_file("/proc/$pid/stat") =~ s/.*\)//sr)[38];
	my ($group) = -e "/proc/$pid/autogroup" ? slurp_file("/proc/$pid/autogroup") =~ /nice (-?\d+)/
		: ();

	return "policy $policy, group " . ($group // 5);
}

sub call { return $node->safe_psql('postgres', "SELECT $_[0]"); }

# One at a time: the next starts by itself when one is paused, is cancelled, fails, is done.
my $a = train($node, 'a', $long);
my $b = train($node, 'b', $long);
my $c = train($node, 'c', '"iterations": 3',
	pairs => 'SELECT sketch, photo FROM outlines WHERE 1 / (id - id) > 0');
my $d = train($node, 'd', '"iterations": 3');
my $e = train($node, 'e', $long);

ok(job_comes_to($node, $a, "state = 'running'"), 'the first job runs');
is(states("$a, $b, $c, $d, $e"), 'a running, b queued, c queued, d queued, e queued',
	'all others wait');
my (undef, undef, $told) = $node->psql('postgres', "CALL bicycle_wait($d, '3 s')");
my $says = qr/NOTICE:  job $d is queued\nDETAIL:  Training jobs that run: 1. /;
is(() = $told =~ /${says}Setting bicycle.max_training_jobs: 1./g, 1,
	'which bicycle_wait says, once') or diag($told);
call("bicycle_pause($a)");
ok(job_comes_to($node, $b, "state = 'running'"), 'the second starts when the first is paused');
call("bicycle_resume($a)");
is(states("$a, $b, $c, $d, $e"), 'a queued, b running, c queued, d queued, e queued',
	'resumed, that waits with the others');
call("bicycle_pause($a)");
call("bicycle_cancel($b)");
ok(job_comes_to($node, $e, "state = 'running'"),
	'when that is cancelled, one fails, one is done, and the last one starts');
is(states("$a, $b, $c, $d, $e"), 'a paused, b cancelled, c failed, d done, e running',
	'each in its state');
is(order("$a, $b, $d, $e"), 'a b d e', 'in their order');

# First come, first served, also with more jobs than there are worker slots.
my @jobs = map { train($node, "f$_", '"iterations": 1') } 1 .. 9;
call("bicycle_cancel($e)");
ok(job_comes_to($node, $jobs[8], "state = 'done'"), 'nine jobs are done');
is(order(join(', ', @jobs)), 'f1 f2 f3 f4 f5 f6 f7 f8 f9', 'one after the other');
unlike(slurp_file($node->logfile), qr/found no worker slot/,
	'none of which took a worker before its turn');

# A scan does not bring a job to what it was asked for before: the lock lets it read the row, and
# not write it. What wakes the launcher is a transaction that has changed nothing.
my %sessions = map { $_ => $node->background_psql('postgres') } 'wakes', 'holds';
$sessions{wakes}->query_safe("BEGIN; SAVEPOINT s; SELECT bicycle_resume($a); ROLLBACK TO s");
# as a crash leaves it
$sessions{holds}->query_safe("UPDATE bicycle_training_jobs SET state = 'running', wanted = 'paused'
	WHERE job = $a; BEGIN; LOCK TABLE bicycle_training_jobs IN SHARE MODE");
$sessions{wakes}->query_safe('COMMIT');
ok($node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE
	backend_type = 'bicycle job scan' AND wait_event_type = 'Lock'"),
	'a scan is about to pause a job');
$sessions{holds}->query_safe("SELECT bicycle_resume($a); COMMIT");
$sessions{$_}->quit foreach keys %sessions;
ok(job_comes_to($node, $a, "state = 'running' AND updated_at > clock_timestamp() - interval '1 s'"),
	'which was resumed meanwhile, and runs');
call("bicycle_pause($a)");
ok(job_comes_to($node, $a, "state = 'paused'"), 'until it is paused');

# A job whose row cannot be written is not started over and over, and is not given up.
my $log = -s $node->logfile;
$node->safe_psql('postgres', <<'SQL');
CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql
	AS $$BEGIN RAISE 'the disk is full'; END$$;
CREATE TRIGGER full_disk BEFORE UPDATE ON bicycle_training_jobs
	FOR EACH ROW EXECUTE FUNCTION full_disk();
SQL
my $unwritten = train($node, 'unwritten', '"iterations": 3');
ok($node->wait_for_log(qr/the disk is full/, $log), 'a job cannot begin');
usleep(2_000_000);
my @starts = slurp_file($node->logfile, $log) =~ /ERROR:  the disk is full/g;
cmp_ok(scalar(@starts), '<=', 2, 'and is not started again at once');
$node->safe_psql('postgres', 'DROP TRIGGER full_disk ON bicycle_training_jobs');
my $beside = train($node, 'beside', '"iterations": 3');
ok(job_comes_to($node, $beside, "state = 'done'"), 'another one has its turn');
ok(job_comes_to($node, $unwritten, "state = 'done'"), 'and so has that one');

# Two at a time. One of them stays for the rest of this file, its row locked by a session that has
# asked for a pause and does not commit.
set_max_jobs(2);
my $locked = train($node, 'locked', $long);
my $f = train($node, 'f', $long);
my $g = train($node, 'g', $long);
ok(job_comes_to($node, $f, "state = 'running' AND iteration > 0"),
	'with bicycle.max_training_jobs = 2 a second job runs');
ok(job_comes_to($node, $locked, "state = 'running' AND iteration > 0"), 'beside the first');
is(states("$locked, $f, $g"), 'locked running, f running, g queued', 'and a third waits');
is(scalar(training_engines($node)), 2, 'each has an engine');
is_deeply([ map { priority($_) } training_engines($node) ], [ ('policy 5, group 5') x 2 ],
	'which gives way to everything else');
call("bicycle_cancel($_)") foreach $g, $f;
ok(job_comes_to($node, $f, "state = 'cancelled'"), 'one of them ends');
my ($engine) = training_engines($node);
my $holder = $node->background_psql('postgres');
$holder->set_query_timer_restart();
$holder->query_safe("BEGIN; SELECT bicycle_pause($locked)");
my $locked_at = time();
my ($waiter_out, $waiter_err) = ('', '');
my $waiter = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c',
	"CALL bicycle_wait($locked)" ], '>', \$waiter_out, '2>', \$waiter_err);
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bicycle trainer' AND "
	. "wait_event_type = 'Lock'"),
	'the trainer of the other waits for its row');

# The engine of a job dies at each try.  Pauses of 1, 2, 4 and 8 seconds lie between five tries.
$f = train($node, 'mortal', $long);
my $kills = 0;
my $began = time();
my $deadline = time() + $PATIENCE;
while (job_column($node, $f, 'state') ne 'failed' && time() < $deadline)
{
	foreach my $pid (grep { $_ != $engine } training_engines($node))
	{
		next if !kill('KILL', $pid);
		$kills++;
		usleep(10_000) while kill(0, $pid) && time() < $deadline;
	}
	usleep(50_000);
}
is($kills, 5, 'a job whose engine dies each time gives up after five tries');
cmp_ok(time() - $began, '>', 14, 'with pauses between them');
like(job_column($node, $f, 'error'), qr/^training engine ended unexpectedly\n.*signal 9/,
	'and tells what happened');
my ($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nCALL bicycle_wait($f)");
like($err, qr/ERROR:  58000: training job $f has failed/,
	'which whoever waits for it is told as 58000');
call("bicycle_resume($f)");
ok(job_comes_to($node, $f, "state = 'running' AND iteration > 0 AND error IS NULL"),
	'resumed, it is tried again');
call("bicycle_cancel($f)");
ok(job_comes_to($node, $f, "state = 'cancelled'"), 'until it is cancelled');
# The same where the trainer itself dies before it can note why: tries are counted beforehand.
set_max_jobs(0);
$f = train($node, 'crashed', $long);
$node->safe_psql('postgres', "UPDATE bicycle_training_jobs SET attempts = 5 WHERE job = $f");
set_max_jobs(2);
ok(job_comes_to($node, $f, "state = 'failed'"), 'five tries without an end are enough');
is(job_column($node, $f, 'error'), 'training ended unexpectedly (5 tries)', 'and are named');

# Databases take turns.
$node->safe_psql('postgres', 'CREATE DATABASE two');
load_pairs($node, 'two');
$f = train($node, 'first', $long);
ok(job_comes_to($node, $f, "state = 'running'"), 'a job of one database runs');
@jobs = map { train($node, "g$_", '"iterations": 1') } 1 .. 3;
my $h = train($node, 'h', '"iterations": 1', database => 'two');
is(job_column($node, $h, 'state', database => 'two'), 'queued',
	'a job of another database waits with those of the first');
call("bicycle_cancel($f)");
ok(job_comes_to($node, $h, "state = 'done'", database => 'two'), 'and has its turn');
ok(job_comes_to($node, $jobs[2], "state = 'done'"), 'as have the others');
is(order(join(', ', @jobs)), 'g1 g2 g3', 'in their order');
my $started = $node->safe_psql('two', "SELECT started_at FROM bicycle_jobs WHERE job = $h");
is(job_column($node, $jobs[2], "started_at > '$started'"), 't', 'and not all before it');

# Nobody waits for who keeps a row locked that nobody trains, or the jobs of another database.
$f = train($node, 'last', $long);
ok(job_comes_to($node, $f, "state = 'running'"), 'a job runs');
$h = train($node, 'behind_lock', '"iterations": 1', database => 'two');
$g = train($node, 'beside_lock', '"iterations": 1');
# as a crash leaves it
$node->safe_psql('postgres',
	"UPDATE bicycle_training_jobs SET state = 'running', wanted = 'paused' WHERE job = $a");
my %lockers = map { $_ => $node->background_psql($_) } 'postgres', 'two';
$lockers{'postgres'}->query_safe("BEGIN; SELECT FROM bicycle_training_jobs WHERE job = $a FOR "
	. "UPDATE");
$lockers{'two'}->query_safe('BEGIN; LOCK TABLE bicycle_training_jobs IN ACCESS EXCLUSIVE MODE');
call("bicycle_cancel($f)");
ok(job_comes_to($node, $g, "state = 'done'"), 'the next one starts although others are locked');
$lockers{$_}->quit foreach keys %lockers;
ok(job_comes_to($node, $h, "state = 'done'", database => 'two'),
	'the one of the other database when its table is free');
ok(job_comes_to($node, $a, "state = 'paused'"),
	'and the row that was locked comes to what it should');

# A database that takes no connections for a while is not forgotten.
$f = train($node, 'before_door', $long);
ok(job_comes_to($node, $f, "state = 'running'"), 'a job runs');
$h = train($node, 'behind_door', '"iterations": 1', database => 'two');
$g = train($node, 'beside_door', '"iterations": 1');
$node->safe_psql('postgres', 'ALTER DATABASE two ALLOW_CONNECTIONS false');
call("bicycle_cancel($f)");
ok(job_comes_to($node, $g, "state = 'done'"),
	'the next one starts although another database is closed');
$node->safe_psql('postgres', 'ALTER DATABASE two ALLOW_CONNECTIONS true');
ok(job_comes_to($node, $h, "state = 'done'", database => 'two'),
	'and the one of that when it is open again');

# A database that is dropped takes its job with it, and is forgotten.
$h = train($node, 'dropped', $long, database => 'two');
ok(job_comes_to($node, $h, "state = 'running' AND iteration > 0", database => 'two'),
	'a job runs in a database');
$node->safe_psql('postgres', 'DROP DATABASE two WITH (FORCE)');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'"),
	'that is dropped, and the trainer ends');
train($node, 'next', '"iterations": 1');
ok($node->poll_query_until('postgres',
	"SELECT state = 'done' FROM bicycle_jobs WHERE model = 'next'"), 'its place is free');
$log = -s $node->logfile;
$f = train($node, 'quiet', '"iterations": 1');
ok(job_comes_to($node, $f, "state = 'done'"), 'another job is done');
unlike(slurp_file($node->logfile, $log), qr/FATAL/, 'and nobody looks for the dropped database');

# More than half a minute has passed, and the row is let go.
usleep(100_000) while time() < $locked_at + 35;
$log = -s $node->logfile;
$holder->query_safe('ROLLBACK');
$holder->quit;
ok(job_comes_to($node, $locked,
	"state = 'running' AND updated_at > clock_timestamp() - interval '1 s' AND error IS NULL"),
	'a job whose row was locked goes on');
usleep(1_500_000);
is_deeply([ training_engines($node) ], [$engine], 'with the same engine');
unlike(slurp_file($node->logfile, $log), qr/training engine ended/, 'which was not taken for dead');

# Who has waited for it all the time has kept nothing of what was read at each look.
$node->safe_psql('postgres',
	"SELECT pg_log_backend_memory_contexts(pid) FROM pg_stat_activity WHERE query = 'CALL "
	. "bicycle_wait($locked)'");
ok($node->wait_for_log(qr/Grand total: /, $log), 'a session waits for the job');
cmp_ok(scalar(() = slurp_file($node->logfile, $log) =~ /SPI TupTable/g), '<', 5,
	'and its memory does not grow');
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'CALL "
	. "bicycle_wait($locked)'");
$waiter->finish;

$node->stop;
done_testing();
