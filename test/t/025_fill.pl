# bicycle_fill, whatever happens to it: engines that are killed, calls that are cancelled, ended or
# timed out, several at once, rows that others change and move meanwhile. In the end each row has
# what one undisturbed pass gives it, and it has cost no more disk than plain UPDATEs.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;
use Time::HiRes qw(time usleep);

use constant ROWS => 600;

my $node = new_node('main');
my $translate = "bicycle_translate(sketch, bicycle_latent(8, id), model => ''emoji'')";

# A call that runs in the background.
sub begin_call
{
	my ($arguments, @before) = @_;
	my %call = (out => '', err => '');

	$call{run} = IPC::Run::start([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d',
		$node->connstr('postgres'), (map { ('-c', $_) } @before), '-c',
		"CALL bicycle_fill($arguments)" ], '>', \$call{out}, '2>', \$call{err});
	return \%call;
}

# Waits until CONDITION, over the rows of bicycle_fills, holds.
sub fills_come_to
{
	my ($condition) = @_;

	return $node->poll_query_until('postgres', "SELECT coalesce(($condition), false) FROM "
		. '(SELECT count(*) AS calls, sum(done) AS done, max(pid) AS pid FROM bicycle_fills) AS f');
}

load_model($node, 'postgres');
$node->safe_psql('postgres', sprintf(<<'SQL', ROWS));
CREATE TABLE undisturbed (id int PRIMARY KEY, sketch bytea, variant bytea, problem text);
INSERT INTO undisturbed SELECT n, CASE WHEN n %% 100 = 50 THEN 'rubbish' ELSE o.sketch END
	FROM generate_series(1, %d) AS n JOIN outlines AS o ON o.id = n %% 8;
CREATE TABLE pictures (LIKE undisturbed INCLUDING ALL);
INSERT INTO pictures SELECT * FROM undisturbed ORDER BY id;
CREATE TABLE slow (id int PRIMARY KEY, a int, root int);
INSERT INTO slow SELECT n, n FROM generate_series(1, 400) AS n;
CREATE FUNCTION slowly(a int) RETURNS int LANGUAGE sql
	AS 'SELECT a FROM pg_sleep(0.01)';
SQL

# ---- Two calls, a killed engine, a cancelled call ---------------------------

my $arguments = "'%s', 'variant', '$translate', error_column => 'problem'";
my ($status, $out, $err) = $node->psql('postgres',
	"CALL bicycle_fill(" . sprintf($arguments, 'undisturbed') . ")");
my $bad = ROWS / 100;
my $good = ROWS - $bad;
like($err, qr/NOTICE:  filled "variant" of "undisturbed": $good rows\nDETAIL:  Bad: $bad\. /,
	'a single pass fills all rows but the bad ones');

my @calls = map { begin_call(sprintf("$arguments, chunk => 32", 'pictures')) } 1 .. 2;
ok(fills_come_to('calls = 2 AND done > 60'), 'two calls are at work');
my $engine = engine_pid($node);
is(kill('KILL', $engine), 1, 'their engine is killed');
ok(wait_for_engine($node, "pid <> $engine"), 'there is another one');
ok(fills_come_to('calls = 2 AND done > 160'), 'and they go on');
$node->safe_psql('postgres', 'SELECT pg_cancel_backend(max(pid)) FROM bicycle_fills');
$_->{run}->finish foreach @calls;
is(scalar(grep { $_->{err} =~ /ERROR:  57014/ } @calls), 1, 'one is cancelled')
	or diag(map { $_->{err} } @calls);
is(scalar(grep { $_->{err} =~ /NOTICE:  00000: filled "variant"/ } @calls), 1,
	'the other one ends by itself');
is($node->safe_psql('postgres', 'SELECT count(*) FROM bicycle_fills'), '0', 'no slot is left');
($status, $out, $err) = $node->psql('postgres',
	"CALL bicycle_fill(" . sprintf($arguments, 'pictures') . ")");
is($status, 0, 'it is called again') or diag($err);
is($node->safe_psql('postgres', <<'SQL'), ROWS . '|0', 'and all is as after the single pass');
SELECT count(*), count(*) FILTER (WHERE (p.variant, p.problem) IS DISTINCT FROM
	(u.variant, u.problem)) FROM pictures AS p JOIN undisturbed AS u USING (id)
SQL

# ---- Time-outs, ends --------------------------------------------------------

my $all = $node->safe_psql('postgres', 'SELECT count(*) FROM slow');
foreach my $chunk (1, 100000)
{
	$node->safe_psql('postgres', 'UPDATE slow SET root = NULL');
	my $call = begin_call("'slow', 'root', 'slowly(a)', chunk => $chunk",
		'SET statement_timeout = 1000');
	$call->{run}->finish;
	like($call->{err}, qr/ERROR:  57014: canceling statement due to statement timeout/,
		"chunks of $chunk: a time-out ends the call");
	my $kept = $node->safe_psql('postgres', 'SELECT count(root) FROM slow WHERE root = a');
	cmp_ok($kept, '>', 0, 'what was committed stays');
	cmp_ok($kept, '<', $all, 'and the rest is not there');
}
my $call = begin_call("'slow', 'root', 'slowly(a)', chunk => 8");
ok(fills_come_to('done > 8'), 'a call is at work');
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(pid) FROM bicycle_fills');
$call->{run}->finish;
like($call->{err}, qr/57P01|server closed/, 'its session is ended');
ok(fills_come_to('calls = 0'), 'and gives its slot back');

# Of a long one the progress is told.
$node->safe_psql('postgres',
	'INSERT INTO slow SELECT n, n FROM generate_series(401, 1000) AS n;'
	. ' UPDATE slow SET root = NULL');
($status, $out, $err) = $node->psql('postgres', q{CALL bicycle_fill('slow', 'root', 'slowly(a)')});
like($err,
	qr/NOTICE:  filling "root" of "slow": \d+ rows, \d+ % of the table, about 0:\d\d:\d\d left/,
	'progress is told');
like($err, qr/NOTICE:  filled "root" of "slow": 1000 rows/, 'and the end');

# A session that has an engine of its own for the first time while it fills, and ends.
is($node->safe_psql('postgres', <<'SQL'), 't', 'the first call of a session is a fill');
UPDATE pictures SET variant = NULL WHERE id = 1;
CALL bicycle_fill('pictures', 'variant',
	'bicycle_translate(sketch, bicycle_latent(8, id), model => ''emoji'')', 'id = 1');
SELECT variant = (SELECT variant FROM undisturbed WHERE id = 1) FROM pictures WHERE id = 1
SQL

# ---- Beside those who write -------------------------------------------------

# Rows are changed and moved between partitions all the time; a trigger empties what is computed
# from what has changed.
$node->safe_psql('postgres', <<'SQL');
CREATE TABLE busy (id int, part int, a int, root int, PRIMARY KEY (id, part))
	PARTITION BY LIST (part);
CREATE TABLE busy_0 PARTITION OF busy FOR VALUES IN (0);
CREATE TABLE busy_1 PARTITION OF busy FOR VALUES IN (1);
INSERT INTO busy SELECT n, n % 2, n FROM generate_series(1, 2000) AS n;
CREATE FUNCTION changed() RETURNS trigger LANGUAGE plpgsql
	AS 'BEGIN NEW.root := NULL; RETURN NEW; END';
CREATE TRIGGER changed BEFORE UPDATE OF a ON busy FOR EACH ROW
	WHEN (OLD.a IS DISTINCT FROM NEW.a) EXECUTE FUNCTION changed();
CREATE TABLE finish (now bool);
CREATE PROCEDURE change(seed int) LANGUAGE plpgsql AS $$
DECLARE
	n int := 0;
BEGIN
	PERFORM setseed(seed / 10.0);
	WHILE NOT EXISTS (SELECT FROM finish) LOOP
		n := n + 1;
		BEGIN
			IF n % 2 = 0 THEN
				UPDATE busy SET a = a + 1 WHERE id = (random() * 2000)::int;
			ELSE
				UPDATE busy SET part = 1 - part WHERE id = (random() * 2000)::int;
			END IF;
		EXCEPTION WHEN serialization_failure THEN
			NULL;
		END;
		COMMIT;
	END LOOP;
END $$;
SQL
my @writers = map
{
	my %writer = (err => '');

	$writer{run} = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
		"CALL change($_)" ], '>', '/dev/null', '2>', \$writer{err});
	\%writer;
} 1 .. 2;
my $visited = 0;
for my $n (1 .. 10)
{
	($status, $out, $err) = $node->psql('postgres',
		"CALL bicycle_fill('busy', 'root', '2 * a', chunk => 1 + 7 * $n)");
	last if $status != 0;
	$visited += $1 if $err =~ /: (\d+) rows/;
}
is($status, 0, 'ten calls see no error') or diag($err);
$node->safe_psql('postgres', 'INSERT INTO finish VALUES (true)');
foreach my $writer (@writers)
{
	ok($writer->{run}->finish && $writer->{err} eq '', 'nor do those who write')
		or diag($writer->{err});
}
cmp_ok($visited, '>', 2000, 'rows were changed, and filled again');
$node->safe_psql('postgres', q{CALL bicycle_fill('busy', 'root', '2 * a')});
is($node->safe_psql('postgres', 'SELECT count(*), count(*) FILTER (WHERE root = 2 * a) FROM busy'),
	'2000|2000', 'each row has the value of what it is now');

# ---- What it costs ----------------------------------------------------------

# WAL and size after filling 4000 rows of 2 kB, beside UPDATEs of as many rows each.
sub cost
{
	my ($statements) = @_;

	$node->safe_psql('postgres', <<'SQL');
DROP TABLE IF EXISTS costly;
CREATE TABLE costly (id int PRIMARY KEY, a text, root text);
ALTER TABLE costly ALTER root SET STORAGE EXTERNAL;
ALTER TABLE costly SET (autovacuum_enabled = off);
INSERT INTO costly SELECT n, md5(n::text) FROM generate_series(1, 4000) AS n;
VACUUM costly;
CHECKPOINT;
SQL
	my $before = $node->safe_psql('postgres', 'SELECT pg_current_wal_insert_lsn()');
	$node->safe_psql('postgres', $statements);
	return split /\|/, $node->safe_psql('postgres', <<"SQL");
SELECT pg_current_wal_insert_lsn() - '$before', pg_total_relation_size('costly'),
	(SELECT count(*) FROM costly WHERE length(root) = 2048)
SQL
}

my @fill = cost(q{CALL bicycle_fill('costly', 'root', 'repeat(a, 64)', chunk => 250)});
my @plain = cost(<<'SQL');
DO $$ BEGIN
	FOR n IN 0 .. 15 LOOP
		UPDATE costly SET root = repeat(a, 64) WHERE id BETWEEN 1 + 250 * n AND 250 + 250 * n;
		COMMIT;
	END LOOP;
END $$
SQL
is("$fill[2] $plain[2]", '4000 4000', 'both have filled the rows');
diag(sprintf('WAL %.2f, size %.2f times that of plain UPDATEs', $fill[0] / $plain[0],
	$fill[1] / $plain[1]));
cmp_ok($fill[0], '<', 1.2 * $plain[0], 'WAL is that of plain UPDATEs, and locks');
cmp_ok($fill[1], '<', 1.05 * $plain[1], 'size is that of plain UPDATEs');

# ---- Without a client -------------------------------------------------------

# A background worker that runs a command in a portal of its own, as pg_cron does, and sends nothing
# to anybody.
my $directory = PostgreSQL::Test::Utils::tempdir();
append_to_file("$directory/alone.c", <<'C');
#include "postgres.h"
#include "access/xact.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "tcop/pquery.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/portal.h"
#include "utils/snapmgr.h"

PG_MODULE_MAGIC;
PG_FUNCTION_INFO_V1(run_alone);
PGDLLEXPORT void alone_main(Datum database);

void
alone_main(Datum database)
{
	const char *command = MyBgworkerEntry->bgw_extra;
	List *plans;
	Portal portal;

	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnectionByOid(DatumGetObjectId(database), InvalidOid, 0);
	StartTransactionCommand();
	MemoryContextSwitchTo(AllocSetContextCreate(TopMemoryContext, "alone", ALLOCSET_DEFAULT_SIZES));
	PushActiveSnapshot(GetTransactionSnapshot());
	plans = pg_analyze_and_rewrite_fixedparams(linitial(pg_parse_query(command)), command, NULL, 0,
											   NULL);
	plans = pg_plan_queries(plans, command, 0, NULL);
	PopActiveSnapshot();
	portal = CreatePortal("", true, true);
	PortalDefineQuery(portal, NULL, command, CMDTAG_CALL, plans, NULL);
	PortalStart(portal, NULL, 0, InvalidSnapshot);
	(void) PortalRun(portal, FETCH_ALL, true,
#if PG_VERSION_NUM < 180000
					 true,
#endif
					 None_Receiver, None_Receiver, NULL);
	PortalDrop(portal, false);
	CommitTransactionCommand();
}

Datum
run_alone(PG_FUNCTION_ARGS)
{
	BackgroundWorker worker = { .bgw_flags = BGWORKER_SHMEM_ACCESS |
											 BGWORKER_BACKEND_DATABASE_CONNECTION,
								.bgw_start_time = BgWorkerStart_RecoveryFinished,
								.bgw_restart_time = BGW_NEVER_RESTART,
								.bgw_name = "alone",
								.bgw_function_name = "alone_main",
								.bgw_main_arg = ObjectIdGetDatum(MyDatabaseId),
								.bgw_notify_pid = MyProcPid };
	BackgroundWorkerHandle *handle;

	strlcpy(worker.bgw_library_name, text_to_cstring(PG_GETARG_TEXT_PP(0)), MAXPGPATH);
	strlcpy(worker.bgw_extra, text_to_cstring(PG_GETARG_TEXT_PP(1)), BGW_EXTRALEN);
	if (!RegisterDynamicBackgroundWorker(&worker, &handle))
		elog(ERROR, "no slot for a worker");
	PG_RETURN_BOOL(WaitForBackgroundWorkerShutdown(handle) == BGWH_STOPPED);
}
C
is(system((split ' ', $ENV{CC} // 'cc')[-1], '-shared', '-fPIC', "-I$ENV{PG_HEADERS}", '-o',
	"$directory/alone.so", "$directory/alone.c"), 0, 'a worker is built');
chmod 0755, $directory, "$directory/alone.so";
$node->safe_psql('postgres', 'UPDATE slow SET root = NULL');
is($node->safe_psql('postgres', <<"SQL"), 't', 'a worker without a client has run');
CREATE FUNCTION run_alone(text, text) RETURNS bool
	AS '$directory/alone', 'run_alone' LANGUAGE C STRICT;
SELECT run_alone('$directory/alone', \$\$CALL bicycle_fill('slow', 'root', 'a', chunk => 100)\$\$);
SQL
is($node->safe_psql('postgres', 'SELECT count(*) FROM slow WHERE root IS DISTINCT FROM a'), '0',
	'and has filled the column');

$node->stop;
done_testing();
