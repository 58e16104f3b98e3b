#!/bin/bash
# Everything that needs a GPU, in one go: builds, tests, measures and prints it all.  Usage: test/cuda/run.sh [PART...]; without arguments all parts:
#
#	test        operators, goldens, models and cuDNN's plans on the GPU
#	sql         the regression tests on the GPU, where there is a PostgreSQL with headers and what else the engine needs
#	sanitize    the operators under compute-sanitizer's memcheck and racecheck, where it is installed
#	bench       times of the networks, and of each step; device.json, the card's description for test/data/cudnn
#	peers       the generator next to PyTorch, where that is installed: eager, compiled, and with max-autotune, which takes minutes
#
# Needs nvcc, an NVIDIA GPU, cuDNN with headers (those of PyTorch's own wheels will do), gcc and jansson; neither PostgreSQL, nor oneDNN, nor a network.
# What is missing can be brought as Debian packages in the directory DEPS:  mkdir deps && (cd deps && apt-get download libjansson-dev libjansson4).
# OUT=DIRECTORY keeps the card's description and all logs, in one archive, there.  PYTHON is the one that has PyTorch.  Goes on after a failure; the last lines say what failed.
set -u -o pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
KEEP=${OUT:-$PWD/build/gpu-results}
OUT=$(mktemp -d "${TMPDIR:-/tmp}/bicycle-gpu.XXXXXX")
BUILD=build/gpu
RUNS=${RUNS:-51}
parts=" ${*:-test sql sanitize bench peers} "
failed=()
mkdir -p "$KEEP"

wanted() { [[ $parts == *" $1 "* ]]; }
say() { printf '\n==> %s (%d s so far)\n' "$1" $SECONDS; }
attempt()						# attempt NAME SECONDS COMMAND...: its output goes to $OUT/NAME.log too
{
	local name=$1 limit=$2

	shift 2
	say "$name"
	timeout "$limit" "$@" 2>&1 | tee "$OUT/$name.log" || failed+=("$name")
}
tap()							# tap NAME SECONDS COMMAND...: a TAP program, of which only failures and notes are printed
{
	local name=$1 limit=$2

	shift 2
	say "$name"
	timeout "$limit" "$@" >"$OUT/$name.log" 2>&1 || failed+=("$name")
	grep -v '^ok' "$OUT/$name.log"
	echo "$(grep -c '^ok' "$OUT/$name.log") passed, $(grep -c '^not ok' "$OUT/$name.log") failed"
}

say "the machine"
nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv || { echo "no NVIDIA GPU or driver here" >&2; exit 1; }
NVCC=${NVCC:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)}
[ -n "$NVCC" ] || { echo "no nvcc here" >&2; exit 1; }
"$NVCC" --version | tail -1
arch=${CUDA_ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader | head -1 | tr -d .)}

# cuDNN beside the toolkit, or in Python's packages, whose library has no name without its version for the linker, which dlopen does not need.
cudnn=$("$PYTHON" -c 'import nvidia.cudnn, os; print(list(nvidia.cudnn.__path__)[0])' 2>/dev/null)
cuda_home=$(dirname "$(dirname "$(readlink -f "$NVCC")")")
# other compilers than the ones this is developed with may warn of more
flags=(NVCC="$NVCC" CUDA_ARCH="$arch" BUILD="$BUILD" WARNINGS=-Wall NVCC_WARNINGS=)
if [ ! -f "$cuda_home/include/cudnn.h" ] && [ -n "$cudnn" ] && [ -f "$cudnn/include/cudnn.h" ]; then
	flags+=(CUDNN_INCLUDE="$cudnn/include" CUDNN_LIB="$cudnn/lib")
	# the wheel's cuDNN finds cuBLAS and NVRTC beside itself, in the other wheels
	LD_LIBRARY_PATH="$(ls -d "$cudnn"/lib "$(dirname "$cudnn")"/*/lib 2>/dev/null | paste -sd:):${LD_LIBRARY_PATH:-}"
	export LD_LIBRARY_PATH
fi
if [ -n "${DEPS:-}" ]; then
	mkdir -p "$DEPS/root"
	for package in "$DEPS"/*.deb; do
		dpkg -x "$package" "$DEPS/root"
	done
	root=$(cd "$DEPS/root" && pwd)
	export CPATH="$root/usr/include:${CPATH:-}" LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:${LIBRARY_PATH:-}"
	export LD_LIBRARY_PATH="$root/usr/lib/x86_64-linux-gnu:${LD_LIBRARY_PATH:-}"
fi
printf '#include <dnnl.h>\n' | gcc -fsyntax-only -x c - 2>/dev/null || flags+=(WITHOUT_CPU=1)

say "building for sm_$arch"
make -s -j"$(nproc)" "${flags[@]}" gpu devices 2>&1 | tee "$OUT/build.log" || { echo "FAILED: the build"; exit 1; }
bin=$BUILD/release/gpu
export BICYCLE_TESTDATA=$PWD/test/data BICYCLE_TEST_DEVICE=${DEVICE:-cuda}

if wanted test; then
	tap operators 300 "$bin/test_cpu_ops"
	tap goldens 120 "$bin/test_nn_golden"
	tap models 300 "$bin/test_gpu_model"
	tap plans 300 "$bin/test_cuda_plans"
fi
if wanted sql; then
	if ls "$(${PG_CONFIG:-pg_config} --pgxs 2>/dev/null)" >/dev/null 2>&1; then
		attempt sql 550 env BICYCLE_DEVICE="$BICYCLE_TEST_DEVICE" CUDA_ARCH="$arch" test/run.sh regress
	else
		echo "no PostgreSQL with headers: no SQL tests"
	fi
fi
if wanted sanitize && command -v compute-sanitizer >/dev/null; then
	for tool in memcheck racecheck; do
		BICYCLE_TEST_SMALL=1 tap "$tool" 400 compute-sanitizer --tool "$tool" --error-exitcode 1 "$bin/test_cpu_ops"
	done
fi
if wanted bench; then
	attempt bench 300 "$bin/engine_bench" 1 "$RUNS" all "$BICYCLE_TEST_DEVICE"
	say "inside: plans and steps of G256, without copies"
	BICYCLE_CUDA_TRACE=1 timeout 300 "$bin/engine_bench" 1 5 G256 "$BICYCLE_TEST_DEVICE" >/dev/null 2>"$OUT/trace.log" || failed+=("trace")
	sed -n 's/^trace device //p' "$OUT/trace.log" >"$KEEP/device.json"
	grep 'trace plan' "$OUT/trace.log"
	awk '/trace plan of (1|64) images, bf16/ { on = 1; print } /trace plan/ && !/plan of (1|64) images, bf16/ { on = 0 } on && /trace step/' "$OUT/trace.log" | head -80
	BICYCLE_AUTOTUNE=8 attempt bench_autotuned 400 "$bin/engine_bench" 1 "$RUNS" G256 "$BICYCLE_TEST_DEVICE"
fi
if wanted peers && "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
	[ -f "$OUT/bench.log" ] || attempt bench 120 "$bin/engine_bench" 1 "$RUNS" G256 "$BICYCLE_TEST_DEVICE"
	attempt torch "${PEERS_SECONDS:-480}" "$PYTHON" bench/torch_gpu_peer.py "$RUNS" G256
	say "medians side by side, ms an image, bytes to bytes"
	awk 'NR == FNR { if ($1 == "G256" && $2 == "bf16" && /median/) { b = $4; sub(":", "", b); ours[b] = $6 } next }
		$1 == "G256" && $2 == "bf16" && /whole/ { b = $4; mode = $5; sub(":", "", mode); match($0, /whole +[0-9.]+/); w = substr($0, RSTART + 5, RLENGTH - 5)
			if (ours[b] > 0) printf "batch %2d: bicycle %8.4f, PyTorch %-8s %8.4f: %5.2f times as fast\n", b, ours[b], mode, w, w / ours[b] }' \
		"$OUT/bench.log" "$OUT/torch.log"
elif wanted peers; then
	echo "no PyTorch with CUDA for $PYTHON"
fi

tar -C "$OUT" -czf "$KEEP/bicycle-gpu-logs.tar.gz" . && rm -rf "$OUT"
say "end; logs are in $KEEP"
if [ ${#failed[@]} -gt 0 ]; then
	printf -v names '%s, ' "${failed[@]}"
	echo "FAILED: ${names%, }"
	exit 1
fi
echo "all passed"
