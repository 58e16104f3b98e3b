# Restarts and reloads: the same bytes after a restart and with other threads and batches; settings
# reach the running engine.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $bytes = "SELECT md5(string_agg(bicycle_translate(sketch, bicycle_latent(8, id + n), model "
	. "=> 'emoji'), '' ORDER BY id, n)) FROM outlines, generate_series(1, 4) n";
my $samples = "SELECT md5(string_agg(z::text || md5(image), ' ' ORDER BY id, sample)) FROM "
	. "outlines, bicycle_sample(sketch, 3, seed => 42, model => 'emoji')";
my $many = "SELECT md5(string_agg(image, '' ORDER BY n)) FROM "
	. "unnest(bicycle_translate_many((SELECT array_agg(sketch ORDER BY id, n) FROM outlines, "
	. "generate_series(1, 4) n), "
	. "(SELECT array_agg(bicycle_latent(8, id + n) ORDER BY id, n) FROM outlines, "
		. "generate_series(1, 4) n), model => 'emoji')) WITH ORDINALITY AS made(image, n)";

load_model($node, 'postgres');
my ($expected, $expected_samples) = ($node->safe_psql('postgres', $bytes),
	$node->safe_psql('postgres', $samples));
is($node->safe_psql('postgres', $many), $expected, 'translate_many makes the same bytes');

$node->restart;
is($node->safe_psql('postgres', $bytes), $expected, 'the same bytes after a restart');
is($node->safe_psql('postgres', $samples), $expected_samples,
	'the same samples for a seed after a restart');

foreach my $settings ([ 'threads', 2 ], [ 'threads', 4 ], [ 'max_batch', 1 ], [ 'max_batch', 3 ])
{
	my ($name, $value) = @$settings;

	$node->safe_psql('postgres', "ALTER SYSTEM SET bicycle.$name = $value");
	$node->reload;
	$node->poll_query_until('postgres', "SHOW bicycle.$name", $value) or BAIL_OUT('no reload');
	is($node->safe_psql('postgres', $many), $expected,
		"the same bytes with $name = $value set by a reload");
	$node->restart;
	is($node->safe_psql('postgres', $many), $expected, "and after a restart with it");
	$node->safe_psql('postgres', "ALTER SYSTEM RESET bicycle.$name");
}

# A device that is not there is an error that says so, and mends itself when the setting is mended.
{
	$node->safe_psql('postgres', "ALTER SYSTEM SET bicycle.device = 'cuda:99'");
	$node->restart;
	my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$bytes");
	like($err, qr/ERROR:  55000:/, 'a missing device is 55000');
	like($err, qr/HINT:/, 'with a hint');
	$node->safe_psql('postgres', 'ALTER SYSTEM RESET bicycle.device');
	$node->reload;
	$node->poll_query_until('postgres', "SHOW bicycle.device", 'auto');
	ok($node->poll_query_until('postgres', "SELECT pid IS NOT NULL FROM bicycle_engine()", 't'),
		'the engine comes back by a reload');
	is($node->safe_psql('postgres', $bytes), $expected, 'and makes the same bytes');
}

# Not even an immediate shutdown leaves an engine behind.
my $pid = engine_pid($node);
$node->stop('immediate');
my $waited = 0;
select(undef, undef, undef, 0.1) while kill(0, $pid) && $waited++ < 100;
ok(!kill(0, $pid), 'the engine ends with an immediate shutdown');
$node->start;
is($node->safe_psql('postgres', $bytes), $expected, 'the same bytes after crash recovery');
$pid = engine_pid($node);
$node->kill9;
$waited = 0;
select(undef, undef, undef, 0.1) while kill(0, $pid) && $waited++ < 100;
ok(!kill(0, $pid), 'the engine ends when the postmaster is killed');
$node->start;
is($node->safe_psql('postgres', $bytes), $expected, 'the same bytes after that');

$node->stop;
done_testing();
