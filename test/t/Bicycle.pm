# Bicycle.pm: what the TAP tests share.  A cluster with the extension, the small trained model, and a table of outlines.
package Bicycle;

use strict;
use warnings;

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep time);

our @EXPORT = qw(new_node load_model engine_pid wait_for_engine engine_query $DATA);

our $DATA = $ENV{BICYCLE_TESTDATA} . '/edges2emoji';

# new_node(NAME, SETTING...): a started cluster.  The extension is preloaded unless a setting says otherwise.
sub new_node
{
	my ($name, @settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$node->init(allows_streaming => 1);
	$node->append_conf('postgresql.conf', join("\n",
			"shared_preload_libraries = 'bicycle'", 'bicycle.threads = 2', 'max_prepared_transactions = 2', 'log_statement = none', @settings) . "\n");
	$node->start;
	return $node;
}

# Creates in DATABASE the extension, the model "emoji" and outlines(id, sketch, photo) of the first COUNT pairs.
sub load_model
{
	my ($node, $database, $count) = @_;

	$node->safe_psql($database, sprintf(<<'SQL', $DATA, $DATA, ($count // 8) - 1));
CREATE EXTENSION bicycle;
SELECT bicycle_import('emoji', pg_read_binary_file('%1$s/G.pth'), encoder => pg_read_binary_file('%2$s/E.pth'));
CREATE TABLE outlines AS
	SELECT n AS id, pg_read_binary_file(format('%1$s/pairs/%%s_A.png', to_char(n, 'FM00'))) AS sketch,
		   pg_read_binary_file(format('%1$s/pairs/%%s_B.png', to_char(n, 'FM00'))) AS photo
	FROM generate_series(0, %3$d) n;
SQL
	return;
}

# The first column of bicycle_engine() that is asked for, or '' while there is no engine.
sub engine_query
{
	my ($node, $column) = @_;
	my ($status, $out) = $node->psql('postgres', "SELECT $column FROM bicycle_engine()");

	return defined $status && $status == 0 ? $out : '';
}

sub engine_pid { return engine_query($_[0], 'pid'); }

# Waits until CONDITION, over the columns of bicycle_engine(), holds.
sub wait_for_engine
{
	my ($node, $condition, $seconds) = @_;
	my $deadline = time() + ($seconds // 60);

	while (time() < $deadline)
	{
		return 1 if engine_query($node, $condition) eq 't';
		usleep(20_000);
	}
	return 0;
}

1;
