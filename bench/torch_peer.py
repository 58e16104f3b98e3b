#!/usr/bin/env python3
"""Speed of the same generator in PyTorch, eager, for bench/run.sh.  Usage: torch_peer.py THREADS BATCH...

Prints a line "G256 fp32 batch N MILLISECONDS" for each batch: the median time of an image in it.  The network is unet_256 as the official code builds it with its
defaults (ngf 64, nz 8, latent code added at all levels, instance norm, transposed convolutions), written down here once more, with random weights.
"""
import statistics
import sys
import time

import torch
from torch import nn


class Level(nn.Module):
    def __init__(self, outer, inner, nz, below=None, outermost=False, output=None):
        super().__init__()
        self.outermost = outermost
        self.below = below
        down = [] if outermost else [nn.LeakyReLU(0.2, True)]
        down.append(nn.Conv2d(outer + nz, inner, 4, 2, 1))
        if below is not None and not outermost:
            down.append(nn.InstanceNorm2d(inner))
        up = [nn.ReLU(True), nn.ConvTranspose2d(inner * (1 if below is None else 2), output or outer, 4, 2, 1)]
        up.append(nn.Tanh() if outermost else nn.InstanceNorm2d(outer))
        self.down = nn.Sequential(*down)
        self.up = nn.Sequential(*up)

    def forward(self, x, z):
        y = self.down(torch.cat([x, z[:, :, None, None].expand(-1, -1, x.size(2), x.size(3))], 1))
        if self.below is not None:
            y = self.below(y, z)
        y = self.up(y)
        return y if self.outermost else torch.cat([y, x], 1)


def generator(ngf=64, nz=8):
    level = Level(ngf * 8, ngf * 8, nz)
    for outer, inner in ((8, 8), (8, 8), (8, 8), (4, 8), (2, 4), (1, 2)):
        level = Level(ngf * outer, ngf * inner, nz, level)
    return Level(3, ngf, nz, level, outermost=True).eval()


def median_ms(network, batch, seconds=3.0):
    x, z = torch.randn(batch, 3, 256, 256), torch.randn(batch, 8)
    times = []
    with torch.inference_mode():
        network(x, z)
        began = time.perf_counter()
        while len(times) < 5 or time.perf_counter() - began < seconds:
            start = time.perf_counter()
            network(x, z)
            times.append((time.perf_counter() - start) * 1000)
    return statistics.median(times)


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    net = generator()
    assert sum(p.numel() for p in net.parameters()) > 50_000_000
    for size in map(int, sys.argv[2:]):
        print(f"G256 fp32 batch {size} {median_ms(net, size) / size:.2f} ms an image", flush=True)
