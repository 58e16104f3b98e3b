#!/usr/bin/env python3
"""Seconds an iteration of the official BicycleGAN code on PyTorch and its peak memory, to be read
beside train_bench's.

    BICYCLE_OFFICIAL=directory train_peer.py size [threads [iterations]]

The directory holds the official code (junyanz/BicycleGAN, HEAD as of 2020-08), whose
BiCycleGANModel.optimize_parameters is run with its default options on batches of two. bf16, where
the processor has it, is autocast.
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


def make_model(size):
    options = types.SimpleNamespace(
        isTrain=True, batch_size=2, gpu_ids=[], checkpoints_dir="", name="",
        	preprocess="resize_and_crop", direction="AtoB", input_nc=3, output_nc=3, nz=8,
        ngf=64, nef=64, ndf=64, netG=f"unet_{size}", netE=f"resnet_{size}",
        	netD=f"basic_{size}_multi", netD2=f"basic_{size}_multi", num_Ds=2,
        norm="instance", nl="relu", use_dropout=False, init_type="xavier", init_gain=0.02,
        	where_add="all", upsample="basic", conditional_D=False,
        use_same_D=False, no_encode=False, gan_mode="lsgan", lr=2e-4, beta1=0.5, lambda_GAN=1.0,
        	lambda_GAN2=1.0, lambda_L1=10.0, lambda_z=0.5,
        lambda_kl=0.01)
    with contextlib.redirect_stdout(io.StringIO()):
        return BiCycleGANModel(options)


def measure(size, bf16, iterations):
    torch.manual_seed(1)
    model = make_model(size)
    batch = {"A": torch.rand(2, 3, size, size) * 2 - 1, "B": torch.rand(2, 3, size, size) * 2 - 1,
    	"A_paths": ["", ""]}
    times = []
    for i in range(-2, iterations):
        start = time.perf_counter()
        model.set_input(batch)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
            model.optimize_parameters()
        if i >= 0:
            times.append(time.perf_counter() - start)
    times.sort()
    median = times[len(times) // 2]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(f"T{size} {'bf16' if bf16 else 'fp32'}: median {median:7.3f} s, least {times[0]:7.3f} s "
    	f"an iteration, {1 / median:6.2f} iterations/s, "
          f"peak {peak:5} MiB", flush=True)


def main():
    size = int(sys.argv[1])
    if len(sys.argv) > 2 and int(sys.argv[2]) > 0:
        torch.set_num_threads(int(sys.argv[2]))
    iterations = int(sys.argv[3]) if len(sys.argv) > 3 else 9
    with open("/proc/cpuinfo") as cpuinfo:
        has_bf16 = "avx512_bf16" in cpuinfo.read()
    for bf16 in (False, True) if has_bf16 else (False,):
        # a process for each, so that the peak is its own
        child = os.fork()
        if child == 0:
            measure(size, bf16, iterations)
            os._exit(0)
        if os.waitpid(child, 0)[1] != 0:
            sys.exit(1)


if __name__ == "__main__":
    main()
