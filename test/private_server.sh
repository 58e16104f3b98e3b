# private_server.sh: PostgreSQL from a private copy of the server tree. Sourced by test/run.sh,
# demo/run.sh and bench/run.sh.
#
# PostgreSQL finds its libraries and its share directory relative to its own executable. So a copy
# of the few programs, with links to everything else, in a throw-away directory is a complete server
# into which the extension can be installed without root, and without touching an installed cluster.
#
# Everything lies in $WORK, which belongs to the user who runs the servers: ourselves, or, since
# PostgreSQL refuses root, "postgres" or "nobody". The checkout may be unreadable for that user,
# hence what servers read is copied. At exit all servers under $WORK are stopped and $WORK is
# removed.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
PG_CONFIG=${PG_CONFIG:-pg_config}
JOBS=${JOBS:-$(nproc)}
WORK=
AS=()							# prefix of commands run as the servers' user

# A make that runs us must not hand its job server and its variables to the makes we run.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES PGHOST PGPORT PGUSER PGDATABASE PGOPTIONS PGDATA \
	PGSERVICE PGPASSFILE PSQLRC

say() { printf '\n==> %s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# build TARGET... [VARIABLE=value...]: the project's own make, quiet unless it fails
build()
{
	local log

	log=$(mktemp)
	if ! make -C "$ROOT" -j"$JOBS" --no-print-directory PG_CONFIG="$PG_CONFIG" "${MAKE_ARGS[@]}" \
		"$@" >"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		die "build failed: make $*"
	fi
	rm -f "$log"
}
MAKE_ARGS=()					# more variables for every build
[ -z "${SERVER_CFLAGS:-}" ] || MAKE_ARGS+=("CFLAGS=$SERVER_CFLAGS")

private_begin()					# makes $WORK and chooses the servers' user
{
	local user=

	WORK=$(mktemp -d "${TMPDIR:-/tmp}/bicycle.XXXXXX")
	trap private_end EXIT
	trap 'exit 130' INT TERM HUP
	chmod 0755 "$WORK"
	if [ "$(id -u)" = 0 ]; then
		for user in postgres nobody; do
			id "$user" >/dev/null 2>&1 && break
		done
		chown "$user" "$WORK"
		AS=(setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups env HOME="$WORK" \
			USER="$user" LOGNAME="$user")
	fi
	(umask 022; cp -rL "$ROOT/sql" "$ROOT/expected" "$WORK/" 2>/dev/null || true
	 mkdir "$WORK/test"
	 for part in data t pgtap isolation; do
		[ ! -d "$ROOT/test/$part" ] || cp -rL "$ROOT/test/$part" "$WORK/test/"
	 done
	 cp -rL "$ROOT/bench" "$WORK/" && cp "$ROOT/test/private_server.sh" "$WORK/test/"
	 cp -rL "$ROOT/README.md" "$ROOT/CONTRIBUTING.md" "$ROOT/doc" "$ROOT/META.json" \
	 	"$ROOT/src/common/version.h" "$WORK/test/"
	 cd "$ROOT" && find . -name build -prune -o -name '.[!.]*' -prune -o -type f \
	 	-print >"$WORK/test/files")
	chmod -R u=rwX,go=rX "$WORK"
	if [ -n "$user" ]; then chown -R "$user" "$WORK"; fi
	export BICYCLE_TESTDATA=$WORK/test/data
	export LC_ALL=C.UTF-8
	cd "$WORK"
}

private_end()					# nothing we started stays, nor does $WORK unless KEEP is set
{
	local status=$? group pidfile exe left=

	trap - EXIT INT TERM HUP
	set +e
	cd /
	for group in $(jobs -p); do kill -TERM -- "-$group" 2>/dev/null; done
	find "$WORK" -name postmaster.pid 2>/dev/null | while read -r pidfile; do
		kill -QUIT "$(head -1 "$pidfile")" 2>/dev/null
	done
	for _ in $(seq 50); do
		left=
		for exe in /proc/[0-9]*/exe; do
			case $(readlink "$exe" 2>/dev/null) in
				"$WORK"/*) left="$left ${exe//[^0-9]/}" ;;
			esac
		done
		[ -n "$left" ] || break
		sleep 0.1
	done
	if [ -n "$left" ]; then
		echo "processes left running, killed:$left" >&2
		ps -o pid,ppid,etime,cmd -p "${left// /,}0" 2>/dev/null >&2
		kill -KILL $left 2>/dev/null
		[ $status -ne 0 ] || status=1
	fi
	if [ -n "${KEEP:-}" ]; then echo "kept $WORK"; else rm -rf "$WORK"; fi
	exit $status
}

# private_tree NAME VARIANT: a server tree $WORK/NAME with the extension and that build of the
# engine; sets BIN
private_tree()
{
	local tree=$WORK/$1 bin lib share program

	bin=$($PG_CONFIG --bindir) lib=$($PG_CONFIG --pkglibdir) share=$($PG_CONFIG --sharedir)
	build all VARIANT="$2"
	if [ -n "${SERVER_IN_PLACE:-}" ]; then	# the server of PG_CONFIG is itself a throw-away copy
		build install VARIANT="$2"
		BIN=$bin
		return
	fi
	mkdir -p "$tree$bin" "$tree$lib" "$tree$share"
	for program in postgres initdb pg_ctl psql createdb dropdb createuser pg_isready pg_basebackup \
		pg_dump pg_dumpall pg_restore pgbench pg_config \
		pg_controldata pg_resetwal pg_rewind pg_verifybackup pg_waldump; do
		[ ! -x "$bin/$program" ] || cp -L "$bin/$program" "$tree$bin/"
	done
	cp -rs "$lib/." "$tree$lib/"
	cp -rs "$share/." "$tree$share/"
	# An extension that is installed in the system too must not be written through its links.
	find "$tree" -name 'bicycle*' -type l -delete
	build install DESTDIR="$tree" VARIANT="$2"
	chmod -R go+rX "$tree"
	BIN=$tree$bin
}

# private_cluster NAME [SETTING...]: a running cluster in $WORK/NAME, reached through PGHOST, PGUSER
# and PGDATABASE
private_cluster()
{
	local data=$WORK/$1 setting

	shift
	"${AS[@]}" "$BIN/initdb" -D "$data" -U postgres -A trust -N --no-locale \
		-E UTF8 >"$WORK/initdb.log" 2>&1 || { cat "$WORK/initdb.log" >&2; die "initdb failed"; }
	for setting in "listen_addresses = ''" "unix_socket_directories = '$WORK'" "fsync = off" \
		"bicycle.threads = 2" "$@"; do
		echo "$setting"
	done | "${AS[@]}" tee -a "$data/postgresql.conf" >/dev/null
	"${AS[@]}" "$BIN/pg_ctl" -D "$data" -l "$data.log" -w start >/dev/null \
		|| { tail -50 "$data.log" >&2; die "the server did not start"; }
	export PGHOST=$WORK PGUSER=postgres PGDATABASE=postgres
}

private_stop()					# private_stop NAME
{
	"${AS[@]}" "$BIN/pg_ctl" -D "$WORK/$1" -m fast -w stop >/dev/null
}
