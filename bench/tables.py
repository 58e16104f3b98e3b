#!/usr/bin/env python3
"""Writes the tables of doc/performance.md, and README's chart, from what was measured, so that no
figure is typed.

    tables.py [--check] [--gpu FILE] [--cpu FILE] [--amx FILE] [--document FILE] [--readme FILE]
    tables.py --print FILE

The files are results of test/cuda/run.sh, and of bench/run.sh on a processor without AMX and on one
with it, by default gpu.jsonl, cpu.jsonl and amx.jsonl of bench/results; without one each of its
tables is the line that nothing was measured. The chart is of the processor with AMX, if there is
one. --check writes nothing, and fails if the documents say anything else. Simulated and tiny
results are refused. --print only shows the tables of a file of bench/run.sh, whatever it is.

Of a processor's figures those count during which others had next to nothing of it, or all, marked
by a star, if there are none. A ratio is the median of those of each round.
"""
import argparse
import json
import os
import statistics
import sys
import textwrap

from common import ROOT, plan_images

MODES = ("eager", "default", "reduce-overhead", "max-autotune")
NOTHING = "Not measured yet: no GPU was at hand.\n"
NO_FIGURES = "Not measured yet.\n"
PEERS = {"bicycle": "bicycle", "torch": "PyTorch", "onnxruntime": "ONNX Runtime",
         "openvino": "OpenVINO"}
UNDISTURBED = 0.03  # share of the processors that others had


def table(head, rows, nothing=NOTHING):
    if not rows:
        return nothing
    lines = [head, ["---"] * len(head)] + rows
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def figure(facts, key, digits, scale=1.0, **wanted):
    """The median of what was found, or a dash."""
    found = [f[key] for f in facts if all(f.get(k) == v for k, v in wanted.items())]
    return f"{statistics.median(found) * scale:.{digits}f}" if found else "-"


def inference(facts):
    rows = []
    for batch in (1, 16, 64):
        images = plan_images(batch)
        ours = figure(facts, "us", 4, 1e-3 / images, kind="plan", precision="bf16", batch=images)
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
                       if n in by and by[n]["us"] > 0 else "-" for n in (1, 16)]
            for layer, by in steps.items()]
    return table(["layer", "batch 1, us (share of the limit)", "batch 16"], rows)


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


# ---- On a processor ---------------------------------------------------------------------------


def of(facts, kind, **wanted):
    return [f for f in facts if f["kind"] == kind and all(f.get(k) == v for k, v in wanted.items())]


def cells(facts, kind, *keys):
    """Those that were measured, in the order in which they were."""
    return list(dict.fromkeys(tuple(f[k] for k in keys) for f in of(facts, kind)))


class Cell:
    """What one side took in one place of a table, by round."""

    def __init__(self, facts, least, median):
        clean = [f for f in facts if f["others"] <= UNDISTURBED]
        self.star = "" if clean else "\\*"
        self.rounds = {f["round"]: least(f) for f in clean or facts}
        self.least = min(self.rounds.values(), default=None)
        self.median = statistics.median([t for f in clean or facts for t in median(f)]) \
            if facts else None

    def text(self, digits):
        if self.least is None:
            return "-"
        return f"{self.least:.{digits}f} / {self.median:.{digits}f}{self.star}"

    def times(self, ours):
        """How many times ours this took."""
        shared = self.rounds.keys() & ours.rounds.keys()
        ratios = [self.rounds[i] / ours.rounds[i] for i in shared]
        return statistics.median(ratios) if ratios else None


def times_text(ratio):
    return "" if ratio is None else f" ({ratio:.2f})"


def ran(facts, side, network, precision, batch):
    return Cell(of(facts, "inference", side=side, network=network, precision=precision,
                   batch=batch), lambda f: min(f["ms"]), lambda f: f["ms"])


def cpu_machine(facts):
    found = of(facts, "machine")
    if not found:
        return NO_FIGURES
    versions = dict.fromkeys(f["version"] for f in of(facts, "version") if f["side"] != "client")
    return textwrap.fill(
        f"Measured on {found[0]['processor']}, {found[0]['threads']} of {found[0]['cores']} "
        f"processors, {found[0]['date']}: {'; '.join(versions)}.", 100) + "\n"


def cpu_inference(facts):
    rows = []
    for network, precision, batch in cells(facts, "inference", "network", "precision", "batch"):
        ours = ran(facts, "bicycle", network, precision, batch)
        row = [network, precision, str(batch), ours.text(2)]
        for peer in list(PEERS)[1:]:
            theirs = ran(facts, peer, network, precision, batch)
            row.append(theirs.text(2) + times_text(theirs.times(ours)))
        rows.append(row)
    return table(["network", "precision", "batch"] + list(PEERS.values()), rows, NO_FIGURES)


def cpu_training(facts):
    rows = []
    for network, precision in cells(facts, "training", "network", "precision"):
        row, ours = [network[1:], precision], None
        for side in ("bicycle", "official"):
            found = of(facts, "training", side=side, network=network, precision=precision)
            cell = Cell(found, lambda f: f["seconds"], lambda f: [f["median"]])
            row.append(cell.text(2) + times_text(cell.times(ours) if ours else None))
            row.append(str(max((f["mib"] for f in found), default="-")))
            ours = cell
        rows.append(row)
    return table(["size", "precision", "bicycle, s", "MiB", "official code, s", "MiB"], rows,
                 NO_FIGURES)


def sql_cell(facts, **wanted):
    return Cell(of(facts, "sql", **wanted), lambda f: f["ms"], lambda f: [f["ms"]])


def cpu_sql(facts):
    rows = []
    for precision in ("fp32", "bf16"):
        engine = sql_cell(facts, what="engine, batch 16", precision=precision)
        for what, sessions in cells(of(facts, "sql", precision=precision), "sql", "what",
                                    "sessions"):
            found = of(facts, "sql", what=what, precision=precision, sessions=sessions)
            if what == "bulk of rows":
                continue
            cell = sql_cell(facts, what=what, precision=precision, sessions=sessions)
            ratio = cell.times(engine)
            waits = [f"{statistics.median(f[k] for f in found):.1f}" if k in found[0] else "-"
                     for k in ("p50", "p99")]
            rows.append([what, precision, str(sessions) if sessions else "-", cell.text(2),
                         f"{1 / ratio:.2f}" if ratio else "-"] + waits)
    return table(["how", "precision", "sessions", "ms an image", "of the engine's speed",
                  "p50, ms", "p99, ms"], rows, NO_FIGURES)


def cpu_rows(facts):
    return table(["rows", "precision", "ms an image"],
                 [[str(rows), precision,
                   sql_cell(facts, what="bulk of rows", precision=precision, rows=rows).text(2)]
                  for what, precision, rows in cells(facts, "sql", "what", "precision", "rows")
                  if what == "bulk of rows"], NO_FIGURES)


def cpu_memory(facts):
    return table(["sessions", "precision", "engine, MiB", "sessions together, MiB"],
                 [[str(f["sessions"]), f["precision"], str(f["engine"]), str(f["backends"])]
                  for f in of(facts, "memory")], NO_FIGURES)


def cpu_lpips(facts):
    rows = []
    for net in dict.fromkeys(f["net"] for f in of(facts, "lpips")):
        ours, theirs = (Cell(of(facts, "lpips", side=side, net=net), lambda f: f["ms"],
                             lambda f: [f["ms"]]) for side in ("bicycle", "lpips"))
        rows.append([net, ours.text(2), theirs.text(2) + times_text(theirs.times(ours))])
    return table(["net", "bicycle_lpips, ms a pair", "the lpips package"], rows, NO_FIGURES)


def cpu_fill(facts):
    return table(["how", "rows", "rows a second"],
                 [[what, str(rows), figure(facts, "rate", 0, kind="fill", what=what, rows=rows)]
                  for what, rows in cells(facts, "fill", "what", "rows")], NO_FIGURES)


def cpu_beside(facts):
    return table(["beside", "p50, ms", "p99, ms", "its rows or images a second"],
                 [[what] + [figure(facts, key, 1, kind="beside", what=what)
                            for key in ("p50", "p99", "rate")]
                  for what, in cells(facts, "beside", "what")], NO_FIGURES)


# ---- The chart --------------------------------------------------------------------------------

COLOURS = {"bicycle": "#d9480f", "torch": "#868e96", "onnxruntime": "#adb5bd",
           "openvino": "#5c7080"}
GROUPS = (("G256", "fp32", 1, "one image"), ("G256", "fp32", 16, "16 at once"),
          ("G256", "bf16", 1, "one image, bf16"), ("G256", "bf16", 16, "16 at once, bf16"))
WIDTH, LEFT, BAR, GAP = 720, 130, 16, 14


def chart(facts):
    """Bars of milliseconds an image, as SVG; None without figures."""
    groups = [(label, [(side, cell.least) for side, cell in (
        (side, ran(facts, side, network, precision, batch)) for side in PEERS)
        if cell.least is not None]) for network, precision, batch, label in GROUPS]
    groups = [(label, bars) for label, bars in groups if bars]
    if not groups:
        return None
    longest = max(ms for _, bars in groups for _, ms in bars)
    y, parts = 48, []
    for label, bars in groups:
        parts.append(f'<text x="{LEFT - 10}" y="{y + len(bars) * BAR / 2 + 4}" '
                     f'text-anchor="end">{label}</text>')
        for side, ms in bars:
            width = (WIDTH - LEFT - 170) * ms / longest
            parts.append(f'<rect x="{LEFT}" y="{y}" width="{width:.1f}" height="{BAR - 3}" '
                         f'fill="{COLOURS[side]}"/>'
                         f'<text x="{LEFT + width + 6:.1f}" y="{y + BAR - 5}">{ms:.1f} ms, '
                         f'{PEERS[side]}</text>')
            y += BAR
        y += GAP
    found = of(facts, "machine")[0]
    title = "Milliseconds an image of the official generator at 256 x 256, less is better"
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 14}" '
            f'font-family="sans-serif" font-size="12">\n<rect width="{WIDTH}" height="{y + 14}" '
            f'fill="white"/>\n<text x="10" y="22" font-size="14">{title}</text>\n'
            + "\n".join(parts) + f'\n<text x="10" y="{y + 4}" font-size="10">'
            f'{found["processor"]}, {found["threads"]} processors, {found["date"]}</text>\n'
            '</svg>\n')


def readme_chart(facts):
    return "" if chart(facts) is None else \
        "![Milliseconds an image, beside other runtimes](doc/speed.svg)\n"


# ---- The documents ----------------------------------------------------------------------------

CPU_TABLES = {
    "machine": cpu_machine, "inference": cpu_inference, "training": cpu_training, "sql": cpu_sql,
    "rows": cpu_rows, "memory": cpu_memory, "lpips": cpu_lpips}
TABLES = {
    "gpu": {"machine": machine, "inference": inference, "layers": layers, "training": training},
    "cpu": CPU_TABLES | {"fill": cpu_fill, "beside": cpu_beside},
    "amx": CPU_TABLES,
}


def load(path, any_kind=False):
    if not os.path.exists(path):
        return []
    with open(path, encoding="utf-8") as file:
        facts = [json.loads(line) for line in file if line.strip()]
    if not any_kind and any(f.get("simulated") or f.get("tiny") for f in facts):
        sys.exit(f"{path} was made to try the script; the documents take what was measured only")
    return facts


def rewrite(text, places):
    """Puts what is made between the marks of each place."""
    for place, made in places.items():
        begin, end = f"<!-- {place} -->\n", "<!-- end of table -->\n"
        before, found, rest = text.partition(begin)
        if not found or end not in rest:
            sys.exit(f"the document has no place for the {place}")
        text = before + begin + "\n" + (made + "\n" if made else "") + end + rest.partition(end)[2]
    return text


def places(device, facts):
    return {f"{device} table: {name}": make(facts) for name, make in TABLES[device].items()}


def documents(options):
    """path -> what it says now"""
    facts = {device: load(getattr(options, device)) for device in TABLES}
    shown = facts["amx"] or facts["cpu"]
    tables = {place: made for device in TABLES
              for place, made in places(device, facts[device]).items()}
    with open(options.document, encoding="utf-8") as file:
        made = {options.document: rewrite(file.read(), tables)}
    with open(options.readme, encoding="utf-8") as file:
        made[options.readme] = rewrite(file.read(), {"cpu chart": readme_chart(shown)})
    if chart(shown):
        made[os.path.join(os.path.dirname(options.document), "speed.svg")] = chart(shown)
    return made


def read(path):
    if not os.path.exists(path):
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()


def main():
    results = os.path.join(ROOT, "bench/results")
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--print", metavar="FILE")
    parser.add_argument("--document", default=os.path.join(ROOT, "doc/performance.md"))
    parser.add_argument("--readme", default=os.path.join(ROOT, "README.md"))
    for device in TABLES:
        parser.add_argument(f"--{device}", default=os.path.join(results, f"{device}.jsonl"))
    options = parser.parse_args()
    if options.print:
        for name, made in places("cpu", load(options.print, True)).items():
            print(f"\n==> {name}\n{made}", end="")
        return
    for path, text in documents(options).items():
        if options.check and text != read(path):
            sys.exit(f"{path} says other figures than the results; run tables.py")
        if not options.check:
            with open(path, "w", encoding="utf-8") as file:
                file.write(text)


if __name__ == "__main__":
    main()
