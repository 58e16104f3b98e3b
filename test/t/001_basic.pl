# The main job works preloaded and not preloaded, with the same bytes, and at once in several new
# sessions. In single-user mode what needs the engine is an error that ends nothing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my %bytes;
my $translate = "SELECT string_agg(md5(bicycle_translate(sketch, bicycle_latent(8, id), model "
	. "=> 'emoji')), ' ' ORDER BY id) FROM outlines";

# What a server in single-user mode says to statements, with SQLSTATEs.
sub alone
{
	my ($node, @statements) = @_;
	my ($out, $err);

	IPC::Run::run([ 'postgres', '--single', '-D', $node->data_dir, '-c',
		'log_error_verbosity=verbose', 'postgres' ], '<', \join("\n", @statements, ''), '>', \$out,
		'2>', \$err);
	return "$out\n$err";
}

foreach my $preload ('bicycle', '')
{
	my $how = $preload ? 'preloaded' : 'not preloaded';
	my $node = new_node($preload ? 'preloaded' : 'plain', "shared_preload_libraries = '$preload'");

	load_model($node, 'postgres');
	$bytes{$how} = $node->safe_psql('postgres', $translate);
	like($bytes{$how}, qr/^([0-9a-f]{32} ?){8}$/, "$how: eight images");
	is($node->safe_psql('postgres', $translate), $bytes{$how},
		"$how: another session gets the same bytes");
	is($node->safe_psql('postgres', 'SELECT restarts FROM bicycle_engine()'), '0',
		"$how: one engine served them");

	# A statement is planned before its functions are looked up, which loads the library.
	if (!$preload)
	{
		my $explain = "EXPLAIN $translate";

		unlike($node->safe_psql('postgres', $explain), qr/BicycleBatch/,
			"$how: the first statement of a session is not batched");
		$node->safe_psql('postgres',
			"ALTER DATABASE postgres SET session_preload_libraries = 'bicycle'");
		like($node->safe_psql('postgres', $explain), qr/BicycleBatch/,
			'but is where sessions load the library at their start');
		$node->safe_psql('postgres', 'ALTER DATABASE postgres RESET session_preload_libraries');
	}

	# Sessions that start together with nothing running yet: all are served by one engine.
	$node->restart;
	my @sessions = map { IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres'), '-c',
		$translate ], '>', \my $out, '2>', \my $err); } 1 .. 6;
	my $finished = grep { $_->finish } @sessions;
	is($finished, 6, "$how: six sessions at once after a restart");
	is($node->safe_psql('postgres', 'SELECT restarts FROM bicycle_engine()'), '0',
		"$how: by one engine");
	my $pid = engine_pid($node);
	$node->stop;
	ok(!kill(0, $pid), "$how: the engine ends with the server");

	my @refused = ('SELECT bicycle_check(sketch) FROM outlines', $translate,
		'SELECT * FROM bicycle_engine()', 'SELECT * FROM bicycle_cache()',
		q{SELECT bicycle_import('m', 'x')}, q{SELECT bicycle_create('m')},
		q{SELECT bicycle_train('m', 'SELECT sketch, photo FROM outlines')});
	my $said = alone($node, @refused, 'UPDATE outlines SET photo = NULL WHERE id = 1',
		q{CALL bicycle_fill('outlines', 'photo', 'sketch')}, 'SELECT * FROM bicycle_fills',
		q{INSERT INTO bicycle_training_jobs (model, owner, system_identifier, database, pairs,}
		. q{ search_path, options, state) SELECT 'm', 'postgres', system_identifier, oid, '', '',}
		. q{ '{}', 'queued' FROM pg_control_system(), pg_database}
		. q{ WHERE datname = current_database()},
		'SELECT bicycle_cancel(max(job)) FROM bicycle_jobs', q{SELECT bicycle_drop('emoji')},
		q{SELECT 'all ' || count(*) || count(photo) AS told FROM outlines});

	is(scalar(() = $said =~ /ERROR:  55000:/g), @refused, "$how: alone, what needs engines fails");
	unlike($said, qr/FATAL|PANIC|ERROR:  (?!55000)/, "$how: and nothing else does");
	like($said, qr/told = "all 88"/, "$how: nor ends the session") or diag($said);
}
is($bytes{'preloaded'}, $bytes{'not preloaded'}, 'the same bytes both ways');

# Without preload and without a free slot for the supervisor a session is told what to do.
my $full = new_node('full', "shared_preload_libraries = ''", 'max_worker_processes = 0');
$full->safe_psql('postgres', 'CREATE EXTENSION bicycle');
my ($status, $out, $err) = $full->psql('postgres',
	"\\set VERBOSITY verbose\nSELECT bicycle_image_info('x')");
like($err, qr/53000: .*could not start the bicycle supervisor.*HINT:.*max_worker_processes/s,
	'no slot for the supervisor: 53000 with a hint');
is($full->safe_psql('postgres', 'SELECT array_length(bicycle_latent(8, 1), 1)'), '8',
	'what needs no engine goes on');
$full->stop;

# A session that has as many sockets as the server lets it is told so, and goes on when it has
# fewer.
SKIP:
{
	my $many = new_node('many', 'max_files_per_process = 100', 'max_connections = 100');

	skip 'no dblink here', 2 if $many->psql('postgres', 'CREATE EXTENSION dblink') != 0;
	load_model($many, 'postgres');
	($status, $out, $err) = $many->psql('postgres', <<"SQL", on_error_stop => 0);
\\set VERBOSITY verbose
DO \$\$ BEGIN
	FOR n IN 1 .. 90 LOOP PERFORM dblink_connect(n::text, 'dbname=postgres'); END LOOP;
EXCEPTION WHEN OTHERS THEN NULL;
END \$\$;
$translate;
SELECT dblink_disconnect(n::text) FROM generate_series(1, 3) n;
$translate;
SQL
	like($err, qr/ERROR:  53000: .*DETAIL: .*open files.*HINT: .*max_files_per_process/s,
		'no socket left: 53000 with a hint');
	is($out, "OK\nOK\nOK\n$bytes{preloaded}", 'with fewer it goes on');
	$many->stop;
}

done_testing();
