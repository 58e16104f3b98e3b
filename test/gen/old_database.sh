#!/bin/bash
# Makes test/data/old, a small database as an older commit left it, which test/t/024_old_database.pl
# loads: test/gen/old_database.sh CHECKOUT DIRECTORY. CHECKOUT is a checkout of that commit (the
# files in the repository are of c50903b), which is built and run here.
#
#	database.dump		pg_dump -Fc: models, a finished and a paused job, policies, grants
#	checkpoint.copy.gz	COPY, in binary, of the paused job's checkpoint, which dumps leave out
#	expected.txt		name and value: what that commit made of the same rows; and of the paused
#						job, which it resumed after the dump
set -eu -o pipefail
out=$(realpath "$2")
. "$1/test/private_server.sh"
private_begin
private_tree tree release
private_cluster old "shared_preload_libraries = 'bicycle'" "bicycle.max_training_jobs = 1"

sql() { "$BIN/psql" -XAtq -v ON_ERROR_STOP=1 "$@"; }
note() { printf '%s %s\n' "$1" "$(sql -c "${3:-}" -c "$2")" >>"$WORK/noted"; }

sql -v pairs="$BICYCLE_TESTDATA/edges2emoji/pairs" <<'SQL'
CREATE EXTENSION bicycle;
CREATE ROLE old_painter LOGIN;
CREATE ROLE old_viewer;
CREATE TABLE pairs (id int PRIMARY KEY, sketch bytea, photo bytea);
INSERT INTO pairs SELECT n,
	pg_read_binary_file(format('%s/%s_A.png', :'pairs', to_char(n, 'FM00'))),
	pg_read_binary_file(format('%s/%s_B.png', :'pairs', to_char(n, 'FM00')))
	FROM generate_series(0, 1) AS n;
SELECT bicycle_create('made', '{"size": 64, "ngf": 1, "nef": 1, "nz": 2, "seed": 1}');
SELECT bicycle_import('imported', bicycle_export('made'), bicycle_export('made', 'E'),
	'{"precision": "fp32"}');
SELECT bicycle_drop('made');
SELECT bicycle_create('made', '{"size": 64, "ngf": 1, "nef": 1, "nz": 2, "seed": 3}');
GRANT SELECT ON bicycle_models, bicycle_tensors, pairs TO old_painter;
GRANT SELECT, INSERT, UPDATE ON bicycle_models, bicycle_tensors, bicycle_counters TO old_painter;
GRANT EXECUTE ON FUNCTION bicycle_train TO old_painter;
ALTER TABLE bicycle_models ENABLE ROW LEVEL SECURITY;
CREATE POLICY shown ON bicycle_models TO old_painter USING (model <> 'imported');
CREATE POLICY for_viewers ON bicycle_tensors FOR SELECT TO old_viewer USING (network = 'G');
CREATE VIEW results AS SELECT model, id,
	md5(bicycle_translate(sketch, bicycle_latent(2, id), model => model)) AS image,
	md5(bicycle_encode(photo, model)::text) AS latent
	FROM pairs, (SELECT DISTINCT model FROM bicycle_models) AS m ORDER BY model, id;
CREATE VIEW weights AS SELECT model, version, network,
	md5(string_agg(data, '' ORDER BY name, chunk))
	FROM bicycle_tensors GROUP BY model, version, network ORDER BY model, version, network;
SQL

train='"size": 64, "ngf": 1, "nef": 1, "ndf": 2, "nz": 2, "batch_size": 2, "seed": 7'
sql <<SQL
SET ROLE old_painter;
SELECT bicycle_train('finished', 'SELECT sketch, photo FROM pairs', '{$train, "iterations": 2}');
CALL bicycle_wait(1);
SELECT bicycle_train('paused', 'SELECT sketch, photo FROM pairs',
	'{$train, "iterations": 100, "checkpoint_every": 1}');
SQL
sql -c "DO \$\$ BEGIN WHILE NOT EXISTS (SELECT FROM bicycle_training_checkpoints WHERE job = 2) LOOP
	PERFORM pg_sleep(0.01); END LOOP; END \$\$" -c "SELECT bicycle_pause(2)"
sql -c "DO \$\$ BEGIN WHILE (SELECT state <> 'paused' FROM bicycle_jobs WHERE job = 2) LOOP
	PERFORM pg_sleep(0.01); COMMIT; END LOOP; END \$\$"

rows="string_agg(r::text, ' ' ORDER BY r::text) FROM"
note device "SELECT device FROM bicycle_engine()"
note results "SELECT $rows results AS r"
note models "SELECT $rows (SELECT model, version, config, encode(hash, 'hex'), is_current
	FROM bicycle_models) AS r"
note jobs "SELECT $rows (SELECT job, model, owner, state, iteration, iterations
	FROM bicycle_jobs) AS r"
note painter "SELECT string_agg(DISTINCT model, ' ') FROM bicycle_models" "SET ROLE old_painter"
"${AS[@]}" "$BIN/pg_dump" -Fc -Z 9 -f "$WORK/database.dump"
sql -c "COPY (SELECT c.* FROM bicycle_training_checkpoints c
	JOIN bicycle_training_jobs j USING (job) WHERE job = 2 AND c.iteration = j.checkpoint)
	TO STDOUT (FORMAT binary)" | gzip -9n >"$WORK/checkpoint.copy.gz"
sql -c "SET ROLE old_painter" -c "SELECT bicycle_resume(2)" -c "CALL bicycle_wait(2)"
note resumed "SELECT $rows weights AS r WHERE model = 'paused'"
mkdir -p "$out"
cp "$WORK/database.dump" "$WORK/checkpoint.copy.gz" "$out/"
cp "$WORK/noted" "$out/expected.txt"
