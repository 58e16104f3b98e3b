#!/bin/bash
# Speed of the engine alone and through SQL, next to PyTorch if it is installed, on the generator of the official defaults (unet_256, 54.8 M parameters).
#
# All use the same number of threads (THREADS, default 2), one after the other, so that ratios are of one machine and one hour.  PyTorch is that of
# BICYCLE_TORCH_PYTHON, default python3.  Nothing else should run meanwhile.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

THREADS=${THREADS:-2}
PYTHON=${BICYCLE_TORCH_PYTHON:-python3}
IMAGES=${IMAGES:-96}			# a figure through SQL

"$ROOT/test/install-deps.sh"
private_begin
private_tree tree release
build benches

say "the networks alone, $THREADS threads"
"$ROOT/${BUILD:-build}/release/bench/engine_bench" "$THREADS" | tee "$WORK/engine.txt"

if "$PYTHON" -c 'import torch' 2>/dev/null; then
	say "PyTorch $("$PYTHON" -c 'import torch; print(torch.__version__)'), eager, $THREADS threads"
	"$PYTHON" "$ROOT/bench/torch_peer.py" "$THREADS" 1 4 16 | tee "$WORK/torch.txt"
	say "PyTorch's time divided by ours (above 1: ours is faster)"
	sed 's/batch *\([0-9]*\):/batch \1/' "$WORK/engine.txt" | awk 'NR == FNR { torch[$1 " " $2 " " $4] = $5; next } ($1 " " $2 " " $4) in torch {
		printf "%s %s batch %2d: %7.2f ms against %7.2f ms an image, ratio %.2f\n", $1, $2, $4, $6, torch[$1 " " $2 " " $4], torch[$1 " " $2 " " $4] / $6 }' "$WORK/torch.txt" -
else
	say "no PyTorch for $PYTHON; set BICYCLE_TORCH_PYTHON to compare with it"
fi

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
timed "SELECT bicycle_translate(...) a row" "SELECT count(bicycle_translate(image, bicycle_latent(8, id), model => 'unet_256')) FROM pictures"
timed "bicycle_translate_many, all at once" "SELECT cardinality(bicycle_translate_many(array_agg(image ORDER BY id), array_agg(bicycle_latent(8, id) ORDER BY id), model => 'unet_256')) FROM pictures"
sql -c "SELECT 'mean batch ' || round(mean_batch::numeric, 1) FROM bicycle_engine()"
