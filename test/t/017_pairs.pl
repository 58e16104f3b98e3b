# Whatever a table of pairs holds, a job on it is done or fails with an error that says what is
# wrong, in which row; its engine does not die of it. The same for a checkpoint, and a version to
# start from, that is not what was once written.
use strict;
use warnings;

use Compress::Zlib qw(crc32);
use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main', 'bicycle.max_training_jobs = 4', 'max_worker_processes = 16',
	'bicycle.max_request_size = 128kB');
my $files = $ENV{BICYCLE_TESTDATA};

load_pairs($node, 'postgres', 4);
$node->safe_psql('postgres', 'CREATE DOMAIN picture AS bytea CHECK (length(VALUE) > 0)');

# A PNG that says it is so large, and holds nothing.
sub png_header
{
	my ($width, $height) = @_;
	my $ihdr = 'IHDR' . pack('NNCCCCC', $width, $height, 8, 2, 0, 0, 0);

	return unpack('H*', "\x89PNG\r\n\x1a\n" . pack('N', 13) . $ihdr . pack('N', crc32($ihdr))
		. pack('N', 0) . 'IDAT' . pack('N', crc32('IDAT')));
}

# A PNG of some columns of a picture that never changes.
sub png
{
	my ($width, $height, $from) = @_;
	my $chunk = sub { pack('N', length($_[1])) . $_[0] . $_[1] . pack('N', crc32($_[0] . $_[1])) };
	my $rows = join('', map { my $y = $_; "\0" . join('', map { pack('C3', ($_ * 3 + $y) & 255,
		($_ * $y) & 255, ($_ ^ $y * 5) & 255) } $from .. $from + $width - 1) } 0 .. $height - 1);

	return unpack('H*', "\x89PNG\r\n\x1a\n" . $chunk->('IHDR', pack('NNCCCCC', $width, $height, 8,
		2, 0, 0, 0)) . $chunk->('IDAT', Compress::Zlib::compress($rows)) . $chunk->('IEND', ''));
}

sub file { return "pg_read_binary_file('$files/$_[0]')"; }

# Rows that are alright, with one in their midst that is not.
sub one_of
{
	my ($sketch, $photo) = @_;

	return "SELECT CASE WHEN id = 2 THEN $sketch ELSE sketch END, CASE WHEN id = 2 THEN $photo "
		. "ELSE photo END FROM outlines ORDER BY id";
}

# Name, query, how the job ends, and more options.
my @cases = (
	[ 'no_rows', "$PAIRS WHERE false", qr/^failed 22023 there are too few pairs.*gave 0 rows/s ],
	[ 'one_less', "$PAIRS WHERE id < 3",
		qr/^failed 22023 there are too few pairs.*gave 3 rows, and one batch takes 4/s,
		'"batch_size": 4' ],
	[ 'just_enough', $PAIRS, qr/^done/, '"batch_size": 4' ],
	[ 'null_a', one_of('NULL', 'photo'),
		qr/^failed 22004 an image of the pairs is null.*image A of row 3 of the query/s ],
	[ 'null_b', one_of('sketch', 'NULL'),
		qr/^failed 22004 an image of the pairs is null.*image B of row 3 of the query/s ],
	[ 'empty', one_of("''", 'photo'), qr/^failed 22P03 .*image A of row 3/s ],
	[ 'text', one_of('sketch', "'not an image'"), qr/^failed 22P03 .*image B of row 3/s ],
	[ 'cut_in_header', one_of('substr(sketch, 1, 20)', 'photo'),
		qr/^failed 22P03 .*image A of row 3/s ],
	[ 'cut_in_pixels', one_of('sketch', 'substr(photo, 1, length(photo) * 2 / 3)'),
		qr/^failed 22P03 .*image B of row 3/s ],
	[ 'bits_in_pixels', one_of('set_byte(sketch, length(sketch) / 2, get_byte(sketch, '
		. 'length(sketch) / 2) # 255)', 'photo'), qr/^failed 22P03 .*image A of row 3/s ],
	[ 'cut_jpeg', one_of('sketch', "substr(${\file('jpeg/rgb.jpg')}, 1, 300)"),
		qr/^failed 22P03 .*image B of row 3/s ],
	[ 'huge', one_of("'\\x${\png_header(2147483647, 2147483647)}'", 'photo'),
		qr/^failed (54000|22P03) .*image A of row 3/s ],
	[ 'large', one_of('sketch', "'\\x${\png_header(60000, 60000)}'"),
		qr/^failed 54000 .*image B of row 3.*60000 x 60000/s ],
	[ 'no_pixels', one_of('sketch', "'\\x${\png_header(64, 64)}'"),
		qr/^failed 22P03 .*image B of row 3/s ],
	[ 'many_bytes', one_of("sketch || convert_to(repeat('x', 200000), 'UTF8')", 'photo'),
		qr/^failed 54000 an image of the pairs is too large.*image A of row 3.*max_request_size/s ],
	[ 'two', 'SELECT CASE WHEN id = 0 THEN NULL ELSE sketch END, CASE WHEN id = 2 THEN '
		. 'substr(photo, 1, length(photo) * 2 / 3) ELSE photo END FROM outlines ORDER BY id',
		qr/^failed 22004 2 of 4 training pairs .*: row 1, row 3\.  Of the first: .*null.*bad_pairs/s
	],
	[ 'two_named', "SELECT CASE WHEN id = 1 THEN 'none' ELSE sketch END, CASE WHEN id = 2 THEN "
		. "substr(photo, 1, length(photo) * 2 / 3) ELSE photo END, 'Bär ' || id AS id FROM "
		. 'outlines ORDER BY id',
		qr/^failed 22P03 2 of 4 .*: id Bär 1, id Bär 2\.  .*row with id Bär 1/s ],
	[ 'no_name', one_of("'none'", 'photo') =~ s/ FROM/, NULLIF(id, 2) AS id FROM/r,
		qr/^failed 22P03 .*image A of row 4 of the query/s ],
	[ 'many', "SELECT CASE WHEN n > 2 THEN substr(sketch, 1, 99) ELSE sketch END, photo, n AS id "
		. 'FROM outlines, generate_series(1, 30) n WHERE outlines.id = 0 ORDER BY n',
		qr/^failed 22P03 28 of 30 .*: id 3, id 4, .*, id 22, and 8 more\./s ],
	[ 'skipped', 'SELECT CASE WHEN n % 10 = 3 THEN NULL WHEN n = 7 THEN '
		. 'set_byte(sketch, length(sketch) / 2, get_byte(sketch, length(sketch) / 2) # 255) '
		. 'ELSE sketch END, photo, n AS id FROM outlines, generate_series(1, 20) n '
		. 'WHERE outlines.id = 0 ORDER BY n',
		qr/^done skips 3 of 20 pairs: .*: id 3, id 7, id 13\./s, '"bad_pairs": "skip"' ],
	[ 'one_skipped', one_of('sketch', 'NULL'),
		qr/^done skips 1 of 4 pairs: an image .* is null.*image B of row 3/s,
		'"bad_pairs": "skip"' ],
	[ 'too_many_skipped', one_of('sketch', 'NULL'),
		qr/^failed 22023 there are too few .*gave 4 rows, of which 3 can be used.* takes 4/s,
		'"bad_pairs": "skip", "batch_size": 4' ],
	[ 'domain', 'SELECT sketch::picture, photo::picture FROM outlines', qr/^done/ ],
	[ 'halves', "SELECT '\\x${\png(64, 64, 0)}'::bytea, '\\x${\png(65, 64, 64)}'::bytea FROM "
		. 'generate_series(1, 2)', qr/^done/, '"input_nc": 1' ],
	[ 'side_by_side', "SELECT '\\x${\png(129, 64, 0)}'::picture FROM generate_series(1, 2)",
		qr/^done/, '"input_nc": 1, "side_by_side": true' ],
	[ 'narrow', "SELECT '\\x${\png(1, 64, 0)}'::bytea, 'x'::text AS id FROM "
		. 'generate_series(1, 2)', qr/^failed 22P03 2 of 2 .*: id x, id x\..*no two halves/s,
		'"side_by_side": true' ],
	[ 'kinds', join(' UNION ALL ',
		map { "SELECT ${\file(qq(png/$_->[0]))}, ${\file($_->[1])}" } [ 'basn0g01.png',
		'png/basn6a16.png' ], [ 'basn3p04.png', 'jpeg/gray.jpg' ],
			[ 'basi4a08.png', 'jpeg/ycc420.jpg' ], [ 'basn2c16.png', 'png/s01n3p01.png' ]),
				qr/^done/ ],
	[ 'gray', $PAIRS, qr/^done/, '"input_nc": 1, "output_nc": 1' ],
	[ 'same_row', 'SELECT sketch, photo FROM outlines, generate_series(1, 5) WHERE id = 0',
		qr/^done/ ],
	[ 'same_image', 'SELECT photo, photo FROM outlines', qr/^done/ ]);

# Bits of images that were flipped anywhere, always the same ones.
foreach my $n (1 .. 12)
{
	my $damaged = "(SELECT set_byte(i, p, get_byte(i, p) # (1 << (hashint4($n) & 7))) FROM "
		. "(SELECT i, mod(abs(hashint4extended($n, 7)), length(i))::int AS p"
		. " FROM (SELECT CASE WHEN $n % 2 = 0 THEN sketch ELSE photo END AS i) AS image) AS place)";

	push @cases, [ "flipped_$n", $n % 2 == 0 ? one_of($damaged, 'photo') : one_of('sketch',
		$damaged), qr/^(done|failed (22P03|54000) .*image [AB] of row 3)/s ];
}

my %jobs = map { $_->[0] => train($node, $_->[0], '"iterations": 3' . ($_->[3] ? ", $_->[3]" : ''),
	pairs => $_->[1]) } @cases;
foreach my $case (@cases)
{
	my ($name, undef, $expected) = @$case;
	my $job = $jobs{$name};

	ok(job_comes_to($node, $job, "state IN ('done', 'failed')"), "$name: the job ends");
	like($node->safe_psql('postgres',
		"SELECT concat_ws(' ', state, sqlstate, error, notes) FROM bicycle_training_jobs "
		. "WHERE job = $job"), $expected, $name);
	is($node->safe_psql('postgres',
		"SELECT iteration FROM bicycle_training_jobs WHERE job = $job AND state = 'failed' AND "
		. 'iteration > 0'), '', "$name: before anything is trained");
	is($node->safe_psql('postgres',
		"SELECT attempts FROM bicycle_training_jobs WHERE job = $job AND state = 'failed' AND "
		. "attempts > 1"), '', "$name: at the first try");
}
unlike(slurp_file($node->logfile), qr/training engine ended unexpectedly/, 'no engine has died');
is(weights($node, 'side_by_side'), weights($node, 'halves'),
	'halves of one image train as the same two images do');
isnt(weights($node, 'side_by_side'), '', 'and there are weights');

# What is skipped is found out once for the same data, and stays so when the job goes on.
my $skipping = train($node, 'skipping', '"iterations": 100000, "bad_pairs": "skip"',
	pairs => one_of("substr(sketch, 1, length(sketch) * 2 / 3)", 'photo'));
ok(job_comes_to($node, $skipping, 'iteration > 0'), 'a job skips a pair and begins');
$node->safe_psql('postgres', "SELECT bicycle_pause($skipping)");
ok(job_comes_to($node, $skipping, "state = 'paused'"), 'is paused');
my $digest = "SELECT length(data_digest), md5(data_digest) FROM bicycle_training_jobs WHERE job = "
	. $skipping;
my $before = $node->safe_psql('postgres', $digest);
like($before, qr/^64\|/, 'and knows which');
my $iteration = job_column($node, $skipping, 'iteration');
$node->safe_psql('postgres', "SELECT bicycle_resume($skipping)");
ok(job_comes_to($node, $skipping, "iteration > $iteration"), 'it goes on');
is($node->safe_psql('postgres', $digest), $before, 'without the same one');
like(job_column($node, $skipping, 'notes'), qr/^skips 1 of 4 pairs: (?!.*\n)/,
	'and has not looked for it again');
$node->safe_psql('postgres', "SELECT bicycle_cancel($skipping)");
ok(job_comes_to($node, $skipping, "state = 'cancelled'"), 'and is cancelled');
is(scalar(training_engines($node)), 0, 'and none is left');

# Within a transaction block a job waits for its end, and that is said.
my ($status, $out, $err) = $node->psql('postgres', <<"SQL", on_error_stop => 0);
SELECT bicycle_train('alone', '$PAIRS', '{$TINY, "iterations": 2}');
BEGIN;
SELECT bicycle_train('block', '$PAIRS', '{$TINY, "iterations": 2}');
CALL bicycle_wait(1);
ROLLBACK;
SQL
like($err, qr/^\S+ NOTICE:  job (\d+) starts at COMMIT\nDETAIL: .*rolled back/, 'as a notice');
is(() = $err =~ /NOTICE/g, 1, 'only there');
like($err, qr/ERROR: .*inside a transaction block\n(CONTEXT.*\n)?HINT:  COMMIT first/,
	'and by who waits for it');

# Checkpoints.
my $job = train($node, 'checkpoint', '"iterations": 100000');
ok(job_comes_to($node, $job, 'iteration > 0'), 'a job begins');
$node->safe_psql('postgres', "SELECT bicycle_pause($job)");
ok(job_comes_to($node, $job, "state = 'paused'"), 'and is paused');
$node->safe_psql('postgres',
	"CREATE TABLE kept AS SELECT * FROM bicycle_training_checkpoints WHERE job = $job");
foreach my $damage ([ 'is not there', 'DELETE FROM bicycle_training_checkpoints', qr/^0 running$/ ],
	[ 'has a short end', 'UPDATE bicycle_training_checkpoints SET chunk = 1, data = substr(data, '
		. 'length(data) - 99); INSERT INTO bicycle_training_checkpoints'
		. ' SELECT job, iteration, 0, substr(data, 1, length(data) - 100) FROM kept',
			qr/^\d+ running$/ ],
	[ 'is cut off', 'UPDATE bicycle_training_checkpoints SET data = substr(data, 1, length(data) '
		. '- 5)', qr/^\d+ failed (08P01|XX001|22023) ./ ],
	[ 'is nonsense', "UPDATE bicycle_training_checkpoints SET data = 'nonsense'",
		qr/^\d+ failed (08P01|XX001|22023) ./ ],
	[ 'lacks a chunk', 'UPDATE bicycle_training_checkpoints SET chunk = chunk + 1',
		qr/^\d+ failed XX001 checkpoint of job \d+ is damaged/ ],
	[ 'names other tensors',
		"UPDATE bicycle_training_checkpoints SET data = overlay(data PLACING 'abcdefgh' FROM 20 "
		. "FOR 8)", qr/^\d+ failed (08P01|XX001|22023) ./ ])
{
	my ($what, $statement, $expected) = @$damage;

	$node->safe_psql('postgres',
		"DELETE FROM bicycle_training_checkpoints; INSERT INTO bicycle_training_checkpoints "
		. "SELECT * FROM kept; $statement; SELECT bicycle_resume($job)");
	ok(job_comes_to($node, $job,
		"state = 'failed' OR (state = 'running' AND iteration > 0 AND images_per_second > 0)"),
		"a checkpoint that $what: the job goes on or fails");
	like($node->safe_psql('postgres',
		"SELECT concat_ws(' ', checkpoint, state, sqlstate, error) FROM bicycle_training_jobs "
		. "WHERE job = $job"), $expected, "a checkpoint that $what");
	$node->safe_psql('postgres',
		"SELECT bicycle_pause($job) FROM bicycle_jobs WHERE job = $job AND state = 'running'");
	ok(job_comes_to($node, $job, "state IN ('failed', 'paused')"), 'and then rests');
}

# A version to start from.
foreach my $version (1, 2)
{
	$job = train($node, 'start', '"iterations": 2');
	ok(job_comes_to($node, $job, "state = 'done' AND version = $version"),
		"a run makes version $version");
}
$node->safe_psql('postgres',
	"UPDATE bicycle_tensors SET data = set_byte(data, 3, get_byte(data, 3) # 1) WHERE model "
	. "= 'start' AND version = 2 AND network = 'E'"
	. " AND name = (SELECT min(name) FROM bicycle_tensors WHERE model = 'start' AND version = 2 "
		. "AND network = 'E')");
$job = train($node, 'start', '"iterations": 2');
ok(job_comes_to($node, $job, "state = 'failed'"),
	'a job fails that starts from a version of which a bit has changed');
like($node->safe_psql('postgres',
	"SELECT sqlstate || ' ' || error FROM bicycle_training_jobs WHERE job = $job"),
	qr/^XX001 model "start" is damaged/, 'and says so');
unlike(slurp_file($node->logfile), qr/training engine ended unexpectedly/,
	'no engine has died of it');

$node->stop;
done_testing();
