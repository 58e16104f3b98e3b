# With bicycle.on_error = null only what is wrong with an image gives NULL: not what is wrong with a
# model, with the engine or with the session, though it may have the same SQLSTATE; and workers tell
# of their images through the leader.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use Test::More;

my $node = new_node('main', 'bicycle.debug = on', 'bicycle.queue_memory = 1',
	q{bicycle.on_error = 'null'});
my $all = "SELECT count(*), count(v) FROM (SELECT bicycle_translate(sketch, bicycle_latent(8, id), "
	. "model => 'emoji') AS v FROM outlines OFFSET 0) AS rows";

load_model($node, 'postgres', 4);
$node->safe_psql('postgres', q{UPDATE outlines SET sketch = 'no image' WHERE id = 1});

# Status, output and errors of SQL, these with their SQLSTATEs.
sub outcome
{
	my ($sql) = @_;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$sql",
		on_error_stop => 1);

	return ($status, $out, $err);
}

my ($status, $out, $err) = outcome($all);
is("$status $out", '0 4|3', 'a row that is no image is NULL');
like($err, qr/WARNING:  01000: 1 image could not be used/, 'and is told of');
my @warnings = $err =~ /WARNING:/g;
is(scalar(@warnings), 1, 'once');

# What is larger than the whole queue is refused before it is sent.
($status, $out, $err) = outcome(
	q{SELECT bicycle_translate(decode(repeat('00', 1500000), 'hex'), bicycle_latent(8, 1), 'emoji')
		IS NULL});
is("$status $out", '0 t', 'an image that is larger than the queue is NULL');
like($err, qr/WARNING.*\n.*request is too large/, 'for that reason');

# A report whose pictures cannot become a page ends before the rest of them is made, or any.
my $requests = engine_query($node, 'requests');
my $report = q{SET bicycle.debug_fault = 5; SELECT length(bicycle_report('emoji', 'SELECT photo, %s
	FROM outlines', '{"samples": 100, "evaluation": false}'))};
($status, $out, $err) = outcome(sprintf($report, 'photo'));
like($err, qr/ERROR:  54000: report is too large\n.*DETAIL:.*HINT:/s,
	'a page that is too large');
cmp_ok(engine_query($node, 'requests') - $requests, '<', 300, 'ends while it is made');
$requests = engine_query($node, 'requests');
($status, $out, $err) = outcome(sprintf($report, q{decode(repeat(''00'', 300000), ''hex'')}));
like($err, qr/ERROR:  54000: report is too large/, 'one of large pairs');
is(engine_query($node, 'requests') - $requests, 0, 'before any answer is made');

# The engine's own failures.
($status, $out, $err) = outcome("SET bicycle.debug_fault = 1;\n$all");
like($err, qr/ERROR:  58000:/, 'an image that crashes the engine is an error');
unlike($err, qr/WARNING/, 'without a WARNING');
configure($node, q{SET bicycle.stuck_timeout = '600s'});
($status, $out, $err) = outcome("SET bicycle.debug_fault = 2;\nSET statement_timeout = 500;\n$all");
like($err, qr/ERROR:  57014:/, 'a cancel is an error');

# A model that is beyond a limit has the SQLSTATE of an image that is.
$node->safe_psql('postgres', 'ALTER SYSTEM RESET bicycle.stuck_timeout');
$node->safe_psql('postgres', 'ALTER SYSTEM SET bicycle.max_model_size = 1');
$node->restart;
($status, $out, $err) = outcome($all);
like($err, qr/ERROR:  54000:/, 'a model that is too large is an error, by the node');
($status, $out, $err) = outcome("SET bicycle.batching = off;\n$all");
like($err, qr/ERROR:  54000:/, 'and by the function');
unlike($err, qr/WARNING/, 'without a WARNING');
$node->safe_psql('postgres', 'ALTER SYSTEM RESET bicycle.max_model_size');
$node->restart;

# Each of two workers meets some of many.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE many AS SELECT id, CASE WHEN n % 10 = 0 THEN '\x00' ELSE sketch END AS sketch
	FROM outlines, generate_series(1, 20) AS n WHERE id <> 1;
ALTER TABLE many SET (parallel_workers = 2);
ANALYZE many;
SQL
my $parallel = "SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; "
	. "SET min_parallel_table_scan_size = 0; SET parallel_leader_participation = off;\n";
($status, $out, $err) = outcome($parallel
	. "SELECT count(bicycle_translate(sketch, bicycle_latent(8, id), 'emoji')) FROM many");
is("$status $out", '0 54', 'workers translate what they can');
like($err, qr/WARNING:  01000: 6 images could not be used/, 'and their counts are added up');
@warnings = $err =~ /WARNING:/g;
is(scalar(@warnings), 1, 'in one WARNING');
like($err, qr/row with ctid \(\d+,\d+\) of table "many"/, 'which names rows');
($status, $out, $err) = outcome($parallel . <<'SQL');
SELECT count(*) FROM many WHERE bicycle_translate(sketch, bicycle_latent(8, id), 'emoji') IS NULL
SQL
is("$status $out", '0 6', 'plain calls in workers, too');
my $told = 0;
$told += $_ foreach $err =~ /WARNING:  01000: (\d+) images? could not/g;
is($told, 6, 'and the workers together tell of all');
# More than can be told.
($status, $out, $err) = outcome("$parallel SELECT id / (id - 3) FROM (SELECT id, bicycle_encode("
	. "sketch, 'emoji') FROM many ORDER BY sketch OFFSET 0) AS rows");
like($err, qr/ERROR:  22012:/, 'an error ends it');
unlike($err, qr/WARNING/, 'and nothing is told then');

ok(wait_for_engine($node, 'queued = 0'), 'nothing is left in the queue');
$node->stop;
done_testing();
