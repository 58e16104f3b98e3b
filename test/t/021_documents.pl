# README.md and doc/*.md: all SQL and shell commands in them work as they stand there, from top to
# bottom, in one fresh database, README first; functions, settings, tables and columns are those
# that there are, settings with their defaults; links lead somewhere.
#
# All is run as README says: a block that begins with "-- as a superuser" as one, the others as the
# role "painter" that README makes. What there is beforehand is files. Changed on the way: numbers
# of iterations, and widths of networks, which are too large for a test, and where files of the
# server lie.
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
my $reference = $text{'doc/reference.md'};
my $node = new_node('main');
my $files = PostgreSQL::Test::Utils::tempdir();
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');

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

# Runs SCRIPT in a session of psql as ROLE: (whether all of it went well, output, errors).
sub session
{
	my ($role, $script) = @_;
	my ($out, $err) = ('', '');

	local @ENV{qw(PGHOST PGPORT PGDATABASE PGUSER)} = ($node->host, $node->port, 'newcomer', $role);
	my $done = IPC::Run::run([qw(psql -X -e -v ON_ERROR_STOP=1 -f -)], '<', \$script, '>', \$out,
		'2>', \$err);
	return ($done, $out, $err);
}

# Runs the blocks of a document in one session, as its reader does. A block's number is printed when
# it is reached.
sub run_document
{
	my ($name) = @_;
	my @blocks = blocks($text{$name});
	my $role = $name eq 'README.md' ? $superuser : 'painter';
	my $first = $role;
	my $script = '';

	foreach my $number (0 .. $#blocks)
	{
		my ($language, $commands) = @{ $blocks[$number] };
		my $as = $commands =~ /^-- as a superuser/ ? $superuser : 'painter';

		$script .= "\\echo reached $number\n" . ($as eq $role ? '' : "\\c - $as\n");
		$role = $as;
		$commands =~ s/"iterations": \d+/"iterations": 30, "ngf": 4, "nef": 4, "ndf": 4/g;
		$commands =~ s{/srv/set}{$files/set}g;
		if ($language eq 'sh')
		{
			PostgreSQL::Test::Utils::append_to_file("block$number.sh", $commands);
			$commands = "\\! rm -f done; PGUSER=$role bash -eu -o pipefail block$number.sh"
				. " && touch done\n"
				. "\\set done `cat done && echo true`\nSELECT :'done'::bool;\n";
		}
		$script .= $commands;
	}
	my ($done, $out, $err) = session($first, "$script\\echo reached " . @blocks . "\n");
	foreach my $number (0 .. $#blocks)
	{
		my ($line) = $blocks[$number][1] =~ /^((?!--)\S.*)/m;

		ok($out =~ /^reached ${\($number + 1)}$/m, "$name: $line")
			or diag(substr($out, -3000) . "\n" . substr($err, -3000));
		unlink "block$number.sh";
	}
	return $out;
}

# The first rows of SQL that the superuser sees, where painter's tables are found.
sub look
{
	my ($query) = @_;

	return $node->safe_psql('newcomer', "SET search_path = painter, public; $query");
}

# Width and height of a PNG.
sub extent { return unpack('x16 N2', slurp_file($_[0])); }

$node->safe_psql('postgres', 'CREATE DATABASE newcomer');

# The files that the documents speak of lie where they are run.
my $here = getcwd();
chdir $files or die;
system('cp', "$DATA/G.pth", "$DATA/E.pth", $files) == 0 or die;
system('cp', "$DATA/../saved/gan.pth", "$files/checkpoint.pth") == 0 or die;
system('cp', "$DATA/pairs/20_A.png", "$files/outline.png") == 0 or die;
system('cp', "$DATA/pairs/00_B.png", "$files/photo.png") == 0 or die;
mkdir $_ foreach qw(A B);
foreach my $n (map { sprintf('%02d', $_) } 0 .. 29)
{
	system('cp', "$DATA/pairs/${n}_A.png", "A/$n.png") == 0 or die;
	system('cp', "$DATA/pairs/${n}_B.png", "B/$n.png") == 0 or die;
}
system("cp $DATA/../jpeg/rgb.jpg A/photo.jpg && cp A/photo.jpg B") == 0 or die;
system('mkdir set && cp -r A B set && cp A/00.png set/A/more.png && cp B/00.png set/B/more.png')
	== 0 or die;
system('cp A/00.png A/lonely.png') == 0 or die;

my $sound = 'SELECT count(*), count(*) FILTER (WHERE octet_length(input) > 0
	AND octet_length(target) > 0) FROM pairs';
my $out = run_document('README.md');
like($out, qr/\(8 rows\)/, 'there are eight answers');
is(look($sound), '31|31', 'files of all kinds are in the table, without the one that B lacks');
is(look(q{SELECT count(DISTINCT variant), bool_and((bicycle_image_info(variant)).format = 'png')
	FROM pairs WHERE held_out}), '3|t', 'each row has its picture');
like(slurp_file("$_.png"), qr/^\x89PNG/, "a page of $_ comes out as a file")
	foreach qw(variants losses);
like(slurp_file('report.html'), qr/^<!DOCTYPE html>.*<\/html>\s*$/s, 'and so does a report');
unlink 'report.html';

run_document('doc/guide.md');
is(look(q{SELECT count(*), bool_and((variant = bicycle_translate(image, bicycle_latent(8, id),
	model => 'edges')) AND problem IS NULL) FROM drawings WHERE id IN (1, 5, 6)}), '3|t',
	'a column is kept current');
like(look('SELECT variant IS NULL, problem FROM drawings WHERE id = 2'),
	qr/^t\|could not decode image/, 'and where it cannot be, it says why');

run_document('doc/looking.md');
like(slurp_file("$_.png"), qr/^\x89PNG/, "doc/looking.md has made $_.png")
	foreach qw(emoji samples blind);
like(slurp_file('report.html'), qr/^<!DOCTYPE html>.*<\/html>\s*$/s, 'and a page');

# As large as a page of so many cells: one more or less is seen at the next row.
foreach my $page ([ 'morph', 'variant', 8, 3 ], [ 'sweep', 'variant', 7, 8, 'z' ],
	[ 'styles', 'input', 4, 4 ])
{
	my ($name, $cell, $columns, $rows, $label) = @$page;
	my $cells = $columns * $rows;
	my $labels = $label ? "array_fill('$label'::text, ARRAY[$cells])" : 'NULL';

	is(join('|', extent("$name.png")), look("SELECT width, height
		FROM bicycle_image_info(bicycle_grid(array_fill((SELECT $cell FROM pairs WHERE id = 10),
			ARRAY[$cells]), $columns, $labels))"),
		"doc/looking.md: $name.png has $rows rows of $columns");
}

run_document('doc/training.md');
is(look($sound), '32|32',
	'what was new in a directory of the server is in the table');
is(look("SELECT string_agg(concat_ws(' ', model, state, version), ', ' ORDER BY job)
	FROM bicycle_jobs WHERE model IN ('boots', 'validated')"),
	'boots done 1, boots done 2, validated done 1', 'all jobs have made versions');
is(look("SELECT version, is_current FROM bicycle_models WHERE model = 'boots'"), '1|t',
	'of which the first is left');

# Weights that are of no use, but have their shapes: whoever runs this may be without PyPI.
ok((session('painter', slurp_file("$root/../sql/include/lpips.sql")
	. "SELECT bicycle_import_lpips('alex', backbone, heads, version) FROM files,\n"
	. "unnest('{0.0,0.1}'::text[]) AS version;\n"))[0], 'LPIPS is there');
$out = run_document('doc/evaluation.md');
is(sprintf('%.5f', ($out =~ /^ *diversity *\n-+\n *(\S+)/m)[0] // -1),
	look("SELECT round(value::numeric, 5) FROM bicycle_evaluate('emoji',
		'SELECT input, target FROM pairs WHERE held_out ORDER BY id',
		'{\"metrics\": [\"diversity_lpips\"]}')"), 'the recipe of diversity is the metric');

run_document('doc/reference.md');
like(slurp_file('answer.png'), qr/^\x89PNG/, 'a picture comes out as a file');
is(look(q{SELECT count(*) FROM bicycle_models WHERE model IN ('shoes', 'bags') AND is_current}),
	'2', 'models came in from files');
ok((session('painter', "\\lo_import shoes_G.pth\n"
		. "SELECT bicycle_import('again', lo_get(:LASTOID));\n"))[0],
	'a file that came out goes in');
is(look(q{SELECT bicycle_export('again') = bicycle_export('shoes')}), 't', 'and is the same');

foreach my $other (grep { !/README|training|evaluation|looking|reference|guide/ } sort keys %text)
{
	run_document($other) if blocks($text{$other});
}
my $outline = unpack('H*', slurp_file('outline.png'));
is(look("SET ROLE visitor; SELECT octet_length(shoe('\\x$outline', bicycle_latent(8, 1))) > 0"),
	't', 'a picture can be had without the model');
isnt(scalar($node->psql('newcomer', 'SET ROLE visitor; SELECT 1 FROM bicycle_tensors')), 0,
	'whose tables are closed');
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
foreach (split /\n/, $node->safe_psql('newcomer', <<'SQL'))
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
foreach (split /\n/, $node->safe_psql('newcomer', <<'SQL'))
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
