#!/bin/bash
# Runs demo/demo.sql against a throw-away server and writes its pictures to demo/ (for other tasks
# than emoji to demo/TASK), or to the directory given. TASK is what a model learns: emoji,
# icons or maps; BUDGET, for how many minutes, else as long as demo/TASK.json says.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

export TASK=${TASK:-emoji} DEMO=$ROOT/demo
[[ " emoji icons maps " == *" $TASK "* ]] || die "tasks are: emoji icons maps"
[[ ${BUDGET:-1} =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "BUDGET is a number of minutes"
[ "$TASK" = emoji ] && sheets=$DEMO || sheets=$DEMO/$TASK
export SHEETS=${1:-$sheets}
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
