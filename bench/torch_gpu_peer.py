#!/usr/bin/env python3
"""The same networks in PyTorch on a GPU: eager, compiled, and compiled with max-autotune and CUDA graphs, to be read beside what the CUDA device prints.

    torch_gpu_peer.py [runs [network...]]

bf16 weights and channels_last, PyTorch's best.  Two times for each: "whole" takes bytes in the host's pinned memory to bytes there, "inside" starts and ends
with tensors on the GPU.  Medians, after warm-ups; random weights.
"""
import statistics
import sys
import time

import torch

from torch_peer import Encoder, Generator, NZ

MODES = (("eager", None), ("compile", "default"), ("autotune", "max-autotune"))
NETWORKS = {"G256": (lambda: Generator(8), 256), "G128": (lambda: Generator(7), 128), "E256": (Encoder, 256)}
WARM_UPS = 10


def run_whole(net, pinned, z):
    x = pinned.to("cuda", non_blocking=True).permute(0, 3, 1, 2).to(torch.bfloat16).div_(127.5).sub_(1)
    y = net(x.contiguous(memory_format=torch.channels_last), z)
    if isinstance(y, tuple):
        return [part.float().cpu() for part in y]
    return y.float().add_(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu()


def measure(name, mode, net, size, batch, runs):
    pinned = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8).pin_memory()
    x = torch.rand(batch, 3, size, size, device="cuda").mul(2).sub(1).to(torch.bfloat16).contiguous(memory_format=torch.channels_last)
    z = torch.randn(batch, NZ, device="cuda", dtype=torch.bfloat16)
    inside, whole = [], []
    for i in range(-WARM_UPS, runs):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.compiler.cudagraph_mark_step_begin()
        begin.record()
        net(x, z)
        end.record()
        end.synchronize()
        if i >= 0:
            inside.append(begin.elapsed_time(end))
    for i in range(-WARM_UPS, runs):
        torch.cuda.synchronize()
        start = time.perf_counter()
        torch.compiler.cudagraph_mark_step_begin()
        run_whole(net, pinned, z)
        torch.cuda.synchronize()
        if i >= 0:
            whole.append((time.perf_counter() - start) * 1e3)
    print(f"{name} bf16 batch {batch:2} {mode}: inside {statistics.median(inside) / batch:9.4f} ms, whole {statistics.median(whole) / batch:9.4f} ms an image",
          flush=True)


def main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 51
    names = sys.argv[2:] or ["G256"]
    torch.backends.cudnn.benchmark = True
    print(f"torch {torch.__version__}, cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}")
    for name in names:
        make, size = NETWORKS[name]
        for mode, compiled in MODES:
            for batch in (1, 16, 64):
                torch.manual_seed(1)
                torch._dynamo.reset()
                net = make().eval().to("cuda", torch.bfloat16).to(memory_format=torch.channels_last)
                try:
                    with torch.inference_mode():
                        measure(name, mode, torch.compile(net, mode=compiled) if compiled else net, size, batch, runs)
                except Exception as error:  # a peer that does not run is no reason to lose the rest of a run on a GPU
                    print(f"{name} bf16 batch {batch:2} {mode}: failed, {str(error).splitlines()[0][:200]}", flush=True)


if __name__ == "__main__":
    main()
