# A job of a primary goes on by itself on the standby that is promoted in its place, from the last
# checkpoint, to the same model. As long as it is a standby it shows the job and changes nothing: no
# launcher, no trainer, no training engine.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time sleep);

my $primary = new_node('primary');
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $options = '"iterations": 20, "checkpoint_every": 8, "ngf": 16, "nef": 16, "ndf": '
	. '16, "batch_size": 4';

load_pairs($primary, 'postgres');
$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
# A standby that does not preload registers the launcher once, whoever asks for it: it waits for a
# promotion, in a worker slot, and each further one would take another.
$standby->append_conf('postgresql.conf',
	"shared_preload_libraries = ''\nlog_min_messages = debug1");
$standby->start;

my $job = train($primary, 'whole', $options);
$primary->safe_psql('postgres', "CALL bicycle_wait($job)");
$primary->wait_for_catchup($standby);
my $expected = weights($primary, 'whole');

is(weights($standby, 'whole'), $expected,
	'a model that was trained on the primary is on the standby');
my ($status, $out, $err) = $standby->psql('postgres', "CALL bicycle_wait($job)");
like($err, qr/job $job is done/, 'where one can wait for a job, too');
my $registered = time();

$job = train($primary, 'interrupted', $options);
ok(stop_at_checkpoint($primary, $job), 'a job has a checkpoint');
$primary->wait_for_catchup($standby);
# longer than it may take a launcher to come up
sleep(5.5 - (time() - $registered)) if time() < $registered + 5.5;
($status, $out, $err) = $standby->psql('postgres', "CALL bicycle_wait($job, '0 s')");
like($err, qr/has not ended in time/, 'one can wait there for a job that the primary runs');
my @launchers = slurp_file($standby->logfile) =~
	/registering background worker "bicycle launcher"/g;
is(scalar(@launchers), 1, 'for which a launcher is registered once');
$primary->stop('immediate');
$standby->append_conf('postgresql.conf',
	"shared_preload_libraries = 'bicycle'\nlog_min_messages = log");
$standby->restart;

is(job_column($standby, $job, 'state'), 'running', 'the standby shows the job as it was');
is(weights($standby, 'interrupted'), '', 'which was not finished');
foreach my $call ("bicycle_train('other', '$PAIRS', '{$TINY}')", "bicycle_pause($job)",
	"bicycle_resume($job)", "bicycle_cancel($job)")
{
	($status, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT $call");
	like($err, qr/ERROR:  25006:/, "$call is refused there with 25006");
}
is($standby->safe_psql('postgres',
	"SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('bicycle launcher', 'bicycle "
	. "trainer', 'bicycle job scan')"), 0,
	'nothing of training runs on the standby');
is(scalar(training_engines($standby)), 0, 'no engine either');
is(job_column($standby, $job, 'state'), 'running', 'and the row has not changed');

$standby->promote;
ok(job_comes_to($standby, $job, "state = 'done'"),
	'promoted, it finishes the job without being told');
is(job_column($standby, $job, "concat_ws(' ', iteration, version, notes)"), '20 1',
	'from the checkpoint on, without a note');
is(weights($standby, 'interrupted'), $expected, 'with the same model');

$standby->stop;
done_testing();
