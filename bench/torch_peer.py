#!/usr/bin/env python3
"""Milliseconds an image of the same networks in PyTorch, to be read beside engine_bench's.

    torch_peer.py [threads [runs [network]]]

Run by hand, where torch is installed. The networks are stated here again from their description
(U-Net with the latent at every level, residual encoder; instance norm), in evaluation, eager mode,
with random weights; speed does not depend on them. bf16 is autocast over channels_last, PyTorch's
best at that.
"""
import sys
import time

import torch
from torch import nn
import torch.nn.functional as F

NZ = 8


class Generator(nn.Module):
    # True: maps stay in channels_last, which norm and concatenation do not see to
    keep_layout = False

    def __init__(self, levels, base=64):
        super().__init__()
        width = [base * min(2 ** k, 8) for k in range(levels)]
        self.down = nn.ModuleList(nn.Conv2d((width[k - 1] if k else 3) + NZ, width[k], 4, 2, 1)
        	for k in range(levels))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width[k] * (1 if k == levels - 1 else 2),
        	width[k - 1] if k else 3, 4, 2, 1) for k in range(levels))

    def laid(self, x):
        return x.contiguous(memory_format=torch.channels_last) if self.keep_layout else x

    def level(self, k, x, z):
        planes = z[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3])
        joined = torch.cat([x, self.laid(planes)], 1)
        y = self.down[k](joined if k == 0 else F.leaky_relu(joined, 0.2))
        last = k == len(self.down) - 1
        if 0 < k and not last:
            y = self.laid(F.instance_norm(y))
        if not last:
            y = self.level(k + 1, y, z)
        y = self.up[k](F.relu(y))
        return torch.tanh(y) if k == 0 else torch.cat([self.laid(F.instance_norm(y)), x], 1)

    def forward(self, x, z):
        return self.level(0, x, z)


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, 1, 1)
        self.second = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        y = self.first(F.leaky_relu(F.instance_norm(x), 0.2))
        y = self.second(F.leaky_relu(F.instance_norm(y), 0.2))
        return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))


class Encoder(nn.Module):
    def __init__(self, base=64):
        super().__init__()
        self.first = nn.Conv2d(3, base, 4, 2, 1)
        self.blocks = nn.Sequential(*(Block(base * min(4, n), base * min(4, n + 1)) for n
        	in range(1, 5)))
        self.mu = nn.Linear(base * 4, NZ)
        self.logvar = nn.Linear(base * 4, NZ)

    def forward(self, x, z):
        y = F.avg_pool2d(F.leaky_relu(self.blocks(self.first(x)), 0.2), 8).flatten(1)
        return self.mu(y), self.logvar(y)


def measure(name, make, size, bf16, batch, runs):
    torch.manual_seed(1)
    net = make().eval()
    x, z = torch.rand(batch, 3, size, size) * 2 - 1, torch.randn(batch, NZ)
    if bf16:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    times = []
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        for i in range(-3, runs):
            start = time.perf_counter()
            net(x, z)
            if i >= 0:
                times.append((time.perf_counter() - start) * 1e3 / batch)
    times.sort()
    print(f"{name} {'bf16' if bf16 else 'fp32'} batch {batch:2}: median "
    	f"{times[len(times) // 2]:7.2f} ms, least {times[0]:7.2f} ms an image", flush=True)


def main():
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 0
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else 9
    if threads > 0:
        torch.set_num_threads(threads)
    with open("/proc/cpuinfo") as cpuinfo:
        has_bf16 = "avx512_bf16" in cpuinfo.read()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    for name, make, size in (("G256", lambda: Generator(8), 256),
    	("G128", lambda: Generator(7), 128), ("E256", Encoder, 256)):
        if len(sys.argv) > 3 and sys.argv[3] != name:
            continue
        for bf16 in (False, True) if has_bf16 else (False,):
            for batch in (1, 4, 16):
                measure(name, make, size, bf16, batch, runs)


if __name__ == "__main__":
    main()
