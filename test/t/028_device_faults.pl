# An allocation, a launch, a copy or a capture of the device that fails, in each life of the engine
# anew: statements end in their images, in 53200, or after one more try in 58000; PostgreSQL and
# other images notice nothing; without the fault all is as before.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'bicycle.debug = on');
my $seed = 100;

# Twenty images in one statement, others than before: what failed twice is refused for a while.
sub twenty
{
	$seed += 100;
	return $node->psql('postgres',
		"\\set VERBOSITY verbose\n"
		. "SELECT count(bicycle_translate(sketch, bicycle_latent(8, id + $seed + again), "
		. "model => 'emoji')) FROM outlines, generate_series(1, 3) again WHERE id + again < 9");
}

# The next engine begins with it.
sub begin_with
{
	my ($fault) = @_;
	my $pid = engine_pid($node);

	configure($node, "SET bicycle.debug_device_fault = '$fault'");
	kill 'KILL', $pid;
	wait_for_engine($node, "pid <> $pid") or die 'no engine';
}

load_model($node, 'postgres');
my $postmaster_start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my (undef, $expected) = twenty();
my ($images, $refused, $failed) = (0, 0, 0);

foreach my $fault ('allocation:1', 'allocation:20', 'launch:1', 'launch:100', 'launch:7:lasting',
	'copy:1', 'copy:9', 'capture:1', 'capture:2')
{
	begin_with($fault);
	my ($status, $out, $err) = twenty();
	if ($status == 0 && $out eq $expected) { $images++; }
	elsif ($err =~ /ERROR:  53200:/) { $refused++; }
	elsif ($err =~ /ERROR:  58000:/) { $failed++; }
	else { fail("$fault ends in an answer"); diag("$status $out $err"); }
}
cmp_ok($refused, '>', 0, "want of memory is 53200 ($refused times)");
cmp_ok($failed, '>', 0, "a device that fails twice on a request is 58000 ($failed times)");
is($images + $refused + $failed, 9, "and there is nothing else ($images times all was well)");

begin_with('');
my ($status, $out, $err) = twenty();
is($out, $expected, 'without a fault all is as before') or diag($err);
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster_start,
	'PostgreSQL is the same');

($status, $out, $err) =
	$node->psql('postgres', "ALTER SYSTEM SET bicycle.debug_device_fault = 'launch:0'");
like($err, qr/invalid value for parameter "bicycle.debug_device_fault"/,
	'what means nothing is refused');
$node->stop;
done_testing();
