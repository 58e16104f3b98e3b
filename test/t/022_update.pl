# Releases: the SQL objects of an older one work under this library, and ALTER EXTENSION UPDATE
# makes of them what a fresh install has; its functions keep their arguments, marks and rights;
# models, policies and paused jobs live on through it, and through a dump that is restored into this
# release.
use strict;
use warnings;

use Digest::SHA qw(sha256_hex);
use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

# SHA-256 of the SQL of each release, which is frozen.
my %released = ('0.1' => '000937c4bd4c680c594593cdf0a6ef9bccaeb4d171d4d391f6de371008d59719');

my $root = "$FindBin::RealBin/..";
my $node = new_node('main');
my $version = $node->safe_psql('postgres',
	"SELECT default_version FROM pg_available_extensions WHERE name = 'bicycle'");

# ---- One version -----------------------------------------------------------

my ($library) = slurp_file("$root/version.h") =~ /^#define BICYCLE_VERSION "(.*)"$/m;
my @packaged = slurp_file("$root/META.json") =~ /^\s*"version": "(.*?)",?$/mg;

is($library, $version, 'library and engine are of the version that bicycle.control says');
is_deeply(\@packaged, [ "$version.0", "$version.0" ], 'and so is the package');

# ---- The same objects ------------------------------------------------------

# All that belongs to the extension in a database, as text: members as PostgreSQL identifies them,
# and their definitions as pg_upgrade would carry them, which are columns in their order,
# constraints, triggers, rights, comments, and what pg_dump dumps of them. Numbers that differ from
# database to database are left out.
sub objects
{
	my ($database) = @_;
	my $members = $node->safe_psql($database, <<'SQL');
SELECT o.type, o.identity, d.deptype
	FROM pg_depend d, LATERAL pg_identify_object(d.classid, d.objid, d.objsubid) AS o
WHERE d.refclassid = 'pg_extension'::regclass AND d.refobjid = (SELECT oid FROM pg_extension
	WHERE extname = 'bicycle') ORDER BY 1, 2
SQL
	my $dumped = $node->safe_psql($database, <<'SQL');
SELECT extversion, extrelocatable, extnamespace::regnamespace, c.table::regclass, c.condition
FROM pg_extension LEFT JOIN LATERAL unnest(extconfig, extcondition) AS c("table", condition) ON true
	WHERE extname = 'bicycle' ORDER BY 4
SQL
	my ($definitions, $err) = run_command([ 'pg_dump', '--binary-upgrade', '--schema-only',
		$node->connstr($database) ]);

	like($definitions, qr/^COMMENT ON COLUMN public\.bicycle_models\.config IS/m,
		"definitions of $database") or diag($err);
	$definitions =~ s/^\\(un)?restrict .*\n//mg;
	$definitions =~ s/^SELECT pg_catalog\.binary_upgrade_set_next_.*\n//mg;
	$definitions =~ s/^(SELECT pg_catalog\.binary_upgrade_create_empty_extension\().*\n/$1\n/mg;
	$definitions =~ s/^SET relfrozenxid = .*\n(WHERE oid = .*\n)?//mg;
	return "$members\n$dumped\n$definitions";
}

# The extension's functions, a line each: arguments, result, marks, rights.
sub functions
{
	my ($database) = @_;

	return split /\n/, $node->safe_psql($database, <<'SQL');
SELECT proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), provolatile,
	proisstrict, proparallel, procost, proacl IS NULL
FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
	AND d.deptype = 'e' JOIN pg_extension e ON e.oid = d.refobjid WHERE extname = 'bicycle'
SQL
}

# Is TEXT the same?  If not, the lines that only one of them has are shown.
sub is_alike
{
	my ($text, $expected, $what) = @_;
	my %there = map { $_ => 1 } split /\n/, $expected;
	my %here = map { $_ => 1 } split /\n/, $text;

	ok($text eq $expected, $what)
		or diag(join("\n", (map { "- $_" } grep { !$here{$_} } split /\n/, $expected),
			(map { "+ $_" } grep { !$there{$_} } split /\n/, $text)));
	return;
}

$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION bicycle');
my $fresh = objects('fresh');
my %kept = map { $_ => 1 } functions('fresh');

foreach my $old (sort keys %released)
{
	is(sha256_hex(slurp_file("$root/../sql/bicycle--$old.sql")), $released{$old},
		"the SQL of $old is as it was released");
	$node->safe_psql('postgres', "CREATE DATABASE \"plain $old\"");
	$node->safe_psql("plain $old", "CREATE EXTENSION bicycle VERSION '$old'");
	my @functions = functions("plain $old");
	cmp_ok(scalar(@functions), '>=', 35, "functions of $old are found");
	is(join("\n", grep { !$kept{$_} } @functions), '', "and all are still what they were");
	$node->safe_psql("plain $old", 'ALTER EXTENSION bicycle UPDATE');
	is_alike(objects("plain $old"), $fresh, "$old becomes what $version is");
}

# ---- A database that lives on ----------------------------------------------

my $images = "SELECT md5(string_agg(bicycle_translate(sketch, bicycle_latent(8, id), model "
	. "=> 'emoji'), '' ORDER BY id)) FROM outlines";
my %queries = (
	'images' => $images,
	'latents' => "SELECT md5(string_agg(bicycle_encode(photo, model => 'emoji')::text, '' ORDER "
		. "BY id)) FROM outlines",
	'samples' => "SELECT md5(string_agg(s.image, '' ORDER BY sample)) FROM outlines, "
		. "bicycle_sample(sketch, 2, 7, model => 'emoji') AS s WHERE id = 0",
	'models' => 'SELECT model, version, config, hash, is_current FROM bicycle_models ORDER BY 1, 2',
	'jobs' => 'SELECT job, model, owner, state, iteration, iterations FROM bicycle_jobs ORDER BY '
		. 'job',
	'policies' => 'SELECT tablename, policyname, roles, qual FROM pg_policies');

sub answers
{
	my ($database) = @_;

	return join("\n", map { "$_: " . $node->safe_psql($database,
		$queries{$_}) } sort keys %queries);
}

# Loads what the tests share into a database with the objects of OLD, uses it, and leaves a job that
# was stopped after its checkpoint.
sub load_old
{
	my ($database, $old) = @_;
	my $job;

	$node->safe_psql('postgres', "CREATE DATABASE \"$database\"");
	$node->safe_psql($database, "CREATE EXTENSION bicycle VERSION '$old'");
	load_model($node, $database);
	$node->safe_psql($database,
		"ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY; CREATE POLICY shown ON "
		. "bicycle_models USING (model <> 'secret')");
	$job = train($node, 'ours',
		'"iterations": 20, "checkpoint_every": 8, "seed": 5, "ngf": 16, "nef": 16, "ndf": '
		. '16, "batch_size": 4', database => $database);
	ok(stop_at_checkpoint($node, $job, database => $database), "$old: a job stores a checkpoint");
	ok(pause_halted($node, $job, database => $database), "$old: and pauses");
	return $job;
}

foreach my $old (sort keys %released)
{
	my $database = "used $old";
	my $file = scratch('dump');
	my $job = load_old($database, $old);
	my $answers = answers($database);

	# pg_dump names no version: what is restored here is of this one.
	$node->command_ok([ 'pg_dump', '-Fc', '-f', $file, $node->connstr($database) ], "$old: dump");
	$node->safe_psql('postgres', "CREATE DATABASE \"restored $old\"");
	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr("restored $old"),
		$file ], "$old: restore");
	is($node->safe_psql("restored $old",
		"SELECT extversion FROM pg_extension WHERE extname = 'bicycle'"), $version,
		"$old: is $version after a restore");
	is(answers("restored $old"), $answers, "$old: and has and makes the same");

	# A session goes on through the update.
	my $session = $node->background_psql($database);
	my $before = $session->query($images);
	$node->safe_psql($database, 'ALTER EXTENSION bicycle UPDATE');
	is($session->query($images), $before, "$old: a session does not notice the update");
	$session->quit;
	is(answers($database), $answers, "$old: all is there after the update, and works");
	$node->safe_psql($database, "SELECT bicycle_resume($job)");
	ok(job_comes_to($node, $job, "state = 'done'", database => $database),
		"$old: the job goes on to its end");
	is(job_column($node, $job, "concat_ws(' ', iteration, notes)", database => $database), '20',
		"$old: from its checkpoint, without a note");
}

$node->stop;
done_testing();
