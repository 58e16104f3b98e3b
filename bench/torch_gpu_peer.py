#!/usr/bin/env python3
"""The same networks in PyTorch on a GPU, to be read beside what engine_bench prints of the CUDA
device.

    torch_gpu_peer.py [--device cpu] [runs [network...]]

Modes: "eager", the official definition as it is; "layout", the same with every map kept in
channels_last, which concatenation and instance norm otherwise lose; "compile" and "autotune",
torch.compile's default and max-autotune, the latter with CUDA graphs. All have weights and
activations in bf16 (faster than autocast, which converts as it goes), channels_last, inference_mode
and cuDNN's benchmark mode: PyTorch's best.

Two times for each: "whole" takes the images' bytes and latent codes from pinned memory of the host
to bytes in pinned memory there, as engine_bench does, with conversions inside what is compiled;
"inside" starts and ends with the network's tensors on the GPU. Medians, after warm-ups; random
weights. --device cpu only tries the script out.
"""
import statistics
import sys
import time

import torch
from torch import nn

from torch_peer import Encoder, Generator, NZ

MODES = (("eager", None), ("layout", None), ("compile", "default"), ("autotune", "max-autotune"))
NETWORKS = {"G256": (lambda: Generator(8), 256), "G128": (lambda: Generator(7), 128),
	"E256": (Encoder, 256)}
BATCHES = (1, 16, 64)
WARM_UPS = 10


class FromBytes(nn.Module):
    """Bytes (N, H, W, C) and a latent code in float to bytes, or to an encoder's floats."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, image, z):
        # a permuted NHWC map is channels_last as it is
        x = image.permute(0, 3, 1, 2).to(torch.bfloat16).div(127.5).sub(1)
        y = self.net(x, z.to(torch.bfloat16))
        if isinstance(y, tuple):
            return torch.stack(y).float()
        return y.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(0, 2, 3,
        	1).contiguous()


class Clock:
    """Milliseconds between its making and stop(), by events where there is a GPU."""

    def __init__(self, device):
        self.events = [torch.cuda.Event(enable_timing=True) for _
        	in range(2)] if device == "cuda" else None
        if self.events:
            self.events[0].record()
        self.start = time.perf_counter()

    def stop(self):
        if not self.events:
            return (time.perf_counter() - self.start) * 1e3
        self.events[1].record()
        self.events[1].synchronize()
        return self.events[0].elapsed_time(self.events[1])


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def host(tensor, device):
    return tensor.pin_memory() if device == "cuda" else tensor


def measure(name, mode, net, compiled, size, batch, runs, device):
    whole_net = FromBytes(net)
    if compiled:
        net, whole_net = torch.compile(net, mode=compiled), torch.compile(whole_net, mode=compiled)
    image = host(torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8), device)
    latent = host(torch.randn(batch, NZ), device)
    x = torch.rand(batch, 3, size, size,
    	device=device).mul(2).sub(1).to(torch.bfloat16).contiguous(
    	memory_format=torch.channels_last)
    z = torch.randn(batch, NZ, device=device, dtype=torch.bfloat16)
    inside, whole, made = [], [], None
    warm_ups = WARM_UPS if device == "cuda" else 1
    for i in range(-warm_ups, runs):
        torch.compiler.cudagraph_mark_step_begin()
        clock = Clock(device)
        net(x, z)
        ms = clock.stop()
        if i >= 0:
            inside.append(ms)
    for i in range(-warm_ups, runs):
        wait(device)
        start = time.perf_counter()
        torch.compiler.cudagraph_mark_step_begin()
        y = whole_net(image.to(device, non_blocking=True), latent.to(device, non_blocking=True))
        if made is None:
            made = host(torch.empty(y.shape, dtype=y.dtype), device)
        made.copy_(y, non_blocking=True)
        wait(device)
        if i >= 0:
            whole.append((time.perf_counter() - start) * 1e3)
    print(f"{name} bf16 batch {batch:2} {mode}: inside {statistics.median(inside) / batch:9.4f} "
    	f"ms, whole {statistics.median(whole) / batch:9.4f} ms an image",
          flush=True)


def main():
    arguments, device = sys.argv[1:], "cuda"
    if arguments[:1] == ["--device"]:
        device, arguments = arguments[1], arguments[2:]
    runs = int(arguments[0]) if arguments else 51
    torch.backends.cudnn.benchmark = True
    print(f"torch {torch.__version__}, "
    	+ (f"cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}"
    	if device == "cuda" else device))
    for name in arguments[1:] or ["G256"]:
        make, size = NETWORKS[name]
        for mode, compiled in MODES:
            for batch in BATCHES if device == "cuda" else BATCHES[:1]:
                torch.manual_seed(1)
                torch._dynamo.reset()
                net = make().eval().to(device, torch.bfloat16).to(memory_format=torch.channels_last)
                net.keep_layout = mode == "layout"
                try:
                    with torch.inference_mode():
                        measure(name, mode, net, compiled, size, batch, runs, device)
                # a peer that does not run is no reason to lose the rest of a run on a GPU
                except Exception as error:
                    print(f"{name} bf16 batch {batch:2} {mode}: failed, "
                    	f"{str(error).splitlines()[0][:200]}", flush=True)


if __name__ == "__main__":
    main()
