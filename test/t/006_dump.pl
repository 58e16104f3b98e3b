# Dump and restore carry models, rights, version counters, row-security policies and a table whose
# BEFORE trigger translates. pg_dump does not write policies of an extension's tables;
# bicycle_policies carries them, and one that cannot be restored shows nothing that was hidden.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

$node->safe_psql('postgres', 'CREATE DATABASE original');
$node->safe_psql('postgres',
	'CREATE ROLE painter LOGIN; CREATE ROLE apprentice; CREATE ROLE stranger; CREATE ROLE student');
load_model($node, 'original');
$node->safe_psql('original', <<"SQL");
SELECT bicycle_import('emoji', pg_read_binary_file('$DATA/G.pth'));
SELECT bicycle_import('emoji', pg_read_binary_file('$DATA/G.pth'));
SELECT bicycle_deploy('emoji', 2);
SELECT bicycle_drop('emoji', 3);
SELECT bicycle_import('secret', pg_read_binary_file('$DATA/G.pth'));
SELECT bicycle_import('gone', pg_read_binary_file('$DATA/G.pth'));
SELECT bicycle_drop('gone');
INSERT INTO bicycle_training_jobs (model, owner, system_identifier, database, pairs, search_path,
	options, state)
	VALUES ('gone', 'nobody', 1, 1, '', '', '{}', 'done'), ('ours', 'apprentice', 1, 1, '', '',
		'{}', 'queued'), ('theirs', 'student', 1, 1, '', '', '{}', 'queued');
INSERT INTO bicycle_training_losses SELECT job, 1, 'D', 0.5 FROM bicycle_training_jobs;
GRANT SELECT ON bicycle_models, bicycle_tensors TO painter;
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
CREATE POLICY shown ON bicycle_models FOR SELECT TO painter USING (model <> 'secret');
CREATE POLICY renamed ON bicycle_tensors FOR DELETE TO apprentice, painter USING (network <> 'G');
GRANT SELECT ON outlines TO painter;
CREATE TABLE paintings (id int PRIMARY KEY, sketch bytea, painting bytea);
CREATE FUNCTION paint() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	NEW.painting := bicycle_translate(NEW.sketch, bicycle_latent(8, NEW.id), model => 'emoji');
	RETURN NEW;
END \$\$;
CREATE TRIGGER paint BEFORE INSERT
	OR UPDATE OF sketch ON paintings FOR EACH ROW EXECUTE FUNCTION paint();
INSERT INTO paintings SELECT id, sketch FROM outlines;
SQL

# Since their rows were written one owner has got another name, and its old name another role; one
# was dropped, and its name is another's.
$node->safe_psql('original', <<'SQL');
ALTER ROLE apprentice RENAME TO journeyman;
ALTER ROLE stranger RENAME TO apprentice;
DROP ROLE student;
CREATE ROLE student;
SQL

my %queries = (
	'models' => 'SELECT model, version, method, config, hash, iterations, created_at, created_by, '
		. 'is_current FROM bicycle_models ORDER BY model, version',
	'tensors' => 'SELECT model, version, network, name, chunk, dtype, shape, md5(data) FROM '
		. 'bicycle_tensors ORDER BY 1, 2, 3, 4, 5',
	'jobs' => 'SELECT job, j.model, j.owner, j.state, l.iteration, l.name, l.value FROM '
		. 'bicycle_training_jobs j JOIN bicycle_training_losses l USING (job)',
	'images of the trigger' => 'SELECT id, md5(painting) FROM paintings ORDER BY id',
	'new images' => "SELECT md5(bicycle_translate(sketch, bicycle_latent(8, 100 + id), model "
		. "=> 'emoji')) FROM outlines ORDER BY id",
	'policies' => 'SELECT * FROM pg_policies ORDER BY tablename, policyname',
	'rights' => "SELECT has_table_privilege('painter', 'bicycle_models', 'SELECT'), "
		. "has_table_privilege('painter', 'bicycle_tensors', 'SELECT')");
my %expected = map { $_ => $node->safe_psql('original', $queries{$_}) } keys %queries;

foreach my $format ('custom', 'plain')
{
	my $file = scratch("dump.$format");

	$node->safe_psql('postgres', "CREATE DATABASE restored_$format");
	$node->command_ok([ 'pg_dump', '-F', $format, '-f', $file, $node->connstr('original') ],
		"$format dump");
	if ($format eq 'custom')
	{
		# Tables in the reverse of pg_dump's order: a parallel restore may fill them in any.
		my ($list, $stderr) = run_command([ 'pg_restore', '-l', $file ]);
		my @data = grep { / TABLE DATA / } split /\n/, $list;
		append_to_file("$file.list", join("\n", map { / TABLE DATA / ? pop @data : $_ } split /\n/,
			$list) . "\n");
		$node->command_ok([ 'pg_restore', '--exit-on-error', '-L', "$file.list", '-d',
			$node->connstr("restored_$format"), $file ], "$format restore");
	}
	else
	{
		$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d',
			$node->connstr("restored_$format"), '-f', $file ], "$format restore");
	}
	foreach my $what (sort keys %queries)
	{
		is($node->safe_psql("restored_$format", $queries{$what}), $expected{$what},
			"$format: $what");
	}
	is($node->safe_psql("restored_$format",
		'UPDATE paintings SET sketch = sketch; SELECT string_agg(md5(painting), E\'\n\' ORDER BY '
		. 'id) FROM paintings'),
		$node->safe_psql('original',
			'SELECT string_agg(md5(painting), E\'\n\' ORDER BY id) FROM paintings'),
			"$format: the trigger works");
	is($node->safe_psql("restored_$format",
		"SET ROLE $_; SELECT string_agg(model, ' ') FROM bicycle_jobs"),
		$_ eq 'journeyman' ? 'ours' : '', "$format: what $_ sees")
		foreach ('apprentice', 'journeyman', 'student');
	my ($status, $out, $err) = $node->psql("restored_$format",
		"SET ROLE painter; SELECT count(bicycle_translate(sketch, bicycle_latent(8, 1), model "
			. "=> 'secret')) FROM outlines");
	like($err, qr/model "secret" does not exist/, "$format: the policy hides a model");
	is($node->safe_psql("restored_$format",
		"SELECT bicycle_import('emoji', pg_read_binary_file('$DATA/G.pth'))"), '4',
		"$format: dropped version 3 is not used again");
	is($node->safe_psql("restored_$format",
		"SELECT bicycle_import('gone', pg_read_binary_file('$DATA/G.pth'))"), '2',
		"$format: nor are those of a dropped model");
}

# A second dump of the restored database, before it was changed, would be the same; the schema still
# is.
my ($a, $b) = map { my $file = scratch("schema.$_");
	$node->command_ok([ 'pg_dump', '-s', '-f', $file, $node->connstr($_) ],
		"schema of $_"); slurp_file($file) } 'original', 'restored_custom';
s/^\\(un)?restrict .*$//mg foreach $a, $b;
is($b, $a, 'the schema of the restored database is dumped alike');

# Restored where a role of two policies is missing: one that allows is not made, and row security is
# enabled all the same; one that restricts denies.
$node->safe_psql('original', <<'SQL');
CREATE ROLE tenant;
CREATE POLICY alone ON bicycle_models FOR SELECT TO tenant USING (true);
CREATE POLICY narrow ON bicycle_tensors AS RESTRICTIVE FOR SELECT TO tenant, painter
	USING (network = 'G');
CREATE POLICY wide ON bicycle_tensors FOR SELECT TO painter USING (true);
ALTER TABLE bicycle_tensors ENABLE ROW LEVEL SECURITY;
SQL
my $file = scratch('dump.tenant');
$node->command_ok([ 'pg_dump', '-f', $file, $node->connstr('original') ], 'dump with the role');
$node->safe_psql('original', 'DROP OWNED BY tenant; DROP ROLE tenant');
$node->safe_psql('postgres', 'CREATE DATABASE lacks');
my ($out, $err) = run_command([ 'psql', '-Xq', '-d', $node->connstr('lacks'), '-f', $file ]);
like($err, qr/could not restore policy "$_" on table "bicycle_\w+"\n.*role "tenant" does not exist/,
	"policy $_ is missed") foreach ('alone', 'narrow');
is($node->safe_psql('lacks', "SET ROLE painter; SELECT string_agg(DISTINCT model, ' '), "
	. '(SELECT count(*) FROM bicycle_tensors) FROM bicycle_models'), 'emoji|0',
	'without the role nothing more is seen');
is($node->safe_psql('lacks', 'SELECT count(*) FROM bicycle_tensors'),
	$node->safe_psql('original', 'SELECT count(*) FROM bicycle_tensors'), 'all rows are there');

$node->stop;
done_testing();
