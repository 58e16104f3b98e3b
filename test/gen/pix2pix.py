#!/usr/bin/env python3
"""Makes test/data/pix2pix.bin, the outputs of pix2pix's generators that test_nn_official compares
with, in the format of networks.py; and test/data/saved/pix2pix*.pth with two PNG pictures that one
of them makes. Run by hand, needs torch and Pillow:

    git clone https://github.com/junyanz/pytorch-CycleGAN-and-pix2pix /tmp/official
    python3 test/gen/pix2pix.py /tmp/official

The official test script runs the generator in training mode unless it is given --eval: batch norms
then take the statistics of the one image, and dropout drops. The masks are those that
src/nn/fit_schedule.c draws, computed here anew. The files in the repository were made with commit
7891385 of the official code and PyTorch 1.13.0 on a CPU; all later versions have the same U-Net.
"""
import functools
import os
import sys

import numpy
import torch
from PIL import Image

import networks

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")


def philox(counter, key):
    """Philox4x32-10 of arrays of counters."""
    c = [numpy.asarray(x, dtype=numpy.uint64) for x in counter]
    k0, k1 = key
    low = numpy.uint64(0xFFFFFFFF)
    for _ in range(10):
        p0, p1 = numpy.uint64(0xD2511F53) * c[0], numpy.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> numpy.uint64(32)) ^ c[1] ^ numpy.uint64(k0), p1 & low,
            (p0 >> numpy.uint64(32)) ^ c[3] ^ numpy.uint64(k1), p0 & low]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


class Mask(torch.nn.Module):
    """Dropout of half by a seed, the same for each image."""

    def __init__(self, seed, level):
        super().__init__()
        self.seed, self.level = seed, level

    def forward(self, x):
        _, c, h, w = x.shape
        blocks = numpy.arange(h * w * c // 4, dtype=numpy.uint64)
        zero = numpy.zeros_like(blocks)
        words = numpy.stack(philox([blocks, zero + numpy.uint64(1 + self.level), zero, zero],
            (self.seed, 0)), axis=1).reshape(h, w, c)
        kept = torch.from_numpy((words / 2**32 >= 0.5).astype(numpy.float64))
        return x * 2 * kept.permute(2, 0, 1).to(x.dtype)


def generator(nets, c):
    """The official U-Net in the mode that the options say."""
    norm = {"batch": functools.partial(torch.nn.BatchNorm2d, affine=True),
        "instance": functools.partial(torch.nn.InstanceNorm2d, affine=False),
        "none": lambda channels: torch.nn.Identity()}[c["norm"]]
    seed = c.get("test_dropout", 0)
    net = nets.UnetGenerator(c["input_nc"], c["output_nc"], c["levels"], c["ngf"], norm_layer=norm,
        use_dropout=seed > 0)
    net.train(c.get("statistics") == "image" or c["norm"] == "instance")
    block, level = net.model, 0
    while block is not None:
        layers, inner = block.model, None
        for i, layer in enumerate(layers):
            if isinstance(layer, torch.nn.Dropout):
                layers[i] = Mask(seed, level)
            elif hasattr(layer, "outermost"):
                inner = layer
        block, level = inner, level + 1
    return net


def cases():
    """name, options, image, batch"""
    def small(**options):
        return dict(size=128, levels=7, ngf=8, where_add="input", nz=0, net_e="none",
            encoder_size=0, family="pix2pix", norm="batch", **options)

    yield "pix2pix, stored statistics", small(), None, 2
    yield "pix2pix, the image's statistics", small(statistics="image"), None, 1
    yield "pix2pix, the image's statistics and dropout", small(statistics="image",
        test_dropout=5), None, 1
    yield "pix2pix, dropout", small(test_dropout=2**31 - 1), None, 1
    yield "pix2pix, instance norm", dict(small(), norm="instance"), None, 2
    yield "pix2pix, no norm, gray to colour", dict(small(), norm="none", input_nc=1), None, 1
    yield "pix2pix, unet_256", dict(small(statistics="image", test_dropout=1), size=256, levels=8,
        ngf=4), None, 1
    yield "pix2pix, a single stroke", dict(small(statistics="image"), size=64,
        levels=6), "stroke", 1


def write_case(out, nets, name, options, image, batch):
    c = dict(networks.DEFAULTS, **options)
    net = generator(nets, c).double()
    networks.fill(net, 1000)
    state = [[key, list(value.shape)] for key, value in net.state_dict().items()]
    image = image or "11"
    # one image at a time, as the official script has them
    x = networks.picture(image, batch, c["input_nc"], c["size"])
    with torch.no_grad():
        y = torch.cat([net(x[i:i + 1]) for i in range(batch)])
    networks.write_results(out, name, "G", options, image, batch, 1000, c["input_nc"], c["size"],
        [y], state)


def write_files(nets):
    """A small generator as the official code saves it, and what it makes of a picture."""
    c = dict(networks.DEFAULTS, levels=6, ngf=1, norm="batch")
    photo = Image.open(os.path.join(DATA, "edges2emoji", "pairs", "00_B.png")).convert("RGB")
    x = torch.from_numpy(numpy.asarray(photo.resize((64, 64), Image.BICUBIC))).permute(2, 0,
        1)[None].float() / 127.5 - 1
    for name, more in (("eval", {}), ("test", dict(statistics="image", test_dropout=9)),
        	("instance", dict(norm="instance"))):
        net = generator(nets, dict(c, **more)).float()
        networks.fill(net, 7)
        if name != "test":
            torch.save(net.state_dict(), os.path.join(DATA, "saved",
                "pix2pix.pth" if name == "eval" else "pix2pix_instance.pth"))
        with torch.no_grad():
            y = net(x)[0].permute(1, 2, 0).double()
        levels = torch.round((y + 1) * 127.5).clamp(0, 255).byte().numpy()
        Image.fromarray(levels).save(os.path.join(DATA, "saved", f"pix2pix_{name}.png"))


def main():
    sys.path.insert(0, sys.argv[1])
    from models import networks as nets
    with open(os.path.join(DATA, "pix2pix.bin"), "wb") as out:
        for name, options, image, batch in cases():
            write_case(out, nets, name, options, image, batch)
    write_files(nets)


if __name__ == "__main__":
    main()
