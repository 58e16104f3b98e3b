#!/bin/bash
# Speed of the networks alone, next to PyTorch if it is installed; of training, next to the official
# code on PyTorch; and of the generator of the official defaults (unet_256, 54.8 M parameters)
# through SQL.
#
# All use the same number of threads (THREADS, default 2), one after the other, so that ratios are
# of one machine and one hour. PyTorch is that of BICYCLE_TORCH_PYTHON, default python3;
# BICYCLE_OFFICIAL is a directory with the official code (github.com/junyanz/BicycleGAN). Nothing
# else should run meanwhile. PARTS chooses: inference, training, sql. DEVICE is the one of sql
# (bicycle.device; default auto), SESSIONS how many sessions ask at once, such as "1 4 16" (default
# 1).
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

if [[ ${DEVICE:-} == cuda* ]]; then	# a GPU takes more of all
	THREADS=${THREADS:-$(nproc)}
	IMAGES=${IMAGES:-1024}
	SESSIONS=${SESSIONS:-1 4 16}
fi
THREADS=${THREADS:-2}
PYTHON=${BICYCLE_TORCH_PYTHON:-python3}
RUNS=${RUNS:-7}					# of which the median counts
NETWORK=${NETWORK:-}			# G256, G128, E256, T256, T128 or T64-...; empty: all
IMAGES=${IMAGES:-96}			# a figure through SQL
PARTS=${PARTS:-inference training sql}
wanted() { [[ " $PARTS " == *" $1 "* ]]; }
has_torch() { "$PYTHON" -c 'import torch' 2>/dev/null; }

"$ROOT/test/install-deps.sh"
private_begin
private_tree tree release
build benches

BENCH=$ROOT/${BUILD:-build}/release/bench

bench_inference()						# the networks alone
{
	say "the networks alone, $THREADS threads"
	"$BENCH/engine_bench" "$THREADS" "$RUNS" $NETWORK | tee "$WORK/engine.txt"

	if has_torch; then
		say "the same in PyTorch, eager"
		"$PYTHON" "$ROOT/bench/torch_peer.py" "$THREADS" "$RUNS" $NETWORK | tee "$WORK/torch.txt"
		say "medians side by side, ms an image"
		# Both print lines as "G256 fp32 batch  1: median  128.30 ms, ..."
		awk -F 'median|ms,' '!/median/ { next } NR == FNR { torch[$1] = $2; next }
			$1 in torch { printf "%s bicycle %7.2f, PyTorch %7.2f: %4.2f times as fast\n", $1, $2,
				torch[$1], torch[$1] / $2 }' "$WORK/torch.txt" "$WORK/engine.txt"
	else
		say "no PyTorch for $PYTHON; set BICYCLE_TORCH_PYTHON to compare with it"
	fi
}

bench_training()						# iterations of training
{
	# As the job worker runs the engine: threads that wait sleep
	say "training, $THREADS threads"
	OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=5000 "$BENCH/train_bench" "$THREADS" "$RUNS" $NETWORK \
		| tee "$WORK/train.txt"
	if ! has_torch; then
		say "no PyTorch for $PYTHON; set BICYCLE_TORCH_PYTHON to compare with it"
	elif [ ! -f "${BICYCLE_OFFICIAL:-}/models/bicycle_gan_model.py" ]; then
		say "no official code; set BICYCLE_OFFICIAL to its directory to compare with it"
	else
		say "the same by the official code on PyTorch"
		for size in 256 128; do
			"$PYTHON" "$ROOT/bench/train_peer.py" "$size" "$THREADS" "$RUNS"
		done | tee "$WORK/official.txt"
		say "medians side by side, s an iteration, and peaks"
		# Both print lines as "T256 fp32: median   2.815 s, ..., peak  1194 MiB"
		awk -F 'median| s,|peak|MiB' '!/median/ { next } NR == FNR { official[$1] = $2;
			peak[$1] = $4; next }
			$1 in official { printf "%s bicycle %6.3f, official %6.3f: %4.2f times as fast; " \
				"%d and %d MiB, %4.2f times\n", $1, $2, official[$1],
				official[$1] / $2, $4, peak[$1], $4 / peak[$1] }' "$WORK/official.txt" \
					"$WORK/train.txt"
	fi
}

if wanted inference; then
	bench_inference
fi
if wanted training; then
	bench_training
fi
wanted sql || exit 0

# A picture's way through the engine, in milliseconds of one of its threads; how many a second all
# can code at most, next to nothing else.
codecs()						# codecs NAME FILE
{
	"$BENCH/codec_bench" "$2" 200 \
		| awk -v name="$1" \
		-v threads="$THREADS" '{
			printf "%-40s PNG in %6.3f ms, PNG out %6.3f, JPEG out %6.3f; " \
			"%d threads code at most %6.0f images/s in PNG\n",
		name, $1, $2, $3, threads, threads * 1000 / ($1 + $2) }'
}
sql() { "$BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
# timed NAME SESSIONS QUERY: images a second of a query over the pictures whose id % :sessions is
# :session, by so many sessions at once
timed()
{
	local name=$1 sessions=$2 query=$3 session before after began ended pids=()

	before=$(sql -c "SELECT requests, batches FROM bicycle_engine()")
	began=$(date +%s%N)
	for ((session = 0; session < sessions; session++)); do
		sql -v sessions="$sessions" -v session="$session" >/dev/null <<<"$query" &
		pids+=($!)
	done
	wait "${pids[@]}"
	ended=$(date +%s%N)
	after=$(sql -c "SELECT requests, batches FROM bicycle_engine()")
	awk -F '|' -v name="$name" -v ms="$(((ended - began) / 1000000))" \
		-v n="$IMAGES" 'NR == 1 { r = $1; b = $2 } NR == 2 {
		printf "%-62s %8.2f ms/image %8.1f images/s, mean batch %5.1f\n", name, ms / n,
			n * 1000 / ms, ($1 - r) / ($2 > b ? $2 - b : 1) }' <<<"$before
$after"
}

say "through SQL on ${DEVICE:-auto}, $THREADS threads, $IMAGES pictures a figure"
settings=("bicycle.threads = $THREADS" "bicycle.device = '${DEVICE:-auto}'")
precision=fp32
if [[ ${DEVICE:-} == cuda* ]]; then
	# as operations.md advises for a GPU
	settings+=("bicycle.max_batch = 64" "bicycle.cache_size = '16GB'" \
		"bicycle.queue_memory = '1GB'")
	precision=auto
fi
private_cluster bench "shared_preload_libraries = 'bicycle'" "max_connections = 100" \
	"${settings[@]}"
sql -v data="$BICYCLE_TESTDATA" -v images="$IMAGES" \
	-v config="{\"precision\": \"$precision\"}" <<'SQL'
CREATE EXTENSION bicycle;
SELECT bicycle_create('unet_256', :'config') AS version \gset
CREATE TABLE pictures AS
	SELECT n AS id, pg_read_binary_file(format('%s/edges2emoji/pairs/%s_B.png', :'data',
		to_char(n % 32, 'FM00'))) AS image FROM generate_series(0, :images - 1) n;
VACUUM ANALYZE pictures;
SELECT count(made) AS warm FROM (SELECT bicycle_translate(image, bicycle_latent(8, 1),
	model => 'unet_256') AS made FROM pictures, generate_series(1, 2)
	WHERE id < 32 OFFSET 0) AS rows \gset
SELECT 'device ' || device || ', precision ' || "precision" FROM bicycle_engine();
SQL
# OFFSET 0 keeps the subquery, and with it a list of columns, in which calls are batched.
rows="SELECT count(made) FROM (SELECT bicycle_translate(image, bicycle_latent(8, id),
	model => 'unet_256') AS made FROM pictures
	WHERE id % :sessions = :session OFFSET 0) AS rows"
many="SELECT cardinality(bicycle_translate_many(array_agg(image ORDER BY id),
	array_agg(bicycle_latent(8, id) ORDER BY id), model => 'unet_256')) FROM pictures
	WHERE id % :sessions = :session"
taken="SELECT count(bicycle_translate(image, bicycle_latent(8, id), model => 'unet_256'))
	FROM pictures WHERE id % :sessions = :session"
# In a condition it is seen row by row whether the call is needed.
single="SELECT count(*) FROM pictures WHERE id % :sessions = :session
	AND bicycle_translate(image, bicycle_latent(8, id), model => 'unet_256') IS NOT NULL"
for format in png jpeg; do
	export PGOPTIONS="-c bicycle.output_format=$format"
	for sessions in ${SESSIONS:-1}; do
		by=", PNG to ${format^^}$([ "$sessions" = 1 ] || echo ", $sessions sessions")"
		timed "SELECT bicycle_translate(...) FROM a table$by" "$sessions" "$rows"
		timed "the same as an aggregate takes it$by" "$sessions" "$taken"
		timed "the same one row at a time$by" "$sessions" "$single"
		timed "bicycle_translate_many, all at once$by" "$sessions" "$many"
	done
done
unset PGOPTIONS
# What limits it: the codecs, on the pictures that come and on one that goes; and the device, whose
# own times bench_inference and the GPU's bench have.
sql -c "COPY (SELECT bicycle_translate(image, bicycle_latent(8, 1), model => 'unet_256')
	FROM pictures WHERE id = 0) TO STDOUT (FORMAT binary)" |
	# the header of the format, of its one row, and its end
	tail -c +26 | head -c -2 >"$WORK/made.png"
codecs "a picture that comes in" "$BICYCLE_TESTDATA/edges2emoji/pairs/00_B.png"
codecs "a picture that was made (random weights)" "$WORK/made.png"
