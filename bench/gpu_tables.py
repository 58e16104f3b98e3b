#!/usr/bin/env python3
"""Writes the tables of doc/performance.md that a GPU was measured for, from what
test/cuda/run.sh found, so that no figure is typed.

    gpu_tables.py [--check] [--document FILE] [RESULTS]

RESULTS is a results.jsonl, by default bench/results/gpu.jsonl; without one each table is the line
that nothing was measured. --check writes nothing, and fails if the document says anything else.
Simulated results are refused.
"""
import argparse
import json
import os
import statistics
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MODES = ("eager", "default", "reduce-overhead", "max-autotune")
NOTHING = "Not measured yet: no GPU was at hand.\n"


def table(head, rows):
    if not rows:
        return NOTHING
    lines = [head, ["---"] * len(head)] + rows
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def figure(facts, key, digits, scale=1.0, **wanted):
    """The median of what was found, or a dash."""
    found = [f[key] for f in facts if all(f.get(k) == v for k, v in wanted.items())]
    return f"{statistics.median(found) * scale:.{digits}f}" if found else "-"


def inference(facts):
    rows = []
    for batch in (1, 16, 64):
        ours = figure(facts, "us", 4, 1e-3 / batch, kind="plan", precision="bf16", batch=batch)
        whole = figure(facts, "ms", 4, kind="inference", network="G256", precision="bf16",
                       batch=batch)
        row = [str(batch), f"{ours} / {whole}"]
        for mode in MODES:
            row.append(" / ".join(figure(facts, key, 4, kind="peer", mode=mode, batch=batch)
                                  for key in ("inside", "pinned", "pageable")))
        rows.append(row)
    if all(cell.strip(" -/") == "" for row in rows for cell in row[1:]):
        rows = []
    return table(["batch", "bicycle: inside / bytes to bytes"]
                 + [f"PyTorch {m}: inside / pinned / pageable" for m in MODES], rows)


def layers(facts):
    steps = {}
    for f in facts:
        if f["kind"] == "step":
            steps.setdefault(f["layer"], {}).setdefault(f["n"], f)
    rows = [[layer] + [f"{by[n]['us']:.1f} ({by[n]['limit'] / by[n]['us']:.0%})"
                       if n in by and by[n]["us"] > 0 else "-" for n in (1, 16, 64)]
            for layer, by in steps.items()]
    return table(["layer", "batch 1, us (share of the limit)", "batch 16", "batch 64"], rows)


def training(facts):
    rows = []
    for batch in (2, 16):
        for precision in ("fp32", "tf32", "bf16"):
            wanted = dict(kind="training", network="T256", batch=batch, precision=precision)
            row = [str(batch), precision]
            for side in (dict(side="bicycle"), dict(side="official", mode="eager"),
                         dict(side="official", mode="compile")):
                row += [figure(facts, "seconds", 2, 1e3, **wanted, **side),
                        figure(facts, "mib", 0, **wanted, **side)]
            if any(cell != "-" for cell in row[2:]):
                rows.append(row)
    return table(["batch", "precision", "bicycle, ms", "MiB", "official code, ms", "MiB",
                  "official code compiled, ms", "MiB"], rows)


def machine(facts):
    found = [f for f in facts if f["kind"] == "machine"]
    if not found:
        return NOTHING
    return f"Measured on {found[0]['card']}, {found[0]['processors']} processors, " \
           f"{found[0]['date']}.\n"


TABLES = {"machine": machine, "inference": inference, "layers": layers, "training": training}


def load(path):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        facts = [json.loads(line) for line in file if line.strip()]
    if any(f.get("simulated") for f in facts):
        sys.exit(f"{path} was made by stand-ins; the documents take what a GPU said only")
    return facts


def rewrite(text, facts):
    for name, make in TABLES.items():
        begin, end = f"<!-- gpu table: {name} -->\n", "<!-- end of table -->\n"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            sys.exit(f"the document has no place for the table {name}")
        text = before + begin + "\n" + make(facts) + "\n" + end + rest.partition(end)[2]
    return text


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--document", default=os.path.join(ROOT, "doc/performance.md"))
    parser.add_argument("results", nargs="?", default=os.path.join(ROOT, "bench/results/gpu.jsonl"))
    options = parser.parse_args()
    with open(options.document, encoding="utf-8") as file:
        old = file.read()
    new = rewrite(old, load(options.results))
    if options.check:
        if new != old:
            sys.exit(f"{options.document} says other figures than the results; run gpu_tables.py")
        return
    with open(options.document, "w", encoding="utf-8") as file:
        file.write(new)


if __name__ == "__main__":
    main()
