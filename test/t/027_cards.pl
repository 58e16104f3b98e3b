# Several GPUs, imitated: one statement uses all; one that fails, or whose engine dies, costs
# nothing but time, and one that takes long to open is waited for; one image does not take one after
# the other with it; the list of them changes by a reload; jobs take a free one each.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use POSIX ();
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use constant ROWS => 1000;

imitated_gpus(2);
$ENV{BICYCLE_TEST_SLOW} = scratch('slow');

# While this file is there no process of the server gets a socket pair.
my $short = scratch('short');
my $preload = preload(<<"C");
#include <errno.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

int socketpair(int domain, int type, int protocol, int pair[2])
{
	if (access("$short", F_OK) != 0)
		return (int) syscall(SYS_socketpair, domain, type, protocol, pair);
	errno = EMFILE;
	return -1;
}
C
my $node;
{
	local $ENV{LD_PRELOAD} = $preload;
	$node = new_node('main', "bicycle.device = 'cuda:all'", 'bicycle.precision = fp32',
		'bicycle.max_batch = 4', 'bicycle.debug = on');
}

sub engines
{
	my ($columns, $where) = @_;

	return $node->safe_psql('postgres',
		"SELECT $columns FROM bicycle_engines() WHERE " . ($where // 'true') . ' ORDER BY number');
}

sub engines_come_to
{
	my ($condition, $what) = @_;

	return ok($node->poll_query_until('postgres', "SELECT $condition FROM bicycle_engines()"),
		$what) || diag($node->safe_psql('postgres', 'SELECT * FROM bicycle_engines()'));
}

sub start_psql
{
	my (@arguments) = @_;
	my %session = (out => '', err => '');

	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d',
		$node->connstr('postgres'), @arguments ], '>', \$session{out}, '2>', \$session{err});
	return \%session;
}

# cuda:all is an engine for each GPU.
load_pairs($node, 'postgres');
engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'each GPU has an engine');
is($node->safe_psql('postgres', "SELECT string_agg(number || ' ' || substr(device, 1, 6), ', ' "
	. 'ORDER BY number) FROM bicycle_engines()'), '0 cuda:0, 1 cuda:1', 'of its own');
ok(-S $node->data_dir . '/bicycle.1.sock', 'the second one has a socket of its own');

# What 96 pairs of sketch and code become, computed undisturbed, and pictures that are made of them.
$node->safe_psql('postgres', sprintf(<<'SQL', ROWS));
SELECT bicycle_create('tiny', '{"size": 64, "ngf": 4, "nef": 4, "nz": 4, "where_add": "input"}');
CREATE TABLE expected AS SELECT id, seed,
	md5(bicycle_translate(sketch, bicycle_latent(4, seed), model => 'tiny')) AS md5
	FROM outlines, generate_series(0, 11) seed;
CREATE TABLE pictures AS SELECT n AS id, n / 8 %% 12 AS seed, outlines.id AS outline, sketch,
	NULL::bytea AS made FROM generate_series(1, %d) n JOIN outlines ON outlines.id = n %% 8;
CREATE FUNCTION right_pictures() RETURNS bigint LANGUAGE sql AS $$
	SELECT count(*) FROM pictures p JOIN expected e ON e.id = p.outline AND e.seed = p.seed
	WHERE md5(p.made) = e.md5
$$;
SQL
my $all = "UPDATE pictures SET made = bicycle_translate(sketch, bicycle_latent(4, seed), "
	. "model => 'tiny')";
my $some = "UPDATE pictures SET made = NULL; $all WHERE id <= 300";
my $few = "UPDATE pictures SET made = NULL; $all WHERE id <= 50";
my $postmaster_start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

is($node->safe_psql('postgres',
	'SELECT count(*) FROM bicycle_engines() WHERE requests > 30'), 2, 'one statement used both');
is($node->safe_psql('postgres', "SELECT sum(e.requests) = max(s.requests) AND max(s.pid) = "
	. "max(e.pid) FILTER (WHERE e.number = 0) FROM bicycle_engines() e, bicycle_engine() s"), 't',
	'bicycle_engine() has the sums, and the first one\'s pid');
is($node->safe_psql('postgres', "SELECT count(*), sum(hits) > 0 FROM bicycle_cache()"), '1|t',
	'a model in both is one row of bicycle_cache()');

# An UPDATE of 1,000 rows while one engine is killed in the middle.
{
	my %before = split /[|\n]/, engines('pid, requests');
	my %after;
	my %number;
	my $killed = 0;
	my $session = start_psql('-c', $all);

	while ($session->{run}->pumpable)
	{
		foreach (split /\n/, engines('number, pid, requests', 'pid IS NOT NULL'))
		{
			my ($number, $pid, $requests) = split /\|/;

			$number{$pid} = $number;
			$after{$pid} = $requests;
			if (!$killed && $number == 1 && $requests - ($before{$pid} // 0) > 150)
			{
				$killed = kill('KILL', $pid);
			}
		}
		$session->{run}->pump_nb;
		usleep(20_000);
	}
	ok($session->{run}->finish && $session->{err} eq '', 'the statement saw no error')
		or diag($session->{err});
	is($killed, 1, 'an engine was killed in the middle of it');
	is($node->safe_psql('postgres', 'SELECT right_pictures()'), ROWS, 'no row is lost or wrong');
	engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'it is there again');

	my @answered = (0, 0);
	foreach (split /\n/, engines('number, pid, requests'))
	{
		my ($number, $pid, $requests) = split /\|/;

		$number{$pid} = $number;
		$after{$pid} = $requests;
	}
	$answered[ $number{$_} ] += $after{$_} - ($before{$_} // 0) foreach keys %after;
	cmp_ok($answered[$_], '>', 300, "engine $_ answered its part") foreach 0, 1;
	is(engine_query($node, 'restarts'), 1, 'it was one restart');
	is(engines('restarts'), "0\n1", 'of that engine');
}

# A GPU that computes no more in the middle of a statement is its own engine's affair.
{
	my ($first, $second) = split /\n/, engines('pid');
	my $restarts = engine_query($node, 'restarts');
	my $session = start_psql('-c', $some);

	engines_come_to('count(*) FILTER (WHERE queued > 0) = 2', 'a statement uses both');
	is(kill(POSIX::SIGRTMAX(), $second), 1, 'one GPU is lost');		# runtime_on_cpu.c
	ok($session->{run}->finish && $session->{err} eq '', 'the statement saw no error')
		or diag($session->{err});
	is($node->safe_psql('postgres', 'SELECT right_pictures()'), 300, 'and has every row');
	engines_come_to("count(*) FILTER (WHERE state = 'ready' AND pid <> $second) = 2",
		'its engine ended, and there is another');
	is(engines('pid', 'number = 0'), $first, 'the other GPU has the same one');
	is(engine_query($node, 'restarts'), $restarts + 1, 'it was one restart');
}

# One that cannot be started again, as the system is short of something, is tried again; the other
# one does not notice.
{
	my ($first, $second) = split /\n/, engines('pid');

	append_to_file($short, '');
	is(kill('KILL', $second), 1, 'an engine is killed');
	engines_come_to("count(*) FILTER (WHERE last_error LIKE 'could not start a process: %') = 1",
		'and cannot be started');
	is($node->safe_psql('postgres', "$few; SELECT right_pictures()"), 50, 'the other one serves');
	unlink $short;
	engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'then it can');
	is(engines('pid', 'number = 0'), $first, 'the other one is the same');
}

# A supervisor that ends leaves nothing that a job would wait for, also of an engine that had no
# time to say that it is idle (INVARIANT of engine_slots.c).
{
	my ($first, $second) = split /\n/, engines('pid');
	my ($supervisor) = slurp_file("/proc/$first/stat") =~ /\) \S (\d+)/;
	my $session = start_psql('-c', $some);

	engines_come_to('count(*) FILTER (WHERE queued > 0) = 2', 'a statement uses both');
	is(kill('STOP', $second), 1, 'one engine is halted');
	is(kill('TERM', $supervisor), 1, 'the supervisor ends');
	ok($session->{run}->finish && $session->{err} eq '', 'the statement saw no error')
		or diag($session->{err});
	is($node->safe_psql('postgres', 'SELECT right_pictures()'), 300, 'and has every row');
	engines_come_to("count(*) FILTER (WHERE state = 'ready' AND pid NOT IN ($first, $second)) = 2",
		'there are two again');
	unlike(slurp_file($node->logfile), qr/internal error of bicycle/,
		'with nothing of the old ones');
}

# An image that crashes engines ends two, whichever they are, and then nobody's.
{
	my $poison = "SET bicycle.debug_fault = 1; SELECT length(bicycle_translate(sketch, "
		. "bicycle_latent(4, %d), model => 'tiny')) FROM outlines WHERE id = 3";
	my $before = engine_query($node, 'restarts');
	my $beside = start_psql('-c', $some);
	my ($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n" . sprintf($poison, 1));

	like($err, qr/ERROR:  58000: .*failed twice/, 'such an image is 58000');
	ok($beside->{run}->finish && $beside->{err} eq '', 'a statement beside it saw no error')
		or diag($beside->{err});
	is($node->safe_psql('postgres', 'SELECT right_pictures()'), 300, 'and has every row');
	engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'both engines are there');
	is(engine_query($node, 'restarts'), $before + 2, 'two engines were enough');
	($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n" . sprintf($poison, 1));
	like($err, qr/ERROR:  58000: .*refused/, 'it is refused afterwards');
	is(engine_query($node, 'restarts'), $before + 2, 'without another crash');

	# What one session saw counts for the next. The first one's engine dies, and it is cancelled
	# while there is no other one: nobody starts them, and the second one is halted.
	my ($first, $second) = split /\n/, engines('pid');
	my ($supervisor) = slurp_file("/proc/$first/stat") =~ /\) \S (\d+)/;

	is(kill('STOP', $supervisor, $second), 2, 'supervisor and second engine are halted');
	my $session = start_psql('-c', "SET application_name = 'first'", '-c', sprintf($poison, 2));
	my $waited = 0;
	usleep(20_000) until slurp_file("/proc/$first/stat") =~ /\) Z/ || $waited++ > 50 * $PATIENCE;
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
		. "WHERE application_name = 'first'");
	$session->{run}->finish;
	like($session->{err}, qr/canceling statement/, 'a session with such an image is cancelled');
	kill('CONT', $supervisor, $second);
	engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'both engines are there');
	is(engine_query($node, 'restarts'), $before + 3, 'one died');
	($status, $out, $err) = $node->psql('postgres',
		"\\set VERBOSITY verbose\n" . sprintf($poison, 2));
	like($err, qr/ERROR:  58000: .*failed twice/, 'another session with it is refused');
	engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'both engines are there again');
	is(engine_query($node, 'restarts'), $before + 4, 'after one more');
}

# A cancel withdraws what both engines have.
{
	my $long = "SELECT cardinality(bicycle_translate_many((SELECT array_agg(sketch) FROM outlines, "
		. "generate_series(1, 5000)), ARRAY[bicycle_latent(4, 1)], model => 'tiny'))";
	my $session = start_psql('-c', "SET application_name = 'long'", '-c', $long);

	engines_come_to('count(*) FILTER (WHERE queued > 2) = 2', 'a statement keeps both busy');
	$node->safe_psql('postgres', "SELECT pg_cancel_backend(pid) FROM pg_stat_activity "
		. "WHERE application_name = 'long'");
	$session->{run}->finish;
	like($session->{err}, qr/canceling statement/, 'it is cancelled');
	engines_come_to('sum(queued) = 0', 'nothing is left with either');
	is($node->safe_psql('postgres', "SELECT count(bicycle_translate(sketch, bicycle_latent(4, 1), "
		. "model => 'tiny')) FROM outlines"), 8, 'and others go on');
}

# A reload ends the engine of a GPU that is no longer named, and the other one does not notice; nor
# does a statement that runs.
{
	my ($first, $second) = split /\n/, engines('pid');
	my $session = start_psql('-c', $some);

	engines_come_to('count(*) FILTER (WHERE queued > 0) = 2', 'a statement runs');
	configure($node, "SET bicycle.device = 'cuda:1'");
	engines_come_to("count(*) = 1", 'one engine is left');
	is(engines('number, pid'), "1|$second", 'that of the device');
	ok($session->{run}->finish && $session->{err} eq '', 'the statement saw no error')
		or diag($session->{err});
	is($node->safe_psql('postgres', 'SELECT right_pictures()'), 300, 'and has every row');
	configure($node, "SET bicycle.device = 'cuda:1, cuda:0'");
	engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'there are two again');
	isnt(engines('pid', 'number = 0'), $first, 'a new one');
	is(engines('pid', 'number = 1'), $second, 'and the one that stayed');
	is(engines('restarts', 'number = 0'), 0, 'the new one has had no restart');
}

# Two jobs take a GPU each.
{
	my $least = '"size": 64, "ngf": 1, "nef": 1, "ndf": 1, "num_ds": 1, "nz": 2, "load_size": 64, '
		. '"iterations": 1000000';
	my @jobs;

	configure($node, "SET bicycle.training_device = 'cuda'", 'SET bicycle.max_training_jobs = 2');
	push @jobs, train($node, "model_$_", $least) foreach 0, 1;
	ok(job_comes_to($node, $_, 'iteration > 0'), 'a job trains') foreach @jobs;
	is($node->safe_psql('postgres', "SELECT string_agg(substr(platform, 1, 6), ', ' ORDER BY "
		. 'platform) FROM bicycle_training_jobs'), 'cuda:0, cuda:1', 'each on a GPU of its own');
	$node->safe_psql('postgres', "SELECT bicycle_cancel($_)") foreach @jobs;
	ok(job_comes_to($node, $_, "state = 'cancelled'"), 'it is cancelled') foreach @jobs;
}

# A GPU that is not there, and an engine that cannot start, keep nobody waiting.
{
	configure($node, "SET bicycle.device = 'cuda:1, cuda:7'");
	engines_come_to("count(*) FILTER (WHERE state = 'missing' AND device LIKE 'cuda:7%') = 1",
		'a GPU that is not there is missing');
	is($node->safe_psql('postgres', "$few; SELECT right_pictures()"), 50, 'the other one serves');
	is(engines('requests', "state = 'missing'"), 0, 'alone');
	configure($node, "SET bicycle.device = 'cuda:7'");
	engines_come_to("bool_and(device LIKE 'cuda:7%' AND state = 'missing')", 'it alone is missing');
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$few");
	like($err, qr/ERROR:  55000:.*cuda:7.*DETAIL:.*HINT:/s, 'is an error that says so');

	configure($node, "SET bicycle.device = 'cuda:0'");
	engines_come_to("bool_and(device LIKE 'cuda:0%' AND state = 'ready') AND count(*) = 1",
		'one engine');
	my $number = engines('number');
	my $lock = $node->data_dir . ($number == 0 ? '/bicycle.1.lock' : '/bicycle.lock');

	unlink $lock;
	mkdir $lock or die "no $lock: $!";
	configure($node, "SET bicycle.device = 'cuda:0, cuda:1'");
	engines_come_to("count(*) FILTER (WHERE state = 'failed' AND last_error LIKE '%lock%') = 1",
		'an engine cannot start');
	is($node->safe_psql('postgres', "$few; SELECT right_pictures()"), 50, 'the other one serves');
	rmdir $lock;
	$node->reload;
	engines_come_to("count(*) FILTER (WHERE state = 'ready') = 2", 'after a reload it can');
}

# A GPU that takes longer to open than anything else may, as one whose driver compiles kernels.
{
	my $restarts = engine_query($node, 'restarts');
	my ($pid) = split /\n/, engines('pid');

	configure($node, "SET bicycle.stuck_timeout = '1s'");
	append_to_file($ENV{BICYCLE_TEST_SLOW}, '7000');
	is(kill('KILL', $pid), 1, 'an engine dies');
	engines_come_to("count(*) FILTER (WHERE state = 'ready' AND pid <> $pid) = 2",
		'the next one is waited for');
	is(engine_query($node, 'restarts'), $restarts + 1, 'it was one restart');
	unlink $ENV{BICYCLE_TEST_SLOW};
}

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster_start,
	'PostgreSQL is the same');
my @pids = split /\n/, engines('pid');
$node->stop('immediate');
my $waited = 0;
usleep(100_000) while kill(0, @pids) && $waited++ < 100;
is(kill(0, @pids), 0, 'no engine outlives an immediate shutdown');
done_testing();
