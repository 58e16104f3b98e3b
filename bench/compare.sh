#!/bin/bash
# The paper's comparison: six systems, both encoders, both places where the code joins, and three
# lengths of the code, trained on two tasks with three seeds each, and measured by bicycle_evaluate
# on inputs that none has seen. bench/comparison.py makes the tables of doc/comparison.md of it.
#
# usage: bench/compare.sh [OPTION...] [RUN...]
#
#	--list               what runs there are, in their order, and which have a result; no more
#	--place DIRECTORY    gets the cluster, which is kept; default build/compare. The user who runs
#	                     servers must be able to go there
#	--results FILE       default bench/results/comparison.jsonl; sheets go into a directory beside
#	                     it, of its name without .jsonl
#	--threads N          of an engine; default 2. Where others compute, too, 1 is much faster: two
#	                     wait for each other, each until it has a processor
#	--iterations N       to try it; the tables refuse such results
#	--pairs DIRECTORY    has TASK-SIZE.copy, instead of what demo/pairs.sh makes
#	--bin DIRECTORY      the programs of a server that has the extension, instead of one made here
#	--without-lpips      metrics that need no LPIPS, where its weights cannot be had
#
# A run is TASK-SIZE-SYSTEM-SEED; without RUN it is all of the plan below that have no result yet,
# one after the other. A result is a line of JSON, written as soon as it is there. Called again the
# comparison goes on, in the middle of a run if it was there: the job is the server's, and has a
# checkpoint. SIGTERM ends all that was started; PLACE/pid says whom to send it to:
#
#	nice -n 19 setsid nohup bench/compare.sh --place DIRECTORY >log 2>&1 &
#	kill $(cat DIRECTORY/pid)
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

# Each run has as many iterations, so that a result does not depend on what else the machine does.
# "bicycle" takes 0.056 s an iteration with one thread (train_bench, AVX2), so these take between
# four and five minutes; others take less, and sizes of 128 four times as much.
ITERATIONS=5000
WHOLE=$ITERATIONS

# ---- What is compared ----------------------------------------------------------------------------

# The networks and the rate of the demo. Weights of losses are those of each method, the paper's.
# Icons are taken as they are: enlarging them, to be cropped, blurs their edges, as interpolation
# does, and their folders open to one side. SIZE stands for the run's. Precision auto would be
# bfloat16 on some processors.
COMMON='"ngf": 16, "nef": 16, "ndf": 16, "batch_size": 4, "lr": 0.0005, "ema": 0.99'
COMMON+=', "precision": "fp32"'
declare -A TASKS=(
	[icons]='"input_nc": 1, "load_size": SIZE, "flip": false, "upsample": "basic"'
	[maps]='"input_nc": 3, "upsample": "bilinear"')
declare -A SYSTEMS=(
	[bicycle]='"method": "bicycle"'
	[pix2pix_noise]='"method": "pix2pix_noise"'
	[cvae_gan]='"method": "cvae_gan"'
	[cae_gan]='"method": "cae_gan"'
	[clr_gan]='"method": "clr_gan"'
	[cvae_gan++]='"method": "cvae_gan++"'
	[bicycle_conv]='"method": "bicycle", "net_e": "conv"'
	[bicycle_input]='"method": "bicycle", "where_add": "input"'
	[bicycle_conv_input]='"method": "bicycle", "net_e": "conv", "where_add": "input"'
	[bicycle_nz2]='"method": "bicycle", "nz": 2'
	[bicycle_nz32]='"method": "bicycle", "nz": 32'
	[real]='')						# the truths themselves: nothing is trained
SIX="bicycle pix2pix_noise cvae_gan cae_gan clr_gan cvae_gan++"
VARIANTS="bicycle_conv bicycle_input bicycle_conv_input bicycle_nz2 bicycle_nz32"

# Task, size, seed, systems, the more telling ones first: what is there when it is stopped should be
# a comparison already. "extremes" are the two of the six whose answers at 64 pixels have the
# highest and the lowest mean diversity by LPIPS, known when all of these have a result.
PLAN="
	icons 64 0 real
	icons 64 1 $SIX
	icons 64 2 $SIX
	icons 64 3 $SIX
	maps 64 0 real
	maps 64 1 $SIX
	maps 64 2 $SIX
	maps 64 3 $SIX
	icons 64 1 $VARIANTS
	icons 64 2 $VARIANTS
	icons 64 3 $VARIANTS
	maps 64 1 $VARIANTS
	maps 64 2 $VARIANTS
	maps 64 3 $VARIANTS
	icons 128 0 real
	icons 128 1 extremes
	icons 128 2 extremes
	icons 128 3 extremes
	maps 128 0 real
	maps 128 1 extremes
	maps 128 2 extremes
	maps 128 3 extremes"

# ---- What is asked for ---------------------------------------------------------------------------

PLACE=$ROOT/${BUILD:-build}/compare
RESULTS=$ROOT/bench/results/comparison.jsonl
THREADS=2
pairs= bin= list= lpips=yes
while [[ ${1:-} == --* ]]; do
	case $1 in
		--list) list=yes ;;
		--without-lpips) lpips= ;;
		--place | --results | --threads | --iterations | --pairs | --bin)
			[ -n "${2:-}" ] || die "$1 needs a value"
			case $1 in
				--place) PLACE=$(realpath -m "$2") ;;
				--results) RESULTS=$(realpath -m "$2") ;;
				--threads) THREADS=$2 ;;
				--iterations) ITERATIONS=$2 ;;
				--pairs) pairs=$(realpath "$2") ;;
				--bin) bin=$(realpath "$2") ;;
			esac
			shift ;;
		*) die "what is $1?" ;;
	esac
	shift
done
[[ $THREADS =~ ^[1-9][0-9]*$ && $ITERATIONS =~ ^[1-9][0-9]*$ ]] \
	|| die "threads and iterations are numbers"
SHEETS=${RESULTS%.jsonl}
[ "$SHEETS" != "$RESULTS" ] || die "the name of the results must end in .jsonl"

# take_apart RUN: sets task, size, system and seed
take_apart()
{
	IFS=- read -r task size system seed <<<"$1"
	[[ -n ${TASKS[${task:-none}]:-} && -v SYSTEMS[${system:-none}] && $size =~ ^(64|128)$ \
		&& $seed =~ ^[0-9]+$ ]] || die "no run is called $1"
}

planned()						# the names of all runs of the plan; "extremes" once they are known
{
	local task size seed systems system

	while read -r task size seed systems; do
		if [ "$systems" = extremes ]; then
			systems=$(python3 "$ROOT/bench/comparison.py" --extremes "$task" \
				--results "$RESULTS" $SIX)
			[ -z "$list" ] || systems=${systems:-extremes}
		fi
		for system in $systems; do
			echo "$task-$size-$system-$seed"
		done
	done < <(grep . <<<"$PLAN")
}

has_result()					# has_result RUN: a whole line, of as many iterations
{
	grep -F "\"run\": \"$1\"" "$RESULTS" 2>/dev/null \
		| grep '}$' | grep -q "\"iterations\": $ITERATIONS[,}]"
}

if [ -n "$list" ]; then
	planned | while read -r name; do
		printf '%-32s%s\n' "$name" "$(has_result "$name" && echo "has a result" || true)"
	done
	exit
fi
for name; do
	take_apart "$name"
done

# ---- The server ----------------------------------------------------------------------------------

child= server=

# What takes long runs beside us, as a session of its own: a signal is heard at once, and ends all
# of it.
beside()
{
	local status=0

	setsid "$@" <&0 9>&- &
	child=$!
	wait $child || status=$?
	child=
	return $status
}

finish()
{
	local status=$?

	trap '' INT TERM HUP
	trap - EXIT
	set +e
	[ -z "$child" ] || kill -TERM -- "-$child" 2>/dev/null
	[ -z "$server" ] || "${AS[@]}" "$BIN/pg_ctl" -D "$PLACE/cluster" -m fast -w stop >/dev/null
	rm -f "$PLACE/pid"
	(exit $status)
	private_end
}

ask() { psql -XAtq -v ON_ERROR_STOP=1 "$@"; }

begin()
{
	mkdir -p "$PLACE" "${RESULTS%/*}" "$SHEETS"
	exec 9>>"$PLACE/lock"
	flock -n 9 || die "another comparison works in $PLACE"
	# The line that was being written when the machine went is none.
	[ ! -s "$RESULTS" ] || [ -z "$(tail -c 1 "$RESULTS")" ] || echo >>"$RESULTS"
	if [ -n "$bin" ]; then
		WORK=$(mktemp -d "${TMPDIR:-/tmp}/bicycle.XXXXXX")
		trap 'exit 130' INT TERM HUP
		BIN=$bin
	else
		"$ROOT/test/install-deps.sh"
		private_begin
	fi
	trap finish EXIT
	echo $$ >"$PLACE/pid"
	if [ -z "$bin" ]; then
		private_tree tree release
		build tools
	fi
	export PATH=$ROOT/${BUILD:-build}/release/tools:$BIN:$PATH
	start_server 9>&-
	ask -c "CREATE EXTENSION IF NOT EXISTS bicycle"
	[ -z "$lpips" ] || import_lpips
	commit=$(git -C "$ROOT" rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
}

start_server()
{
	local data=$PLACE/cluster

	mkdir -p "$data"
	[ ${#AS[@]} = 0 ] || chown "$("${AS[@]}" id -u)" "$data"
	if [ ! -f "$data/PG_VERSION" ]; then
		"${AS[@]}" "$BIN/initdb" -D "$data" -U postgres -A trust --no-locale -E UTF8 \
			>"$WORK/initdb.log" 2>&1 || { cat "$WORK/initdb.log" >&2; die "initdb failed"; }
	fi
	# That of a comparison that was killed.
	"${AS[@]}" "$BIN/pg_ctl" -D "$data" -m fast -w stop >/dev/null 2>&1 || true
	server=yes
	"${AS[@]}" "$BIN/pg_ctl" -D "$data" -l "$data/server.log" -w -o "-c listen_addresses='' \
		-k $WORK -c shared_preload_libraries=bicycle -c bicycle.threads=$THREADS" start >/dev/null \
		|| { tail -50 "$data/server.log" >&2; die "the server did not start"; }
	export PGHOST=$WORK PGUSER=postgres PGDATABASE=postgres
}

import_lpips()
{
	[ "$(ask -c "SELECT count(*) FROM bicycle_models WHERE model = 'lpips-alex-0.0'")" = 0 ] \
		|| return 0
	beside python3 "$ROOT/tools/lpips_weights.py" "$ROOT/build/lpips"
	(cd "$ROOT/build/lpips" && ask -f "$ROOT/tools/lpips_import.sql" >/dev/null)
}

# ---- One run -------------------------------------------------------------------------------------

bring_pairs()					# the table pairs_TASK_SIZE
{
	local table=pairs_${task}_$size source=$WORK/pairs

	[ -z "$(ask -c "SELECT to_regclass('$table')")" ] || return 0
	if [ -n "$pairs" ]; then
		cp "$pairs/$task-$size.copy" "$source"
	else
		TASK=$task SIZE=$size beside "$ROOT/demo/pairs.sh" >"$source"
	fi && ask -1 -c "CREATE TABLE $table (id int PRIMARY KEY, subject int NOT NULL,
		held_out bool NOT NULL, input bytea NOT NULL, target bytea NOT NULL)" \
		-c "\\copy $table FROM '$source'" && rm "$source"
}

# What LPIPS says of the truths: between two to one input, and between any two.
measure_truths()
{
	beside psql -XAtq -v ON_ERROR_STOP=1 -v run="$name" -v task="$task" -v size="$size" \
		-v table="pairs_${task}_$size" -v iterations="$ITERATIONS" -v commit="$commit" <<-'SQL'
		WITH held_out AS (SELECT * FROM :table WHERE held_out),
		pair AS (
			SELECT 'random_lpips' AS metric, target AS a, lead(target) OVER (ORDER BY md5(id::text))
				AS b FROM held_out
			UNION ALL SELECT 'diversity_lpips', target, lead(target) OVER (PARTITION BY subject
				ORDER BY md5(id::text)) FROM held_out),
		distance AS (SELECT metric, bicycle_lpips(a, b, 'alex', '0.0') AS value
			FROM (SELECT * FROM pair WHERE b IS NOT NULL OFFSET 0) AS two),
		metrics AS (SELECT metric, jsonb_build_object('value', avg(value), 'stderr',
			stddev_samp(value) / sqrt(count(*)), 'n', count(*)) AS found
			FROM distance GROUP BY metric)
		SELECT jsonb_build_object('kind', 'truths', 'run', :'run', 'task', :'task', 'size', :size,
			'iterations', :iterations, 'commit', :'commit',
			'metrics', (SELECT jsonb_object_agg(metric, found) FROM metrics));
	SQL
}

# Trains and measures. A job that is there already goes on, or has ended and was not measured.
train_and_measure()
{
	local options="{\"size\": $size, ${TASKS[$task]//SIZE/$size}, $COMMON, ${SYSTEMS[$system]},
		\"seed\": $seed, \"iterations\": $ITERATIONS}"
	local model=$name

	[ $ITERATIONS = $WHOLE ] || model+=-$ITERATIONS
	beside psql -XAtq -v ON_ERROR_STOP=1 -v run="$name" -v model="$model" -v task="$task" \
		-v size="$size" -v system="$system" -v seed="$seed" -v table="pairs_${task}_$size" \
		-v options="$options" -v iterations="$ITERATIONS" -v whole="$WHOLE" -v commit="$commit" \
		-v threads="$THREADS" <<-'SQL'
		SET client_min_messages = warning;
		SELECT max(job) AS job, count(*) > 0 AS interrupted FROM bicycle_jobs
		WHERE model = :'model' AND state NOT IN ('failed', 'cancelled') \gset
		\if :interrupted
			SELECT bicycle_resume(job) FROM bicycle_jobs WHERE job = :job AND state = 'paused'
			\g /dev/null
		\else
			SELECT bicycle_train(:'model', 'SELECT input, target FROM ' || :'table'
				|| ' WHERE NOT held_out', :'options') AS job \gset
		\endif
		CALL bicycle_wait(:job);

		SELECT clock_timestamp() AS began \gset
		CREATE TEMP TABLE found AS SELECT * FROM bicycle_evaluate(:'model',
			'SELECT input, target, id FROM ' || :'table'
			|| ' WHERE held_out ORDER BY subject, id');
		SELECT clock_timestamp() AS ended \gset

		-- The same inputs in each sheet of a task, under the same codes: input, truth, answers.
		SET bicycle.model = :'model';
		WITH shown AS (SELECT * FROM (SELECT DISTINCT ON (subject) * FROM :table WHERE held_out
				ORDER BY subject, md5(id::text)) AS one ORDER BY md5(subject::text) LIMIT 5)
		SELECT encode(bicycle_grid_agg(tile, 10 ORDER BY subject, place), 'base64')
		FROM (SELECT subject, -1 AS place, input AS tile FROM shown
			  UNION ALL SELECT subject, 0, target FROM shown
			  UNION ALL SELECT subject, sample, image
			  	FROM shown, bicycle_sample(input, 8, seed => 1)) AS tiles
		\g (format=unaligned tuples_only=on) | base64 -d >sheet

		SELECT jsonb_build_object('kind', 'run', 'run', :'run', 'task', :'task', 'size', :size,
			'system', :'system', 'seed', :seed, 'iterations', :iterations,
			'tiny', :iterations <> :whole, 'options', :'options'::jsonb, 'commit', :'commit',
			'hash', encode(m.hash, 'hex'), 'notes', j.notes, 'interrupted', :'interrupted'::bool,
			'threads', :threads, 'seconds', extract(epoch FROM j.updated_at - j.started_at),
			'evaluation_seconds', extract(epoch FROM :'ended'::timestamptz
				- :'began'::timestamptz),
			'device', (SELECT device FROM bicycle_engine()), 'date', now()::date,
			'sheet', :'run' || '.png',
			'metrics', (SELECT jsonb_object_agg(metric, jsonb_build_object('value', value, 'stderr',
				stderr, 'n', n)) FROM found))
		FROM bicycle_jobs AS j JOIN bicycle_models AS m USING (model, version) WHERE j.job = :job;
	SQL
}

one_run()						# one_run RUN; false if it failed
{
	local name=$1 began=$SECONDS task size system seed

	take_apart "$name"
	say "$name"
	cd "$WORK"
	bring_pairs || return 1		# as we are asked whether we failed, nothing ends us by itself
	if [ "$system" = real ]; then
		measure_truths >line || return 1
	else
		train_and_measure >line || return 1
		mv sheet "$SHEETS/$name.png" || return 1
	fi
	cat line >>"$RESULTS"
	echo "$((SECONDS - began)) s"
}

begin
failed=" "
again=yes
while [ -n "$again" ]; do		# what is extreme is known in the end
	again=
	for name in ${*:-$(planned)}; do
		if ! has_result "$name" && [[ $failed != *" $name "* ]]; then
			[[ -n $lpips || $name != *-real-* ]] || continue
			one_run "$name" || failed+="$name "
			again=yes
		fi
	done
done
[ "$failed" = " " ] || die "failed:$failed"
