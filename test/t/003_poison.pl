# A request that crashes or hangs the engine each time ends alone in 58000, is refused for a while,
# and takes no other request with it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time);

my $node = new_node('main', 'bicycle.debug = on');
my $count = "SELECT count(DISTINCT md5(bicycle_translate(sketch, bicycle_latent(8, id + again), "
	. "model => 'emoji'))) FROM outlines, generate_series(1, 15) again";
my $poison = "SELECT length(bicycle_translate(photo, bicycle_latent(8, 1), model => 'emoji')) "
	. "FROM outlines WHERE id = 3";

load_model($node, 'postgres');
my $expected = $node->safe_psql('postgres', $count);
my $postmaster_start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');

my @sessions;
for (1 .. 4)
{
	my %session = (out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d',
		$node->connstr('postgres'), '-c', $count, '-c', $count ],
		'>', \$session{out}, '2>', \$session{err});
	push @sessions, \%session;
}
my $began = time();
my ($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nSET bicycle.debug_fault = 1;\n$poison");
cmp_ok(time() - $began, '<', 120, 'the poison request ends');
isnt($status, 0, 'the poison request fails');
like($err, qr/ERROR:  58000:/, 'with 58000');
foreach my $n (0 .. $#sessions)
{
	my $session = $sessions[$n];
	ok($session->{run}->finish && $session->{err} eq '', "session $n beside it saw no error")
		or diag($session->{err});
	is($session->{out}, "$expected\n$expected\n", "session $n got its images");
}
is(engine_query($node, 'restarts'), '2', 'two crashes were enough');

# Refused without another crash, for whoever sends it.
($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nSET bicycle.debug_fault = 1;\n$poison");
like($err, qr/ERROR:  58000:/, 'the same request again is refused');
is(engine_query($node, 'restarts'), '2', 'without another crash');
is($node->safe_psql('postgres',
	"SELECT count(bicycle_translate(photo, bicycle_latent(8, 1), model => 'emoji')) FROM outlines "
	. "WHERE id <> 3"),
	'7', 'other images are not');

# Without the permission to break things the setting does nothing.
configure($node, 'SET bicycle.debug = off');
# The engine hears of it from the supervisor, in a moment; what breaks it until then is refused
# afterwards, so each try is another request.
foreach my $seed (2 .. 30)
{
	($status, $out, $err) = $node->psql('postgres',
		"SET bicycle.debug_fault = 1; SELECT count(bicycle_translate(sketch, bicycle_latent(8, "
		. "$seed), model => 'emoji')) FROM outlines");
	last if $status == 0;
}
is($out, '8', 'bicycle.debug_fault needs bicycle.debug') or diag($err);

is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster_start,
	'PostgreSQL is the same');
$node->stop;

# An engine that ends before it has begun a call of streams has not failed on it: that is said, too.
{
	local $ENV{LD_PRELOAD} = preload(<<'C');
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

ssize_t recv(int fd, void *to, size_t room, int flags)
{
	static ssize_t (*real)(int, void *, size_t, int);
	ssize_t n;

	if (!real)
		real = dlsym(RTLD_NEXT, "recv");
	n = real(fd, to, room, flags);
	if (n > 2000 && strcmp(program_invocation_short_name, "bicycle-engine") == 0)
		_exit(1);
	return n;
}
C
	$node = new_node('fragile');
}
$node->safe_psql('postgres', 'CREATE EXTENSION bicycle');
($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\n"
	. "SELECT bicycle_create('m', jsonb_build_object('x', repeat('x', 4000)))");
like($err, qr/ERROR:  58000: .* engine ends again and again\nDETAIL:  The connection was lost 6/,
	'an engine that ends before it begins');
$node->stop;
done_testing();
