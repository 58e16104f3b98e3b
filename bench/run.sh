#!/bin/bash
# Speed and memory, next to the peers: builds, brings the peers and starts a server, and has
# bench/bench.py compare, one line a figure and at last the tables (bench/tables.py).
#
# usage: bench/run.sh [PART...], parts as in bench.py: inference training sql lpips beside; or
# PARTS="sql ..."
#
# On a processor it is compared with PyTorch, ONNX Runtime, OpenVINO, a client of psycopg and
# Pillow, and lpips, of the versions in bench/requirements.txt, which are installed under
# build/bench, and with the official code, which is cloned there. BICYCLE_PYTHON is a Python that
# has them already, BICYCLE_OFFICIAL a directory with that code. What cannot be had is left out,
# with a line.
#
# RESULTS is the file of facts (default build/bench/cpu.jsonl). Called again it goes on from there,
# and what has been measured is not measured again. MINUTES (default 90) is the budget, without the
# build. THREADS (default: all processors), ROUNDS (5), ROWS (96, through SQL), MOST_ROWS (10000),
# SESSIONS ("1 8 32"), FILL_ROWS (4000), NETWORKS (all). TINY=1 is to try all of it in a few
# minutes; tables refuse its results. DEVICE is the one of sql (bicycle.device; default cpu).
# Nothing else should run.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

DEVICE=${DEVICE:-cpu}
THREADS=${THREADS:-$(nproc)}
PARTS=${*:-${PARTS:-inference training sql lpips beside}}
OFFICIAL_COMMIT=40b9d52c27b9831f56c1c7c7a6ddde8bc9149067
PLACE=$ROOT/${BUILD:-build}/bench
wanted() { [[ " $PARTS " == *" $1 "* ]]; }
mkdir -p "$PLACE"

"$ROOT/test/install-deps.sh"
private_begin
private_tree tree release
build benches
BENCH=$ROOT/${BUILD:-build}/release/bench
export BIN

# PyTorch of its own index is without the libraries of CUDA, which are gigabytes.
bring_peers()
{
	local venv=$PLACE/venv wanted=$ROOT/bench/requirements.txt package all=yes
	local pip=("$venv/bin/python" -m pip install -q --disable-pip-version-check --retries 1)

	PYTHON=$venv/bin/python
	! cmp -s "$wanted" "$venv/installed" || return 0
	say "the peers, into $venv"
	if ! python3 -m venv "$venv"; then
		echo "skipped: the peers: python3 makes no environment (python3-venv)"
		PYTHON=python3
		return
	fi
	for package in $(grep -v '^#' "$wanted"); do
		[[ $package != torch==* ]] || "${pip[@]}" --timeout 10 --index-url \
			https://download.pytorch.org/whl/cpu "$package" 2>/dev/null || true
		"${pip[@]}" "$package" || { echo "skipped: $package cannot be installed"; all=; }
	done
	[ -z "$all" ] || cp "$wanted" "$venv/installed"
}

bring_official()
{
	export BICYCLE_OFFICIAL=$PLACE/official
	[ ! -f "$BICYCLE_OFFICIAL/models/bicycle_gan_model.py" ] || return 0
	rm -rf "$BICYCLE_OFFICIAL"
	if ! timeout 300 git clone -q https://github.com/junyanz/BicycleGAN "$BICYCLE_OFFICIAL" ||
		! git -C "$BICYCLE_OFFICIAL" checkout -q $OFFICIAL_COMMIT; then
		echo "skipped: the official code cannot be cloned"
	fi
}

PYTHON=${BICYCLE_PYTHON:-python3}
if [[ $DEVICE == cuda* ]]; then	# test/cuda/run.sh compares the rest, and has results of its own
	PARTS=sql
	RESULTS=$WORK/sql.jsonl
else
	RESULTS=${RESULTS:-$PLACE/cpu.jsonl}
	[ -n "${BICYCLE_PYTHON:-}" ] || bring_peers
	if wanted training && [ -z "${BICYCLE_OFFICIAL:-}" ]; then
		bring_official
	fi
fi
[[ $RESULTS == /* ]] || RESULTS=$OLDPWD/$RESULTS

if wanted lpips && python3 "$ROOT/tools/lpips_weights.py" "$ROOT/build/lpips"; then
	export BICYCLE_LPIPS=$ROOT/build/lpips
fi
if wanted sql || wanted lpips || wanted beside; then
	settings=("bicycle.threads = $THREADS" "bicycle.device = '$DEVICE'")
	[[ $DEVICE != cuda* ]] || settings+=("bicycle.max_batch = 64" "bicycle.cache_size = '16GB'" \
		"bicycle.queue_memory = '1GB'")	# as operations.md advises for a GPU
	private_cluster measured "shared_preload_libraries = 'bicycle'" "max_connections = 100" \
		"max_wal_size = 4GB" "${settings[@]}"
	export PGDATA=$WORK/measured
fi

measure=("$PYTHON" "$ROOT/bench/bench.py" --bin "$BENCH" --results "$RESULTS" --threads "$THREADS"
	--device "$DEVICE" --minutes "${MINUTES:-90}" --rounds "${ROUNDS:-5}")
if [ -n "${TINY:-}" ]; then
	measure+=(--tiny --seconds 0.05 --iterations 1)
	ROWS=${ROWS:-8} MOST_ROWS=${MOST_ROWS:-100} SESSIONS=${SESSIONS:-1 2} FILL_ROWS=${FILL_ROWS:-64}
	NETWORKS=${NETWORKS:-G64,E64}
fi
if [[ $DEVICE == cuda* ]]; then
	ROWS=${ROWS:-1024} SESSIONS=${SESSIONS:-1 4 16} MOST_ROWS=0
fi
[ -z "${ROWS:-}" ] || measure+=(--rows "$ROWS")
[ -z "${MOST_ROWS:-}" ] || measure+=(--most-rows "$MOST_ROWS")
[ -z "${FILL_ROWS:-}" ] || measure+=(--fill-rows "$FILL_ROWS")
[ -z "${SESSIONS:-}" ] || measure+=(--sessions "$SESSIONS")
[ -z "${NETWORKS:-}" ] || measure+=(--networks "$NETWORKS")
"${measure[@]}" $PARTS
[[ $DEVICE == cuda* ]] || "$PYTHON" "$ROOT/bench/tables.py" --print "$RESULTS"
