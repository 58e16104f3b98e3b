#!/usr/bin/env python3
"""Stands for bench/torch_gpu_peer.py and bench/train_peer.py where there is neither a GPU nor
PyTorch (test/cuda/simulate.sh): prints lines as they do, with numbers that mean nothing."""
import sys
import time

mode = sys.argv[-1]
if mode in ("compile", "eager") and "--device" in sys.argv:
    for subject in ("T256 bf16", "T256x16 bf16", "T256 fp32", "T256x16 fp32"):
        time.sleep(0.5)
        print(f"{subject} {mode}: median   1.00000 s, least   1.00000 s an iteration,   1.00 "
              "iterations/s, peak  1024 MiB", flush=True)
else:
    for batch in (1, 64, 16):
        time.sleep(0.5)
        print(f"G256 bf16 batch {batch:2} {mode}: inside    1.0000 ms, pinned    1.0000 ms, "
              "pageable    1.0000 ms an image", flush=True)
