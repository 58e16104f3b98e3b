#!/usr/bin/env python3
"""Model files for the format tests, as PyTorch of today and of 2017 wrote them; run by hand, from
the repository's root:

    python3 test/gen/files.py

Needs torch and safetensors (last run: 2.15.0, 0.8.0). Writes test/data/pth/* and
test/data/pth/expected.txt with what torch.load makes of each:

    file legacy|zip|safetensors number-of-tensors
    name dtype dimensions extent.. crc          crc is zlib's crc32 of the row-major elements

The model of test/data/edges2emoji is listed too. Old dialects (Python 2, PyTorch before 0.4) are
assembled here operator by operator; that torch.load reads them as well proves that they are what
they claim to be.
"""
import json
import os
import pickle
import struct
import zlib
from collections import OrderedDict

import torch
from safetensors.torch import load_file, save_file

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")
OUT = os.path.join(DATA, "pth")
NAMES = {torch.float32: "F32", torch.float64: "F64", torch.float16: "F16", torch.bfloat16: "BF16",
	torch.int64: "I64", torch.int32: "I32", torch.uint8: "U8"}


class Block(torch.nn.Module):
    """Two levels of a U-Net with the official names, down.N, submodule and up.N, and batch norm for
    its buffers."""

    def __init__(self, depth):
        super().__init__()
        self.down = torch.nn.Sequential(torch.nn.LeakyReLU(0.2), torch.nn.Conv2d(3, 4, 4, 2, 1),
        	torch.nn.BatchNorm2d(4))
        if depth:
            self.submodule = Block(depth - 1)
        self.up = torch.nn.Sequential(torch.nn.ReLU(), torch.nn.ConvTranspose2d(4, 3, 4, 2, 1))


def state():
    torch.manual_seed(1)
    net = torch.nn.Module()
    net.model = Block(1)
    return net.state_dict()


def dtypes():
    torch.manual_seed(2)
    tensors = OrderedDict((f"{NAMES[t]}.weight", (torch.randn(3, 5) * 100).to(t)) for t in NAMES)
    tensors["num_batches_tracked"] = torch.tensor(123456789012345)
    tensors["empty"] = torch.zeros(0, 4)
    tensors["eight.dimensions"] = torch.arange(12.).view(1, 2, 1, 3, 1, 2, 1, 1)
    return tensors


def windows():
    """Parts of one storage, in every order that strides can say."""
    base = torch.arange(100.) * 0.5
    return OrderedDict(all=base, part=base[10:30].view(4, 5), transposed=base.view(10, 10).t(),
    	steps=base[3::3],
                       permuted=base[:24].view(2, 3, 4).permute(2, 0, 1),
                       	expanded=base[7].expand(3, 4), rows=base[5:8].unsqueeze(1).expand(3, 2),
                       one=base[99:], odd_stride=torch.as_strided(base, (1, 5), (77, 1), 2),
                       	column=base.view(10, 10)[:, 3])


def save(name, tensors, legacy, **options):
    torch.save(tensors, os.path.join(OUT, name), _use_new_zipfile_serialization=not legacy,
    	**options)


# ---- Dialects of 2017 ----

MAGIC = bytes.fromhex("80028a0a6cfc9c46f9206aa850192e")


def short(text):
    """SHORT_BINSTRING: a str of Python 2."""
    return b"U" + bytes([len(text)]) + text.encode()


def integer(n):
    return b"K" + bytes([n]) if n < 256 else b"J" + struct.pack("<i", n)


def old_tensor(kind, key, numel, offset, size, stride, view=b"N", location="cuda:0",
	rebuild="_rebuild_tensor"):
    more = b"\x89ccollections\nOrderedDict\n]\x85R" if rebuild == "_rebuild_tensor_v2" else b""
    return (b"ctorch._utils\n" + rebuild.encode() + b"\n((" + short("storage") + b"ctorch\n" + kind
    	+ b"\n" + short(key) + short(location) + integer(numel) +
            view + b"tQ" + integer(offset) + b"(" + b"".join(map(integer, size)) + b"t("
            	+ b"".join(map(integer, stride)) + b"t" + more + b"tR")


def old_file(name, pairs, storages, extra=b""):
    """Python 2's OrderedDict([[key, value], ...]) and the storages {key: bytes}; extra comes after
    the dictionary, before STOP."""
    body = b"".join(b"]q" + bytes([1 + i]) + b"(" + short(key) + value + b"e" for i,
    	(key, value) in enumerate(pairs))
    with open(os.path.join(OUT, name), "wb") as file:
        file.write(MAGIC + pickle.dumps(1001, 2)
        	+ pickle.dumps(dict(protocol_version=1001, little_endian=True,
        	type_sizes=dict(short=2, int=4, long=4)), 2))
        file.write(b"\x80\x02ccollections\nOrderedDict\nq\x00](" + body + b"e\x85R" + extra + b".")
        file.write(b"\x80\x02](" + b"".join(short(key) for key in sorted(storages)) + b"e.")
        for key in sorted(storages):
            numel, data = storages[key]
            file.write(struct.pack("<q", numel) + data)


def old_files():
    floats = struct.pack("<24f", *(i / 4 for i in range(24)))
    longs = struct.pack("<1q", -5)
    old_file("python2.pth", [
        ("model.0.weight", old_tensor(b"FloatStorage", "94021", 24, 0, (2, 3, 2, 2),
        	(12, 4, 2, 1))),
        ("model.0.bias", old_tensor(b"FloatStorage", "94021", 24, 20, (3,), (1,))),
        ("model.1.running_mean", old_tensor(b"DoubleStorage", "7", 2, 0, (2,), (1,),
        	location="cpu")),
        ("model.1.num_batches_tracked", old_tensor(b"LongStorage", "8", 1, 0, (), (),
        	location="cpu", rebuild="_rebuild_tensor_v2")),
    ], {"94021": (24, floats), "7": (2, struct.pack("<2d", 1.5, -2.5)), "8": (1, longs)},
        # an attribute of the OrderedDict, as state_dict() has had it since 0.4
        extra=b"}" + short("_metadata") + b"ccollections\nOrderedDict\n]\x85Rsb")
    old_file("views.pth", [
        ("tail", old_tensor(b"FloatStorage", "1", 24, 1, (2, 2), (2, 1), view=b"(" + short("1-view")
        	+ integer(12) + integer(10) + b"t")),
        ("head", old_tensor(b"FloatStorage", "1", 24, 0, (2, 2), (1, 2), location="cpu")),
    ], {"1": (24, floats)})


def header_order(name):
    with open(name, "rb") as file:
        return [key for key in json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
        	if key != "__metadata__"]


def describe(path):
    name = os.path.join(DATA, path)
    if path.endswith(".safetensors"):
        layout, loaded = "safetensors", load_file(name)
        tensors = {key: loaded[key] for key in header_order(name)}
    else:
        layout = "zip" if open(name, "rb").read(2) == b"PK" else "legacy"
        tensors = torch.load(name, map_location="cpu", weights_only=False)
    yield f"{path} {layout} {len(tensors)}"
    for key, value in tensors.items():
        value = value.detach().contiguous()
        if not value.dim() or not value.numel():
            value_bytes = value.reshape(-1).view(torch.uint8)
        else:
            value_bytes = value.view(torch.uint8)
        shape = "".join(f"{size} " for size in value.shape)
        crc = zlib.crc32(value_bytes.numpy().tobytes())
        yield f"{key} {NAMES[value.dtype]} {value.dim()} {shape}{crc:08x}"


os.makedirs(OUT, exist_ok=True)
for legacy, layout in ((True, "legacy"), (False, "zip")):
    save(f"state_{layout}.pth", state(), legacy)
    save(f"dtypes_{layout}.pth", dtypes(), legacy)
    save(f"windows_{layout}.pth", windows(), legacy)
    save(f"parameter_{layout}.pth",
    	OrderedDict(weight=torch.nn.Parameter(torch.arange(6.).view(2, 3))), legacy)
save("protocol4.pth", state(), False, pickle_protocol=4)
save("dict.pth", dict(state()), True)
save_file(dtypes(), os.path.join(OUT, "dtypes.safetensors"),
	metadata={"format": "pt", "note": "escaped \" \u00e4"})
old_files()
files = sorted("pth/" + name for name in os.listdir(OUT)
	if name.endswith((".pth", ".safetensors"))) + ["edges2emoji/G.pth", "edges2emoji/E.pth"]
with open(os.path.join(OUT, "expected.txt"), "w") as file:
    for path in files:
        for line in describe(path):
            file.write(line + "\n")
