# A training engine of another version than the library trains and stores nothing: its job fails
# with 55000, and goes on when the engine is the right one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $other = PostgreSQL::Test::Utils::tempdir . '/bicycle-engine';

# The engine is this one, with another number in it. It takes the place of the training engine only,
# and only while it is executable.
my $node;
{
	local $ENV{LD_PRELOAD} = preload(<<"C");
#include <dlfcn.h>
#include <string.h>
#include <unistd.h>

int execve(const char *path, char *const argv[], char *const env[])
{
	static int (*real)(const char *, char *const *, char *const *);

	if (!real)
		real = dlsym(RTLD_NEXT, "execve");
	if (argv[1] && strcmp(argv[1], "--train") == 0 && access("$other", X_OK) == 0)
		return real("$other", argv, env);
	return real(path, argv, env);
}
C
	$node = new_node('main');
}
load_pairs($node, 'postgres');
my $engine = readlink '/proc/' . engine_pid($node) . '/exe';
my $program = slurp_file($engine);
my $version = $node->safe_psql('postgres',
	"SELECT extversion FROM pg_extension WHERE extname = 'bicycle'");
ok($program =~ s/\0(\Q$version\E(?:\.\d+)?)\0/"\0" . '9' x length($1) . "\0"/e,
	'an engine has another version');
PostgreSQL::Test::Utils::append_to_file($other, $program);
chmod 0755, $other or die "$other: $!";

my $job = train($node, 'model', '"iterations": 3');
ok(job_comes_to($node, $job, "state IN ('failed', 'done')"), 'with it a job ends');
is($node->safe_psql('postgres',
	"SELECT state, sqlstate, attempts, iterations IS NULL FROM bicycle_training_jobs WHERE job = "
	. "$job"), 'failed|55000|1|t', 'with 55000, before anything is trained');
my $says = "training engine is of another version\nThe library is version $version";
like(job_column($node, $job, 'error'), qr/^\Q$says\E(?:\.\d+)?, .*999.*\nRestart the server/,
	'and what to do');
is($node->safe_psql('postgres', 'SELECT count(*) FROM bicycle_models'), 0,
	'and no model is stored');

chmod 0644, $other;
$node->safe_psql('postgres', "SELECT bicycle_resume($job)");
ok(job_comes_to($node, $job, "state = 'done'"), 'resumed with the right engine it trains');

$node->stop;
done_testing();
