# A job that was copied from elsewhere is paused, whatever its row says, until its owner resumes it
# there: from another database of the cluster by a template, by dump and restore, or from another
# cluster by logical replication.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'wal_level = logical');
my $other = new_node('other');
my $options = '"iterations": 20, "checkpoint_every": 8, "ngf": 16, "nef": 16, "ndf": '
	. '16, "batch_size": 4';
my $rights = <<'SQL';
GRANT EXECUTE ON FUNCTION bicycle_train TO painter;
GRANT SELECT, INSERT, UPDATE ON bicycle_models, bicycle_tensors, bicycle_counters TO painter;
GRANT SELECT ON outlines TO painter;
SQL

# A job that is made and trained in DATABASE shows that the launcher has looked at it; JOB has
# stayed where it was.
sub stays_paused
{
	my ($where, $job, $database, $what) = @_;
	my $control = train($where, 'control', '"iterations": 1', database => $database);

	$where->safe_psql($database, "CALL bicycle_wait($control)");
	is(job_column($where, $job, "concat_ws(' ', owner, state)", database => $database),
		'painter paused', "$what: the job is paused");
	is($where->safe_psql($database,
		"SELECT system_identifier = (SELECT system_identifier FROM pg_control_system()) AND d.oid "
		. "= database"
				. " FROM bicycle_training_jobs, pg_database d WHERE job = $job AND datname = "
					. "current_database()"), 'f', "$what: its row is not of this database");
	return;
}

sub is_resumed_to
{
	my ($where, $job, $database, $expected, $what) = @_;

	$where->safe_psql($database, "SET ROLE painter; SELECT bicycle_resume($job)");
	ok(job_comes_to($where, $job, "state = 'done'", database => $database),
		"$what: resumed by its owner, it is done there");
	is(job_column($where, $job, "concat_ws(' ', owner, iteration, error)", database => $database),
		'painter 20', "$what: as its owner");
	is(weights($where, 'painting', database => $database), $expected,
		"$what: with the model that it would have become at home");
	return;
}

sub set_max_jobs { configure($node, "SET bicycle.max_training_jobs = $_[0]"); return; }

$node->safe_psql('postgres', 'CREATE ROLE painter LOGIN; CREATE DATABASE home');
load_pairs($node, 'home');
$node->safe_psql('home', $rights);

# What is to come out, and a job that is on its way: its row says queued, with a checkpoint of
# iteration 8 or later.
my $whole = train($node, 'whole', $options, database => 'home', before => 'SET ROLE painter;');
$node->safe_psql('home', "CALL bicycle_wait($whole)");
my $expected = weights($node, 'whole', database => 'home');
my $job = train($node, 'painting', $options, database => 'home', before => 'SET ROLE painter;');
ok(stop_at_checkpoint($node, $job, database => 'home'), 'a job has a checkpoint');
ok(pause_halted($node, $job, database => 'home'), 'it is paused');
cmp_ok(job_column($node, $job, 'iteration', database => 'home'), '<', 20,
	'in the middle of its run');
set_max_jobs(0);
$node->safe_psql('home', "SELECT bicycle_resume($job)");
is(job_column($node, $job, 'state', database => 'home'), 'queued', 'and now it waits');

# Copies: a template, a dump, and another cluster that follows.
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE datname = 'home'"), 'nobody is connected');
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE home');
my $file = scratch('home.dump');
$node->command_ok([ 'pg_dump', '-F', 'custom', '-f', $file, $node->connstr('home') ], 'dump');
$node->safe_psql('postgres', 'CREATE DATABASE restored');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-j', '2', '-d', $node->connstr('restored'),
	$file ], 'restore');
$other->safe_psql('postgres', 'CREATE ROLE painter LOGIN');
load_pairs($other, 'postgres');
$other->safe_psql('postgres', "$rights SELECT setval('bicycle_training_job_ids', 100)");
$node->safe_psql('home', 'CREATE PUBLICATION jobs FOR TABLE bicycle_training_jobs, '
	. 'bicycle_training_losses, bicycle_training_previews, bicycle_training_checkpoints');
$other->safe_psql('postgres', "CREATE SUBSCRIPTION jobs CONNECTION \$\$" . $node->connstr('home')
	. '$$ PUBLICATION jobs');
ok($other->poll_query_until('postgres',
	"SELECT bool_and(srsubstate IN ('r', 's')) FROM pg_subscription_rel"),
	'the other cluster has the rows');
stays_paused($other, $job, 'postgres', 'replication');
set_max_jobs(1);

stays_paused($node, $job, 'copy', 'template');
is($node->safe_psql('copy', "SELECT bicycle_pause($job); SELECT state FROM bicycle_training_jobs "
	. "WHERE job = $job"), "\nqueued", 'template: pausing what is paused changes nothing');
stays_paused($node, $job, 'restored', 'dump');

# At home it goes on, followed by the other cluster, in which it stays a picture of what happens
# here.
ok(job_comes_to($node, $job, "state = 'done'", database => 'home'), 'at home it goes on');
is(weights($node, 'painting', database => 'home'), $expected, 'to the expected model');
$node->wait_for_catchup('jobs');
is(job_column($other, $job, "concat_ws(' ', owner, state, iteration)"), 'painter done 20',
	'which the other cluster is told');

# Two more, which only run elsewhere: the row of the template's copy carries a checkpoint, that of
# the dump none.
is_resumed_to($node, $job, 'copy', $expected, 'template');
is($node->safe_psql('restored',
	"SELECT count(*) FROM bicycle_training_checkpoints WHERE job = $job"), 0,
	'dump: checkpoints are not carried');
is_resumed_to($node, $job, 'restored', $expected, 'dump');

# The other cluster takes over from the last checkpoint that it was sent.
my $last = train($node, 'painting', $options . ', "seed": 1', database => 'home',
	before => "SELECT bicycle_drop('painting'); SET ROLE painter;") =~ s/\s//gr;
ok(stop_at_checkpoint($node, $last, database => 'home'), 'it has a checkpoint');
ok($other->poll_query_until('postgres',
	"SELECT count(*) > 0 FROM bicycle_training_checkpoints WHERE job = $last"),
	'which comes by replication');
$node->stop('immediate');
$other->safe_psql('postgres',
	"ALTER SUBSCRIPTION jobs DISABLE; ALTER SUBSCRIPTION jobs SET (slot_name = NONE); DROP "
	. "SUBSCRIPTION jobs");
stays_paused($other, $last, 'postgres', 'home is gone');
my $sent = $other->safe_psql('postgres',
	"SELECT max(iteration) FROM bicycle_training_checkpoints WHERE job = $last");
cmp_ok($sent, '<', 20, 'in the middle of the run');
is($other->safe_psql('postgres',
	"BEGIN; SET ROLE painter; SELECT bicycle_resume($last); RESET ROLE; SELECT checkpoint FROM "
	. "bicycle_training_jobs WHERE job = $last; COMMIT"),
	"\n$sent", 'resumed, it begins at the checkpoint');
ok(job_comes_to($other, $last, "state = 'done'"), 'and is done in the other cluster');
my $most = $other->safe_psql('postgres',
	"SELECT setval('bicycle_training_job_ids', 1, false) \\g /dev/null\nSELECT max(job) FROM "
	. "bicycle_training_jobs");
my $again = train($other, 'again', $options . ', "seed": 1');
is($again, $most + 1, 'a new job passes the numbers that came by replication, of which its '
	. 'sequence knows nothing');
$other->safe_psql('postgres', "CALL bicycle_wait($again)");
is(weights($other, 'painting'), weights($other, 'again'), 'to the same model as in one run');

$other->stop;
done_testing();
