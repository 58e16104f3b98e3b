#!/usr/bin/env python3
"""Seconds an iteration of the official BicycleGAN code on PyTorch and its peak memory, to be read
beside train_bench's.

    BICYCLE_OFFICIAL=directory train_peer.py size [threads [iterations [precision]]]
    BICYCLE_OFFICIAL=directory train_peer.py --device cuda eager|compile

The directory holds the official code (junyanz/BicycleGAN, HEAD as of 2020-08), whose
BiCycleGANModel.optimize_parameters is run with its default options: on a processor in batches of
two, as it is, in fp32 and, where the processor has it, bf16; on a GPU at 256 in batches of two and
of 16, in fp32 (with TF32, as PyTorch's convolutions are by default) and bf16, as it is or with its
networks compiled. bf16 is autocast. On a GPU iterations are timed for half a second, after as long
a warming up, and memory is what PyTorch's allocator held at most.
"""
import contextlib
import io
import os
import resource
import sys
import time
import types

import torch

sys.path.insert(0, os.environ["BICYCLE_OFFICIAL"])
from models.bicycle_gan_model import BiCycleGANModel  # noqa: E402


def make_model(size, batch, device):
    options = types.SimpleNamespace(
        isTrain=True, batch_size=batch, gpu_ids=[0] if device == "cuda" else [], checkpoints_dir="",
        name="", preprocess="resize_and_crop", direction="AtoB", input_nc=3, output_nc=3, nz=8,
        ngf=64, nef=64, ndf=64, netG=f"unet_{size}", netE=f"resnet_{size}",
        netD=f"basic_{size}_multi", netD2=f"basic_{size}_multi", num_Ds=2,
        norm="instance", nl="relu", use_dropout=False, init_type="xavier", init_gain=0.02,
        where_add="all", upsample="basic", conditional_D=False,
        use_same_D=False, no_encode=False, gan_mode="lsgan", lr=2e-4, beta1=0.5, lambda_GAN=1.0,
        lambda_GAN2=1.0, lambda_L1=10.0, lambda_z=0.5,
        lambda_kl=0.01)
    with contextlib.redirect_stdout(io.StringIO()):
        return BiCycleGANModel(options)


def compile_networks(model):
    for name in ("netG", "netE", "netD", "netD2"):
        setattr(model, name, torch.compile(getattr(model, name)))


def stepper(size, batch, bf16, device, compiled):
    """One iteration, as the official training loop makes it; its seconds."""
    torch.manual_seed(1)
    model = make_model(size, batch, device)
    if compiled:
        compile_networks(model)
    pairs = {"A": torch.rand(batch, 3, size, size) * 2 - 1,
        "B": torch.rand(batch, 3, size, size) * 2 - 1, "A_paths": [""] * batch}

    def step():
        start = time.perf_counter()
        model.set_input(pairs)
        with torch.autocast(device, dtype=torch.bfloat16, enabled=bf16):
            model.optimize_parameters()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    return step


def print_line(subject, times, mib):
    times.sort()
    median = times[len(times) // 2]
    print(f"{subject}: median {median:9.5f} s, least {times[0]:9.5f} s "
    	f"an iteration, {1 / median:6.2f} iterations/s, "
          f"peak {mib:5} MiB", flush=True)


def measure(size, bf16, iterations):
    step = stepper(size, 2, bf16, "cpu", False)
    times = [step() for _ in range(-2, iterations)][2:]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print_line(f"T{size} {'bf16' if bf16 else 'fp32'}", times, peak)


def measure_on_gpu(batch, bf16, mode):
    torch.cuda.reset_peak_memory_stats()
    step = stepper(256, batch, bf16, "cuda", mode == "compile")
    times = []
    for least in (3, 5):  # warming up, then what counts
        times, end = [], time.perf_counter() + 0.5
        while len(times) < least or time.perf_counter() < end:
            times.append(step())
    suffix = "" if batch == 2 else f"x{batch}"
    print_line(f"T256{suffix} {'bf16' if bf16 else 'fp32'} {mode}", times,
    	torch.cuda.max_memory_reserved() >> 20)


def in_a_process(function, *arguments):
    """Of its own, so that the peak is its own; false if it failed."""
    child = os.fork()
    if child == 0:
        function(*arguments)
        sys.stdout.flush()
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0


def main():
    if sys.argv[1] == "--device":
        good = [in_a_process(measure_on_gpu, batch, bf16, sys.argv[3])
            for bf16 in (True, False) for batch in (2, 16)]
        sys.exit(not all(good))
    size = int(sys.argv[1])
    if len(sys.argv) > 2 and int(sys.argv[2]) > 0:
        torch.set_num_threads(int(sys.argv[2]))
    iterations = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    with open("/proc/cpuinfo") as cpuinfo:
        has_bf16 = "avx512_bf16" in cpuinfo.read()
    wanted = sys.argv[4:5] or ["fp32", "bf16"]
    for bf16 in (False, True) if has_bf16 else (False,):
        if ("bf16" if bf16 else "fp32") not in wanted:
            continue
        if not in_a_process(measure, size, bf16, iterations):
            sys.exit(1)


if __name__ == "__main__":
    main()
