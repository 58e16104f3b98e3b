#!/usr/bin/env python3
"""Model files as people save them, for tests of import; run by hand, from the repository's root:

    python3 test/gen/saved.py

Needs torch (last run: 1.13.0). Writes test/data/saved/*: one small generator and its encoder (6
levels, width 1, nz 2), wrapped, nested and transformed as programs do it, and files that are no
weights. Weights are few different numbers, so that the files compress. The numbers of the
generator's tensor k are those of lines(k), wherever it is.

Names that newer versions give (_orig_mod of torch.compile, parametrized weight norm) are made by
renaming.
"""
import argparse
import os
import pickle
import struct
from collections import OrderedDict, defaultdict

import torch
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "saved")
LEVELS, NGF, NZ = 6, 1, 2


def lines(k, shape):
    """The numbers of tensor k: eight different ones, over and over."""
    n = 1
    for extent in shape:
        n *= extent
    return (((torch.arange(n) % 7) - 3).float() / (16 + k)).view(shape)


def width(level):
    return NGF * min(2**level, 8)


def generator():
    """The state_dict of a G_Unet_add_all."""
    state = OrderedDict()

    def add(name, weight, bias):
        for field, shape in (("weight", weight), ("bias", (bias,))):
            state[f"model{name}.{field}"] = lines(len(state), shape)
    for k in range(LEVELS):
        inputs = (3 if k == 0 else width(k - 1)) + NZ
        add(".submodule" * k + (".down.1" if k else ".down.0"), (width(k), inputs, 4, 4), width(k))
    for k in reversed(range(LEVELS)):
        inputs = width(k) * (1 if k == LEVELS - 1 else 2)
        outputs = 3 if k == 0 else width(k - 1)
        add(".submodule" * k + ".up.1", (inputs, outputs, 4, 4), outputs)
    return state


def encoder():
    """The state_dict of an E_NLayers for 64 pixels."""
    state = OrderedDict()
    for name, weight in (("conv.0", (1, 3, 4, 4)), ("conv.2", (2, 1, 4, 4)),
        	("conv.5", (4, 2, 4, 4)), ("fc.0", (NZ, 4)), ("fcVar.0", (NZ, 4))):
        state[f"{name}.weight"] = lines(len(state), weight)
        state[f"{name}.bias"] = lines(len(state), weight[:1])
    return state


class Net(torch.nn.Module):
    """A module that can be anything's part."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(1, 2, 3)

    def forward(self, x):
        return self.conv(x)


def behind(prefix, state):
    return OrderedDict((prefix + name, value) for name, value in state.items())


def adam():
    """An optimiser's state after a step."""
    net = Net()
    optimiser = torch.optim.Adam(net.parameters())
    net(torch.ones(1, 1, 3, 3)).sum().backward()
    optimiser.step()
    return optimiser.state_dict()


def save(name, value, **options):
    torch.save(value, os.path.join(OUT, name), **options)


def wrapped():
    """Files with one network, or two, that are to be found."""
    lightning = behind("netG._orig_mod.module.", generator())
    save("lightning.ckpt", {"epoch": 3, "global_step": 10**12, "lr": 2e-4, "big": 1 << 90,
        "callbacks": {"best": {"score": torch.tensor(0.5), "path": b"/tmp"}}, "loops": {},
        "hyper_parameters": argparse.Namespace(lr=2e-4, sizes={1, 2}, frozen=frozenset((3,))),
        "counts": defaultdict(int, a=1), "device": torch.device("cpu"),
        "mask": torch.tensor([True, False]), "state_dict": lightning,
        "optimizer_states": [adam()]})
    save("gan.pth", {"iteration": 7, "netG": generator(), "netE": behind("module.", encoder()),
        "optG": adam()}, _use_new_zipfile_serialization=False, pickle_protocol=4)
    averaged = OrderedDict(n_averaged=torch.tensor(41))
    averaged.update(behind("module.module.", generator()))
    save("averaged.pth", averaged)
    flat = behind("netG.", generator())
    flat.update(behind("netE.", encoder()))
    save("flat.pth", flat)
    for protocol in (3, 5):
        for legacy in (True, False):
            save(f"protocol{protocol}_{'legacy' if legacy else 'zip'}.pth", behind("module.",
                encoder()), _use_new_zipfile_serialization=not legacy, pickle_protocol=protocol)


def foreign():
    """Files that hold no weights, or not as they are used."""
    save("module.pth", Net())
    # the old layout has the source of each class, too
    torch.serialization.get_source_lines_and_file = lambda thing: (["class Net: ..."], 1, "net.py")
    save("module_legacy.pth", torch.nn.DataParallel(Net()), _use_new_zipfile_serialization=False)
    save("module_in_dict.pth", {"epoch": 3, "model": Net()})
    save("optimiser.pth", adam())
    save("list.pth", [torch.zeros(2)])
    torch.jit.save(torch.jit.script(Net()), os.path.join(OUT, "script.pt"))
    with open(os.path.join(OUT, "plain.pkl"), "wb") as file:
        pickle.dump({"weight": 1}, file)
    with open(os.path.join(OUT, "graph.onnx"), "wb") as file:
        # ir_version 8, producer_name "pytorch", producer_version "1.13.0", an empty graph
        file.write(b"\x08\x08\x12\x07pytorch\x1a\x061.13.0:\x00")
    for name, norm in (("spectral", spectral_norm), ("spectral_parametrized",
        	parametrizations.spectral_norm), ("weight_norm", weight_norm)):
        net = Net()
        norm(net.conv)
        save(name + ".pth", net.state_dict())
    save("weight_norm_parametrized.pth", OrderedDict((name.replace("weight_g",
        "parametrizations.weight.original0").replace("weight_v",
        "parametrizations.weight.original1"), value) for name, value in net.state_dict().items()))


torch.manual_seed(1)
os.makedirs(OUT, exist_ok=True)
wrapped()
foreign()
save("generator.pth", generator())
save("encoder.pth", encoder())
