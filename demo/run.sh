#!/bin/bash
# Runs demo/demo.sql against a throw-away server and writes its pictures to demo/, or to the
# directory given. TASK is what a model learns: maps, or icons or emoji, with pictures in demo/TASK.
# SIZE is that of the images, 64 if it is not said; maps have a recipe for 128, too, whose pictures
# go to demo/maps-128. BUDGET is for how many minutes it learns, else it is as long as the recipe
# says. Maps come from PyPI; where that cannot be reached and no TASK is given, it is emoji.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

asked=${TASK:-}
export TASK=${TASK:-maps} DEMO=$ROOT/demo
[[ " emoji icons maps " == *" $TASK "* ]] || die "tasks are: maps icons emoji"
recipe=$TASK
[ "${SIZE:-64}" = 64 ] || recipe=$TASK-$SIZE
export RECIPE=$DEMO/$recipe.json
[ -f "$RECIPE" ] || die "there is no recipe for $TASK of $SIZE pixels: demo/$recipe.json"
[[ ${BUDGET:-1} =~ ^[0-9]+(\.[0-9]+)?$ ]] || die "BUDGET is a number of minutes"
started=$SECONDS
"$ROOT/test/install-deps.sh"
if [ "$TASK" = maps ] && ! "$DEMO/pairs.sh" >/dev/null; then
	[ -z "$asked${SIZE:-}" ] || die "the maps cannot be had"
	say "the maps cannot be had; emoji are drawn here"
	TASK=emoji recipe=emoji RECIPE=$DEMO/emoji.json
fi
[ "$recipe" = maps ] && sheets=$DEMO || sheets=$DEMO/$recipe
export SHEETS=${1:-$sheets}
[[ $SHEETS == /* ]] || SHEETS=$PWD/$SHEETS
mkdir -p "$SHEETS"

private_begin
private_tree tree release
build tools
private_cluster demo "shared_preload_libraries = 'bicycle'"
PATH=$ROOT/${BUILD:-build}/release/tools:$BIN:$PATH psql -X -e -v ON_ERROR_STOP=1 \
	-f "$ROOT/demo/demo.sql" || { tail -40 "$WORK/demo.log" >&2; die "the demo failed"; }

say "done in $((SECONDS - started)) s; look at"
ls "$SHEETS"/*.png
