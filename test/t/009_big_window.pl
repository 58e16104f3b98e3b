# Flow control: more bytes in one call than the queue holds, plots that would, and several
# statements' requests interleaved on one connection, neither block nor lose replies.
use strict;
use warnings;

use Compress::Zlib;
use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

use constant { IMAGES => 800, SIDE => 592 };

my $node = new_node('main', 'bicycle.queue_memory = 16MB', 'bicycle.request_timeout = 10min');

load_model($node, 'postgres');

# A PNG of about 1 MB: noise does not compress.
sub chunk
{
	my ($type, $data) = @_;

	return pack('N', length $data) . $type . $data . pack('N', crc32($type . $data));
}

sub noise_png
{
	my ($side) = @_;
	my $state = 1;
	my $rows = '';

	for (1 .. $side)
	{
		my $row = pack('N*',
			map { $state = ($state * 1664525 + 1013904223) & 0xffffffff } 1 .. $side * 3 / 4 + 1);
		$rows .= "\0" . substr($row, 0, $side * 3);
	}
	return "\x89PNG\r\n\x1a\n" . chunk('IHDR', pack('NNCCCCC', $side, $side, 8, 2, 0, 0, 0))
		. chunk('IDAT', compress($rows, 0)) . chunk('IEND', '');
}

my $file = scratch('noise.png');
open(my $handle, '>:raw', $file) or die $!;
print $handle noise_png(SIDE);
close $handle;
cmp_ok(-s $file, '>', 1_000_000, 'an image of 1 MB');

is($node->safe_psql('postgres', sprintf(<<'SQL', $file, IMAGES)),
CREATE TABLE noise AS SELECT pg_read_binary_file('%s') AS image;
SELECT count(*), count(DISTINCT made), count(made)
FROM unnest(bicycle_translate_many((SELECT array_agg(image) FROM noise, generate_series(1, %d)),
	ARRAY[bicycle_latent(8, 1)], model => 'emoji')) made
SQL
	IMAGES . '|1|' . IMAGES, IMAGES . ' of them in one translate_many');

# Two cursors and a block that fails and goes on, all on one connection; replies of one come while
# another waits.
is($node->safe_psql('postgres',
	<<'SQL'), '40|40|5|10', 'two open cursors and an EXCEPTION block on one connection');
DO $$
DECLARE
	one CURSOR FOR SELECT bicycle_translate(sketch, bicycle_latent(8, id + n), model => 'emoji')
		AS made, md5(sketch) FROM outlines, generate_series(1, 5) n ORDER BY id, n;
	two CURSOR FOR SELECT sample, image AS made
		FROM outlines, bicycle_sample(sketch, 5, seed => id, model => 'emoji') ORDER BY id, sample;
	a bytea; b bytea; dummy text; k int;
	n_one int := 0; n_two int := 0; caught int := 0; many int := 0;
BEGIN
	OPEN one;
	OPEN two;
	FOR i IN 1 .. 40 LOOP
		FETCH one INTO a, dummy;
		n_one := n_one + (length(a) > 100)::int;
		FETCH two INTO k, b;
		n_two := n_two + (length(b) > 100)::int;
		IF i % 8 = 0 THEN
			BEGIN
				many := many + cardinality(bicycle_translate_many((SELECT array_agg(sketch)
					FROM outlines WHERE id < 2), ARRAY[bicycle_latent(8, i)], model => 'emoji'));
				PERFORM bicycle_translate_many((SELECT array_agg(sketch) ||
					'\x89504e470d0a1a0a'::bytea || array_agg(sketch) FROM outlines),
					ARRAY[bicycle_latent(8, i)], model => 'emoji');
			EXCEPTION WHEN invalid_binary_representation THEN
				caught := caught + 1;
			END;
		END IF;
	END LOOP;
	CREATE TABLE counted AS SELECT n_one, n_two, caught, many;
END $$;
SELECT * FROM counted;
SQL

# Two sessions whose requests together are far beyond the queue wait for each other and both end.
my @sessions;
for (1 .. 2)
{
	my %session = (out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
			"SELECT count(bicycle_translate(image, bicycle_latent(8, n), model => 'emoji')) FROM "
				. "noise, generate_series(1, 60) n" ],
		'>', \$session{out}, '2>', \$session{err});
	push @sessions, \%session;
}
foreach my $session (@sessions)
{
	$session->{run}->finish;
	is($session->{out} . $session->{err}, "60\n",
		'a session with more bytes than the queue holds, beside another');
}
ok(wait_for_engine($node, 'queued = 0'), 'nothing is left in the queue');

# An image that could never get a place is refused at once.
my $one = "SELECT count(bicycle_translate(image, bicycle_latent(8, 1), model => 'emoji')) FROM "
	. "noise";
$node->safe_psql('postgres', 'ALTER SYSTEM SET bicycle.queue_memory = 1');
$node->restart;
my ($status, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$one");
like($err, qr/ERROR:  54000:/, 'an image larger than the queue ends in 54000');

# A plot of millions of losses is no larger than any other.
is($node->safe_psql('postgres', <<'SQL'), 't', 'a plot of two hundred thousand losses has a place');
INSERT INTO bicycle_training_jobs (job, model, owner, system_identifier, database, pairs,
	search_path, options, state) VALUES (1, 'm', 'postgres', 1, 1, '', '', '{}', 'done');
INSERT INTO bicycle_training_losses SELECT 1, n, name, n FROM generate_series(1, 100000) n,
	unnest('{D,kl}'::text[]) name;
SELECT length(bicycle_loss_plot(1)) > 1000;
SQL

# Without a place in time the error says so: one such image hangs in the engine, and two do not fit.
$node->safe_psql('postgres', $_) foreach 'ALTER SYSTEM SET bicycle.queue_memory = 2',
	'ALTER SYSTEM SET bicycle.debug = on';
$node->restart;
my ($o, $e) = ('', '');
my $hung = IPC::Run::start([ 'psql', '-Xq', '-d', $node->connstr('postgres'), '-c',
	'SET bicycle.debug_fault = 2', '-c', $one ], '>', \$o, '2>', \$e);
ok(wait_for_engine($node, 'queued = 1'), 'an image hangs');
($status, $out, $err) = $node->psql('postgres',
	"\\set VERBOSITY verbose\nSET bicycle.request_timeout = '1s';\n$one");
like($err, qr/ERROR:  53400:/, 'another one ends in 53400 after request_timeout');
$node->safe_psql('postgres',
	"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%noise' AND pid <> "
	. "pg_backend_pid()");
$hung->finish;

$node->stop;
done_testing();
