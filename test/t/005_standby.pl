# A hot standby translates with models that were imported on the primary, before and after it
# exists, writes nothing, and goes on when promoted.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = new_node('primary');
my $standby = PostgreSQL::Test::Cluster->new('standby');
my $all = "SELECT string_agg(md5(bicycle_translate(sketch, bicycle_latent(8, id), model "
	. "=> '%s')), ' ' ORDER BY id) FROM outlines";

load_model($primary, 'postgres');
$primary->backup('base');
$standby->init_from_backup($primary, 'base', has_streaming => 1);
$standby->start;
$primary->wait_for_catchup($standby);

my $expected = $primary->safe_psql('postgres', sprintf($all, 'emoji'));
is($standby->safe_psql('postgres', 'SELECT pg_is_in_recovery()'), 't', 'the standby is one');
is($standby->safe_psql('postgres', sprintf($all, 'emoji')), $expected, 'it makes the same images');
isnt(engine_pid($standby), engine_pid($primary), 'with an engine of its own');

# A model that arrives while sessions of the standby already know there is none of that name.
my $session = $standby->background_psql('postgres', on_error_stop => 0);
$session->query(sprintf($all, 'later'));
like($session->{stderr}, qr/model "later" does not exist/, 'a model that is not there yet');
$session->{stderr} = '';
$primary->safe_psql('postgres',
	"SELECT bicycle_import('later', pg_read_binary_file('$DATA/G.pth'))");
$primary->wait_for_catchup($standby);
is($session->query(sprintf($all, 'later')), $expected,
	'is used by the same session when it has arrived');
$primary->safe_psql('postgres', "SELECT bicycle_drop('later')");
$primary->wait_for_catchup($standby);
$session->query(sprintf($all, 'later'));
like($session->{stderr}, qr/model "later" does not exist/, 'and no longer when it is dropped');
$session->quit;

is($standby->safe_psql('postgres',
	"SELECT count(*) FROM outlines, bicycle_sample(sketch, 2, seed => 1, model => 'emoji')"), '16',
	'samples on the standby');
is($standby->safe_psql('postgres', "SELECT count(bicycle_encode(photo, 'emoji')) FROM outlines"),
	'8', 'encodings on the standby');
my ($status, $out, $err) = $standby->psql('postgres',
	"\\set VERBOSITY verbose\nSELECT bicycle_import('emoji', pg_read_binary_file('$DATA/G.pth'))");
like($err, qr/ERROR:  25006:/, 'importing there is refused with 25006');
($status, $out, $err) = $standby->psql('postgres',
	"\\set VERBOSITY verbose\nCALL bicycle_fill('outlines', 'photo', 'sketch')");
like($err, qr/ERROR:  25006:/, 'and so is filling a column');

$primary->stop;
$standby->promote;
is($standby->safe_psql('postgres', sprintf($all, 'emoji')), $expected,
	'promoted, it makes the same images');
is($standby->safe_psql('postgres',
	"SELECT bicycle_import('emoji', pg_read_binary_file('$DATA/G.pth'))"), '2',
	'and takes new versions');

$standby->stop;
done_testing();
