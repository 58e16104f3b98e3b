#!/usr/bin/env python3
"""Writes the tables of doc/comparison.md from what bench/compare.sh has found, so that no figure is
typed.

    comparison.py [--check] [--results FILE] [--document FILE]
    comparison.py --extremes TASK [--results FILE] SYSTEM...

--check writes nothing, and fails if the document says anything else. --extremes prints which two of
the systems have the highest and the lowest mean diversity by LPIPS at 64 pixels with seeds 1 to 3,
in the order they are given, or nothing while one has no result.

A figure is the mean over the seeds that there are, and the half width of its 95 percent interval by
Student's t: how much another training would differ, not another choice of inputs or codes. One seed
has no interval.
"""
import argparse
import json
import math
import os
import statistics
import sys
import textwrap

import tables
from common import Results

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SEEDS = (1, 2, 3)
T95 = {2: 12.706, 3: 4.303}  # two-sided, by the number of seeds
NOT_RUN = "not run"
TASKS = ("icons", "maps")
SIX = ("pix2pix_noise", "cae_gan", "cvae_gan", "cvae_gan++", "clr_gan", "bicycle")
INJECTION = {"bicycle": "E_ResNet, added to all", "bicycle_input": "E_ResNet, to the input",
             "bicycle_conv": "E_CNN, added to all", "bicycle_conv_input": "E_CNN, to the input"}
LENGTHS = {"bicycle_nz2": "2", "bicycle": "8", "bicycle_nz32": "32"}
VARIANTS = tuple(k for k in {**INJECTION, **LENGTHS} if k != "bicycle")

# Of the paper, for maps to satellite pictures (figure 6, table 1), to the digits in which those who
# quote it agree.
PAPER_LPIPS = {"real": "0.26", "pix2pix_noise": "0.01", "cae_gan": "0.20", "cvae_gan": "0.10",
               "cvae_gan++": "0.10", "clr_gan": "0.09", "bicycle": "0.11"}
PAPER_L1 = {"bicycle": "0.27", "bicycle_input": "0.27", "bicycle_conv": "0.29",
            "bicycle_conv_input": "0.27"}

# heading, metric, digits
DIVERSITY = ("diversity, LPIPS", "diversity_lpips", 3)
COVERAGE = ("coverage", "coverage_lpips", 2)
PRECISION = ("precision", "precision_lpips", 2)
REACHED = ("reached", "reached_l1", 2)
BEST = ("best of 20, LPIPS", "best_lpips", 3)
COLLAPSE = ("collapsed", "collapse_share", 2)
MMD = ("MMD", "mmd", 2)
L1 = ("reconstruction, L1", "reconstruction_l1", 3)
LPIPS = ("reconstruction, LPIPS", "reconstruction_lpips", 3)
LATENT = ("latent, L1", "latent_l1", 3)
READ = ("numbers read", "latent_read", 2)


def of(facts, task, size, system):
    """The runs of a system, one a seed."""
    found = {f["seed"]: f for f in facts if f["kind"] == "run" and f["task"] == task
             and f["size"] == size and f["system"] == system and f["seed"] in SEEDS}
    return [found[seed] for seed in SEEDS if seed in found]


def values(runs, metric):
    return [r["metrics"][metric]["value"] for r in runs if metric in r["metrics"]]


def figure(runs, metric, digits):
    found = values(runs, metric)
    if not runs:
        return NOT_RUN
    if not found:
        return "-"
    mean = f"{statistics.mean(found):.{digits}f}"
    if len(found) == 1:
        return mean
    half = T95[len(found)] * statistics.stdev(found) / math.sqrt(len(found))
    return f"{mean} ± {half:.{digits}f}"


def rows(facts, task, size, names, columns, paper=None):
    """A table of these systems; names are those in the table, by system."""
    head = ["", "seeds"] + (["the paper's"] if paper else []) + [c[0] for c in columns]
    lines = []
    for system, name in names.items():
        runs = of(facts, task, size, system)
        lines.append([name, str(len(runs))] + ([paper.get(system, "")] if paper else [])
                     + [figure(runs, metric, digits) for _, metric, digits in columns])
    return tables.table(head, lines)


def modes(task):
    """Icons have many answers to an input, all known."""
    return [COVERAGE, PRECISION, REACHED] if task == "icons" else []


def systems(facts, task):
    return rows(facts, task, 64, {s: f"`{s}`" for s in SIX},
                [DIVERSITY] + modes(task) + [BEST, COLLAPSE, MMD],
                PAPER_LPIPS if task == "maps" else None)


def codes(facts, task):
    return rows(facts, task, 64, {s: f"`{s}`" for s in SIX if s != "pix2pix_noise"},
                [L1, LPIPS, LATENT, READ])


def injection(facts, task):
    return rows(facts, task, 64, INJECTION, [L1, LPIPS, LATENT, DIVERSITY] + modes(task),
                PAPER_L1 if task == "maps" else None)


def lengths(facts, task):
    return rows(facts, task, 64, LENGTHS, [DIVERSITY] + modes(task) + [BEST, L1, LATENT, READ])


def large(facts, task):
    names = extremes(facts, task, SIX)
    if not names:
        return "Not known yet which: not all of the six have run at 64 pixels.\n"
    return rows(facts, task, 128, {s: f"`{s}`" for s in names},
                [DIVERSITY] + modes(task) + [BEST, COLLAPSE, L1, LATENT])


def truths(facts):
    lines = []
    for task in TASKS:
        for size in 64, 128:
            found = [f for f in facts if f["kind"] == "truths" and f["task"] == task
                     and f["size"] == size]
            cells = []
            for metric in "diversity_lpips", "random_lpips":
                one = found[-1]["metrics"].get(metric) if found else None
                cells.append(NOT_RUN if not found else "-" if one is None
                             else f"{one['value']:.3f} ± {1.96 * one['stderr']:.3f}")
            lines.append([f"{task}, {size} pixels"] + cells)
    return tables.table(["", "two truths of one input", "two of any inputs"], lines)


def state(facts):
    there = {size: sum(len(of(facts, task, size, s)) for task in TASKS for s in SIX + VARIANTS)
             for size in (64, 128)}
    text = f"{there[64]} of {len(TASKS) * len(SEEDS) * len(SIX + VARIANTS)} runs at 64 pixels " \
           f"have a result, and {there[128]} of {2 * len(TASKS) * len(SEEDS)} at 128."
    runs = [f for f in facts if f["kind"] == "run"]
    if runs:
        inputs = {task: max((f["metrics"]["best_l1"]["n"] for f in runs if f["task"] == task),
                            default=None) for task in TASKS}
        text += " Held-out inputs: " + ", ".join(f"{n} of {task}" for task, n in inputs.items()
                                                 if n) + "."
        text += " Commits: " + ", ".join(dict.fromkeys(f["commit"] for f in runs)) + "."
        text += " Devices: " + ", ".join(dict.fromkeys(f["device"] for f in runs)) + "."
    return textwrap.fill(text, 100, break_on_hyphens=False) + "\n"


def extremes(facts, task, names):
    means = {}
    for system in names:
        found = values(of(facts, task, 64, system), DIVERSITY[1])
        if len(found) < len(SEEDS):
            return []
        means[system] = statistics.mean(found)
    ends = max(means, key=means.get), min(means, key=means.get)
    return [s for s in names if s in ends]


def places(facts):
    made = {"state": state(facts), "truths": truths(facts)}
    for task in TASKS:
        for table in systems, codes, injection, lengths, large:
            made[f"{task} {table.__name__}"] = table(facts, task)
    return {f"comparison: {name}": text for name, text in made.items()}


def load(path, any_kind=False):
    facts = Results(path).facts
    if not any_kind and any(f.get("tiny") for f in facts):
        sys.exit(f"{path} was made to try the script; the document takes what was measured only")
    return facts


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--extremes", metavar="TASK", choices=TASKS)
    parser.add_argument("--document", default=os.path.join(ROOT, "doc/comparison.md"))
    parser.add_argument("--results",
                        default=os.path.join(ROOT, "bench/results/comparison.jsonl"))
    parser.add_argument("systems", nargs="*")
    options = parser.parse_args()
    if options.extremes:
        print(*extremes(load(options.results, True), options.extremes, options.systems))
        return
    with open(options.document, encoding="utf-8") as file:
        before = file.read()
    text = tables.rewrite(before, places(load(options.results)))
    if options.check and text != before:
        sys.exit(f"{options.document} says other figures than the results; run comparison.py")
    if not options.check:
        with open(options.document, "w", encoding="utf-8") as file:
            file.write(text)


if __name__ == "__main__":
    main()
