#!/bin/bash
# How long single translations take in one session, without and with a training job beside them:
# median and 99th percentile, and the ratios of the two.
#
# Two models, a small one (64 x 64) and the official defaults (unet_256, 54.8 M parameters); the job
# trains networks of the official size at 256 x 256. Inference and job have THREADS threads each
# (default 2). The two cases alternate ROUNDS times, so that a drift of the machine falls on both.
# Nothing else should run meanwhile; the load average before and after is printed.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

THREADS=${THREADS:-2}
ROUNDS=${ROUNDS:-3}
SMALL=${SMALL:-400}				# translations in a round
FULL=${FULL:-60}
JOB=${JOB:-'{"size": 256, "iterations": 1000000}'}

"$ROOT/test/install-deps.sh"
private_begin
private_tree tree release
private_cluster latency "shared_preload_libraries = 'bicycle'" "bicycle.threads = $THREADS"
sql() { "$BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }

sql -v data="$BICYCLE_TESTDATA" <<'SQL'
CREATE EXTENSION bicycle;
SELECT bicycle_create('small', '{"size": 64, "ngf": 32, "nef": 32}') AS version \gset
SELECT bicycle_create('full', '{"precision": "fp32"}') AS version \gset
CREATE TABLE pictures AS
	SELECT n AS id, pg_read_binary_file(format('%s/edges2emoji/pairs/%s_A.png', :'data', to_char(n,
		'FM00'))) AS a,
		pg_read_binary_file(format('%s/edges2emoji/pairs/%s_B.png', :'data', to_char(n, 'FM00')))
			AS b FROM generate_series(0, 31) n;
ALTER TABLE pictures ADD PRIMARY KEY (id);
VACUUM ANALYZE pictures;
SELECT count(bicycle_translate(a, bicycle_latent(8, 1), model => m)) AS warm FROM pictures,
	unnest('{small,full}'::text[]) AS m \gset
SQL
for model in small full; do
	echo "\\set id random(0, 31)
SELECT length(bicycle_translate(a, bicycle_latent(8, :id), model => '$model')) FROM pictures
	WHERE id = :id;"  >"$WORK/$model.sql"
done

# measure MODEL CASE TRANSLATIONS: adds the time of each, in microseconds, to $WORK/MODEL.CASE
measure()
{
	(cd "$WORK" && "${AS[@]}" env PGHOST="$PGHOST" PGUSER="$PGUSER" PGDATABASE="$PGDATABASE" \
		"$BIN/pgbench" -n -c 1 -t "$3" -f "$WORK/$1.sql" -l --log-prefix="$WORK/times" >/dev/null \
			2>"$WORK/pgbench.err") || { cat "$WORK/pgbench.err" >&2; die "pgbench failed"; }
	awk '{ print $3 }' "$WORK"/times.* >>"$WORK/$1.$2"
	rm -f "$WORK"/times.*
}

say "$(nproc) processors, $THREADS threads; load average $(cut -d' ' -f1-3 /proc/loadavg)"
job=$(sql -c "SELECT bicycle_train('painting', 'SELECT a, b FROM pictures', '$JOB')")
sql -c "SELECT bicycle_pause($job)" \
	-c "DO \$\$BEGIN FOR i IN 1 .. 600 LOOP EXIT WHEN (SELECT state = 'paused' FROM bicycle_jobs);
		PERFORM pg_sleep(0.1); END LOOP; END\$\$"
iterations=0
for _ in $(seq "$ROUNDS"); do
	measure small without "$SMALL"
	measure full without "$FULL"
	sql -c "SELECT bicycle_resume($job)"
	# The first losses tell that it computes.
	sql -c "DO \$\$BEGIN FOR i IN 1 .. 3000 LOOP
		EXIT WHEN (SELECT state = 'running' AND images_per_second > 0 FROM bicycle_jobs);
			PERFORM pg_sleep(0.1); COMMIT; END LOOP; END\$\$"
	before=$(sql -c "SELECT iteration FROM bicycle_jobs")
	measure small with "$SMALL"
	measure full with "$FULL"
	sql -c "SELECT bicycle_pause($job)" \
		-c "DO \$\$BEGIN FOR i IN 1 .. 3000 LOOP
			EXIT WHEN (SELECT state = 'paused' FROM bicycle_jobs);
			PERFORM pg_sleep(0.1); COMMIT; END LOOP; END\$\$"
	iterations=$((iterations + $(sql -c "SELECT iteration FROM bicycle_jobs") - before))
done
for model in small full; do
	for case in without with; do
		sort -n "$WORK/$model.$case" | awk -v case="$case" '{ t[NR] = $1 }
			END { printf "%s %d %.2f %.2f\n", case, NR, t[int((NR + 1) / 2)] / 1000,
				t[int(NR * 0.99 + 0.999)] / 1000 }'
	done | awk -v model="$model" '{ n = $2; p50[$1] = $3; p99[$1] = $4 }
		END { printf "%-6s %4d translations each: p50 %8.2f ms without, %8.2f ms with a job:" \
			" %4.2f times; p99 %8.2f and %8.2f ms: %4.2f times\n", model, n,
			p50["without"], p50["with"], p50["with"] / p50["without"], p99["without"],
				p99["with"], p99["with"] / p99["without"] }'
done
echo "the job made $iterations iterations meanwhile; load average $(cut -d' ' -f1-3 /proc/loadavg)"
