#!/usr/bin/perl
# The programs of doc/clients.md work as they stand there, each with its driver, and what the
# document says of a driver is so (facts/).
#
# Usage: test/clients/clients.pl BINDIR WORK NOTES, by test/run.sh clients. The server is that of
# PGHOST and PGPORT, on 127.0.0.1 too. WORK is where programs and files are laid. Drivers that are
# not here are skipped; their names are written to the file NOTES.
use strict;
use warnings;

use Cwd qw(abs_path);
use File::Basename;
use File::Path qw(make_path);
use Test::More;

my ($bin, $work, $notes) = @ARGV;
my $here = abs_path(dirname(__FILE__));
my $root = abs_path("$here/../..");
my $data = "$root/test/data/edges2emoji";
my $build = "$root/" . ($ENV{BUILD} // 'build') . '/clients';
my @skipped;

make_path("$work/A");
$ENV{PGHOST} = '127.0.0.1';		# pg8000 and JDBC know no sockets

sub slurp
{
	my ($file) = @_;

	open my $in, '<', $file or die "$file: $!\n";
	local $/ = undef;
	return scalar <$in>;
}

sub spew
{
	my ($file, $text) = @_;

	open my $out, '>', $file or die "$file: $!\n";
	print $out $text;
	close $out or die "$file: $!\n";
	return;
}

# The first cell of what QUERY gives; undef if it fails.
sub ask
{
	my ($query) = @_;

	open my $psql, '-|', "$bin/psql", '-XqAt', '-v', 'ON_ERROR_STOP=1', '-c', $query or die;
	my $answer = join '', <$psql>;
	close $psql or return undef;
	chomp $answer;
	return $answer;
}

sub psql_file
{
	my ($text) = @_;

	spew("$work/block.sql", $text);
	return system("$bin/psql", '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f',
		"$work/block.sql") == 0;
}

sub quiet { return system("($_[0]) >$work/quiet.log 2>&1") == 0; }

# ---- Drivers ---------------------------------------------------------------

my $python = "$build/venv/bin/python3";
my ($jar) = (grep { -f } split(/:/, $ENV{CLASSPATH} // ''), '/usr/share/java/postgresql.jar');
my $gopath = $ENV{GOPATH} // '/usr/share/gocode';

# Section of the document, its language, what facts/ has of it, why it cannot be run (or ''), and
# the command before the name of the file.
sub venv
{
	return '' if -x $python && quiet("cmp $here/requirements.txt $build/requirements.txt");
	return 'no python3' unless quiet('command -v python3');
	make_path($build);
	return 'no python3-venv' unless quiet("python3 -m venv --clear $build/venv");
	return 'pip could not install requirements.txt'
		unless quiet("$build/venv/bin/pip install -r $here/requirements.txt");
	spew("$build/requirements.txt", slurp("$here/requirements.txt"));
	return '';
}

my $no_python = venv();
my $no_java = !quiet('command -v java && java --list-modules | grep jdk.compiler') ? 'no JDK'
	: !$jar ? 'no postgresql.jar in CLASSPATH' : '';
my $node = quiet('command -v node') ? 'node' : 'nodejs';
local $ENV{NODE_PATH} = join ':', $ENV{NODE_PATH} // (), '/usr/share/nodejs';
my $no_node = !quiet("command -v $node") ? 'no node'
	: !quiet("$node -e 'require(\"pg\")'") ? 'no module pg in NODE_PATH' : '';
my $no_go = !quiet('command -v go') ? 'no go'
	: !-d "$gopath/src/github.com/jackc/pgx/v4" ? 'no pgx/v4 in GOPATH' : '';

my @drivers = (
	[ 'psycopg 3', 'python', 'of_psycopg.py', $no_python, $python ],
	[ 'asyncpg', 'python', 'of_asyncpg.py', $no_python, $python ],
	[ 'pg8000', 'python', 'of_pg8000.py', $no_python, $python ],
	[ 'JDBC', 'java', 'OfJdbc.java', $no_java, 'java', '-cp', $jar ],
	[ 'node-postgres', 'js', 'of_node.js', $no_node, $node ],
	[ 'pgx', 'go', 'of_pgx.go', $no_go, 'env', 'GO111MODULE=off', "GOPATH=$gopath", 'go', 'run' ]);

# ---- The document ----------------------------------------------------------

my $document = slurp("$root/doc/clients.md");
my ($rights) = slurp("$root/README.md") =~ /^```sql\n(-- as a superuser\n.*?)^```$/ms;
my ($setup) = $document =~ /^```sql\n(.*?)^```$/ms;
my %program;

foreach my $section (split /^## /m, $document)
{
	my ($title) = $section =~ /^(.*)$/m;
	my ($language, $text) = $section =~ /^```(python|java|js|go)\n(.*?)^```$/ms or next;

	$program{$title} = [ $language, $text ];
}
is_deeply([ sort keys %program ], [ sort map { $_->[0] } @drivers ],
	'each driver of the document is known here');

system("cp $data/G.pth $data/E.pth $work && cp $data/pairs/20_A.png $work/outline.png"
	. " && cp $data/pairs/0*_A.png $work/A") == 0 or die;
chdir $work or die;
my $files = () = glob 'A/*.png';

die "no database\n" unless psql_file("CREATE DATABASE clients");
$ENV{PGDATABASE} = 'clients';
die "no rights\n" unless psql_file($rights);
$ENV{PGUSER} = 'painter';
$ENV{JDBC_URL} = "jdbc:postgresql://127.0.0.1:$ENV{PGPORT}/clients?user=painter";
$setup =~ s/"iterations": \d+/"iterations": 30, "ngf": 4, "nef": 4, "ndf": 4/;
ok(psql_file($setup), 'table, model and job are there') or BAIL_OUT('no table');

my $z = "'{0.1, -0.7, 1.2, 0.0, 0.4, -1.5, 0.3, 0.9}'::float4[]";
my $right = "bicycle_translate(image, $z, model => 'edges')";
my $waited = 0;

foreach my $driver (@drivers)
{
	my ($title, $language, $facts, $missing, @command) = @$driver;
	my $file = $language eq 'java' ? 'Pictures.java' : "program.$language";

	if ($missing)
	{
		push @skipped, "$title ($missing)";
	SKIP: { skip "$title: $missing", 1; }
		next;
	}
	unlink 'answer.png';
	psql_file('UPDATE sketches SET variant = NULL; DELETE FROM sketches WHERE id > 1000;') or die;
	spew($file, $program{$title}[1]);
	ok(system(@command, $file) == 0, "$title: the program of the document runs");
	is(-f 'answer.png' ? unpack('H*', slurp('answer.png')) : 'none',
		ask("SELECT encode($right, 'hex') FROM sketches WHERE id = 1"),
		"$title: one picture comes back");
	is(ask("SELECT count(*) FROM sketches WHERE variant = $right"),
		20 + ($program{$title}[1] =~ /unnest/ ? $files : 0), "$title: many pictures are made");
	is(ask('SELECT state FROM bicycle_jobs WHERE job = 1'), 'done',
		"$title: the job is waited for") unless $waited++;
	ok(system(@command, "$here/facts/$facts") == 0, "$title: what the document says of it is so");
}

spew($notes, join(', ', @skipped));
done_testing();
