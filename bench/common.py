"""What scripts that measure share: the file of what they have found, and children that end with
them.
"""
import ctypes
import json
import os
import re
import signal

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)


def end_with_parent():
    """Of a child, before it becomes the program: whoever kills this leaves nothing running."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def plan_images(batch):
    """Images of the plan that a GPU runs for so many: of more it runs several plans."""
    with open(os.path.join(ROOT, "src/nn/cuda/cuda_shape.h"), encoding="utf-8") as file:
        return min(batch, int(re.search(r"#define CUDA_MOST_IMAGES (\d+)", file.read())[1]))


class Results:
    """A line of JSON for each fact, written as soon as it is known, so that whatever ends a run
    loses nothing, and the next one goes on from there. Read once, then only appended to."""

    def __init__(self, path):
        self.path = path
        self.facts = []
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                for line in file:
                    try:
                        self.facts.append(json.loads(line))
                    except ValueError:  # what was being written when the machine went
                        continue

    def add(self, **fact):
        self.facts.append(fact)
        with open(self.path, "a", encoding="utf-8") as file:
            file.write(json.dumps(fact) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def of(self, kind, **wanted):
        return [f for f in self.facts if f.get("kind") == kind
                and all(f.get(k) == v for k, v in wanted.items())]

    def simulated(self):
        return any(f.get("simulated") for f in self.of("machine"))
