# bench/compare.sh keeps its cluster and goes on where it was: a run that SIGTERM has interrupted
# ends with the weights of one that nothing has; what has a result is not run again; nothing stays
# behind. The budget is tiny, and LPIPS is left out.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use JSON::PP;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $bin = (split /:/, $ENV{PATH})[0];
my $script = "$FindBin::RealBin/../../bench/compare.sh";
my $run = 'icons-64-bicycle-1';

mkdir scratch('pairs');
open(my $pairs, '>', scratch('pairs/icons-64.copy')) or die $!;
foreach my $n (0 .. 7)
{
	# The last two are two answers to one input, which is held out.
	my ($input, $held_out) = $n < 6 ? ($n, 'f') : (6, 't');
	my @hex = map { unpack 'H*', slurp_file("$DATA/pairs/0$_.png") } "${input}_A", "${n}_B";

	print $pairs join("\t", $n, $input, $held_out, map { "\\\\x$_" } @hex), "\n";
}
close $pairs;

sub command
{
	my ($place, @runs) = @_;

	return ('bash', $script, '--bin', $bin, '--place', scratch($place), '--results',
		scratch("$place.jsonl"), '--iterations', 40, '--pairs', scratch('pairs'),
		'--without-lpips', @runs);
}

sub results
{
	my ($place) = @_;

	return map { decode_json($_) } split /\n/, slurp_file(scratch("$place.jsonl"));
}

# ---- At one go ------------------------------------------------------------

command_ok([ command('whole', $run, 'icons-64-pix2pix_noise-1') ], 'two runs');
my @whole = results('whole');
is(join(' ', map { $_->{run} } @whole), "$run icons-64-pix2pix_noise-1", 'each has a line');
foreach my $found (@whole)
{
	is($found->{metrics}{coverage_l1}{n}, 1, "$found->{run} is measured on the input held out");
	ok(exists $found->{metrics}{diversity_l1}{stderr}, 'with errors');
	ok(length $found->{hash} == 64 && $found->{options}{method} eq $found->{system}
		&& $found->{seconds} > 0 && $found->{tiny} && !$found->{interrupted}, 'and described');
	ok(slurp_file(scratch("whole/$found->{sheet}")) =~ /^\x89PNG/, 'it has a sheet');
}
ok(exists $whole[0]{metrics}{reconstruction_l1} && !exists $whole[1]{metrics}{reconstruction_l1},
	'what has no encoder has no reconstruction');
command_ok([ command('whole', $run) ], 'again');
is(scalar(results('whole')), 2, 'makes nothing new of what has a result');
command_fails_like([ command('whole', 'icons-64-nothing-1') ], qr/no run is called/,
	'a run must be one');

# ---- Interrupted ----------------------------------------------------------

# A column of the job, or '' while there is no server, and no job.
sub job
{
	my ($column) = @_;
	my $file = scratch('parts/cluster/postmaster.pid');
	my $socket = -e $file ? (split /\n/, slurp_file($file))[4] // '' : '';
	my ($out, $err) = ('', '');

	IPC::Run::run([ 'psql', '-XAtq', '-h', $socket, '-p', 5432, '-U', 'postgres', '-d', 'postgres',
		'-c', "SELECT $column FROM bicycle_jobs" ], '<', \'', '>', \$out, '2>', \$err);
	return $out =~ s/\s+$//r;
}

my ($out, $handle) = ('');
my $deadline = time() + $PATIENCE;
$handle = IPC::Run::start([ command('parts', $run) ], '<', \'', '>&', \$out);
until (job('state') eq 'running' || time() > $deadline || !$handle->pumpable)
{
	usleep(100_000);
}
$handle->signal('TERM');
$handle->finish;
is($handle->result, 130, 'SIGTERM ends it') or diag($out);
ok(!-e scratch('parts/cluster/postmaster.pid'), 'with its server');
ok(!-s scratch('parts.jsonl'), 'and without a result');
command_ok([ command('parts', $run) ], 'it goes on');
my ($parts) = results('parts');
ok($parts->{interrupted}, 'with the job that was there');
is($parts->{hash}, $whole[0]{hash}, 'and ends with the same weights');
is_deeply($parts->{metrics}, $whole[0]{metrics}, 'which are as good');
done_testing();
