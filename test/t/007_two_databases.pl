# Two databases, two roles, one resident copy of a model; and no way to a resident model for a role
# or database that does not own it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');
my $translate = "SELECT count(bicycle_translate(sketch, bicycle_latent(8, 1), model => 'emoji')) "
	. "FROM outlines";
my $copies = 'SELECT count(*) FROM bicycle_cache()';

$node->safe_psql('postgres', "CREATE DATABASE $_") foreach 'one', 'two', 'none';
$node->safe_psql('postgres', 'CREATE ROLE stranger LOGIN');
load_model($node, 'one');
load_model($node, 'two');
$node->safe_psql('none', 'CREATE EXTENSION bicycle');
$node->restart;

is($node->safe_psql('one', $translate), '8', 'the first database translates');
is($node->safe_psql('one', $copies), '1', 'one copy is resident');
my $memory = engine_memory();
is($node->safe_psql('two', $translate), '8', 'the second database translates');
is($node->safe_psql('two', $copies), '1', 'still one copy is resident');
cmp_ok(abs(engine_memory() - $memory), '<', 1024 * 1024, 'and the engine holds no more memory');
is($node->safe_psql('two', $translate), '8', 'several sessions use it');
is($node->safe_psql('one', $copies), '1', 'that one copy');

is($node->safe_psql('one', "SELECT model, version FROM bicycle_cache()"), 'emoji|1',
	'its name is shown where it may be read');
is($node->safe_psql('one', "SET ROLE stranger; SELECT count(model) FROM bicycle_cache()"), '0',
	'not to a role without rights');
is($node->safe_psql('none', "SELECT count(model) FROM bicycle_cache()"), '0',
	'nor in a database that does not have it');

my ($status, $out, $err) = $node->psql('one', <<'SQL');
\set VERBOSITY verbose
GRANT SELECT ON outlines TO stranger;
SET ROLE stranger;
SELECT count(bicycle_translate(sketch, bicycle_latent(8, 1), model => 'emoji')) FROM outlines;
SQL
like($err, qr/ERROR:  42501:/,
	'a role without SELECT on the tables cannot use a model although it is resident');
($status, $out, $err) = $node->psql('one', <<'SQL');
\set VERBOSITY verbose
GRANT SELECT ON bicycle_models TO stranger;
SET ROLE stranger;
SELECT count(bicycle_translate(sketch, bicycle_latent(8, 1), model => 'emoji')) FROM outlines;
SQL
like($err, qr/ERROR:  42501:/, 'nor with SELECT on one of them');
is($node->safe_psql('one', "GRANT SELECT ON bicycle_models, bicycle_tensors TO stranger; SET ROLE "
	. "stranger; $translate"), '8', 'with both it can');
($status, $out, $err) = $node->psql('one', <<"SQL");
\\set VERBOSITY verbose
SET ROLE stranger;
$translate;
RESET ROLE;
REVOKE SELECT ON bicycle_tensors FROM stranger;
SET ROLE stranger;
$translate;
SQL
like($err, qr/ERROR:  42501:/, 'and no longer in the same session when it is taken away');

sub engine_memory { return engine_query($node, 'memory'); }

$node->stop;
done_testing();
