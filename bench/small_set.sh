#!/bin/bash
# What keeping the best weights, and what variations of the pairs are worth on a small set: 200
# outlines of emoji to train on, 60 to validate, and of all others, which are held out, the first
# that bicycle_evaluate takes to measure on.
#
# usage: bench/small_set.sh [DIRECTORY], default build/small_set. DIRECTORY gets NAME.rows of each
# run (metric, value, error, n; then how the job ended, and its curve); then the table is printed
# from what is there. A run that is there already is not made again. ITERATIONS (default 3000) is
# the budget of a run, SEED (default 1) that of its training; RUNS="NAME ..." chooses runs.
set -eu -o pipefail
. "$(dirname "$0")/../test/private_server.sh"

export RESULTS=${1:-$ROOT/build/small_set}
[[ $RESULTS == /* ]] || RESULTS=$PWD/$RESULTS
mkdir -p "$RESULTS"

# Of all runs; a run's own options come on top. All are validated, so that their curves can be seen.
COMMON='"size": 64, "input_nc": 1, "ngf": 16, "nef": 16, "ndf": 16, "batch_size": 4, "lr": 0.0005,
	"seed": '"${SEED:-1}"', "iterations": '"${ITERATIONS:-3000}"', "validate_every": 200,
	"validation": "SELECT outline, emoji FROM colored WHERE part = 2"'
NAMES=()
declare -A OPTIONS
run() { NAMES+=("$1"); OPTIONS[$1]=$2; }
run last '"keep": "last"'
run best '"keep": "best"'
run patience '"keep": "best", "patience": 10'
run jitter '"keep": "last", "jitter": 0.2'
run turned '"keep": "last", "rotate": 10, "scale": 0.1'
run diff '"keep": "last", "diff_augment": "color,translation,cutout"'
run diff_best '"keep": "best", "diff_augment": "color,translation,cutout"'
run all_best '"keep": "best", "jitter": 0.2, "rotate": 10, "scale": 0.1'

missing=()
for name in ${RUNS:-"${NAMES[@]}"}; do
	[ -n "${OPTIONS[$name]:-}" ] || die "no run is called $name"
	[ -f "$RESULTS/$name.rows" ] || missing+=("$name")
done

if [ ${#missing[@]} -gt 0 ]; then
	"$ROOT/test/install-deps.sh"
	private_begin
	private_tree tree release
	build tools
	# one thread: no iteration waits for another one, and the bits are the same
	private_cluster small_set "shared_preload_libraries = 'bicycle'" "bicycle.threads = 1"
	export PATH=$ROOT/${BUILD:-build}/release/tools:$BIN:$PATH
	# 1: trained on, 2: validated, 3: held out. By the hash of the glyph, and not by its number,
	# which is near that of its like.
	psql -XAtq -v ON_ERROR_STOP=1 <<-'SQL'
		CREATE EXTENSION bicycle;
		CREATE TABLE pairs (glyph int PRIMARY KEY, shape int, variants int, held_out bool,
			outline bytea, emoji bytea);
		\copy pairs FROM PROGRAM 'emoji_pairs 64'
		CREATE TABLE colored AS SELECT *, CASE WHEN n <= 200 THEN 1 WHEN n <= 260 THEN 2 ELSE 3 END
			AS part FROM (SELECT *, row_number() OVER (ORDER BY md5(glyph::text)) AS n FROM pairs
			WHERE variants BETWEEN 5 AND 50) AS p;
	SQL
	for name in "${missing[@]}"; do
		began=$SECONDS
		psql -XAtq -v ON_ERROR_STOP=1 -v run="$name" -v options="{$COMMON, ${OPTIONS[$name]}}" \
			>"$RESULTS/$name.part" <<-'SQL'
			SET client_min_messages = warning;
			SELECT bicycle_train(:'run', 'SELECT outline, emoji FROM colored WHERE part = 1',
				:'options') AS job \gset
			CALL bicycle_wait(:job);
			SELECT metric, round(value::numeric, 4), round(stderr::numeric, 4), n
			FROM bicycle_evaluate(:'run',
				'SELECT outline, emoji FROM colored WHERE part = 3 ORDER BY glyph LIMIT 200',
				'{"metrics": ["reconstruction_l1", "best_l1", "diversity_l1", "latent_l1"]}');
			SELECT 'iterations', j.iteration, m.iterations FROM bicycle_jobs j JOIN bicycle_models m
				USING (model, version) WHERE job = :job;
			SELECT 'curve', name, iteration, round(value::numeric, 4) FROM bicycle_losses
			WHERE job = :job AND name IN ('val_L1', 'val_z_L1', 'val_diversity')
			ORDER BY name, iteration;
		SQL
		mv "$RESULTS/$name.part" "$RESULTS/$name.rows"
		say "$name: $((SECONDS - began)) s"
	done
fi

say "from $RESULTS"
echo "| run | trained, kept | reconstruction_l1 | best_l1 | diversity_l1 | latent_l1 |"
echo "|---|---|---|---|---|---|"
for name in "${NAMES[@]}"; do
	[ ! -f "$RESULTS/$name.rows" ] || awk -F'|' -v name="$name" '
		$1 == "iterations" { kept = $2 ", " $3 }
		$1 != "curve" { value[$1] = $2 }
		END { printf "| %s | %s | %s | %s | %s | %s |\n", name, kept, value["reconstruction_l1"],
			value["best_l1"], value["diversity_l1"], value["latent_l1"] }' "$RESULTS/$name.rows"
done
