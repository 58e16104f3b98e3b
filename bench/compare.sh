#!/bin/bash
# The six systems of the paper, and variants of the first, trained with one budget on outlines of
# emoji and measured on held-out ones: doc/comparison.md.
#
# usage: bench/compare.sh [DIRECTORY], default build/compare. DIRECTORY gets NAME.row and NAME.png
# of each run (bench/compare.sql), then the table is printed from what is there. A run that is there
# already is not made again, so that an interrupted comparison goes on with the run it was in.
# ITERATIONS (default 5000) is the budget, SEED (default 1) that of the training. RUNS="NAME ..."
# chooses runs, THREADS (default 2) is for each, so that several comparisons can share a machine.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

export RESULTS=${1:-$ROOT/build/compare}
[[ $RESULTS == /* ]] || RESULTS=$PWD/$RESULTS
mkdir -p "$RESULTS"
ITERATIONS=${ITERATIONS:-5000}

# Of all runs; a run's own options come on top.
COMMON='"size": 64, "input_nc": 1, "ngf": 24, "nef": 16, "ndf": 16, "batch_size": 4, "lr": 0.0005,
	"ema": 0.99, "seed": '"${SEED:-1}"', "iterations": '$ITERATIONS
NAMES=()
declare -A OPTIONS
run() { NAMES+=("$1"); OPTIONS[$1]=$2; }
run bicycle '"method": "bicycle"'
run pix2pix_noise '"method": "pix2pix_noise"'
run cvae_gan '"method": "cvae_gan"'
run clr_gan '"method": "clr_gan"'
run cae_gan '"method": "cae_gan"'
run cvae_gan++ '"method": "cvae_gan++"'
run bicycle_conv '"net_e": "conv"'
run bicycle_input '"where_add": "input"'
run bicycle_nz2 '"nz": 2'
run bicycle_nz64 '"nz": 64'

missing=()
for name in ${RUNS:-"${NAMES[@]}"}; do
	[ -n "${OPTIONS[$name]:-}" ] || die "no run is called $name"
	[ -f "$RESULTS/$name.row" ] || missing+=("$name")
done

if [ ${#missing[@]} -gt 0 ]; then
	"$ROOT/test/install-deps.sh"
	private_begin
	export WORK
	private_tree tree release
	build tools
	private_cluster compare "shared_preload_libraries = 'bicycle'" "bicycle.threads = ${THREADS:-2}"
	export PATH=$ROOT/${BUILD:-build}/release/tools:$BIN:$PATH
	psql -XAtq -v ON_ERROR_STOP=1 -f "$ROOT/bench/compare_pairs.sql"
	for name in "${missing[@]}"; do
		began=$SECONDS
		psql -XAtq -v ON_ERROR_STOP=1 -v run="$name" -v options="{$COMMON, ${OPTIONS[$name]}}" \
			-f "$ROOT/bench/compare.sql"
		mv "$WORK/sheet.png" "$RESULTS/$name.png"
		mv "$WORK/row" "$RESULTS/$name.row"
		say "$name: $((SECONDS - began)) s"
	done
fi

say "from $RESULTS"
echo "| run | iterations | diversity | in colour | samples coincide, % |" \
	"reconstruction | latent | read back | best of 8 |"
echo "|---|---|---|---|---|---|---|---|---|"
for name in "${NAMES[@]}"; do
	[ ! -f "$RESULTS/$name.row" ] || sed 's/|/ | /g; s/^/| /; s/$/ |/' "$RESULTS/$name.row"
done
