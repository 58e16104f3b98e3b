#!/usr/bin/env python3
"""The lpips package's own code, by its best settings, with the weights that bicycle_lpips has.

    lpips_peer.py THREADS WEIGHTS FILE...

Reads orders as peer.py does: "open alex" makes the network, "check FILE" writes the distances of
all pairs, each file and the next one, "run PAIRS" gives the milliseconds of a pair. Batches of 16;
files, which lie in memory, are decoded by threads while the batch before is compared.
"""
import io
import json
import os
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

BATCH = 16


def decode(file):
    return numpy.asarray(Image.open(io.BytesIO(file)).convert("RGB"))


def tensors(path):
    """name -> tensor, of a safetensors file of fp32"""
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header, data = json.loads(file.read(length)), file.read()
    return {name: torch.frombuffer(bytearray(data[slice(*t["data_offsets"])]), dtype=torch.float32)
            .reshape(t["shape"]) for name, t in header.items() if name != "__metadata__"}


class Side:
    def __init__(self, threads, weights, paths):
        torch.set_num_threads(threads)
        self.pool = ThreadPoolExecutor(threads)
        self.weights, self.files = weights, []
        for path in paths:
            with open(path, "rb") as file:
                self.files.append(file.read())

    def open(self, net):
        self.net = lpips.LPIPS(net=net, pnet_rand=True, verbose=False).eval()
        stored = tensors(os.path.join(self.weights, f"{net}.safetensors"))
        with torch.no_grad():
            for name, parameter in self.net.net.named_parameters():
                parameter.copy_(stored["features." + name.split(".", 1)[1]])

    def distances(self, n):
        """Of n pairs, each decoded anew."""
        found, ahead = [], None
        for at in list(range(0, n, BATCH)) + [None]:
            going = None if at is None else [
                self.pool.submit(decode, self.files[(at + i // 2 + i % 2) % len(self.files)])
                for i in range(2 * min(BATCH, n - at))]
            if ahead:
                pixels = numpy.stack([image.result() for image in ahead])
                x = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
                with torch.inference_mode():
                    found += self.net(x[0::2], x[1::2]).flatten().tolist()
            ahead = going
        return found


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries say things, too
    side = Side(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
    print(json.dumps({"version": f"lpips {version('lpips')}"}), file=out, flush=True)
    for line in sys.stdin:
        order = line.split()
        if order[0] == "open":
            side.open(order[1])
            said = {}
        elif order[0] == "check":
            with open(order[1], "w", encoding="ascii") as file:
                file.writelines(f"{d}\n" for d in side.distances(len(side.files)))
            said = {}
        else:
            start = time.perf_counter()
            side.distances(int(order[1]))
            said = {"ms": [round((time.perf_counter() - start) * 1e3 / int(order[1]), 4)]}
        print(json.dumps(said), file=out, flush=True)


warnings.simplefilter("ignore")
try:
    from importlib.metadata import version

    import lpips
    import numpy
    import torch
    from PIL import Image
except ImportError as missing:
    print(json.dumps({"skip": str(missing)}), flush=True)
else:
    main()
