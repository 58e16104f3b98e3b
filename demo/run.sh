#!/bin/bash
# Runs demo/demo.sql against a throw-away server and writes its contact sheets to demo/, or to the
# directory given.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

export SHEETS=${1:-$ROOT/demo}
[[ $SHEETS == /* ]] || SHEETS=$PWD/$SHEETS
mkdir -p "$SHEETS"
started=$SECONDS

"$ROOT/test/install-deps.sh"
private_begin
private_tree tree release
build tools
private_cluster demo "shared_preload_libraries = 'bicycle'"
PATH=$ROOT/${BUILD:-build}/release/tools:$BIN:$PATH psql -X -e -v ON_ERROR_STOP=1 \
	-f "$ROOT/demo/demo.sql" || { tail -40 "$WORK/demo.log" >&2; die "the demo failed"; }

say "done in $((SECONDS - started)) s; look at"
ls "$SHEETS"/*.png
