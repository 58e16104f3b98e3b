# 10,000 truncations and flipped bits of images and of model files, always the same ones: only
# ordinary errors, and the engine is the same process after it.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use Bicycle;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = new_node('main');

load_model($node, 'postgres');
$node->safe_psql('postgres', <<"SQL");
CREATE TABLE originals (kind text, number int, bytes bytea, PRIMARY KEY (kind, number));
INSERT INTO originals SELECT 'png', id, sketch FROM outlines;
INSERT INTO originals SELECT 'png', 8 + id, photo FROM outlines;
SET bicycle.output_format = 'jpeg';
INSERT INTO originals SELECT 'jpeg', id, bicycle_translate(photo, bicycle_latent(8, id),
	model => 'emoji') FROM outlines;
RESET bicycle.output_format;
INSERT INTO originals VALUES ('model', 0, pg_read_binary_file('$DATA/E.pth'));
INSERT INTO originals VALUES ('model', 1, bicycle_export('emoji', 'E', format => 'safetensors'));
INSERT INTO originals VALUES ('model', 2, bicycle_export('emoji', 'E', format => 'pth'));
CREATE TABLE outcomes (kind text, sqlstate text, count bigint, PRIMARY KEY (kind, sqlstate));

-- The n-th damage: every fourth cuts the file off, the others flip one to four bits; half of the
-- places are in the first 4096 bytes, where the headers are.
CREATE FUNCTION damaged(original bytea, n int) RETURNS bytea LANGUAGE plpgsql AS \$\$
DECLARE
	place int;
BEGIN
	IF n % 4 = 0 THEN
		RETURN substr(original, 1, mod(abs(hashint4extended(n, 1)), length(original))::int);
	END IF;
	FOR flip IN 1 .. 1 + n % 4 LOOP
		place := mod(abs(hashint4extended(n, 10 + flip)),
			CASE WHEN n % 2 = 0 THEN length(original) ELSE least(4096, length(original)) END)::int;
		original := set_byte(original, place,
			get_byte(original, place) # (1 << (hashint4(n * 8 + flip) & 7)));
	END LOOP;
	RETURN original;
END \$\$;

CREATE PROCEDURE fuzz(k text, action text, runs int) LANGUAGE plpgsql AS \$\$
DECLARE
	files int := count(*) FROM originals WHERE kind = k;
	state text;
BEGIN
	FOR n IN 1 .. runs LOOP
		state := '00000';
		BEGIN
			EXECUTE action USING (SELECT damaged(bytes, n) FROM originals WHERE kind = k
				AND number = n % files);
		EXCEPTION WHEN OTHERS THEN
			state := SQLSTATE;
		END;
		INSERT INTO outcomes VALUES (k, state, 1) ON CONFLICT ON CONSTRAINT outcomes_pkey DO UPDATE
			SET count = outcomes.count + 1;
	END LOOP;
END \$\$;
SQL
my $pid = engine_pid($node);

# What each kind is given to, how often, and with which SQLSTATEs it may end.
my @kinds = (
	[ 'png', q{SELECT bicycle_translate($1, '{1,2,3,4,5,6,7,8}', model => 'emoji')}, 5000,
		qr/^(00000|22P03|54000)$/ ],
	[ 'jpeg', q{SELECT bicycle_translate($1, '{1,2,3,4,5,6,7,8}', model => 'emoji')}, 2500,
		qr/^(00000|22P03|54000)$/ ],
	[ 'model', q{SELECT count(*) FROM bicycle_inspect($1)}, 2500, qr/^(00000|22P03|54000)$/ ]);

foreach my $kind (@kinds)
{
	my ($name, $action, $runs, $allowed) = @$kind;
	my ($status, $out, $err) = $node->psql('postgres',
		"CALL fuzz('$name', \$action\$$action\$action\$, $runs)");

	is($status, 0, "$runs damaged files: $name") or diag($err);
	is($node->safe_psql('postgres', "SELECT sum(count) FROM outcomes WHERE kind = '$name'"), $runs,
		"$name: all were tried");
	my @states = split /\n/,
		$node->safe_psql('postgres',
		"SELECT sqlstate FROM outcomes WHERE kind = '$name' ORDER BY 1");
	is(join(' ', grep { $_ !~ $allowed } @states), '', "$name: only ordinary errors");
	diag("$name: " . $node->safe_psql('postgres',
		"SELECT string_agg(sqlstate || ' ' || count, ', ' ORDER BY sqlstate) FROM outcomes WHERE "
		. "kind = '$name'"));
	is(engine_pid($node), $pid, "$name: the engine is the same process");
}
is($node->safe_psql('postgres', 'SELECT sum(count) FROM outcomes'), '10000', 'ten thousand in all');
cmp_ok($node->safe_psql('postgres', "SELECT sum(count) FROM outcomes WHERE sqlstate <> '00000'"),
	'>', 5000, 'most were noticed');

$node->stop;
done_testing();
