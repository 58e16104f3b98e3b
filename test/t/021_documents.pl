# README.md and doc/*.md: all SQL and shell commands in them work as they stand there, for the roles
# that they name; functions, settings, tables and columns are those that there are, settings with
# their defaults; links lead somewhere.
#
# A block that begins with "-- as a superuser" is run as one, the others as "painter", who has what
# README grants. Each document has a database of its own, so that its first training job is number
# 1. Changed on the way: numbers of iterations, and sizes of networks, which are too large for a
# test.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use Cwd;
use File::Basename;
use PostgreSQL::Test::Utils;
use Test::More;

my $root = "$FindBin::RealBin/..";
my %text = map { (s{^\Q$root\E/}{}r => slurp_file($_)) } "$root/README.md",
	"$root/CONTRIBUTING.md", sort glob "$root/doc/*.md";
my $readme = $text{'README.md'};
my $reference = $text{'doc/reference.md'};
my $node = new_node('main');

cmp_ok(scalar(keys %text), '>=', 6, 'the documents are found');

# ---- What can be run -------------------------------------------------------

# The commands of a document: [language, text], in their order.
sub blocks
{
	my ($document) = @_;
	my @found;

	push @found, [ $1, $2 ] while $document =~ /^```(sql|sh)\n(.*?)^```$/gms;
	return @found;
}

# Runs one as ROLE; true if nothing in it has failed.
sub run_block
{
	my ($database, $role, $language, $commands) = @_;
	my ($out, $err) = ('', '');
	my @command = $language eq 'sh' ? qw(bash -eu -o pipefail)
		: qw(psql -X -e -v ON_ERROR_STOP=1 -f -);

	local @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)} = ($node->host, $node->port, $database, $role);
	$commands =~ s/^CREATE EXTENSION bicycle;/CREATE EXTENSION IF NOT EXISTS bicycle;/m if $role
		eq 'painter';
	$commands =~ s/"iterations": \d+/"iterations": 30, "ngf": 4, "nef": 4, "ndf": 4/g;
	$commands =~ s/"size": \d+/"size": 64/g;
	my $done = IPC::Run::run(\@command, '<', \$commands, '>', \$out, '2>', \$err);
	ok($done, "$database: " . ($commands =~ /^((?!--|CREATE EXT)\S.*)/m)[0])
		or diag("$commands\n$out\n$err");
	return $out;
}

# The output of all blocks of a document together; TABLES are what it takes for granted, SQL that
# painter runs.
sub run_document
{
	my ($name, $tables) = @_;
	my $database = basename($name, '.md');
	my ($rights) = grep { $_->[1] =~ /^-- as a superuser/ } blocks($readme);
	my $out = '';

	$node->safe_psql('postgres', qq{CREATE DATABASE "$database" OWNER painter});
	run_block($database, $node->safe_psql('postgres', 'SELECT current_user'), @$rights);
	run_block($database, 'painter', 'sql', $tables) if $tables;
	$out .= run_block($database, 'painter', @$_) foreach grep { $_ != $rights && $_->[1]
		ne $rights->[1] } blocks($text{$name});
	return $out;
}

$node->safe_psql('postgres', 'CREATE ROLE painter LOGIN; CREATE ROLE viewer LOGIN');

# The files that the documents speak of lie where they are run.
my $here = getcwd();
my $files = PostgreSQL::Test::Utils::tempdir();
chdir $files or die;
system('cp', "$DATA/G.pth", "$DATA/E.pth", $files) == 0 or die;
system('cp', "$DATA/../saved/gan.pth", "$files/checkpoint.pth") == 0 or die;
system('cp', "$DATA/pairs/20_A.png", "$files/outline.png") == 0 or die;
mkdir 'A';
mkdir 'B';
foreach my $n (0 .. 9)
{
	system('cp', "$DATA/pairs/0${n}_A.png", "A/$n.png") == 0 or die;
	system('cp', "$DATA/pairs/0${n}_B.png", "B/$n.png") == 0 or die;
}

my $sets = join(' ', map { my $n =
	$_; "\\set a$n `base64 -w0 A/$n.png`\n\\set b$n `base64 -w0 B/$n.png`\n" } 0 .. 9);
my $rows = join(', ', map { sprintf("(%d, %s, decode(:'a%d', 'base64'), decode(:'b%d', 'base64'))",
	$_ == 8 ? 843 : $_ == 9 ? 1276 : $_ + 2, $_ > 6 ? 'true' : 'false', $_, $_) } 0 .. 9);
my $table = 'CREATE TABLE pairs (glyph int PRIMARY KEY, held_out bool, outline bytea, emoji bytea, '
	. "variant bytea); INSERT INTO pairs VALUES $rows;\n";
my $out = run_document('README.md', "$sets $table");
like($out, qr/\(8 rows\)/, 'there are eight answers');
is($node->safe_psql('README',
	q{SELECT count(DISTINCT variant), bool_and((bicycle_image_info(variant)).format = 'png')
		FROM pairs WHERE held_out AND glyph > 1}), '3|t', 'each row has its picture');
like(slurp_file('variants.png'), qr/^\x89PNG/, 'a page of pictures comes out as a file');
like(slurp_file('report.html'), qr/^<!DOCTYPE html>.*<\/html>\s*$/s, 'and so does a report');

my $imported = <<'SQL';
\lo_import G.pth
\set generator :LASTOID
\lo_import E.pth
SELECT bicycle_import('emoji', lo_get(:generator), lo_get(:LASTOID));
SQL
run_document('doc/reference.md', "$sets $table $imported");
like(slurp_file('answer.png'), qr/^\x89PNG/, 'a picture comes out as a file');
is($node->safe_psql('reference',
	q{SELECT count(*) FROM bicycle_models WHERE model IN ('shoes', 'bags') AND is_current}), '2',
	'models came in from files');
run_block('reference', 'painter', 'sql',
	"\\lo_import shoes_G.pth\nSELECT bicycle_import('again', lo_get(:LASTOID));\n");
is($node->safe_psql('reference', q{SELECT bicycle_export('again') = bicycle_export('shoes')}), 't',
	'and went out');

run_document('doc/looking.md', "$sets $table $imported");
like(slurp_file("$_.png"), qr/^\x89PNG/, "doc/looking.md has made $_.png")
	foreach qw(emoji samples morph sweep styles);
like(slurp_file('report.html'), qr/^<!DOCTYPE html>.*<\/html>\s*$/s, 'and a page');

run_document('doc/training.md');
is($node->safe_psql('training',
	q{SELECT count(*), bool_and((bicycle_image_info(a)).channels = 1
		AND (bicycle_image_info(b)).channels = 3) FROM pairs}), '10|t',
	'a directory of pairs is in the table');
is($node->safe_psql('training',
	q{SELECT string_agg(concat_ws(' ', job, state, version), ', ' ORDER BY job) FROM bicycle_jobs}),
	'1 done 1, 2 done 2, 3 done 1', 'all jobs have made versions');
is($node->safe_psql('training',
	q{SELECT version, is_current FROM bicycle_models WHERE model = 'shoes'}), '1|t',
	'of which the first is left');

# Weights that are of no use, but have their shapes: whoever runs this may be without PyPI.
run_document('doc/evaluation.md', slurp_file("$root/../sql/include/lpips.sql")
	. "SELECT bicycle_import_lpips('alex', backbone, heads, version) FROM files,\n"
	. "unnest('{0.0,0.1}'::text[]) AS version;\n"
	. "\\set a `base64 -w0 A/0.png`\n\\set b `base64 -w0 B/0.png`\n"
	. "CREATE TABLE pair AS SELECT decode(:'a', 'base64') AS a, decode(:'b', 'base64') AS b;\n"
	. "CREATE TABLE samples AS SELECT 1 AS input, sample, CASE WHEN sample = 2 THEN a ELSE b END\n"
	. "AS image FROM pair, generate_series(1, 3) AS sample;\n");
foreach my $other (grep { !/README|training|evaluation|looking|reference/ } sort keys %text)
{
	run_document($other) if blocks($text{$other});
}
is($node->safe_psql('guide',
	q{SELECT count(*), bool_and((variant = bicycle_translate(image, bicycle_latent(8, id),
		model => 'emoji')) AND problem IS NULL) FROM drawings WHERE id IN (1, 5, 6)}), '3|t',
	'a column is kept current');
like($node->safe_psql('guide', 'SELECT variant IS NULL, problem FROM drawings WHERE id = 2'),
	qr/^t\|could not decode image/, 'and where it cannot be, it says why');
chdir $here or die;

# ---- What there is ---------------------------------------------------------

# First cells of the rows of the reference's tables, and the second ones.
my @cells = map { s/^ | $//gr } $reference =~ /^\|( (?:`|CALL)[^|]*)\|([^|]*)\|/gm;
my %cell = @cells;

# Values as numbers where they are such: 64M, 64 MB, 60 s.
sub value
{
	my ($written) = @_;
	my %unit = (M => 1 << 20, kB => 1 << 10, MB => 1 << 20, GB => 1 << 30, ms => 0.001, s => 1,
		min => 60);

	$written =~ s/`//g;
	return $written =~ /^(\d+) ?(\w*)$/ && ($2 eq '' || $unit{$2}) ? $1 * ($2 eq '' ? 1 : $unit{$2})
		: $written;
}

my (%documented, %there);
foreach my $names (grep { /^`bicycle\./ } keys %cell)
{
	my @names = $names =~ /`(\S+?)`/g;
	my @values = $cell{$names} eq '' ? ('') : split /, /, $cell{$names};

	$documented{$names[$_]} .= value($values[$_ % @values]) foreach 0 .. $#names;
}
foreach (split /\n/, $node->safe_psql('postgres',
	"SELECT name || '|' || CASE WHEN vartype = 'integer' THEN concat_ws(' ', boot_val, unit) ELSE "
	. "boot_val END FROM pg_settings
	WHERE name LIKE 'bicycle.%' AND name NOT LIKE 'bicycle.debug%'"))
{
	my ($name, $default) = split /\|/, $_, -1;

	$there{$name} = value($default);
}
cmp_ok(scalar(keys %there), '>', 20, 'there are settings');
is_deeply(\%documented, \%there, 'the reference lists the settings with their defaults, each once');

my %types = (real => 'float4', 'real[]' => 'float4[]', integer => 'int', 'integer[]' => 'int[]',
	'double precision' => 'float8');
my (@signatures, @expected, %columns);
foreach my $first (grep { /bicycle_/ } @cells[ grep { !($_ % 2) } 0 .. $#cells ])
{
	push @signatures, "$1 $2" while $first =~ /(bicycle_\w+)\((.*?)\)(?=`| →)/g;
}
foreach (split /\n/, $node->safe_psql('README', <<'SQL'))
SELECT proname, (SELECT string_agg(proargnames[i] || ' ' || format_type(type, NULL), ', '
	ORDER BY i) FROM unnest(proargtypes) WITH ORDINALITY AS a (type, i)),
	(SELECT string_agg(name, ', ' ORDER BY i)
		FROM unnest(proargnames, proargmodes) WITH ORDINALITY AS a (name, mode, i)
		WHERE mode IN ('o', 't'))
FROM pg_proc JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = pg_proc.oid
	AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid
WHERE extname = 'bicycle' AND prorettype NOT IN ('trigger'::regtype, 'event_trigger'::regtype)
	AND proname NOT LIKE 'bicycle\_role%' AND proname !~ '^bicycle_(mean|grid)_(add|combine|final)$'
SQL
{
	my ($name, $arguments, $results) = split /\|/, $_, -1;

	push @expected, "$name " . join(', ', map { my ($argument, $type) = split / /, $_,
		2; "$argument " . ($types{$type} // $type) } split /, /, $arguments);
	$columns{$name} = $results if $results ne '';
}

# An array of two dimensions is no type of its own. A type may be left out where the row above has
# it.
s/\[\]\[\]/[]/ foreach @signatures;
my $matches = sub { my ($written, $full) = @_; my $pattern = join(', ',
	map { / / ? quotemeta : quotemeta . '(?: [^,]+)?' } split /, /,
	$written =~ s/^\w+ //r); $full =~ /^$pattern$/ };
foreach my $full (sort @expected)
{
	my ($name, $arguments) = split / /, $full, 2;

	is(scalar(grep { /^$name / && $matches->($_, $arguments) } @signatures), 1,
		"the reference has once: $full") or diag(explain(\@signatures));
}
is(scalar(@signatures), scalar(@expected), 'and no other function')
	or diag(explain([ sort @signatures ], [ sort @expected ]));
foreach my $name (sort keys %columns)
{
	my $written = join(', ', map { qr/\b\Q$_\E(?: \S+?)?/ } split /, /, $columns{$name});

	like($reference, qr/`$name\(.*$written/, "and columns of $name");
}

my $all = join("\n", values %text);
foreach (split /\n/, $node->safe_psql('README', <<'SQL'))
SELECT relname, relkind, (SELECT string_agg(attname, ', ' ORDER BY attnum) FROM pg_attribute
	WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped)
FROM pg_class JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = pg_class.oid
	AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid
WHERE extname = 'bicycle' AND relkind IN ('r', 'v')
SQL
{
	my ($name, $kind, $names) = split /\|/, $_, -1;

	next if $name =~ /^bicycle_training_(losses|previews)$/;	# which views show
	like($all, qr/\b$name\b/, "some document names $name");
	like($reference, qr/`$name(?:` \| |\().*\Q$names\E/s, 'its columns are in the reference')
		if $kind eq 'v' || $name eq 'bicycle_models';
}

# ---- Links and names of files ----------------------------------------------

my %files = map { (s{^\./}{}r => 1) } split /\n/, slurp_file("$root/files");

foreach my $name (sort keys %text)
{
	my $directory = $name =~ m{^doc/} ? 'doc/' : '';

	foreach my $link ($text{$name} =~ /\]\(((?!https?:)[^)]*)\)/g)
	{
		my ($file, $anchor) = split /#/, $link =~ s/%2B/+/gr, 2;
		my $target = $file eq '' ? $name : ($directory . $file) =~ s{^doc/\.\./}{}r;
		my @anchors = map { lc(s/[^\w\s-]//gr =~ s/\s+$//r =~ s/ /-/gr) } (
			$text{$target} // '') =~ /^#+ (.*)$/gm;

		ok($files{$target} && (!defined $anchor || grep { $_ eq $anchor } @anchors),
			"$name: link to $link leads somewhere");
	}
	foreach my $file ($text{$name} =~ m{(?<![\w./-])([\w./]+\.(?:c|h|cu|pl|sh|sql))\b}g)
	{
		ok($file =~ /^postgres\.h$|^java\.sql$|TOPIC|NAME/
			|| (grep { /(^|\/)\Q$file\E$/ } keys %files),
			"$name: there is a file $file");
	}
}

$node->stop;
done_testing();
