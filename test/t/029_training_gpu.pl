# A job trains on a GPU: through a pause, the death of its engine, a run on the CPU and back; what
# does not fit is an error with the figures; beside sessions on the same card it makes the share of
# iterations that it is given, sessions go on, and it is stopped at once. By counts, on the imitated
# GPU.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

imitated_gpus(1);

my $node = new_node('main', "bicycle.device = 'cuda'", 'bicycle.precision = fp32',
	'bicycle.max_batch = 2');
load_pairs($node, 'postgres', 2);

$TINY = '"size": 64, "ngf": 1, "nef": 1, "ndf": 1, "num_ds": 1, "nz": 2, "load_size": 64';

sub platform
{
	my ($job) = @_;

	return $node->safe_psql('postgres',
		"SELECT platform FROM bicycle_training_jobs WHERE job = $job");
}

sub iterations { return $node->safe_psql('postgres',
	"SELECT iteration FROM bicycle_jobs WHERE job = $_[0]"); }

# Pauses a job that has come to a further iteration, and resumes it with another setting.
sub move_to
{
	my ($job, $device) = @_;

	ok(job_comes_to($node, $job, 'iteration > ' . iterations($job)), 'it comes further');
	$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
	ok(job_comes_to($node, $job, "state = 'paused'"), 'is paused');
	configure($node, "SET bicycle.training_device = '$device'");
	$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
	ok(job_comes_to($node, $job, 'iteration > ' . iterations($job)), "and goes on with $device");
	return;
}

# ---- Which device ------------------------------------------------------------

configure($node, "SET bicycle.training_device = 'cuda'");
my $job = train($node, 'moved', '"iterations": 1000000, "checkpoint_every": 1');
ok(job_comes_to($node, $job, "iteration > 0 OR error IS NOT NULL"), 'a job begins');
like(platform($job), qr/^cuda:0 \(imitated GPU/, 'on the GPU');
move_to($job, 'cpu');
like(platform($job), qr/^cpu/, 'which is the CPU');
like(job_column($node, $job, 'notes'), qr/goes on on "cpu .* before on "cuda:0 \(imitated GPU/,
	'with a note');
move_to($job, 'cuda');
like(platform($job), qr/^cuda:0 \(imitated GPU/, 'and is on the GPU again');
my ($engine) = training_engines($node);
is(kill('KILL', $engine), 1, 'its engine is killed');
ok(job_comes_to($node, $job, 'iteration > ' . iterations($job)), 'it goes on');
like(platform($job), qr/^cuda:0 \(imitated GPU/, 'on the GPU');
is(scalar(() = job_column($node, $job, 'notes') =~ /goes on on/g), 2, 'with no further note');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(job_comes_to($node, $job, "state = 'cancelled'"), 'and is cancelled');

# ---- Memory ------------------------------------------------------------------

$job = train($node, 'large', '"ngf": 512, "nef": 512, "ndf": 512, "iterations": 1');
ok(job_comes_to($node, $job, 'error IS NOT NULL'), 'a job that does not fit');
like(job_column($node, $job, 'error'),
	qr/out of GPU memory.*needs \d+ MB, and of 8192 MB of the GPU \d+ MB are free.*accumulate/s,
	'is told what it needs, and what there is');
is($node->safe_psql('postgres',
	"SELECT sqlstate FROM bicycle_training_jobs WHERE job = $job"), '53200', 'with 53200');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(job_comes_to($node, $job, "state = 'cancelled'"), 'it is cancelled');

# ---- Beside sessions ---------------------------------------------------------

$node->safe_psql('postgres', "SELECT bicycle_create('picture', '{\"size\": 64, \"ngf\": 1, "
	. "\"nef\": 1, \"nz\": 2}')");
my @sessions;

# Sessions that ask without a pause.
sub saturate
{
	foreach my $n (1 .. 2)
	{
		my ($in, $out, $err) = ('', '', '');

		push @sessions, IPC::Run::start(
			[ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
				"SELECT count(bicycle_translate(sketch, bicycle_latent(2, n), 'picture')) "
				. "FROM outlines, generate_series(1, 100000000) n" ],
			'<', \$in, '>', \$out, '2>', \$err);
	}
	return wait_for_engine($node, 'requests > 10');
}

# More requests are answered.
sub goes_on
{
	my ($more) = @_;

	return wait_for_engine($node, 'requests > ' . (engine_query($node, 'requests') + $more));
}

configure($node, 'SET bicycle.training_share = 0');
$job = train($node, 'beside', '"iterations": 1000000');
ok(job_comes_to($node, $job, 'iteration > 0'), 'a job has the card for itself');
ok(saturate(), 'sessions come');
ok(goes_on(50), 'and are served');		# the iteration that was under way ends meanwhile
my $before = iterations($job);
ok(goes_on(100), 'on and on');
# but for gaps between them, on a busy machine: undisturbed it would have made a hundred
cmp_ok(iterations($job), '<=', $before + 5, 'with a share of 0 the job waits for them');
ok(job_comes_to($node, $job, 'images_per_second < 1 AND eta > \'1 day\''),
	'and its rate and time say so');
is(job_column($node, $job, 'state'), 'running', 'it is not taken for stuck');

configure($node, 'SET bicycle.training_share = 20');
ok(job_comes_to($node, $job, "iteration > $before + 2"), 'with a share of 20 it goes on');
ok(goes_on(50), 'and so do sessions');
$before = iterations($job);
ok(job_comes_to($node, $job, "iteration > $before + 2"), 'both together');

configure($node, 'SET bicycle.training_share = 0');
ok(goes_on(50), 'sessions have it all again');
$before = iterations($job);
$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
ok(job_comes_to($node, $job, "state = 'paused'"), 'a job that waits can be paused');
cmp_ok(iterations($job), '<=', $before + 5, 'at once');
$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
ok(job_comes_to($node, $job, "state = 'running'"), 'resumed, it waits again');
$node->safe_psql('postgres',
	"SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query ~ 'generate_series' "
	. 'AND pid <> pg_backend_pid()');
$_->finish foreach @sessions;
$before = iterations($job);
ok(job_comes_to($node, $job, "iteration > $before"), 'until the sessions have gone');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(job_comes_to($node, $job, "state = 'cancelled'"), 'and is cancelled');
$node->stop;
done_testing();
