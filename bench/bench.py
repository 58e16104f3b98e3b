#!/usr/bin/env python3
"""Compares speed and memory on a processor with the peers, interleaved.

    bench.py --bin DIRECTORY --results FILE [--threads N] [--rounds N] [--seconds S] [--minutes M]
             [--rows N] [--fill-rows N] [--networks G256,...] [--data DIRECTORY] [--python PROGRAM]
             [--device D] [PART...]

bench/run.sh, which builds and starts a server, calls it. Parts: inference (the networks beside
PyTorch, ONNX Runtime and OpenVINO), training (beside the official code), sql (beside the engine and
a client), lpips (pairs of images, beside the lpips package), beside (one image while other work
goes on, and a column that is filled: beside.py). A fact is a line of JSON in the results file at
once; called again with the same file it goes on where it was. What is measured in turns is one
round; a measure during which others had more than SHARE of the processors is said so and repeated,
REPEATS times. While one side is measured the others are stopped. What is to come when the minutes
are over is left out, with a line.
"""
import argparse
import datetime
import glob
import itertools
import json
import os
import re
import select
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from beside import run_beside
from common import Results, end_with_parent
from server import answers, psql, timed, waits

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SHARE = 0.03
REPEATS = 2
BATCHES = (1, 4, 16)
NETWORKS = ("G256", "E256", "G128", "E128", "G64", "E64", "G512", "E512")
TRAINING = re.compile(r"^T\d+ \w+: median +([\d.]+) s, least +([\d.]+) s.*peak +(\d+) MiB", re.M)
HZ = os.sysconf("SC_CLK_TCK")
AS_ENGINE = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "20000"}  # so it starts its threads
PARTS = ("inference", "training", "sql", "lpips", "beside")
THROUGH_SQL = ("sql", "lpips", "beside")
CLOSE = {"fp32": 2e-3, "bf16": 0.25}  # the most that images in [-1, 1] may differ


class OutOfTime(Exception):
    pass


# ---- Who else is busy -------------------------------------------------------------------------


def busy():
    """Seconds that processors have worked, for whomever."""
    with open("/proc/stat", encoding="ascii") as file:
        spent = [int(n) for n in file.readline().split()[1:]]
    return (spent[0] + spent[1] + spent[2] + sum(spent[5:8])) / HZ


def processes():
    """pid -> (parent, seconds with those of children that have ended)"""
    found = {}
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
        except OSError:
            continue
        found[int(path.split("/")[2])] = int(fields[1]), sum(map(int, fields[11:15])) / HZ
    return found


def ours(roots):
    """Seconds of these processes and of all below them."""
    found, kept = processes(), set(roots)
    grown = True
    while grown:
        more = {pid for pid, (parent, _) in found.items() if parent in kept} - kept
        grown = bool(more)
        kept |= more
    return sum(found[pid][1] for pid in kept if pid in found)


class Bench:
    def __init__(self, options, results):
        self.options = options
        self.results = results
        self.began = time.monotonic()
        self.roots = [os.getpid()]
        self.skipped = set()  # in this run: the next one tries again

    def check_time(self):
        if self.options.minutes and time.monotonic() - self.began > 60 * self.options.minutes:
            raise OutOfTime

    def undisturbed(self, measure, what, again=True):
        """What measure() gives, and the share of processors that others had meanwhile."""
        for left in range(REPEATS if again and not self.options.tiny else 0, -1, -1):
            self.check_time()
            start = time.monotonic(), busy(), ours(self.roots)
            found = measure()
            wall, spent, own = time.monotonic() - start[0], busy() - start[1], ours(self.roots)
            share = max(0, spent - (own - start[2])) / (wall * os.cpu_count())
            if share <= SHARE or wall < 10 / HZ or not found:
                return found, round(share, 3)
            print(f"{what}: others had {share:.0%} of the processors"
                  + (", again" if left else ""), flush=True)
        return found, round(share, 3)

    def skip(self, what, why):
        if what not in self.skipped:
            print(f"skipped: {what}: {why}", flush=True)
            self.results.add(kind="skipped", what=what, why=why)
        self.skipped.add(what)


class Side:
    """A process that measures one thing at a time, and is stopped while others do."""

    def __init__(self, bench, name, command):
        self.name, self.bench = name, bench
        self.child = subprocess.Popen(command, cwd=os.path.join(ROOT, "bench"), text=True,
                                      stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                      env=dict(os.environ, **(AS_ENGINE if name == "bicycle"
                                                              else {})),
                                      preexec_fn=end_with_parent)
        said = self.hear()
        self.why = said.get("skip")
        self.version = said.get("version")
        self.stop()

    def hear(self):
        ready = select.select([self.child.stdout], [], [], 900)[0]
        line = self.child.stdout.readline() if ready else ""
        try:
            return json.loads(line)
        except ValueError:
            return {"skip": f"it ended with status {self.child.wait()}" if ready and not line
                    else "it does not answer"}

    def stop(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGSTOP)

    def ask(self, *order):
        if self.why:
            return {"skip": self.why}
        self.child.send_signal(signal.SIGCONT)
        try:
            self.child.stdin.write(" ".join(map(str, order)) + "\n")
            self.child.stdin.flush()
            said = self.hear()
        except BrokenPipeError:
            said = {"skip": "it has ended"}
        self.stop()
        if said.get("skip") and self.child.poll() is not None:
            self.why = said["skip"]
        return said

    def close(self):
        if self.child.poll() is None:
            self.child.send_signal(signal.SIGCONT)
            self.child.kill()
        self.child.wait()


def turned(things, i):
    i %= len(things)
    return things[i:] + things[:i]


# ---- The networks alone -----------------------------------------------------------------------


def open_sides(bench, which):
    options = bench.options
    commands = {"bicycle": [os.path.join(options.bin, "engine_bench"), options.threads, "0", "-"],
                "client": [options.python, "client.py", options.threads]}
    for peer in ("torch", "onnxruntime", "openvino"):
        commands[peer] = [options.python, "peer.py", peer, options.threads]
    sides = []
    for name in which:
        side = Side(bench, name, list(map(str, commands[name])))
        if side.why:
            bench.skip(name, side.why)
        else:
            bench.results.add(kind="version", side=name, version=side.version)
            sides.append(side)
    return sides


def floats(path):
    import array
    made = array.array("f")
    with open(path, "rb") as file:
        made.frombytes(file.read())
    return made


def agreeing(bench, sides, network, precision):
    """Those that have the network, and paint what ours paints."""
    kept, mine = [], None
    with tempfile.TemporaryDirectory() as directory:
        for side in sides:
            what = f"{side.name} {network} {precision}"
            path = os.path.join(directory, side.name)
            said = side.ask("open", network, precision)
            said = said if said.get("skip") else side.ask("check", path)
            if said.get("skip"):
                bench.skip(what, said["skip"])
                if mine is None:
                    return []  # ours is the first, and what all are compared with
                continue
            made = floats(path)
            mine = mine or made
            apart = max(abs(a - b) for a, b in zip(mine, made)) if len(made) == len(mine) else 9.0
            if apart > CLOSE[precision]:
                bench.skip(what, f"it makes something else: numbers differ by up to {apart:.3g}")
                continue
            if not bench.results.of("agrees", side=side.name, network=network,
                                    precision=precision):
                bench.results.add(kind="agrees", side=side.name, network=network,
                                  precision=precision, apart=apart)
            kept.append(side)
    return kept


def precisions(bench):
    if processor()[1] & {"avx512_bf16", "amx_bf16", "bf16"}:
        return "fp32", "bf16"
    bench.skip("bf16", "this processor has none")
    return ("fp32",)


def missing_rounds(bench, kind, **cell):
    done = {f["round"] for f in bench.results.of(kind, **cell)}
    return [i for i in range(bench.options.rounds) if i not in done]


def run_inference(bench):
    sides = open_sides(bench, ("bicycle", "torch", "onnxruntime", "openvino"))
    try:
        for network in bench.options.networks:
            for precision in precisions(bench):
                batches = [b for b in BATCHES if missing_rounds(
                    bench, "inference", network=network, precision=precision, batch=b)]
                if batches:
                    kept = agreeing(bench, sides, network, precision)
                    for batch in batches:
                        compare_batch(bench, kept, network, precision, batch)
    finally:
        for side in sides:
            side.close()


def compare_batch(bench, sides, network, precision, batch):
    for i in missing_rounds(bench, "inference", network=network, precision=precision, batch=batch):
        found = []
        for side in turned(sides, i):
            what = f"{side.name} {network} {precision} batch {batch}"
            said, share = bench.undisturbed(
                lambda s=side: s.ask("run", batch, bench.options.seconds).get("ms"), what)
            if said:
                found.append((side.name, said, share))
        for name, times, share in found:  # together: a round is whole, or is not there
            bench.results.add(kind="inference", side=name, network=network, precision=precision,
                              batch=batch, round=i, ms=times, others=share)
        print(f"{network} {precision} batch {batch:2} round {i}: " + ", ".join(
            f"{name} {min(times):.2f}" for name, times, _ in sorted(found)) + " ms an image",
            flush=True)


# ---- Training ---------------------------------------------------------------------------------


def train_once(command, env):
    done = subprocess.run(list(map(str, command)), env=dict(os.environ, **env), text=True,
                          capture_output=True, check=False, preexec_fn=end_with_parent)
    found = TRAINING.search(done.stdout)
    return dict(seconds=float(found[2]), median=float(found[1]), mib=int(found[3])) \
        if found else None


def run_training(bench):
    options = bench.options
    official = os.environ.get("BICYCLE_OFFICIAL", "")
    sides = {"bicycle": None, "official": None}
    if not os.path.exists(os.path.join(official, "models/bicycle_gan_model.py")):
        bench.skip("official", "the official code is not here: BICYCLE_OFFICIAL")
        del sides["official"]
    for size in (256, 128):
        for precision in precisions(bench):
            cell = dict(network=f"T{size}", precision=precision)
            commands = {
                "bicycle": ([os.path.join(options.bin, "train_bench"), options.threads,
                             options.iterations, f"T{size}", "cpu", precision],
                            AS_ENGINE),
                "official": ([options.python, os.path.join(ROOT, "bench/train_peer.py"), size,
                              options.threads, options.iterations, precision], {})}
            for i in missing_rounds(bench, "training", **cell):
                found = []
                for side in turned(list(sides), i):
                    if f"{side} T{size} {precision}" in bench.skipped:
                        continue
                    said, share = bench.undisturbed(lambda s=side: train_once(*commands[s]),
                                                    f"{side} T{size} {precision}")
                    if said is None:
                        bench.skip(f"{side} T{size} {precision}",
                                   "it prints no such figure: a library may be missing")
                        continue
                    found.append(dict(said, side=side, others=share))
                for fact in found:
                    bench.results.add(kind="training", batch=2, round=i, **cell, **fact)
                print(f"T{size} {precision} round {i}: " + ", ".join(
                    f"{f['side']} {f['seconds']:.3f} s, {f['mib']} MiB" for f in found), flush=True)


# ---- Through SQL ------------------------------------------------------------------------------


PREPARE = r"""
CREATE EXTENSION IF NOT EXISTS bicycle;
CREATE TABLE pictures AS SELECT n AS id, pg_read_binary_file(format('%s/edges2emoji/pairs/%s_B.png',
	:'data', to_char(n % 32, 'FM00'))) AS image FROM generate_series(0, :rows - 1) AS n;
ALTER TABLE pictures ADD PRIMARY KEY (id);
CREATE TABLE made (id int, image bytea);
ALTER TABLE made ALTER image SET STORAGE EXTERNAL;
VACUUM ANALYZE pictures;
SELECT bicycle_create('fp32', '{"precision": "fp32"}');
SELECT bicycle_create('bf16', '{"precision": "bf16"}');
SELECT bicycle_create('auto', '{}');
"""
CALL = "bicycle_translate(image, bicycle_latent(8, id), model => '{model}')"
ROWS = "FROM pictures WHERE id < {rows}"
WAYS = {
    "bulk": f"SELECT count({CALL}) {ROWS}",
    "bulk, written": f"TRUNCATE made; INSERT INTO made SELECT id, {CALL} {ROWS}",
    "bulk, one array": "SELECT cardinality(bicycle_translate_many(array_agg(image), array_agg("
                       f"bicycle_latent(8, id)), model => '{{model}}')) {ROWS}",
    # in a condition it is seen row by row whether the call is needed
    "one at a time": f"SELECT count(*) {ROWS} AND {CALL} IS NOT NULL",
}


def with_sessions(sessions, rows, model):
    """Milliseconds an image, and of an answer at the median and the 99th percentile."""
    times, wall = answers("\\set id random(0, 31)\nSELECT length("
                          f"{CALL.format(model=model)}) FROM pictures WHERE id = :id;\n",
                          sessions, max(2, rows // sessions))
    return dict(ms=wall / len(times), **waits(times))


def note_sql(bench, what, model, rows, sessions, i, found, share):
    """A fact, and the line that test/cuda/measure.py reads."""
    if "p50" not in found:
        found = dict(ms=found["ms"])
    bench.results.add(kind="sql", what=what, precision=model, rows=rows, sessions=sessions,
                      round=i, others=share, **{k: round(v, 3) for k, v in found.items()})
    print(f"{what}, {model}, {rows} rows, {sessions} sessions  {found['ms']:8.2f} ms/image "
          f"{1e3 / found['ms']:8.1f} images/s" + (
              f", p50 {found['p50']:.1f} ms, p99 {found['p99']:.1f}" if "p50" in found else ""),
          flush=True)


def measure_sql(bench, what, model, rows, sessions, i, measure):
    if not bench.results.of("sql", what=what, precision=model, rows=rows, sessions=sessions,
                            round=i):
        # What takes minutes is not repeated: there may be no time for it, and less disturbs it.
        found, share = bench.undisturbed(measure, f"{what}, {model}, {rows} rows",
                                         again=rows <= 1000)
        if found:
            note_sql(bench, what, model, rows, sessions, i, found, share)


def sql_round(bench, model, sides, i, suffix=""):
    rows, one = bench.options.rows, max(4, bench.options.rows // 4)

    def of_query(way, n):
        return lambda: dict(ms=timed(WAYS[way].format(model=model, rows=n)) / n)

    def of_side(side, *order):
        def measure():
            said = side.ask(*order).get("ms")
            return dict(ms=min(said)) if said else None
        return measure

    todo = [(way, one if way == "one at a time" else rows, 1,
             of_query(way, one if way == "one at a time" else rows)) for way in WAYS]
    if "bicycle" in sides:
        todo += [(f"engine, batch {batch}", batch, 0,
                  of_side(sides["bicycle"], "run", batch, bench.options.seconds))
                 for batch in (1, 16)]
    if "client" in sides:
        todo.append(("client", rows, 1, of_side(sides["client"], "run", rows)))
    for sessions in bench.options.sessions:
        todo.append(("sessions", rows, sessions,
                     lambda s=sessions: with_sessions(s, rows, model)))
    for what, n, sessions, measure in turned(todo, i * 3):
        measure_sql(bench, what + suffix, model, n, sessions, i, measure)


def sql_rows(bench, model):
    """Bulk of ever more rows, as far as there is time for it."""
    ms = [f["ms"] for f in bench.results.of("sql", what="bulk", precision=model)]
    for rows in (100, 1000, 10000):
        left = 60 * bench.options.minutes - (time.monotonic() - bench.began)
        if not ms or rows > bench.options.most_rows or \
                (bench.options.minutes and rows * min(ms) / 1e3 > left):
            bench.skip(f"{rows} rows, {model}", "there is no time for so many")
            continue
        measure_sql(bench, "bulk of rows", model, rows, 1, 0, lambda n=rows: dict(
            ms=timed(WAYS["bulk"].format(model=model, rows=n)) / n))


def resident(pid):
    """MiB; what processes share counts by its part."""
    with open(f"/proc/{pid}/smaps_rollup", encoding="ascii") as file:
        return int(re.search(r"^Pss: +(\d+)", file.read(), re.M)[1]) / 1024


def sql_memory(bench, model):
    """Of the engine and of sessions that have used it, and wait."""
    for sessions in bench.options.sessions:
        if bench.results.of("memory", sessions=sessions, precision=model):
            continue
        open_ones = []
        try:
            for _ in range(sessions):
                child = subprocess.Popen([os.path.join(os.environ["BIN"], "psql"), "-XAtq"],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
                open_ones.append(child)
                child.stdin.write("SELECT pg_backend_pid(), length("
                                  f"{CALL.format(model=model)}) FROM pictures WHERE id = 1;\n")
                child.stdin.flush()
            pids = [int(child.stdout.readline().split("|")[0]) for child in open_ones]
            engine = int(psql("SELECT pid FROM bicycle_engine()"))
            mib, backends = resident(engine), sum(map(resident, pids))
        finally:
            for child in open_ones:
                child.kill()
                child.wait()
        bench.results.add(kind="memory", sessions=sessions, precision=model, engine=round(mib),
                          backends=round(backends))
        print(f"{sessions} sessions, {model}: engine {mib:.0f} MiB, sessions {backends:.0f} MiB",
              flush=True)


def note_codecs(bench):
    """Milliseconds of a thread, next to nothing else: PNG in, PNG out, JPEG out."""
    path = os.path.join(bench.options.data, "edges2emoji/pairs/00_B.png")
    said = subprocess.run([os.path.join(bench.options.bin, "codec_bench"), path, "100"], text=True,
                          capture_output=True, check=True).stdout.split()
    bench.results.add(kind="codec", **dict(zip(("png_in", "png_out", "jpeg_out"), map(float,
                                                                                     said))))
    print(f"a picture: PNG in {said[0]} ms, PNG out {said[1]}, JPEG out {said[2]}", flush=True)


def run_sql(bench):
    options = bench.options
    psql(PREPARE, data=options.data,
         rows=max(options.rows, min(options.most_rows, 10000)))
    note_codecs(bench)
    cpu = not options.device.startswith("cuda")
    opened = open_sides(bench, ("bicycle", "client")) if cpu else []
    sides = {side.name: side for side in opened}
    try:
        for model in precisions(bench) if cpu else ("auto",):
            for side in opened:
                side.ask("open", "G256", model)
            timed(WAYS["bulk"].format(model=model, rows=32))  # that the model is there, and warm
            for i in range(options.rounds):
                sql_round(bench, model, sides, i)
                if not cpu:  # where writing PNG is what limits it
                    os.environ["PGOPTIONS"] = "-c bicycle.output_format=jpeg"
                    sql_round(bench, model, sides, i, ", JPEG")
                    del os.environ["PGOPTIONS"]
            sql_memory(bench, model)
            sql_rows(bench, model)
    finally:
        for side in opened:
            side.close()


# ---- Pairs of images --------------------------------------------------------------------------

PREPARE_PAIRS = r"""
CREATE EXTENSION IF NOT EXISTS bicycle;
DROP TABLE IF EXISTS compared;
CREATE TABLE compared AS SELECT n AS id, pg_read_binary_file(
	format('%s/edges2emoji/pairs/%s_B.png', :'data', to_char(n, 'FM00'))) AS a,
	pg_read_binary_file(format('%s/edges2emoji/pairs/%s_B.png', :'data',
		to_char((n + 1) % 32, 'FM00'))) AS b FROM generate_series(0, 31) AS n;
VACUUM ANALYZE compared;
"""

# Pairs of images that the engine has not seen, as it keeps what LPIPS makes of an image: the m-th
# is four of the files, chosen by m, on a page of 128 x 128.
FRESH_PAIRS = r"""
DROP TABLE IF EXISTS fresh;
CREATE TABLE fresh AS
WITH file AS (SELECT array_agg(a ORDER BY id) AS files FROM compared),
page AS (SELECT m, bicycle_grid(ARRAY[files[1 + m % 32], files[1 + m / 32 % 32],
	files[1 + m / 1024 % 32], files[1]], 2, size => 61) AS image
	FROM file, generate_series(2 * :rows * :turn, 2 * :rows * (:turn + 1) - 1) AS m)
SELECT a.image AS a, b.image AS b FROM page AS a JOIN page AS b ON b.m = a.m + 1
	WHERE a.m % 2 = 0;
VACUUM ANALYZE fresh;
"""


def lpips_agrees(side, net):
    """None, or why the two cannot be compared."""
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "distances")
        said = side.ask("open", net)
        said = said if said.get("skip") else side.ask("check", path)
        if said.get("skip"):
            return said["skip"]
        with open(path, encoding="ascii") as file:
            theirs = [float(line) for line in file]
    ours = psql(f"SELECT bicycle_lpips(a, b, '{net}') FROM (SELECT * FROM compared WHERE id < 32 "
                "ORDER BY id OFFSET 0) AS pairs")
    apart = max(abs(float(x) - y) for x, y in zip(ours.split(), theirs))
    return f"its distances are others: by up to {apart:.3g}" if apart > 1e-4 else None


def fresh_pairs_ms(net, rows, turn):
    """Milliseconds a pair, of so many that no other turn has."""
    psql(FRESH_PAIRS, rows=rows, turn=turn)
    return timed(f"SELECT count(bicycle_lpips(a, b, '{net}')) FROM fresh") / rows


def run_lpips(bench):
    options = bench.options
    weights = os.environ.get("BICYCLE_LPIPS", "")
    if not os.path.exists(os.path.join(weights, "alex.safetensors")):
        bench.skip("lpips", "weights cannot be had from PyPI")
        return
    files = [os.path.join(options.data, f"edges2emoji/pairs/{n:02}_B.png") for n in range(32)]
    rows = max(options.rows, 32)
    psql(PREPARE_PAIRS, data=options.data)
    psql(f"\\i {os.path.join(ROOT, 'tools/lpips_import.sql')}\n", cwd=weights)
    side = Side(bench, "lpips", [options.python, "lpips_peer.py", str(options.threads), weights,
                                 *files])
    try:
        for net in ("alex", "vgg"):
            timed(f"SELECT count(bicycle_lpips(a, b, '{net}')) FROM compared")
            why = side.why or lpips_agrees(side, net)
            if why:
                bench.skip(f"the lpips package, {net}", why)
            turns = itertools.count()
            ways = {"bicycle": lambda n=net, t=turns: fresh_pairs_ms(n, rows, next(t))}
            if not why:
                ways["lpips"] = lambda: side.ask("run", rows).get("ms", [None])[0]
            for i in missing_rounds(bench, "lpips", net=net):
                for name in turned(list(ways), i):
                    ms, share = bench.undisturbed(ways[name], f"{name} {net}")
                    if ms:
                        bench.results.add(kind="lpips", side=name, net=net, rows=rows, round=i,
                                          ms=round(ms, 4), others=share)
                        print(f"{name} {net}: {1e3 / ms:.1f} pairs a second", flush=True)
    finally:
        side.close()


# ---- The run ----------------------------------------------------------------------------------


def processor():
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        text = file.read()
    name = re.search(r"^model name\s*: (.*)", text, re.M)
    flags = re.search(r"^(?:flags|Features)\s*: (.*)", text, re.M)
    return (" ".join((name[1] if name else os.uname().machine).split()),
            set(flags[1].split()) if flags else set())


def note_machine(options, results):
    name = processor()[0]
    commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], text=True,
                            capture_output=True, check=False).stdout.strip()
    known = results.of("machine")
    if known and (known[0]["processor"], known[0]["threads"]) != (name, options.threads):
        sys.exit(f"{results.path} is of {known[0]['processor']}, {known[0]['threads']} threads; "
                 "name another file by RESULTS")
    if not known or known[-1]["commit"] != commit:
        results.add(kind="machine", processor=name, cores=os.cpu_count(), commit=commit,
                    threads=options.threads, date=datetime.date.today().isoformat(),
                    tiny=options.tiny)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--iterations", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=0)
    parser.add_argument("--data", default=os.environ.get("BICYCLE_TESTDATA"))
    parser.add_argument("--rows", type=int, default=96)
    parser.add_argument("--fill-rows", type=int, default=4000)
    parser.add_argument("--most-rows", type=int, default=10000)
    parser.add_argument("--sessions", type=lambda s: list(map(int, s.split())), default=[1, 8, 32])
    parser.add_argument("--networks", type=lambda s: s.split(","), default=list(NETWORKS))
    parser.add_argument("--tiny", action="store_true", help="to try it: tables refuse the results")
    parser.add_argument("parts", nargs="*", default=list(PARTS))
    options = parser.parse_args()
    if not set(options.parts) <= set(PARTS):
        parser.error(f"parts are {', '.join(PARTS)}")
    results = Results(options.results)
    note_machine(options, results)
    bench = Bench(options, results)
    runs = {"inference": run_inference, "training": run_training, "sql": run_sql,
            "lpips": run_lpips, "beside": run_beside}
    if "PGDATA" in os.environ:
        with open(os.path.join(os.environ["PGDATA"], "postmaster.pid"), encoding="ascii") as file:
            bench.roots.append(int(file.readline()))
    try:
        for part in options.parts:
            print(f"\n==> {part}", flush=True)
            if part in THROUGH_SQL and "PGHOST" not in os.environ:
                bench.skip(part, "there is no server")
            else:
                runs[part](bench)
    except OutOfTime:
        print(f"the {options.minutes:g} minutes are over; the rest is left out, and the next run "
              "goes on from here", flush=True)


if __name__ == "__main__":
    main()
