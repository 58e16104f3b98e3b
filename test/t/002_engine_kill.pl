# Kills of the engine under busy sessions cost nothing but time: no session sees an error, no image
# is wrong, PostgreSQL does not restart.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(usleep);

use constant { CLIENTS => 8, KILLS => 20 };

my $node = new_node('main');

load_model($node, 'postgres');

# What each outline becomes under each seed, computed undisturbed.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE expected
	AS SELECT id, seed, md5(bicycle_translate(sketch, bicycle_latent(8, seed), model => 'emoji'))
		AS md5 FROM outlines, generate_series(1, 8) seed;
CREATE TABLE done (id int, seed int);
CREATE TABLE finish (now bool);
CREATE FUNCTION check_translation(i int, s int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
	got text;
	wanted text;
BEGIN
	SELECT md5(bicycle_translate(sketch, bicycle_latent(8, s), model => 'emoji')) INTO STRICT got
		FROM outlines WHERE id = i;
	SELECT md5 INTO STRICT wanted FROM expected WHERE id = i AND seed = s;
	IF got IS DISTINCT FROM wanted THEN
		RAISE EXCEPTION 'outline % with seed %: % instead of %', i, s, got, wanted;
	END IF;
	INSERT INTO done VALUES (i, s);
END $$;
CREATE PROCEDURE work() LANGUAGE plpgsql AS $$
BEGIN
	WHILE NOT EXISTS (SELECT FROM finish) LOOP
		PERFORM check_translation((random() * 7)::int, 1 + (random() * 7)::int);
		COMMIT;
	END LOOP;
END $$;
SQL
my $postmaster_start = $node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()');
my $crash_log = -s $node->logfile;

my @sessions;
for (1 .. CLIENTS)
{
	my %session = (out => '', err => '');
	$session{run} = IPC::Run::start([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-d',
		$node->connstr('postgres'), '-c', 'CALL work()' ],
		'>', \$session{out}, '2>', \$session{err});
	push @sessions, \%session;
}

my $killed = 0;
for my $n (1 .. KILLS)
{
	# Each engine gets to answer what the one before it left, so that no request meets two crashes.
	last unless wait_for_engine($node, 'requests >= ' . 4 * CLIENTS);
	usleep(int(rand(200_000)));
	my $pid = engine_pid($node);
	$killed += kill('KILL', $pid);
	last unless wait_for_engine($node, "pid <> $pid");
}
is($killed, KILLS, KILLS . ' engines killed');
$node->safe_psql('postgres', 'INSERT INTO finish VALUES (true)');

foreach my $n (1 .. CLIENTS)
{
	my $session = $sessions[ $n - 1 ];
	ok($session->{run}->finish && $session->{err} eq '',
		"session $n saw no error and no wrong image") or diag($session->{err});
}
is($node->safe_psql('postgres', 'SELECT pg_postmaster_start_time()'), $postmaster_start,
	'PostgreSQL is the same');
unlike(slurp_file($node->logfile, $crash_log), qr/terminating any other active server processes/,
	'nor did it reset its sessions');
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM done'), '>=', 4 * CLIENTS * KILLS,
	'images were made between the kills');
is(engine_query($node, 'restarts'), KILLS, 'bicycle_engine() counts the restarts');
ok(wait_for_engine($node, 'queued = 0'), 'nothing is left in the queue');

# One statement over many rows, whose requests are in flight when the engine dies, loses none.
my ($out, $err) = ('', '');
my $statement = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
	<<'SQL' ], '>', \$out, '2>', \$err);
WITH images AS (SELECT id, seed,
	md5(bicycle_translate(sketch, bicycle_latent(8, seed), model => 'emoji')) AS md5
	FROM outlines, generate_series(1, 8) seed, generate_series(1, 4) again)
SELECT count(*), count(*) FILTER (WHERE images.md5 = expected.md5) FROM images JOIN expected
	USING (id, seed)
SQL
for (1 .. 2)
{
	my $pid = engine_pid($node);
	kill('KILL', $pid);
	wait_for_engine($node, "pid <> $pid and requests > 16");
}
ok($statement->finish, 'a statement over 256 images outlives two kills') or diag($err);
is($out, "256|256\n", 'with every image right');

# A machine that is halted for longer than an engine may be silent, and whose supervisor goes on
# before the engine does, kills nothing.
wait_for_engine($node, 'queued = 0');
my $engine = engine_pid($node);
my ($supervisor) = slurp_file("/proc/$engine/stat") =~ /\) \S (\d+)/;	# its parent
is(kill('STOP', $supervisor, $engine), 2, 'supervisor and engine are halted');
sleep(17);
kill('CONT', $supervisor);
sleep(2);
kill('CONT', $engine);
ok(wait_for_engine($node, 'uptime > interval \'0\''), 'both go on');
is(engine_pid($node), $engine, 'and the engine is the same');

$node->stop;
done_testing();
