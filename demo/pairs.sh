#!/bin/bash
# Writes the pairs of the demo's task $TASK to standard output, as rows for COPY: id, subject (pairs
# of one subject have one input, or nearly), held_out, input, target; images are of SIZE pixels,
# 64 if it is not set. What took long to draw is kept in build/demo.
set -eu -o pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
SIZE=${SIZE:-64}
kept=$ROOT/build/demo/$TASK-$SIZE.copy

make_pairs()
{
	case $TASK in
		# Hands and people, mostly: shapes that come in several colourings.
		emoji) emoji_pairs $SIZE | awk -F '\t' -v OFS='\t' \
			'5 <= $3 && $3 <= 50 { print $1, $2, $4, $5, $6 }' ;;
		maps | icons) /usr/bin/python3 "$ROOT/tools/task_pairs.py" "$TASK" $SIZE ;;
	esac
}

if [ "$TASK" = emoji ] || ! mkdir -p "${kept%/*}" 2>/dev/null; then
	make_pairs
	exit
fi
if [ ! -f "$kept" ]; then
	make_pairs >"$kept.new"
	mv "$kept.new" "$kept"
fi
cat "$kept"
