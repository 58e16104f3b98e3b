# A session whose own state is not what it should be notices it, and ends alone: with bicycle.debug
# it checks its list of calls at each turn, and slots of jobs whenever it writes them.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $translate = "SELECT count(bicycle_translate(sketch, bicycle_latent(8, id), model => 'emoji')) "
	. "FROM outlines";

load_model($node, 'postgres');
is($node->safe_psql('postgres', "SET bicycle.debug_fault = 3; $translate"), '8',
	'without bicycle.debug nothing is spoilt');
configure($node, 'SET bicycle.debug = on');
is($node->safe_psql('postgres', $translate), '8', 'a sound session passes the check');

my $other = $node->background_psql('postgres');
$other->query_safe($translate);
my $engine = engine_pid($node);
my ($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nSET bicycle.debug_fault = 3;\n$translate;\nSELECT 'goes on'");
like($err,
	qr/FATAL:  XX000: internal error of bicycle\nDETAIL:  At src.pg.call\.c:\d+ .*: .*attempts/,
	'a spoilt list is noticed');
is($out, '', 'and the session ends');
is($other->query_safe($translate), '8', 'another one goes on');
$other->quit;
is(engine_pid($node), $engine, 'with the same engine');
is($node->safe_psql('postgres', "SET bicycle.debug_fault = 3; SELECT 1"), '1', 'new ones come');

# The slots of jobs in shared memory: who spoils one notices it before he lets go of the lock. The
# slot is free again when its worker has not come up.
($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nSET bicycle.debug_fault = 4;\n"
	. "SELECT bicycle_train('m', '$PAIRS', '{$TINY, \"iterations\": 2}');\nSELECT 'goes on'");
like($err, qr/FATAL:  XX000: .*\nDETAIL:  At src.pg.job_slots\.c:\d+ .*: .*interrupted/,
	'a spoilt slot is noticed');
is($out, '', 'and the session ends');
my $job;
for (1 .. $PATIENCE)
{
	($status, $job) = $node->psql('postgres',
		"SELECT bicycle_train('m', '$PAIRS', '{$TINY, \"iterations\": 2}')");
	last if $status == 0;
	sleep 1;
}
ok(job_comes_to($node, $job, "state = 'done'"), 'another one trains afterwards');
unlike(slurp_file($node->logfile), qr/PANIC|terminating any other active server processes/,
	'and the server has not noticed');
is($node->safe_psql('postgres', "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"), '0',
	'nothing is left locked');

$node->stop;
done_testing();
