# Training end to end: from a table of pairs to a deployed version; pause, resume, cancel, queue;
# deaths of engine, trainer and server; failures; vacuum.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

my $node = new_node('main', 'restart_after_crash = on');

load_pairs($node, 'postgres');

# From a table to a model.
my $job = train($node, 'tiny', '"iterations": 20, "preview_every": 10, "seed": 5');
my ($status, $out, $err) = $node->psql('postgres', "CALL bicycle_wait($job, '$PATIENCE s')");
is($status, 0, 'a job ends') or diag($err);
like($err, qr/job $job is done: version 1 of model "tiny"/, 'and wait tells so');
is(job_column($node, $job, "concat_ws(' ', state, iteration, iterations, version, error)"),
	'done 20 20 1', 'its row says what it has done');
is($node->safe_psql('postgres',
	"SELECT method, iterations, is_current FROM bicycle_models WHERE model = 'tiny'"),
	'bicycle|20|t', 'the version is current');
is($node->safe_psql('postgres',
	"SELECT string_agg(DISTINCT name, ' ' ORDER BY name) FROM bicycle_losses WHERE job = $job"),
	'D D2 G_GAN G_GAN2 G_L1 kl z_L1', 'all losses were written');
is($node->safe_psql('postgres',
	"SELECT string_agg(iteration || ' ' || (bicycle_image_info(image)).format, ', ' ORDER BY "
	. "iteration) FROM bicycle_previews WHERE job = $job"),
	'10 png, 20 png', 'and previews');
is($node->safe_psql('postgres',
	"SELECT (bicycle_image_info(bicycle_translate(sketch, bicycle_latent(4, 1), 'tiny'))).width "
	. "FROM outlines WHERE id = 0"), 64, 'the model translates');
is($node->safe_psql('postgres', "SELECT (bicycle_image_info(bicycle_loss_plot($job))).width"), 800,
	'the losses can be plotted');
my $expected = weights($node, 'tiny');

# The same again gives the same bits; so does a run that is paused and resumed on the way.
$job = train($node, 'again', '"iterations": 20, "preview_every": 10, "seed": 5');
$node->safe_psql('postgres', "CALL bicycle_wait($job)");
is(weights($node, 'again'), $expected, 'a run with the same seed makes the same weights');
$job = train($node, 'paused', '"iterations": 100000, "seed": 5');
ok(job_comes_to($node, $job, 'iteration > 0'), 'a long job begins');
$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
ok(job_comes_to($node, $job, "state = 'paused'"), 'and is paused');
my $at = job_column($node, $job, 'iteration');
is($node->safe_psql('postgres',
	"SELECT max(iteration) = $at FROM bicycle_training_checkpoints WHERE job = $job"), 't',
	'with a checkpoint of that iteration');
is(scalar(training_engines($node)), 0, 'its engine is gone');
$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
ok(job_comes_to($node, $job, "state = 'running' AND iteration > $at"), 'it goes on');

# The engine dies, and the job with it only for a moment: the next try begins at the checkpoint.
kill('KILL', training_engines($node));
ok(job_comes_to($node, $job, "error LIKE 'training engine ended%'"),
	'the death of the engine is noted');
ok($node->poll_query_until('postgres',
	"SELECT attempts = 2 FROM bicycle_training_jobs WHERE job = $job"),
	'and the job goes on by itself');
is($node->safe_psql('postgres',
	"SELECT count(*) FROM bicycle_losses WHERE job = $job AND iteration > (SELECT iteration FROM "
	. "bicycle_jobs WHERE job = $job)"), 0, 'without losses of a future that did not happen');
ok(job_comes_to($node, $job, "state = 'running' AND iteration > $at + 5"), 'beyond where it was');
# The trainer is terminated: it is started again, and leaves a checkpoint if the machine computes
# what remains of an iteration in time; others may be using it.
my $left = 'f';
for (1 .. 20)
{
	my $before = $node->safe_psql('postgres',
		"SELECT pid FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'");

	$node->safe_psql('postgres', "SELECT pg_terminate_backend($before)");
	ok($node->poll_query_until('postgres',
		"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bicycle trainer' AND pid "
		. "<> $before"), 'a terminated trainer is replaced');
	$left = $node->safe_psql('postgres',
		"SELECT checkpoint > $at FROM bicycle_training_jobs WHERE job = $job");
	last if $left eq 't';
	ok(job_comes_to($node, $job, "iteration > $at + 5"), 'and goes on');
}
is($left, 't', 'and has left a checkpoint');
# Vacuum can clean up what dies while it trains: no transaction is open.
ok(job_comes_to($node, $job,
	"state = 'running' AND updated_at > clock_timestamp() - interval '1 s'"), 'it trains');
$node->safe_psql('postgres',
	'CREATE TABLE dead AS SELECT n FROM generate_series(1, 100) n; DELETE FROM dead');
is($node->safe_psql('postgres',
	"SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'bicycle trainer' AND "
	. "(backend_xmin IS NOT NULL AND state LIKE 'idle%')"), 0,
	'an idle trainer holds no snapshot');
usleep(300_000);
$node->safe_psql('postgres', 'VACUUM dead');
is($node->safe_psql('postgres', "SELECT pg_relation_size('dead')"), 0,
	'vacuum removes rows that died during the training');
# The server stops, and crashes.
$node->restart;
ok(job_comes_to($node, $job, "state = 'running' AND updated_at > pg_postmaster_start_time()"),
	'after a restart the job goes on');
$node->stop('immediate');
$node->start;
ok(job_comes_to($node, $job, "state = 'running' AND updated_at > pg_postmaster_start_time()"),
	'after an immediate shutdown too');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(job_comes_to($node, $job, "state = 'cancelled'"), 'a running job is cancelled');

# A backend that is killed takes all processes down; the launcher comes back and resumes.
$job = train($node, 'killed', '"iterations": 100000');
ok(job_comes_to($node, $job, 'iteration > 0'), 'a job begins');
kill('KILL', $node->safe_psql('postgres',
	"SELECT pid FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'"));
ok(job_comes_to($node, $job, "state = 'running' AND updated_at > started_at AND iteration > 0"),
	'after the kill of the trainer it goes on');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 1 FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'"),
	'with one trainer');

# A second job waits for the first.
my $second = train($node, 'second', '"iterations": 3');
usleep(500_000);
is(job_column($node, $second, 'state'), 'queued', 'a second job waits');
($status, $out, $err) = $node->psql('postgres', "SELECT bicycle_train('second', '$PAIRS')");
like($err, qr/is being trained already/, 'and no other job on its model is taken');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(job_comes_to($node, $second, "state = 'done'"), 'it starts when the first has ended');

# A version that was deployed meanwhile stays current.
$node->safe_psql('postgres',
	"CREATE TABLE current AS SELECT bicycle_create('other', '{$TINY}') AS version");
$job = train($node, 'other', '"iterations": 100, "checkpoint_every": 10');
ok(stop_at_checkpoint($node, $job), 'training of a model that exists');
ok(pause_halted($node, $job), 'is paused');
$node->safe_psql('postgres',
	"SELECT bicycle_import('other', bicycle_export('tiny'), bicycle_export('tiny', 'E'))");
$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
$node->safe_psql('postgres', "CALL bicycle_wait($job)");
is($node->safe_psql('postgres',
	"SELECT string_agg(version || CASE WHEN is_current THEN '*' ELSE '' END, ' ' ORDER BY "
	. "version) FROM bicycle_models WHERE model = 'other'"),
	'1 2* 3', 'a result does not replace a version that training did not start from');

# Failures end with the real error.
$job = train($node, 'few', '"iterations": 3, "batch_size": 16');
($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nCALL bicycle_wait($job, '$PATIENCE s')");
like($err, qr/ERROR:  22023: training job $job has failed/, 'too few rows fail with 22023');
$job = train($node, 'broken', '"iterations": 3',
	pairs => "SELECT 'rubbish'::bytea, photo FROM outlines");
($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nCALL bicycle_wait($job, '$PATIENCE s')");
like($err, qr/ERROR:  22P03:/, 'images that cannot be read with 22P03');
$job = train($node, 'divided', '"iterations": 3',
	pairs => 'SELECT sketch, photo FROM outlines WHERE 1 / (id - id) > 0');
($status, $out, $err) = $node->psql('postgres', "CALL bicycle_wait($job, '$PATIENCE s')");
like($err, qr/division by zero/, 'a query that fails with its own error');

$job = train($node, 'itself', '"iterations": 3',
	pairs => "SELECT sketch, bicycle_translate(sketch, bicycle_latent(4, 1), 'tiny') FROM "
	. "outlines");
($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nCALL bicycle_wait($job, '$PATIENCE s')");
like($err, qr/ERROR:  0A000:.*cannot use a model in the query/s,
	'a query that uses a model with 0A000');

# Rights: the job runs as its owner, under row security, and the moment counts.
$node->safe_psql('postgres', sprintf(<<'SQL'));
CREATE ROLE trainer LOGIN;
GRANT EXECUTE ON FUNCTION bicycle_train TO trainer;
GRANT SELECT, INSERT, UPDATE ON bicycle_models, bicycle_tensors, bicycle_counters TO trainer;
CREATE SCHEMA theirs AUTHORIZATION trainer;
CREATE TABLE theirs.mine AS SELECT * FROM outlines;
ALTER TABLE theirs.mine ENABLE ROW LEVEL SECURITY;
CREATE POLICY first_three ON theirs.mine USING (id < 3);
GRANT SELECT ON theirs.mine TO trainer;
SQL
$job = train($node, 'rights', '"iterations": 3',
	before => 'SET ROLE trainer; SET search_path = theirs, public;',
	pairs => 'SELECT sketch, photo FROM mine');
$node->safe_psql('postgres', "CALL bicycle_wait($job)");
is(job_column($node, $job, "concat_ws(' ', owner, state, epochs)"), 'trainer done 3',
	'row security holds: 3 iterations of 2 pairs are 3 epochs of 3 rows');
is($node->safe_psql('postgres', "SELECT created_by FROM bicycle_models WHERE model = 'rights'"),
	'trainer', 'and the version is by the owner');
$node->safe_psql('postgres', "ALTER SYSTEM SET bicycle.max_training_jobs = 0");
$node->reload;
$node->poll_query_until('postgres', "SHOW bicycle.max_training_jobs", '0');
$job = train($node, 'revoked', '"iterations": 3', before => 'SET ROLE trainer;',
	pairs => 'SELECT sketch, photo FROM theirs.mine');
my $nologin = train($node, 'nologin', '"iterations": 3',
	before => 'CREATE ROLE former LOGIN; GRANT trainer TO former; SET ROLE former;',
	pairs => 'SELECT sketch, photo FROM theirs.mine');
is(job_column($node, $job, 'state'), 'queued', 'with bicycle.max_training_jobs = 0 jobs wait');
$node->safe_psql('postgres',
	'REVOKE SELECT ON theirs.mine FROM trainer; ALTER ROLE former NOLOGIN; ALTER SYSTEM RESET '
	. 'bicycle.max_training_jobs');
$node->reload;
ok(job_comes_to($node, $job, "state = 'failed' AND error LIKE 'permission denied for table mine%'"),
	'a role that has lost its rights fails with that error');
ok(job_comes_to($node, $nologin, "state = 'failed' AND error LIKE '%may not log in%'"),
	'and one that may not log in any more');

# The creating transaction decides.
$node->safe_psql('postgres', "BEGIN; SELECT bicycle_train('never', '$PAIRS', '{$TINY}'); ROLLBACK");
is($node->safe_psql('postgres', "SELECT count(*) FROM bicycle_jobs WHERE model = 'never'"), 0,
	'a rolled back job does not exist');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'"),
	'and its trainer goes away');

# Dropping the extension while it trains.
$job = train($node, 'dropped', '"iterations": 100000');
ok(job_comes_to($node, $job, 'iteration > 0'), 'a job begins');
$node->safe_psql('postgres', 'DROP EXTENSION bicycle CASCADE');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bicycle trainer'"),
	'a trainer without its tables ends');
is(scalar(training_engines($node)), 0, 'and its engine too');

$node->stop;

# Without preloading a job goes on with the first use of the engine after a restart.
$node = new_node('plain', "shared_preload_libraries = ''");
load_model($node, 'postgres', 8);
$job = train($node, 'plain', '"iterations": 100000');
ok(job_comes_to($node, $job, 'iteration > 0'), 'a job begins without preloading');
$node->restart;
is(job_column($node, $job, 'state'), 'running', 'after a restart it is still to be done');
$node->safe_psql('postgres',
	"SELECT bicycle_translate(sketch, bicycle_latent(8, 1), 'emoji') FROM outlines");
ok(job_comes_to($node, $job, "state = 'running' AND updated_at > pg_postmaster_start_time()"),
	'and goes on when the engine is used');
$node->safe_psql('postgres', "SELECT bicycle_cancel($job)");
ok(job_comes_to($node, $job, "state = 'cancelled'"), 'until it is cancelled');
ok($node->poll_query_until('postgres',
	"SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'bicycle launcher'"),
	'the launcher ends when no job is left');
$node->stop;
done_testing();
