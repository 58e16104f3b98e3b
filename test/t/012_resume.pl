# A run of 20 iterations that was stopped after the checkpoint of iteration 8 makes the same model
# as one that was not, bit for bit: after a pause, the death of the engine, of the trainer, of the
# server, with and without preloading; with batch norm, dropout and averaged weights too.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use POSIX ();
use Test::More;
use Time::HiRes qw(usleep);

my $node = new_node('main', 'restart_after_crash = on');
my $options = '"iterations": 20, "checkpoint_every": 8, "seed": 5, "ngf": 16, "nef": 16, "ndf": '
	. '16, "batch_size": 4';

load_pairs($node, 'postgres');

# Runs a job, interrupted by STOP at its checkpoint, and compares what comes out.
sub is_the_same_after
{
	my ($what, $expected, $more, $stop) = @_;
	my $model = $what =~ s/\W+/_/gr;
	my $job = train($node, $model, $options . $more);

	my $engine = stop_at_checkpoint($node, $job);
	ok($engine, "$what: the first checkpoint is stored");
	$stop->($job, $engine);
	ok(job_comes_to($node, $job, "state = 'done'"), "$what: the job is done");
	is(job_column($node, $job, "concat_ws(' ', iteration, notes)"), 20,
		"$what: after 20 iterations, without a note");
	is(weights($node, $model), $expected, "$what: the model is the same");
	return;
}

sub uninterrupted
{
	my ($model, $more) = @_;
	my $job = train($node, $model, $options . $more);

	$node->safe_psql('postgres', "CALL bicycle_wait($job)");
	return weights($node, $model);
}

sub unfinished
{
	my ($job, $what) = @_;

	isnt(job_column($node, $job, 'state'), 'done', "$what in the middle of the run");
	return;
}

sub kill_engine
{
	my ($job, $engine) = @_;

	is(kill('KILL', $engine), 1, 'the engine is killed');
	unfinished($job, 'it dies');
	return;
}

my $expected = uninterrupted('whole', '');

isnt(uninterrupted('other_seed', ', "seed": 6'), $expected, 'another seed makes another model');
is_the_same_after('a pause', $expected, '', sub {
	my ($job) = @_;

	ok(pause_halted($node, $job), 'it pauses');
	cmp_ok(job_column($node, $job, 'iteration'), '<', 20, 'in the middle of the run');
	$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
});
is_the_same_after('the death of the engine', $expected, '', \&kill_engine);
is_the_same_after('the death of the trainer', $expected, '', sub {
	my ($job) = @_;
	my $pid = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'");

	is(kill('KILL', $pid), 1, 'the trainer is killed, and all sessions with it');
	ok($node->poll_query_until('postgres',
		"SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = $pid"), 'the server comes back');
	unfinished($job, 'it dies');
});
is_the_same_after('an immediate shutdown', $expected, '', sub {
	my ($job) = @_;

	$node->stop('immediate');
	$node->start;
	unfinished($job, 'the server stops');
});
is_the_same_after('a fast shutdown', $expected, '', sub {
	my ($job, $engine) = @_;
	my $logged = -s $node->logfile;

	# The engine, which is asked for a checkpoint, hears of it when it goes on.
	my $asked = fork() // die "no process: $!";
	if (!$asked)
	{
		usleep(10_000) until slurp_file($node->logfile, $logged) =~ /received fast shutdown/;
		usleep(100_000);
		kill('CONT', $engine);
		POSIX::_exit(0);
	}
	$node->restart;
	waitpid($asked, 0);
	unfinished($job, 'the server stops');
});

# State besides weights: running statistics, averages, masks that are drawn anew in each iteration,
# the schedule of the rate, one network of each kind.
foreach my $variant ([ 'batch norm, dropout and what discriminators see',
		', "norm": "batch", "dropout": true, "diff_augment": "color,translation,cutout"' ],
	[ 'averages, cosine and a method of halves',
		', "method": "cvae_gan++", "ema": 0.9, "lr_policy": "cosine", "upsample": "bilinear", '
		. '"net_e": "conv"' ])
{
	my ($what, $more) = @$variant;

	is_the_same_after($what, uninterrupted("whole $what", $more), $more, \&kill_engine);
}

# The best weights, and the end of patience.
{
	my $more = ', "iterations": 60, "checkpoint_every": 2, "lr": 0.01, "validate_every": 2, '
		. '"keep": "best", "patience": 3, "validation": '
		. '"SELECT sketch, photo FROM outlines WHERE id % 3 = 0"';
	my $model = 'interrupted';
	my $best = uninterrupted('whole best', $more);
	my $job = train($node, $model, $options . $more);
	my $engine = stop_at_checkpoint($node, $job);

	kill_engine($job, $engine);
	ok(job_comes_to($node, $job, "state = 'done'"), 'a job with validation is done');
	is(weights($node, $model), $best, 'the model is the same');
	is(job_column($node, $job, "iteration < 60 AND iteration = iterations AND notes ~ "
		. "('^3 of 3 validation pairs are trained on, too\nends at iteration ' || iteration || ': "
		. "val_L1 .*\nthe model has the weights of ')"),
		't', 'it has ended early, and says so');
	is($node->safe_psql('postgres', "SELECT iterations FROM bicycle_models WHERE model = '$model'"),
		$node->safe_psql('postgres', "SELECT iteration FROM bicycle_losses WHERE job = $job AND "
		. "name = 'val_L1' ORDER BY value, iteration LIMIT 1"),
		'the version is of the iteration that was the best');
	is($node->safe_psql('postgres', "SELECT string_agg(DISTINCT name, ' ' ORDER BY name) FROM "
		. "bicycle_losses WHERE job = $job AND name LIKE 'val%'"),
		'val_L1 val_diversity val_z_L1', 'what was measured is among the losses');
	is(job_column($node, $job, "losses ? 'val_diversity' AND losses ? 'kl'"), 't',
		'and the last of both are in the row of the job');
}

# What precision auto was in the first run of a job it is in the next. The reference trains in bf16
# on any machine, but not by itself.
$node->safe_psql('postgres', "ALTER SYSTEM SET bicycle.training_device = 'ref'");
$node->reload;
{
	my $job = train($node, 'precision',
		'"iterations": 20, "checkpoint_every": 1, "ngf": 4, "nef": 4, "ndf": 4');
	my $engine = stop_at_checkpoint($node, $job);

	like($node->safe_psql('postgres',
		"SELECT platform FROM bicycle_training_jobs WHERE job = $job"), qr/, fp32, /,
		'a run on ref is in fp32');
	$node->safe_psql('postgres',
		"UPDATE bicycle_training_jobs SET platform = replace(platform, 'fp32', 'bf16') WHERE job "
		. "= $job");
	kill_engine($job, $engine);
	ok(job_comes_to($node, $job, "state = 'done'"), 'a job that had begun in bf16 is done');
	is($node->safe_psql('postgres',
		"SELECT concat_ws(' ', iteration, platform ~ ', bf16, ', notes) FROM "
		. "bicycle_training_jobs WHERE job = $job"), '20 t', 'in bf16');
}
$node->safe_psql('postgres', "ALTER SYSTEM RESET bicycle.training_device");
$node->reload;

# Without preloading nothing starts by itself: the next use of the engine resumes the job.
$node->append_conf('postgresql.conf', "shared_preload_libraries = ''");
$node->restart;
is_the_same_after('an immediate shutdown without preloading', $expected, '', sub {
	my ($job) = @_;

	$node->stop('immediate');
	$node->start;
	is($node->safe_psql('postgres',
		"SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'bicycle%'"), 0,
		'nothing of ours runs');
	unfinished($job, 'the server stops');
	$node->safe_psql('postgres', 'SELECT pid FROM bicycle_engine()');
	usleep(100_000);
	$node->safe_psql('postgres', "SELECT bicycle_image_info(sketch) FROM outlines WHERE id = 0");
});

$node->stop;
done_testing();
