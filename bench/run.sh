#!/bin/bash
# Speed of the networks alone, next to PyTorch if it is installed; of training, next to the official code on PyTorch; and of the generator of the official
# defaults (unet_256, 54.8 M parameters) through SQL.
#
# All use the same number of threads (THREADS, default 2), one after the other, so that ratios are of one machine and one hour.  PyTorch is that of
# BICYCLE_TORCH_PYTHON, default python3; BICYCLE_OFFICIAL is a directory with the official code (github.com/junyanz/BicycleGAN).  Nothing else should run
# meanwhile.  PARTS chooses: inference, training, sql.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

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
			$1 in torch { printf "%s bicycle %7.2f, PyTorch %7.2f: %4.2f times as fast\n", $1, $2, torch[$1], torch[$1] / $2 }' "$WORK/torch.txt" "$WORK/engine.txt"
	else
		say "no PyTorch for $PYTHON; set BICYCLE_TORCH_PYTHON to compare with it"
	fi
}

bench_training()						# iterations of training
{
	# As the trainer runs the engine: threads that wait sleep
	say "training, $THREADS threads"
	OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=5000 "$BENCH/train_bench" "$THREADS" "$RUNS" $NETWORK | tee "$WORK/train.txt"
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
		awk -F 'median| s,|peak|MiB' '!/median/ { next } NR == FNR { official[$1] = $2; peak[$1] = $4; next }
			$1 in official { printf "%s bicycle %6.3f, official %6.3f: %4.2f times as fast; %d and %d MiB, %4.2f times\n", $1, $2, official[$1],
				official[$1] / $2, $4, peak[$1], $4 / peak[$1] }' "$WORK/official.txt" "$WORK/train.txt"
	fi
}

if wanted inference; then
	bench_inference
fi
if wanted training; then
	bench_training
fi
wanted sql || exit 0

say "through SQL: PNG in, PNG out"
private_cluster bench "shared_preload_libraries = 'bicycle'" "bicycle.threads = $THREADS"
sql() { "$BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
sql -v data="$BICYCLE_TESTDATA" -v images="$IMAGES" <<'SQL'
CREATE EXTENSION bicycle;
SELECT bicycle_create('unet_256', '{"precision": "fp32"}') AS version \gset
CREATE TABLE pictures AS
	SELECT n AS id, pg_read_binary_file(format('%s/edges2emoji/pairs/%s_B.png', :'data', to_char(n % 32, 'FM00'))) AS image FROM generate_series(0, :images - 1) n;
SELECT count(bicycle_translate(image, bicycle_latent(8, 1), model => 'unet_256')) AS warm FROM pictures WHERE id < 16 \gset
SQL
timed()							# timed NAME QUERY: ms an image of a query over all pictures
{
	local began ended

	began=$(date +%s%N)
	sql -c "$2" >/dev/null
	ended=$(date +%s%N)
	awk -v name="$1" -v ms="$(((ended - began) / 1000000))" -v n="$IMAGES" 'BEGIN { printf "%-46s %8.1f ms/image %8.1f images/s\n", name, ms / n, n * 1000 / ms }'
}
# OFFSET 0 keeps the call out of the aggregate, where it would be computed one row at a time.
timed "SELECT bicycle_translate(...) FROM a table" \
	"SELECT count(made) FROM (SELECT bicycle_translate(image, bicycle_latent(8, id), model => 'unet_256') AS made FROM pictures OFFSET 0) AS rows"
timed "the same one row at a time" "SELECT count(bicycle_translate(image, bicycle_latent(8, id), model => 'unet_256')) FROM pictures"
timed "bicycle_translate_many, all at once" "SELECT cardinality(bicycle_translate_many(array_agg(image ORDER BY id), array_agg(bicycle_latent(8, id) ORDER BY id), model => 'unet_256')) FROM pictures"
sql -c "SELECT 'mean batch ' || round(mean_batch::numeric, 1) FROM bicycle_engine()"
