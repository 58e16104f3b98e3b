# Waiting for the engine can be ended at any time, and what was waited for is withdrawn.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

# A cancel is asked to take 200 ms at most; the machine may be busy, so only what is far beyond is a
# failure.
use constant { PROMPT => 0.2, TOO_LONG => 20 };

my $node = new_node('main', 'bicycle.max_batch = 2');
my $long = <<'SQL';
SELECT cardinality(bicycle_translate_many((SELECT array_agg(sketch)
	FROM outlines, generate_series(1, 10000)), ARRAY[bicycle_latent(8, 1)], model => 'emoji'))
SQL

load_model($node, 'postgres', 4);
$node->safe_psql('postgres',
	"SELECT count(bicycle_translate(sketch, bicycle_latent(8, 1), model => 'emoji')) FROM "
	. "outlines");

sub took
{
	my ($what, $seconds) = @_;

	diag(sprintf('%s returned after %.0f ms', $what, $seconds * 1000)) if $seconds > PROMPT;
	cmp_ok($seconds, '<', TOO_LONG, "$what returns soon");
	return;
}

# statement_timeout
my ($status, $out, $err) = $node->psql('postgres', <<SQL, on_error_stop => 0);
\\set VERBOSITY verbose
SET statement_timeout = 500;
SELECT clock_timestamp() AS began \\gset
$long;
SELECT extract(epoch FROM clock_timestamp() - :'began') - 0.5;
SELECT count(bicycle_translate(sketch, bicycle_latent(8, 1), model => 'emoji')) FROM outlines;
SQL
like($err, qr/ERROR:  57014:/, 'statement_timeout ends the wait with 57014');
my @lines = split /\n/, $out;
took('statement_timeout', $lines[0]);
is($lines[1], '4', 'the session goes on');
ok(wait_for_engine($node, 'queued = 0'), 'its requests are withdrawn');

# pg_cancel_backend, pg_terminate_backend, and a client that is simply gone
foreach my $way ('pg_cancel_backend', 'pg_terminate_backend')
{
	my ($out, $err) = ('', '');
	my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
		"SET application_name = '$way'", '-c', $long ], '>', \$out, '2>', \$err);

	ok(wait_for_engine($node, 'queued > 2'), "$way: a session waits");
	my $began = time();
	$node->safe_psql('postgres',
		"SELECT $way(pid) FROM pg_stat_activity WHERE application_name = '$way'");
	$session->finish;
	took($way, time() - $began);
	like($err, qr/canceling statement|terminating connection/, "$way: it is told why");
	ok(wait_for_engine($node, 'queued = 0'), "$way: its requests are withdrawn");
}

# A subtransaction that fails with requests in flight leaves nothing behind, and the rest of the
# transaction works.
($status, $out, $err) = $node->psql('postgres', <<SQL);
DO \$\$
BEGIN
	FOR i IN 1 .. 20 LOOP
		BEGIN
			PERFORM bicycle_translate_many(ARRAY[sketch, sketch, '\\x00'::bytea, sketch],
				ARRAY[bicycle_latent(8, i)], model => 'emoji') FROM outlines;
			RAISE EXCEPTION 'not reached';
		EXCEPTION WHEN invalid_binary_representation THEN
			NULL;
		END;
	END LOOP;
END \$\$;
SELECT count(bicycle_translate(sketch, bicycle_latent(8, 1), model => 'emoji')) FROM outlines;
SQL
is($out, '4', 'twenty failed subtransactions, then four images') or diag($err);
ok(wait_for_engine($node, 'queued = 0'), 'and nothing is left in the queue');

# The server's shutdown does not wait for the engine.
my ($o, $e) = ('', '');
my $session = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c', $long ],
	'>', \$o, '2>', \$e);
ok(wait_for_engine($node, 'queued > 2'), 'a session waits while the server stops');
my $began = time();
$node->stop('fast');
$session->finish;
cmp_ok(time() - $began, '<', TOO_LONG, 'a fast shutdown under load is fast');

done_testing();
