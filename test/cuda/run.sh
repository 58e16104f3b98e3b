#!/bin/bash
# Everything that needs a GPU, in one go: builds, tests, measures, and prints one table of the
# goals. Usage: test/cuda/run.sh [PART...]; without arguments all parts, in the order of their
# worth, which test/cuda/measure.py lists.
#
# SECONDS_IN_ALL=N ends by then, where a machine is lent for so long: parts are cut short, and those
# for which nothing is left are not begun. OUT=DIRECTORY keeps what is found: results.jsonl, a line
# a fact, written when it is known; run.log, which is what is printed; device.json, the card's
# description for test/data/cudnn; and all logs in one archive. FROM=DIRECTORY, an earlier OUT, goes
# on from there: what had ended is not done again. So a machine that takes commands of ten minutes
# at most is used by a few of these, one after the other.
#
# Needs nvcc, an NVIDIA GPU, cuDNN with headers (those of PyTorch's own wheels will do), gcc, make
# and jansson, and no network; which is looked at before anything else. What goes
# through SQL needs a PostgreSQL with headers and the libraries of the engine, too, and what
# compares with PyTorch that (PYTHON is the one that has it) and the official code
# (BICYCLE_OFFICIAL); without they are left out, with a line. DEPS=DIRECTORY brings what is missing
# as Debian packages, as a server's wheel and as the official code; test/cuda/get-deps.sh fetches
# them on a machine with a network.
#
# SIMULATED=1 runs on the imitated GPU, small networks only, and says so in all that is kept
# (test/cuda/simulate.sh).
set -u -o pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
DEVICE=${DEVICE:-cuda}
KEEP=${OUT:-$PWD/build/gpu-results}
LOGS=$(mktemp -d "${TMPDIR:-/tmp}/bicycle-gpu.XXXXXX")
BUILD=build
[ -n "${SIMULATED:-}" ] || BUILD=build/gpu
mkdir -p "$KEEP"
[ -z "${FROM:-}" ] || [ "$FROM" = "$KEEP" ] || cp "$FROM/results.jsonl" "$KEEP/" || exit 1
exec > >(exec tee -a "$KEEP/run.log") 2>&1
printer=$!

say() { printf '\n==> %s (%d s so far)\n' "$1" $SECONDS; }
finish()						# finish STATUS: keeps the logs, and ends
{
	tar -C "$LOGS" -czf "$KEEP/bicycle-gpu-logs.tar.gz" .
	sed -n 's/^trace device {/{/p' "$LOGS/trace.log" 2>/dev/null >"$LOGS/device.json"
	[ ! -s "$LOGS/device.json" ] || cp "$LOGS/device.json" "$KEEP/"
	rm -rf "$LOGS"
	say "end; what was found is in $KEEP"
	exec >&- 2>&-
	wait "$printer"
	exit "$1"
}
missing() { echo "no $1 here"; finish 1; }
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
	[ ! -d "$1/BicycleGAN-master" ] || export BICYCLE_OFFICIAL=$1/BicycleGAN-master
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
PG_CONFIG=${PG_CONFIG:-pg_config}
flags=()
[ -z "${DEPS:-}" ] || use_deps "$DEPS"
# All that would end this later is looked at now.
for tool in gcc make "$PYTHON"; do
	command -v "$tool" >/dev/null || missing "$tool"
done
includes() { printf '#include <%s>\n' "$1" | gcc -fsyntax-only -x c - 2>/dev/null; }
includes jansson.h || missing "jansson.h (libjansson-dev)"
if [ -z "${SIMULATED:-}" ]; then
	NVCC=${NVCC:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)}
	[ -n "$NVCC" ] || missing nvcc
	"$NVCC" --version | tail -1
fi
gcc --version | head -1
nvidia-smi --query-gpu=name,compute_cap,memory.total,driver_version --format=csv \
	|| missing "NVIDIA GPU or driver"
state=driver_version,memory.used,compute_mode,mig.mode.current
nvidia-smi --query-gpu="$state,clocks.max.sm,pcie.link.gen.current" --format=csv 2>/dev/null
arch=${CUDA_ARCH:-$(nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2>/dev/null | head \
	-1 | tr -d .)}

# cuDNN beside the toolkit, or in Python's packages, whose library has no name without its version
# for the linker, which dlopen does not need. Other compilers than the ones this is developed with
# may warn of more.
flags+=(BUILD="$BUILD")
if [ -n "${SIMULATED:-}" ]; then	# by the objects of the other tests
	flags+=(NVCC=)
else
	flags+=(NVCC="$NVCC" CUDA_ARCH="$arch" TRACE=1 WARNINGS=-Wall NVCC_WARNINGS=)
fi
cudnn=$("$PYTHON" -c 'import nvidia.cudnn, os; print(list(nvidia.cudnn.__path__)[0])' 2>/dev/null)
cuda_home=$(dirname "$(dirname "$(readlink -f "${NVCC:-/}")")")
if [ ! -f "$cuda_home/include/cudnn.h" ] && [ -n "$cudnn" ] && [ -f "$cudnn/include/cudnn.h" ]; then
	flags+=(CUDNN_INCLUDE="$cudnn/include" CUDNN_LIB="$cudnn/lib")
	# the wheel's cuDNN finds cuBLAS and NVRTC beside itself, in the other wheels
	LD_LIBRARY_PATH="$(ls -d "$cudnn"/lib "$(dirname "$cudnn")"/*/lib 2>/dev/null \
		| paste -sd:):${LD_LIBRARY_PATH:-}"
	export LD_LIBRARY_PATH
fi
echo "cuDNN's headers: ${cudnn:-of the toolkit or the system};" \
	"libraries: ${LD_LIBRARY_PATH:-where the linker looks}"
! has_server "$PG_CONFIG" || export HAS_SERVER=yes

# All that can be built, as a program that cannot is no reason to lose the others.
targets=(gpu devices)
bin=$BUILD/release/gpu
if [ -n "${SIMULATED:-}" ]; then
	targets+=("$BUILD/release/imitation/bicycle_cuda.so")
	bin=$BUILD/release/imitation
fi
say "build"
timeout -k 5 400 make -s -k -j"$(nproc)" "${flags[@]}" "${targets[@]}" >"$LOGS/build.log" 2>&1 \
	|| tail -20 "$LOGS/build.log"
if [ -n "${SIMULATED:-}" ]; then
	ln -f "$BUILD"/release/gpu/* "$bin/" || finish 1
elif [ ! -f "$BUILD/release/bicycle_cuda.so" ]; then
	missing "bicycle_cuda.so: it was not built"
fi
# The same build for what goes through SQL, so that what is built is not built again.
export BICYCLE_TESTDATA=$PWD/test/data PG_CONFIG INSTALL_DEPS=no "${flags[@]}"
say "$((${SECONDS_IN_ALL:-0} > 0 ? SECONDS_IN_ALL - SECONDS : 0)) s are left for what follows"
measure=("$PYTHON" test/cuda/measure.py --bin "$bin" --results "$KEEP/results.jsonl" \
	--logs "$LOGS" --device "$DEVICE" --python "$PYTHON" ${SIMULATED:+--simulated --runs 1})
[ -z "${SECONDS_IN_ALL:-}" ] || measure+=(--seconds "$((SECONDS_IN_ALL - SECONDS))")
"${measure[@]}" "$@"
finish $?
