#!/usr/bin/env python3
"""What is run on a machine with a GPU, in the order of its worth, within one budget of seconds.

    measure.py --bin DIRECTORY --results FILE [--logs DIRECTORY] [--seconds N] [PART...]

test/cuda/run.sh, which makes the build, calls it. A fact is one line of JSON in the results file,
written as soon as it is known, so that whatever ends this loses nothing. Called again with the same
file it goes on where it was: what has ended is not begun again, and what was begun and never ended
comes last, as it may be what took the machine down. --seconds ends by then: a part is cut short, or
not begun if it would have less than it needs.

The last thing printed is a table of the goals. A results file whose first line says "simulated" was
made by stand-ins (test/cuda/simulate.sh); all of it says so, and bench/tables.py refuses it.
"""
import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "bench"))
from common import Results, end_with_parent, plan_images  # noqa: E402

SPARE = 10  # seconds kept for the end


# ---- What programs print ----------------------------------------------------------------------

INFERENCE = re.compile(r"^(?P<network>[GE]\d+) (?P<precision>\w+) batch +(?P<batch>\d+): "
                       r"median +(?P<ms>[\d.]+) ms")
PLAN = re.compile(r"^trace plan of (?P<batch>\d+) images, (?P<precision>\w+): (?P<us>[\d.]+) us, "
                  r"limit (?P<limit>[\d.]+) us")
STEP = re.compile(r"^trace step (?P<layer>\S+) +\((?P<n>\d+),.*?: +(?P<us>[\d.]+) us.*?"
                  r"limit +(?P<limit>[\d.]+) us by (?P<by>\w+)")
DEVICE = re.compile(r"^trace device (\{.*\})")
PEER = re.compile(r"^(?P<network>[GE]\d+) (?P<precision>\w+) batch +(?P<batch>\d+) (?P<mode>\S+): "
                  r"inside +(?P<inside>[\d.]+) ms, pinned +(?P<pinned>[\d.]+) ms, "
                  r"pageable +(?P<pageable>[\d.]+) ms")
TRAINING = re.compile(r"^(?P<network>T\d+)(?:x(?P<batch>\d+))? (?P<precision>\w+)"
                      r"(?: (?P<mode>\w+))?: median +(?P<seconds>[\d.]+) s.*?"
                      r"peak +(?P<mib>\d+) MiB")
LOSS = re.compile(r"^losses (?P<device>\w+) (?P<precision>\w+) (?P<iteration>\d+): (?P<values>.*)")
SQL = re.compile(r"^(?P<what>.*?) {2,}(?P<ms>[\d.]+) ms/image +(?P<rate>[\d.]+) images/s")


def numbers(found):
    """What a pattern found, as numbers where it is one."""
    made = {}
    for key, value in found.items():
        if value is None:
            continue
        try:
            made[key] = int(value) if value.isdigit() else float(value)
        except ValueError:
            made[key] = value
    return made


def read_bench(line):
    found = INFERENCE.match(line)
    if found:
        yield dict(kind="inference", side="bicycle", **numbers(found.groupdict()))


def read_trace(line):
    for pattern, kind in ((PLAN, "plan"), (STEP, "step")):
        found = pattern.match(line)
        if found:
            yield dict(kind=kind, **numbers(found.groupdict()))
    found = DEVICE.match(line)
    if found:
        yield dict(kind="description", text=found.group(1))
    if "could not be captured" in line:
        yield dict(kind="uncaptured", text=line.strip())


def read_peer(line):
    found = PEER.match(line)
    if found:
        yield dict(kind="peer", **numbers(found.groupdict()))


def read_training(side):
    def read(line):
        found = TRAINING.match(line)
        if found:
            yield {"kind": "training", "side": side, "batch": 2, **numbers(found.groupdict())}
    return read


def read_losses(line):
    found = LOSS.match(line)
    if found:
        yield dict(kind="losses", device=found["device"], precision=found["precision"],
                   iteration=int(found["iteration"]),
                   values={k: float(v) for k, v in
                           (pair.split("=") for pair in found["values"].split())})


def read_sql(line):
    found = SQL.match(line)
    if found:
        yield dict(kind="sql", **numbers(found.groupdict()))


def read_nothing(_line):
    return ()


# ---- Parts ------------------------------------------------------------------------------------


class Part:
    def __init__(self, name, least, limit, command, read=read_nothing, needs=(), env=None,
                 test=False):
        self.name = name      # of the log, too
        self.least = least    # seconds without which it is not worth to begin
        self.limit = limit    # seconds after which it is ended
        self.command = command
        self.read = read      # facts in a line of what it prints
        self.needs = needs    # names of what is looked for in the first second
        self.env = env or {}
        self.test = test      # one of "tests"


def sanitizer(tool, binary):
    """Our kernels alone: cuDNN's are its own affair, and take the tools very long."""
    command = [shutil.which("compute-sanitizer")
               or "/usr/local/cuda/bin/compute-sanitizer", "--tool", tool]
    for source in sorted(os.listdir(os.path.join(ROOT, "kernels"))):
        if source.endswith(".cu"):
            with open(os.path.join(ROOT, "kernels", source), encoding="utf-8") as file:
                text = file.read()
            names = re.findall(r"^KERNEL\(([a-z0-9_]*),", text, re.M)
            for name in re.findall(r"^KERNEL_TYPED\(([a-z0-9_]*),", text, re.M):
                names += [f"{name}_{kind}" for kind in ("f32", "f16", "bf16", "any")]
            for name in re.findall(r"^KERNEL_TRAINED\(([a-z0-9_]*),", text, re.M):
                names += [f"{name}_{kind}" for kind in ("f32", "bf16", "any")]
            names += re.findall(r"^STREAM_KERNEL\(([a-z0-9_]*),", text, re.M)
            for kernel in names:
                command += ["--kernel-name", f"kns=_Z{len(kernel)}{kernel}"]
    # racecheck does not take memcheck's option
    command += ["--report-api-errors", "no"] if tool == "memcheck" else []
    return command + ["--error-exitcode", "1", binary]


def parts_of(options):
    """In the order of their worth: what proves, then what compares, then what explains."""
    binary = lambda name: os.path.join(options.bin, name)
    python, runs, device = options.python, str(options.runs), options.device
    standin = os.path.join(ROOT, "test/cuda/standin/peer.py") if options.simulated else None
    peer = [python, standin or os.path.join(ROOT, "bench/torch_gpu_peer.py")]
    official = [python, standin or os.path.join(ROOT, "bench/train_peer.py"), "--device", "cuda"]
    regress = [os.path.join(ROOT, "test/run.sh"), "regress"]
    return [
        Part("operators", 10, 120, [binary("test_cpu_ops")], test=True),
        Part("goldens", 5, 60, [binary("test_nn_golden")], test=True),
        Part("backward", 10, 120, [binary("test_train_backward")], test=True),
        Part("bench", 20, 120, [binary("engine_bench"), "1", runs, "G256", device], read_bench),
        Part("trace", 15, 120, [binary("engine_bench"), "1", "5", "G256", device], read_trace,
             env={"BICYCLE_CUDA_TRACE": "1"}),
        Part("eager", 15, 60, peer + ["eager"], read_peer, ["torch"]),
        Part("graphs", 30, 150, peer + ["reduce-overhead"], read_peer, ["torch"]),
        Part("train", 20, 120, [binary("train_bench"), "0", runs, "all", device],
             read_training("bicycle")),
        Part("train_eager", 20, 90, official + ["eager"], read_training("official"),
             ["torch", "official"]),
        Part("train_goldens", 5, 120, [binary("test_train_golden")], test=True),
        Part("models", 20, 200, [binary("test_gpu_model")], test=True),
        Part("losses_cpu", 15, 120, [binary("train_bench"), "0", "200", "losses", "cpu"],
             read_losses),
        Part("losses", 10, 90, [binary("train_bench"), "0", "200", "losses", device], read_losses),
        Part("sql", 60, 400, regress, needs=["server"], env={"BICYCLE_DEVICE": device},
             test=True),
        Part("compile", 40, 200, peer + ["default"], read_peer, ["torch"]),
        Part("train_compile", 60, 300, official + ["compile"], read_training("official"),
             ["torch", "official"]),
        Part("autotune", 60, 420, peer + ["max-autotune"], read_peer, ["torch"]),
        Part("memcheck", 40, 240, sanitizer("memcheck", binary("test_cpu_ops")),
             needs=["sanitizer"], env={"BICYCLE_TEST_SMALL": "1"}, test=True),
        Part("racecheck", 40, 240, sanitizer("racecheck", binary("test_cpu_ops")),
             needs=["sanitizer"], env={"BICYCLE_TEST_SMALL": "1"}, test=True),
        Part("sqlbench", 60, 300, [os.path.join(ROOT, "bench/run.sh")], read_sql, ["server"],
             {"DEVICE": device, "PARTS": "sql"}),
        Part("others", 20, 120, [binary("engine_bench"), "1", runs, "all", device], read_bench),
        Part("engines", 20, 150, [binary("engines")]),
    ]


def available(options):
    """What parts may need, looked for in the first second: name -> (is there, why not)."""
    def torch():
        code = "import torch; assert torch.cuda.is_available(); print(torch.__version__)"
        if options.simulated:
            return True
        return subprocess.run([options.python, "-c", code], capture_output=True, timeout=60,
                              check=False).returncode == 0

    def exists(path):
        return os.path.exists(path)

    official = os.environ.get("BICYCLE_OFFICIAL", "")
    return {
        "torch": (torch(), f"{options.python} has no PyTorch with CUDA"),
        "official": (options.simulated or exists(os.path.join(official, "models")),
                     "BICYCLE_OFFICIAL is not a directory with the official code"),
        "server": (os.environ.get("HAS_SERVER") == "yes", "no PostgreSQL with headers"),
        "sanitizer": (bool(shutil.which("compute-sanitizer"))
                      or exists("/usr/local/cuda/bin/compute-sanitizer"),
                      "no compute-sanitizer"),
    }


class Runner:
    def __init__(self, options, results):
        self.options = options
        self.results = results
        self.began = time.monotonic()

    def left(self):
        if not self.options.seconds:
            return float("inf")
        return self.options.seconds - (time.monotonic() - self.began) - SPARE

    def run(self, part):
        """Runs a part and notes what it says; an end by a signal is a failure, too."""
        limit = min(part.limit, self.left())
        env = dict(os.environ, BICYCLE_TEST_DEVICE=self.options.device, **part.env)
        started = time.monotonic()
        log = os.path.join(self.options.logs, part.name + ".log")
        print(f"\n==> {part.name} ({started - self.began:.0f} s so far)", flush=True)
        self.results.add(kind="begun", part=part.name)
        # a group of its own, so that what it has started ends with it
        child = subprocess.Popen(part.command, cwd=ROOT, env=env, stdout=subprocess.PIPE,
                                 stderr=subprocess.STDOUT, text=True, errors="replace",
                                 start_new_session=True, preexec_fn=end_with_parent)
        try:
            how = self.listen(child, part, log, limit)
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        seconds = round(time.monotonic() - started, 1)
        self.results.add(kind="ended", part=part.name, how=how, seconds=seconds)
        print(f"{part.name}: {how}, {seconds} s", flush=True)

    def listen(self, child, part, log, limit):
        """Reads what it prints until its end or its limit; how it ended."""
        end = time.monotonic() + limit
        expired = []

        def on_alarm(_signal, _frame):
            expired.append(True)
            os.killpg(child.pid, signal.SIGKILL)

        signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, max(0.1, end - time.monotonic()))
        failed = 0
        with open(log, "a", encoding="utf-8") as file:
            for line in child.stdout:
                file.write(line)
                failed += line.startswith("not ok")
                if not re.match(r"^(ok|trace step|trace device)", line):
                    print(line.rstrip()[:200], flush=True)
                for fact in part.read(line):
                    self.results.add(part=part.name, **fact)
        status = child.wait()
        signal.setitimer(signal.ITIMER_REAL, 0)
        if expired:
            return "out of time"
        if failed:
            return f"{failed} tests failed"
        return "ok" if status == 0 else f"status {status}"


def in_order(parts, results, wanted):
    """Those still to be done: first what was never begun, then what was begun and did not end."""
    ended = {f["part"] for f in results.of("ended")}
    begun = {f["part"] for f in results.of("begun")}
    left = [p for p in parts if p.name not in ended
            and (not wanted or p.name in wanted or p.test and "tests" in wanted)]
    return sorted(left, key=lambda p: p.name in begun)


# ---- Goals ------------------------------------------------------------------------------------


def least(results, kind, key, **wanted):
    found = [f[key] for f in results.of(kind, **wanted) if f.get(key)]
    return min(found) if found else None


def ratio(theirs, ours):
    return theirs / ours if theirs and ours else None


def goals(results):
    """(what, at least, reached): None is not measured."""
    bf16 = dict(network="G256", precision="bf16")

    def inside(batch):
        us = least(results, "plan", "us", precision="bf16", batch=plan_images(batch))
        return us / 1e3 / plan_images(batch) if us else None

    def whole(batch):
        return least(results, "inference", "ms", batch=batch, **bf16)

    def peer(mode, batch, key):
        return least(results, "peer", key, mode=mode, batch=batch, **bf16)

    def step(side, batch, mode=None, key="seconds"):
        wanted = dict(side=side, network="T256", precision="bf16", batch=batch)
        if mode:
            wanted["mode"] = mode
        return least(results, "training", key, **wanted)

    for mode, share in (("max-autotune", 1.5), ("eager", 5)):
        yield (f"batch 1, inside, against {mode}", share, ratio(peer(mode, 1, "inside"), inside(1)))
    for batch in (16, 64):
        yield (f"batch {batch}, inside, against compile", 1.3,
               ratio(peer("default", batch, "inside"), inside(batch)))
        yield (f"batch {batch}, bytes to bytes, against compile from pinned memory", 1.3,
               ratio(peer("default", batch, "pinned"), whole(batch)))
    yield ("training, batch 2, against the official code", 10,
           ratio(step("official", 2, "eager"), step("bicycle", 2)))
    yield ("training, batch 2, against it compiled", 3,
           ratio(step("official", 2, "compile"), step("bicycle", 2)))
    yield ("training, batch 16, against it compiled", 1.5,
           ratio(step("official", 16, "compile"), step("bicycle", 16)))
    yield ("training, batch 16, official memory by ours", 1 / 0.7,
           ratio(step("official", 16, "eager", "mib"), step("bicycle", 16, None, "mib")))
    images = plan_images(64)
    plan = [f for f in results.of("plan", precision="bf16", batch=images) if f["us"] > 0]
    yield (f"batch 64, in plans of {images}, share of the roofline", 0.6,
           max((f["limit"] / f["us"] for f in plan), default=None))


def losses_apart(results, device, precision):
    """The largest difference of a mean loss over the last half, relative to the CPU's."""
    def means(**wanted):
        facts = results.of("losses", **wanted)
        facts = [f for f in facts if f["iteration"] > 100]
        names = facts[0]["values"] if facts else ()
        return {n: sum(f["values"][n] for f in facts) / len(facts) for n in names}

    ours, theirs = means(device=device, precision=precision), means(device="cpu", precision="fp32")
    if not ours or ours.keys() != theirs.keys():
        return None
    return max(abs(ours[n] - theirs[n]) / max(abs(theirs[n]), 1e-3) for n in ours)


def print_table(results):
    stamp = "SIMULATED by stand-ins, figures mean nothing: " if results.simulated() else ""
    print(f"\n==> {stamp}how each part ended")
    for fact in results.of("ended"):
        print(f"{fact['part']:16} {fact['seconds']:7.1f} s  {fact['how']}")
    for fact in results.of("left out"):
        print(f"{fact['part']:16} left out: {fact['why']}")
    print(f"\n==> {stamp}goals")
    for what, share, reached in goals(results):
        figure = "not measured" if reached is None else \
            f"{reached:6.2f}  {'reached' if reached >= share else 'MISSED'}"
        print(f"{what:66} >= {share:5.2f}: {figure}")
    for precision in ("fp32", "bf16"):
        apart = losses_apart(results, "cuda", precision)
        if apart is not None:
            print(f"losses of iterations 101 to 200 in {precision}, largest difference from the "
                  f"CPU's: {apart:.1%}")


# ---- The run ----------------------------------------------------------------------------------


def note_machine(options, results):
    """The first line of the results: on what, and whether it is real."""
    def said(command):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=60,
                                  check=False).stdout.strip()
        except OSError:
            return ""

    if results.of("machine"):
        return
    card = said(["nvidia-smi", "--query-gpu=name,compute_cap,memory.total,driver_version",
                 "--format=csv,noheader"])
    commit = said(["git", "-C", ROOT, "rev-parse", "HEAD"])
    results.add(kind="machine", simulated=options.simulated, card=card,
                processors=os.cpu_count(), commit=commit, date=time.strftime("%Y-%m-%d"))


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", required=True)
    parser.add_argument("--results", required=True)
    parser.add_argument("--logs")
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--runs", type=int, default=51)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--python", default="python3")
    parser.add_argument("--simulated", action="store_true")
    parser.add_argument("parts", nargs="*")
    options = parser.parse_args()
    options.logs = options.logs or os.path.dirname(os.path.abspath(options.results))
    return options


def main():
    options = arguments()
    results = Results(options.results)
    note_machine(options, results)
    if results.simulated() != options.simulated:
        sys.exit(f"{options.results} has {'simulated' if results.simulated() else 'real'} results")
    runner = Runner(options, results)
    parts = parts_of(options)
    unknown = set(options.parts) - {p.name for p in parts} - {"tests"}
    if unknown:
        sys.exit(f"unknown part: {', '.join(sorted(unknown))}; parts are: "
                 + " ".join(p.name for p in parts))
    there = available(options)
    for part in in_order(parts, results, options.parts):
        lack = [there[n][1] for n in part.needs if not there[n][0]]
        program = part.command[0]
        if os.path.isabs(program) and not os.path.exists(program):
            lack.append(f"there is no {os.path.basename(program)}")
        if not lack and runner.left() < part.least:
            print(f"{part.name}: no time is left for it", flush=True)
            continue
        if lack:
            if not results.of("left out", part=part.name):
                results.add(kind="left out", part=part.name, why="; ".join(lack))
            continue
        runner.run(part)
    print_table(results)
    sys.exit(any(f["how"] != "ok" for f in results.of("ended")))


if __name__ == "__main__":
    main()
