#!/usr/bin/env python3
"""The same networks in PyTorch on a GPU, to be read beside what engine_bench prints of the CUDA
device.

    torch_gpu_peer.py [--device cpu] [--seconds S] mode [network...]

Modes: "eager", the official definition as it is; "layout", the same with every map kept in
channels_last, which concatenation and instance norm otherwise lose; and those of torch.compile:
"default", "reduce-overhead" (CUDA graphs) and "max-autotune". All have weights and activations in
bf16 (faster than autocast, which converts as it goes), channels_last, inference_mode and cuDNN's
benchmark mode: PyTorch's best.

Three times for each: "inside" starts and ends with the network's tensors on the GPU; "pinned" takes
the images' bytes and latent codes from pinned memory of the host to bytes in pinned memory there,
with conversions inside what is compiled; "pageable" the same from and to ordinary memory, which is
where a program finds them. Medians of S seconds, after as many that warm the card up; random
weights. --device cpu only tries the script out.
"""
import argparse
import statistics
import time

import torch
from torch import nn

from networks import Encoder, Generator, NZ

MODES = ("eager", "layout", "default", "reduce-overhead", "max-autotune")
NETWORKS = {"G256": (lambda: Generator(8), 256), "G128": (lambda: Generator(7), 128),
	"E256": (Encoder, 256)}
BATCHES = (1, 64, 16)  # those that say most come first
WARM_UPS = 10  # at least: some modes capture at the second or third run


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


def median_ms(run, seconds):
    """The median of what `run` says it took, after as long a time of warming up."""
    times, end, runs = [], time.perf_counter() + seconds, 0
    while runs < WARM_UPS or time.perf_counter() < end:
        run()
        runs += 1
    end = time.perf_counter() + seconds
    while len(times) < 5 or time.perf_counter() < end:
        times.append(run())
    return statistics.median(times)


def bytes_to_bytes(net, image, latent, device, pinned):
    """A run from the host's memory to the host's memory, by the clock of the host."""
    made = []

    def run():
        wait(device)
        start = time.perf_counter()
        torch.compiler.cudagraph_mark_step_begin()
        y = net(image.to(device, non_blocking=pinned), latent.to(device, non_blocking=pinned))
        if not made:
            empty = torch.empty(y.shape, dtype=y.dtype)
            made.append(host(empty, device) if pinned else empty)
        made[0].copy_(y, non_blocking=pinned)
        wait(device)
        return (time.perf_counter() - start) * 1e3

    return run


def measure(name, mode, net, size, batch, seconds, device):
    whole_net = FromBytes(net)
    if mode not in ("eager", "layout"):
        net, whole_net = torch.compile(net, mode=mode), torch.compile(whole_net, mode=mode)
    image = torch.randint(0, 256, (batch, size, size, 3), dtype=torch.uint8)
    latent = torch.randn(batch, NZ)
    x = torch.rand(batch, 3, size, size,
    	device=device).mul(2).sub(1).to(torch.bfloat16).contiguous(
    	memory_format=torch.channels_last)
    z = torch.randn(batch, NZ, device=device, dtype=torch.bfloat16)

    def inside():
        torch.compiler.cudagraph_mark_step_begin()
        clock = Clock(device)
        net(x, z)
        return clock.stop()

    times = [median_ms(inside, seconds)]
    times.append(median_ms(bytes_to_bytes(whole_net, host(image, device), host(latent, device),
    	device, True), seconds))
    times.append(median_ms(bytes_to_bytes(whole_net, image, latent, device, False), seconds))
    print(f"{name} bf16 batch {batch:2} {mode}: " + ", ".join(f"{what} {ms / batch:9.4f} ms"
    	for what, ms in zip(("inside", "pinned", "pageable"), times)) + " an image", flush=True)


def arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--seconds", type=float, default=0.5)
    parser.add_argument("mode", choices=MODES)
    parser.add_argument("networks", nargs="*", default=["G256"])
    return parser.parse_args()


def main():
    options = arguments()
    device = options.device
    torch.backends.cudnn.benchmark = True
    print(f"torch {torch.__version__}, "
    	+ (f"cuDNN {torch.backends.cudnn.version()}, {torch.cuda.get_device_name()}"
    	if device == "cuda" else device))
    for name in options.networks:
        make, size = NETWORKS[name]
        for batch in BATCHES if device == "cuda" else BATCHES[:1]:
            torch.manual_seed(1)
            torch._dynamo.reset()
            net = make().eval().to(device, torch.bfloat16).to(memory_format=torch.channels_last)
            net.keep_layout = options.mode == "layout"
            try:
                with torch.inference_mode():
                    measure(name, options.mode, net, size, batch, options.seconds, device)
            # a peer that does not run is no reason to lose the rest of a run on a GPU
            except Exception as error:
                print(f"{name} bf16 batch {batch:2} {options.mode}: failed, "
                	f"{str(error).splitlines()[0][:200]}", flush=True)


if __name__ == "__main__":
    main()
