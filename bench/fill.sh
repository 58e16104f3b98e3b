#!/bin/bash
# bicycle_fill beside plain UPDATEs: rows a second, and what an interactive session feels of either.
# Then whether it gives the same to the bit when its engine is killed and one of its two sessions is
# cancelled.
#
# ROWS (default 100000) images of 64 x 64, of which one of a hundred is none; a small model (MODEL
# is its config). Plain is an UPDATE of the good rows in transactions of 256, which is what one
# would write without bad rows; it runs on a tenth of them, in turn with fills of as many. The
# engine has THREADS threads (default 2). Nothing else should run meanwhile; the load average is
# printed.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

ROWS=${ROWS:-100000}
THREADS=${THREADS:-2}
ROUNDS=${ROUNDS:-3}
CALLS=${CALLS:-300}				# of the interactive session, in a round
MODEL=${MODEL:-'{"size": 64, "input_nc": 1, "ngf": 8}'}
PART=$((ROWS / 10))

"$ROOT/test/install-deps.sh"
private_begin
private_tree tree release
private_cluster fill "shared_preload_libraries = 'bicycle'" "bicycle.threads = $THREADS" \
	"max_wal_size = 4GB"
sql() { "$BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
seconds() { date +%s.%N; }
rate() { awk -v n="$1" -v a="$2" -v b="$3" 'BEGIN { printf "%.0f", n / (b - a) }'; }

say "$(nproc) processors, $THREADS threads; load average $(cut -d' ' -f1-3 /proc/loadavg)"
sql -v data="$BICYCLE_TESTDATA" -v rows="$ROWS" -v model="$MODEL" <<'SQL'
CREATE EXTENSION bicycle;
SELECT bicycle_create('small', :'model') AS version \gset
CREATE TABLE outlines AS SELECT n AS id, pg_read_binary_file(format('%s/edges2emoji/pairs/%s_A.png',
	:'data', to_char(n, 'FM00'))) AS image FROM generate_series(0, 31) n;
CREATE TABLE single (id int PRIMARY KEY, image bytea, variant bytea, problem text);
INSERT INTO single SELECT n, CASE WHEN n % 100 = 50 THEN 'no image' ELSE o.image END
	FROM generate_series(1, :rows) AS n JOIN outlines AS o ON o.id = n % 32;
CREATE TABLE disturbed (LIKE single INCLUDING ALL);
INSERT INTO disturbed SELECT * FROM single;
CREATE PROCEDURE plain(of text, first int, last int) LANGUAGE plpgsql AS $$
BEGIN
	FOR n IN 0 .. (last - first) / 256 LOOP
		EXECUTE format('UPDATE %I SET variant = bicycle_translate(image, bicycle_latent(8, id),
			model => ''small'') WHERE id BETWEEN %s AND %s AND variant IS NULL', of,
			first + 256 * n, least(last, first + 256 * n + 255));
		COMMIT;
	END LOOP;
END $$;
VACUUM ANALYZE;
SELECT count(bicycle_translate(image, bicycle_latent(8, 1), model => 'small')) AS warm
	FROM outlines \gset
CHECKPOINT;
SQL
EXPRESSION="bicycle_translate(image, bicycle_latent(8, id), model => ''small'')"
fill() { echo "CALL bicycle_fill('$1', 'variant', '$EXPRESSION', error_column => 'problem')"; }

# Rows of their own for each round, good ones only, so that both do the same.
sql -c "CREATE TABLE good ()"
good() { sql -c "DROP TABLE good" -c "CREATE TABLE good AS SELECT row_number()
	OVER (ORDER BY id)::int AS id, image, variant, problem FROM single
	WHERE image <> 'no image' AND id <= $PART" -c "ALTER TABLE good ADD PRIMARY KEY (id)" \
	-c "VACUUM ANALYZE good" -c CHECKPOINT; }
n=$((PART - PART / 100))
for round in $(seq "$ROUNDS"); do
	good; began=$(seconds); sql -c "CALL plain('good', 1, $n)"; ended=$(seconds)
	plain=$(rate $n "$began" "$ended")
	good; began=$(seconds); sql -c "$(fill good)" 2>/dev/null; ended=$(seconds)
	echo "round $round, $n good rows: plain $plain rows a second, bicycle_fill" \
		"$(rate $n "$began" "$ended")"
done

# What an interactive session waits for one image, alone and beside either.
echo "SELECT length(bicycle_translate(image, bicycle_latent(8, 1), model => 'small')) FROM outlines
	WHERE id = 7;" >"$WORK/one.sql"
measure()
{
	(cd "$WORK" && "${AS[@]}" env PGHOST="$PGHOST" PGUSER="$PGUSER" PGDATABASE="$PGDATABASE" \
		"$BIN/pgbench" -n -c 1 -t "$CALLS" -f "$WORK/one.sql" -l --log-prefix="$WORK/times" \
		>/dev/null 2>"$WORK/pgbench.err") || { cat "$WORK/pgbench.err" >&2; die "pgbench failed"; }
	awk '{ print $3 }' "$WORK"/times.* | sort -n | awk -v what="$1" '{ t[NR] = $1 }
		END { printf "an image beside %s: p50 %.2f ms, p99 %.2f ms\n", what,
			t[int((NR + 1) / 2)] / 1000, t[int(NR * 0.99 + 0.999)] / 1000 }'
	rm -f "$WORK"/times.*
}
beside()						# beside WHAT STATEMENT
{
	good
	sql -c "$2" 2>/dev/null &
	sleep 1
	measure "$1"
	sql -c "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE query LIKE 'CALL %'" \
		>/dev/null
	wait $! || true
}
measure nothing
beside "plain UPDATEs" "CALL plain('good', 1, $n)"
beside bicycle_fill "$(fill good)"

# One pass, and one that is disturbed.
began=$(seconds); sql -c "$(fill single)" 2>&1 | tail -4; ended=$(seconds)
echo "a single pass, 1 % bad: $(rate "$ROWS" "$began" "$ended") rows a second"
began=$(seconds)
sql -c "$(fill disturbed)" 2>/dev/null &
first=$!
sql -c "$(fill disturbed)" 2>/dev/null &
second=$!
comes_to() { sql -c "DO \$\$ BEGIN WHILE (SELECT coalesce(sum(done), 0) < $1 FROM bicycle_fills)
	LOOP PERFORM pg_sleep(0.05); END LOOP; END \$\$"; }
comes_to $((ROWS / 5))
engine=$(sql -c "SELECT pid FROM bicycle_engine()")
kill -9 "$engine"
comes_to $((ROWS / 2))
sql -c "SELECT pg_cancel_backend(max(pid)) FROM bicycle_fills" >/dev/null
wait $first || true
wait $second || true
sql -c "$(fill disturbed)" 2>&1 | tail -3
ended=$(seconds)
echo "two sessions, an engine killed, one of them cancelled and called again:" \
	"$(rate "$ROWS" "$began" "$ended") rows a second"
sql -c "SELECT count(*) || ' rows, ' || count(*) FILTER (WHERE (d.variant, d.problem) IS DISTINCT
	FROM (s.variant, s.problem)) || ' differ; engines: ' || (SELECT restarts + 1
	FROM bicycle_engine()) FROM single AS s JOIN disturbed AS d USING (id)"
echo "load average $(cut -d' ' -f1-3 /proc/loadavg)"
