# Bicycle.pm: what the TAP tests share. A cluster with the extension, the small trained model, a
# table of outlines, and training jobs.
package Bicycle;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw($PATIENCE new_node preload configure load_model load_pairs engine_pid
	wait_for_engine engine_query imitated_gpus train job_column job_comes_to stop_at_checkpoint
	pause_halted training_engines weights scratch $DATA $TINY $PAIRS);

# Seconds to wait for what must come. Training computes with what other processes leave to it, so on
# a busy machine it may take long.
our $PATIENCE = $PostgreSQL::Test::Utils::timeout_default;
our $DATA = $ENV{BICYCLE_TESTDATA} . '/edges2emoji';
our $TINY = '"size": 64, "ngf": 4, "nef": 4, "ndf": 4, "nz": 4';		# networks that train fast
our $PAIRS = 'SELECT sketch, photo FROM outlines';

# new_node(NAME, SETTING...): a started cluster. The extension is preloaded unless a setting says
# otherwise. Its engine has one thread, as several tests run at a time; 008_restart has more.
sub new_node
{
	my ($name, @settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', join("\n",
			"shared_preload_libraries = 'bicycle'", 'bicycle.threads = 1',
				'max_prepared_transactions = 2', 'log_statement = none', @settings) . "\n");
	$node->start;
	return $node;
}

# scratch(NAME): the path of a file of this test's own: tests that run beside it share all other
# directories.
my $scratch;

sub scratch
{
	my ($name) = @_;

	$scratch //= PostgreSQL::Test::Utils::tempdir;
	return "$scratch/$name";
}

# preload(SOURCE): compiles a library of C that takes the place of functions of libc, for
# $ENV{LD_PRELOAD} while a server is started; returns its path.
sub preload
{
	my ($source) = @_;
	my $directory = PostgreSQL::Test::Utils::tempdir;

	PostgreSQL::Test::Utils::append_to_file("$directory/preload.c", $source);
	system((split ' ', $ENV{CC} // 'cc')[-1], '-D_GNU_SOURCE', '-shared', '-fPIC', '-o',
		"$directory/preload.so", "$directory/preload.c", '-ldl') == 0
	  or die 'no library to preload';
	return "$directory/preload.so";
}

# imitated_gpus(COUNT): servers that are started from here on find that many imitated GPUs
# (test/cuda/runtime_on_cpu.c); skips the test where they cannot.
sub imitated_gpus
{
	my ($count) = @_;

	plan(skip_all => 'no server with the imitation of GPUs') unless $ENV{BICYCLE_GPU_TREE};
	$ENV{PATH} = "$ENV{BICYCLE_GPU_TREE}:$ENV{PATH}";
	$ENV{BICYCLE_TEST_GPUS} = $count;
	return;
}

# configure(NODE, CHANGE...): ALTER SYSTEM with each change, and a reload, which sessions and
# workers that begin afterwards know of.
sub configure
{
	my ($node, @changes) = @_;
	my $before = $node->safe_psql('postgres', 'SELECT clock_timestamp()');

	$node->safe_psql('postgres', "ALTER SYSTEM $_") foreach @changes;
	$node->reload;
	$node->poll_query_until('postgres', "SELECT pg_conf_load_time() > '$before'")
		or die 'no reload';
	return;
}

# Creates in DATABASE the extension, the model "emoji" and outlines(id, sketch, photo) of the first
# COUNT pairs.
sub load_model
{
	my ($node, $database, $count) = @_;

	load_pairs($node, $database, $count);
	$node->safe_psql($database,
		"SELECT bicycle_import('emoji', pg_read_binary_file('$DATA/G.pth'), encoder => "
		. "pg_read_binary_file('$DATA/E.pth'))");
	return;
}

# The same without the model.
sub load_pairs
{
	my ($node, $database, $count) = @_;

	$node->safe_psql($database, sprintf(<<'SQL', $DATA, ($count // 8) - 1));
CREATE EXTENSION IF NOT EXISTS bicycle;
CREATE TABLE outlines
	AS SELECT n AS id, pg_read_binary_file(format('%1$s/pairs/%%s_A.png', to_char(n, 'FM00')))
		AS sketch,
		   pg_read_binary_file(format('%1$s/pairs/%%s_B.png', to_char(n, 'FM00'))) AS photo
	FROM generate_series(0, %2$d) n;
SQL
	return;
}

# The first column of bicycle_engine() that is asked for, or '' while there is no engine.
sub engine_query
{
	my ($node, $column) = @_;
	my ($status, $out) = $node->psql('postgres', "SELECT $column FROM bicycle_engine()");

	return defined $status && $status == 0 ? $out : '';
}

sub engine_pid { return engine_query($_[0], 'pid'); }

# Waits until CONDITION, over the columns of bicycle_engine(), holds.
sub wait_for_engine
{
	my ($node, $condition, $seconds) = @_;
	my $deadline = time() + ($seconds // $PATIENCE);

	while (time() < $deadline)
	{
		return 1 if engine_query($node, $condition) eq 't';
		usleep(20_000);
	}
	return 0;
}

# train(NODE, MODEL, OPTIONS, ...): starts a job over the outlines with tiny networks, and OPTIONS
# in JSON over those; returns its number. By name: database, another query of the pairs, what is to
# be said before in the same session.
sub train
{
	my ($node, $model, $options, %with) = @_;
	my $pairs = $with{pairs} // $PAIRS;

	return $node->safe_psql($with{database} // 'postgres',
		($with{before} // '')
		. qq{ SELECT bicycle_train('$model', \$pairs\$$pairs\$pairs\$, '{$TINY, $options}')});
}

sub job_column
{
	my ($node, $job, $column, %with) = @_;

	return $node->safe_psql($with{database} // 'postgres',
		"SELECT $column FROM bicycle_jobs WHERE job = $job");
}

# Waits until CONDITION over the columns of bicycle_jobs holds.  By name: database, seconds.
sub job_comes_to
{
	my ($node, $job, $condition, %with) = @_;
	my $database = $with{database} // 'postgres';
	my $deadline = time() + ($with{seconds} // $PATIENCE);

	while (time() < $deadline)
	{
		my ($status, $out) = $node->psql($database,
			"SELECT $condition FROM bicycle_jobs WHERE job = $job");

		return 1 if $status == 0 && $out eq 't';
		usleep(50_000);
	}
	diag($node->psql($database, "SELECT * FROM bicycle_training_jobs WHERE job = $job"));
	return 0;
}

# Halts the engine of the only job that runs after the job has stored a checkpoint, and before its
# run ends, however fast the machine is: what is done to it before SIGCONT finds it in the middle.
# Returns the PID, or nothing if the job ended first. By name: database.
sub stop_at_checkpoint
{
	my ($node, $job, %with) = @_;

	return advance_until($node,
		'EXISTS (SELECT FROM bicycle_training_checkpoints c WHERE c.job = j.job)', $job, %with);
}

# Pauses a job whose engine is halted, and lets it go on to that. By name: database, user.
sub pause_halted
{
	my ($node, $job, %with) = @_;

	$node->safe_psql($with{database} // 'postgres', "SELECT public.bicycle_pause($job)",
		extra_params => $with{user} ? [ '-U', $with{user} ] : []);
	advance_until($node, "state = 'paused'", $job, %with);
	kill('CONT', training_engines($node));
	return job_column($node, $job, 'state', %with) eq 'paused';
}

# Lets the training engines compute a few milliseconds at a time until CONDITION over j, the row of
# the only job that runs, holds. In between they are halted until the trainer has stored what they
# sent and told them what there is to tell, so that they get little further than they must.
sub advance_until
{
	my ($node, $condition, $job, %with) = @_;
	my $session = $node->background_psql($with{database} // 'postgres');
	my $deadline = time() + $PATIENCE;
	my $seen = '';

	while ($seen !~ /holds|ended/ && time() < $deadline)
	{
		my @engines = training_engines($node);

		kill('STOP', @engines);
		usleep(2000);
		$seen = $session->query(<<"SQL");
SELECT CASE WHEN $condition THEN 'holds' WHEN state IN ('done', 'failed', 'cancelled') THEN 'ended'
	WHEN EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'
		AND wait_event_type IS DISTINCT FROM 'Extension') THEN 'stores' ELSE 'waits' END
	FROM bicycle_training_jobs j WHERE job = $job
SQL
		kill('CONT', @engines) if $seen =~ /waits/;
		usleep(2000);
	}
	$session->quit;
	my @halted = training_engines($node);

	return $halted[0] if $seen =~ /holds/;
	kill('CONT', @halted);
	return;
}

# PIDs of the training engines of this cluster.
sub training_engines
{
	my ($node) = @_;
	my @found;

	foreach my $dir (glob '/proc/[0-9]*')
	{
		my ($pid) = $dir =~ /(\d+)$/;
		my $line = -r "$dir/cmdline" ? do { local (@ARGV, $/) = "$dir/cmdline"; <> } : '';
		my $cwd = readlink("$dir/cwd") // '';

		push @found, $pid if defined $line && $line =~ /--train/ && $cwd eq $node->data_dir;
	}
	return @found;
}

# What the current version of a model consists of, all its tensors and its configuration, as one
# hash that is made here.
sub weights
{
	my ($node, $model, %with) = @_;

	return $node->safe_psql($with{database} // 'postgres', <<"SQL");
SELECT md5(m.config::text || string_agg(concat_ws(' ', t.network, t.name, t.chunk, t.dtype, t.shape,
	md5(t.data)), ',' ORDER BY t.network, t.name, t.chunk))
FROM bicycle_models m JOIN bicycle_tensors t USING (model, version) WHERE m.model = '$model'
	AND m.is_current GROUP BY m.config
SQL
}

1;
