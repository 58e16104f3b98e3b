# Nobody is killed, given up or kept waiting because somebody set the clock: a training engine
# that owes an answer meanwhile lives, a request waits for its place in a queue as long as it may,
# a launcher is registered when it is needed, and a job is tried when it is its turn. The clock is
# moved by a library that adds the seconds in a file to what gettimeofday() says in processes of
# the server.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $directory = PostgreSQL::Test::Utils::tempdir;
my $offset = "$directory/seconds";

sub move_clock
{
	my ($seconds) = @_;

	open(my $file, '>', $offset) or die "$offset: $!";
	syswrite($file, sprintf("%011d\n", $seconds));
	close($file);
	return;
}

move_clock(0);
my $clock = preload(<<"C");
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
	struct timespec time;
	char text[16] = "";
	int fd = open("$offset", O_RDONLY | O_CLOEXEC);

	(void) zone;
	if (fd >= 0 && read(fd, text, sizeof(text) - 1) < 0)
		text[0] = 0;
	close(fd);
	clock_gettime(CLOCK_REALTIME, &time);
	now->tv_sec = time.tv_sec + atol(text);
	now->tv_usec = time.tv_nsec / 1000;
	return 0;
}
C
my $node;
{
	local $ENV{LD_PRELOAD} = $clock;
	# Not preloaded, so that the launcher is one that sessions register, and that ends when it has
	# nothing to do.
	$node = new_node('main', "shared_preload_libraries = ''");
}
my $moved = sub { return $node->safe_psql('postgres',
	"SELECT extract(epoch FROM clock_timestamp()) - $_[0] > 3000"); };

load_pairs($node, 'postgres');
my $time = time();
move_clock(3600);
is($moved->($time), 't', 'the clock of the server can be moved');

# The engine owes an answer when the clock is set: it has a minute for it.
my $job = train($node, 'moved',
	'"iterations": 60, "ngf": 16, "nef": 16, "ndf": 16, "batch_size": 4');
ok(job_comes_to($node, $job, 'iteration > 0'), 'a job trains');
my ($engine) = training_engines($node);
is(kill('STOP', $engine), 1, 'its engine is halted');
sleep(3);	# in which the worker pings
move_clock(3 * 3600);
sleep(3);
is(kill('CONT', $engine), 1, 'and goes on after the clock was set');
ok(job_comes_to($node, $job, "state = 'done'"), 'the job ends');
is($node->safe_psql('postgres',
	"SELECT attempts, error FROM bicycle_training_jobs WHERE job = $job"), '0|',
	'without another try');
unlike(slurp_file($node->logfile), qr/ended unexpectedly|is killed/,
	'and its engine was not killed');

# A request whose engine has not given it a place has a minute for that, too.
$node->safe_psql('postgres', "SELECT bicycle_create('shown', '{\"ngf\": 8, \"size\": 64}')");
my $translate = "SELECT bicycle_translate(sketch, bicycle_latent(8, 1), model => 'shown') > ''
	FROM outlines LIMIT 1";
is($node->safe_psql('postgres', $translate), 't', 'an image is translated');
my $session = $node->background_psql('postgres', on_error_stop => 0);
$session->query_safe($translate);
my $serving = engine_pid($node);
is(kill('STOP', $serving), 1, 'the engine is halted');
$session->query_until(qr/asked/, "\\echo asked\n$translate \\g\n");
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event = 'BicycleEngine'
		OR wait_event = 'Extension' AND query LIKE 'SELECT bicycle_translate%'"),
	'a request waits');
move_clock(6 * 3600);
$node->reload;	# which wakes it
sleep(1);
is(kill('CONT', $serving), 1, 'and goes on after the clock was set');
like($session->query('SELECT 7'), qr/t\n7/, 'the request is answered');
$session->quit;

# The launcher was registered an hour from now and ends; the next one is registered all the same.
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bicycle launcher'"),
	'the launcher ends when nothing is left');
move_clock(0);
$job = train($node, 'again', '"iterations": 3');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bicycle launcher'"),
	'another one comes after the clock was set back');
ok(job_comes_to($node, $job, "state = 'done'"), 'and the job that wanted it ends');

# What was written while the clock was ahead does not put a job off for as long.
my $first = train($node, 'first', '"iterations": 1000000');
ok(job_comes_to($node, $first, 'iteration > 0'), 'a job runs');
move_clock(3600);
$job = train($node, 'ahead', '"iterations": 3');
move_clock(0);
# Who waits for it waits as long as he has said.
my ($out, $err) = ('', '');
my $waiter = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c',
	"CALL bicycle_wait($first, '2 s')" ], '>', \$out, '2>', \$err, IPC::Run::timeout($PATIENCE));
$waiter->pump until $err =~ /is running/;
move_clock(-3600);
$waiter->finish;
like($err, qr/job $first has not ended in time/, 'a wait ends in time');
move_clock(0);
$node->safe_psql('postgres', "SELECT bicycle_cancel($first)");
ok(job_comes_to($node, $job, "state = 'done'"), 'one that came an hour from now has its turn');

$node->stop;
done_testing();
