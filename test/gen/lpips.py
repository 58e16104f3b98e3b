#!/usr/bin/env python3
"""Makes the numbers that LPIPS is compared with, by the lpips package's own code. Run by hand:

    python3 test/gen/lpips.py random WHEEL                    the table of test_nn_lpips.c
    python3 test/gen/lpips.py pairs WHEEL WEIGHTS test/data   test/data/lpips/pairs.txt

Needs torch, numpy and Pillow. WHEEL is the folder that lpips-0.1.4-py3-none-any.whl was unpacked
into, WEIGHTS that of tools/lpips_weights.py. torchvision is not needed: its two networks are below,
without weights. The numbers in the repository were made with PyTorch 2.15.0 and Pillow 13.0.0 on a
CPU; those of random weights in float64, the others in float32, as the package computes.
"""
import json
import math
import struct
import sys
import types

import numpy
import torch
from torch import nn

VGG = (64, 64, 'M', 128, 128, 'M', 256, 256, 256, 'M', 512, 512, 512, 'M', 512, 512, 512, 'M')


def vgg16(pretrained=False):
    layers, channels = [], 3
    for v in VGG:
        if v == 'M':
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, v, 3, padding=1), nn.ReLU(inplace=True)]
            channels = v
    return types.SimpleNamespace(features=nn.Sequential(*layers))


def alexnet(pretrained=False):
    return types.SimpleNamespace(features=nn.Sequential(
        nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(inplace=True),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)))


def load_package(wheel):
    """The package imports much that measuring does not use."""
    torchvision = types.ModuleType('torchvision')
    torchvision.models = types.ModuleType('torchvision.models')
    torchvision.models.alexnet, torchvision.models.vgg16 = alexnet, vgg16
    sys.modules.update({'torchvision': torchvision, 'torchvision.models': torchvision.models})
    for name in ('tqdm', 'skimage', 'skimage.transform', 'IPython', 'scipy', 'scipy.ndimage'):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules['tqdm'].tqdm = sys.modules['scipy.ndimage'].zoom = None
    sys.path.insert(0, wheel)
    import lpips
    return lpips


def lcg(seed, n):
    """As test/unit/nn_fixture.h."""
    x = numpy.empty(n, numpy.uint32)
    a, c = 1664525, 1013904223
    x[0] = (a * seed + c) % 2**32
    known = 1
    while known < n:
        more = min(known, n - known)
        x[known:known + more] = x[:more] * numpy.uint32(a) + numpy.uint32(c)
        a, c = a * a % 2**32, (a * c + c) % 2**32
        known += more
    return 2.0 * x / 2**32 - 1


def convolutions(model):
    """With the place of each in torchvision's features."""
    for i in range(1, 6):
        for number, layer in getattr(model.net, f'slice{i}').named_children():
            if isinstance(layer, nn.Conv2d):
                yield int(number), layer


def fill(model, base):
    """In the order of the table of parameters: a layer's head comes behind it."""
    k, heads = base, iter(model.lins)
    last = []
    for i in range(1, 6):
        numbers = [int(n) for n, l in getattr(model.net, f'slice{i}').named_children()
                   if isinstance(l, nn.Conv2d)]
        last.append(numbers[-1])
    with torch.no_grad():
        for number, layer in convolutions(model):
            n = layer.weight.numel()
            scale = 2.5 / math.sqrt(n / layer.weight.shape[0])
            layer.weight.copy_(torch.from_numpy(lcg(k, n) * scale).view(layer.weight.shape))
            layer.bias.copy_(torch.from_numpy(lcg(k + 1, layer.bias.numel()) * 0.1))
            k += 2
            if number in last:
                w = next(heads).model[-1].weight
                w.copy_(torch.from_numpy(numpy.abs(lcg(k, w.numel())) / math.sqrt(w.numel()))
                        .view(w.shape))
                k += 1


def random_bytes(seed, h, w):
    """(1, 3, h, w), of which every other row repeats the one above: not all is noise."""
    x = numpy.floor((lcg(seed, 3 * h * w) + 1) * 128).reshape(1, 3, h, w)
    x[:, :, 1::2] = x[:, :, 0:h - h % 2:2]
    return x


def as_images(x):
    return torch.from_numpy((x / 255 - 0.5) / 0.5)


def measure(model, a, b):
    with torch.no_grad():
        distance = model(a, b).item()
        scaled = [model.scaling_layer(x) if model.version == '0.1' else x for x in (a, b)]
        features = [model.net(x)[4].mean((2, 3))[0] for x in scaled]
    return distance, features


def print_random(lpips):
    for net, version, h, w in (('alex', '0.1', 64, 64), ('alex', '0.0', 31, 47),
                               ('vgg', '0.1', 16, 16), ('vgg', '0.0', 33, 20)):
        model = lpips.LPIPS(net=net, version=version, pretrained=False, pnet_rand=True,
                            verbose=False).double()
        fill(model, 3000)
        for seed in (1, 2):
            a, b = random_bytes(10 * seed, h, w), random_bytes(10 * seed + 1, h, w)
            if seed == 2:
                b = numpy.floor((3 * a + b) / 4)
            distance, (fa, fb) = measure(model, as_images(a), as_images(b))
            print(f'\t{{ "{net}", "{version}", {w}, {h}, {seed}, {distance:.12g}, '
                  f'{fa.sum().item():.12g}, {(fb ** 2).sum().item():.12g} }},')


def read_safetensors(path):
    with open(path, 'rb') as f:
        head = json.loads(f.read(struct.unpack('<Q', f.read(8))[0]))
        data = f.read()
    return {k: torch.frombuffer(bytearray(data[slice(*v['data_offsets'])]), dtype=torch.float32)
            .view(v['shape']) for k, v in head.items() if k != '__metadata__'}


def print_pairs(lpips, weights, data):
    from PIL import Image
    files = ['lpips/ex_ref.png', 'lpips/ex_p0.png', 'lpips/ex_p1.png'] + PICTURES
    images = [Image.open(f'{data}/{f}').convert('RGB') for f in files]
    pairs = [(0, 1), (0, 2)] + [(i, j) for i in range(len(files)) for j in range(len(files))
                               if i != j and (i, j) not in ((0, 1), (0, 2))][::2][:18]
    print('# made by test/gen/lpips.py pairs: a, b, then alex 0.0, alex 0.1, vgg 0.0, vgg 0.1')
    models = []
    for net in ('alex', 'vgg'):
        for version in ('0.0', '0.1'):
            model = lpips.LPIPS(net=net, version=version, pnet_rand=True, verbose=False)
            stored = read_safetensors(f'{weights}/{net}.safetensors')
            with torch.no_grad():
                for number, layer in convolutions(model):
                    layer.weight.copy_(stored[f'features.{number}.weight'])
                    layer.bias.copy_(stored[f'features.{number}.bias'])
            models.append(model)
    for i, j in pairs:
        a, b = images[i], images[j].resize(images[i].size, Image.BICUBIC)
        both = [torch.from_numpy((numpy.array(x, dtype=numpy.float32) / 255 - 0.5) / 0.5)
                .permute(2, 0, 1)[None] for x in (a, b)]
        print(files[i], files[j], *(f'{measure(m, *both)[0]:.6f}' for m in models))


PICTURES = ['edges2emoji/pairs/00_A.png', 'edges2emoji/pairs/00_B.png',
            'edges2emoji/pairs/01_B.png', 'jpeg/ycc444.jpg']

if __name__ == '__main__':
    package = load_package(sys.argv[2])
    if sys.argv[1] == 'random':
        print_random(package)
    else:
        print_pairs(package, sys.argv[3], sys.argv[4])
