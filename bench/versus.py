#!/usr/bin/env python3
"""This checkout's speed against another's: bench/versus.py OTHER [PAIRS]

OTHER is the directory of a checkout, of another commit. In each of PAIRS (15)
rounds the other one, this one and the other one again are measured, in an order
that turns from round to round. Printed for each figure are the median of the
ratios other / this (above 1: this one is faster) and a 95 % interval by
bootstrap over the rounds; beside it the same of the other one against itself,
which is what the machine's noise alone looks like.

Figures: the generator of the official defaults at three batches and a small
one (engine_bench), an iteration of training (train_bench), and a picture
through SQL, by the plan node and by bicycle_translate_many, from servers of
both checkouts that run side by side while the other one is idle. THREADS
(2), PARTS (inference training sql) and IMAGES (32) as in bench/run.sh. Nothing
else should run meanwhile.
"""
import os
import random
import re
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
THREADS = os.environ.get("THREADS", "2")
PARTS = os.environ.get("PARTS", "inference training sql").split()
IMAGES = int(os.environ.get("IMAGES", "32"))

SERVE = r"""
set -eu -o pipefail
. test/private_server.sh
build all benches
private_begin
private_tree tree release
private_cluster versus "shared_preload_libraries = 'bicycle'" "bicycle.threads = $THREADS"
"$BIN/psql" -XAtq -v ON_ERROR_STOP=1 -v data="$BICYCLE_TESTDATA" -v images="$IMAGES" <<'SQL'
CREATE EXTENSION bicycle;
SELECT bicycle_create('full', '{"precision": "fp32"}') AS version \gset
CREATE TABLE pictures AS
	SELECT n AS id, pg_read_binary_file(
		format('%s/edges2emoji/pairs/%s_B.png', :'data', to_char(n % 32, 'FM00'))) AS image
	FROM generate_series(0, :images - 1) n;
VACUUM ANALYZE pictures;
SQL
echo "ready $BIN $PGHOST"
cat >/dev/null
"""
QUERIES = {
    "sql, plan node": "SELECT count(made) FROM (SELECT bicycle_translate(image,"
    " bicycle_latent(8, id), model => 'full') AS made FROM pictures OFFSET 0) AS rows",
    "sql, translate_many": "SELECT cardinality(bicycle_translate_many(array_agg(image),"
    " array_agg(bicycle_latent(8, id)), model => 'full')) FROM pictures",
}


class Side:
    """A checkout: its programs and, for sql, a server that runs until close()."""

    def __init__(self, root):
        self.root = os.path.abspath(root)
        self.bench = os.path.join(self.root, "build/release/bench")
        env = dict(os.environ, THREADS=THREADS, IMAGES=str(IMAGES))
        if "sql" not in PARTS:
            self.server = None
            subprocess.run(["make", "-s", "-C", self.root, "all", "benches"], check=True,
                           stdout=subprocess.DEVNULL)
            return
        # As a script in test/, so that private_server.sh finds its checkout.
        self.server = subprocess.Popen(["bash", "-c", SERVE, "test/versus"], cwd=self.root, env=env,
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for line in self.server.stdout:
            if line.startswith("ready "):
                _, self.bin, self.host = line.split()
                break
        else:
            sys.exit(f"no server of {self.root}")

    def close(self):
        if self.server:
            self.server.stdin.close()
            self.server.wait()

    def program(self, name, *arguments):
        # Waiting threads sleep soon, as in a training engine.
        env = dict(os.environ, OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="20000")
        out = subprocess.run([os.path.join(self.bench, name), THREADS, *arguments], check=True,
                             env=env if name == "train_bench" else None,
                             capture_output=True, text=True).stdout
        return {m[1]: float(m[2]) for m in re.finditer(r"(.*): median +([\d.]+)", out)}

    def query(self, text):
        start = time.monotonic()
        subprocess.run([os.path.join(self.bin, "psql"), "-XAtq", "-h", self.host, "-U", "postgres",
                        "-v", "ON_ERROR_STOP=1", "-c", text, "postgres"], check=True,
                       stdout=subprocess.DEVNULL)
        return time.monotonic() - start

    def measure(self):
        figures = {}
        if "inference" in PARTS:
            figures |= self.program("engine_bench", "3", "G256")
            figures |= self.program("engine_bench", "5", "G128")
        if "training" in PARTS:
            figures |= self.program("train_bench", "5", "T128")
            figures |= self.program("train_bench", "15", "T64-24x4")
        if "sql" in PARTS:
            figures |= {name: self.query(text) for name, text in QUERIES.items()}
        return figures


def interval(ratios):
    """The median and its 95 % interval, by 10,000 samples with replacement."""
    draw = random.Random(1)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(10000))
    return statistics.median(ratios), medians[249], medians[9749]


def main():
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 15
    this, other = Side(ROOT), Side(sys.argv[1])
    seen = {}
    try:
        this.measure(), other.measure()
        for i in range(rounds):
            order = [("other", other), ("this", this), ("again", other)]
            found = {}
            for name, side in order[i % 3:] + order[:i % 3]:
                found[name] = side.measure()
            for figure in found["this"].keys() & found["other"].keys():
                ratios = seen.setdefault(figure, ([], [], []))
                ratios[0].append(found["other"][figure] / found["this"][figure])
                ratios[1].append(found["other"][figure] / found["again"][figure])
                ratios[2].append(found["this"][figure])
            print(f"round {i + 1} of {rounds}, load {os.getloadavg()[0]:.1f}", file=sys.stderr)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)  # what was seen is shown all the same
    finally:
        this.close()
        other.close()
    done = max((len(ratios[0]) for ratios in seen.values()), default=0)
    print(f"{'other / this, ' + str(done) + ' rounds':32} {'ratio':>6} {'95 % interval':>15}"
          f"   {'other / itself':>14} {'interval':>15}  {'this':>9}")
    for figure in sorted(seen):
        a, b = interval(seen[figure][0]), interval(seen[figure][1])
        print(f"{figure:32} {a[0]:6.3f} {a[1]:7.3f} {a[2]:7.3f}   {b[0]:14.3f} {b[1]:7.3f}"
              f" {b[2]:7.3f}  {statistics.median(seen[figure][2]):9.3f}")


main()
