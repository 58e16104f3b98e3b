#!/usr/bin/env python3
"""Makes test/data/edges2emoji/evaluate.json: what bicycle_evaluate says of the model there, by the
official networks, PyTorch and numpy; for sql/evaluate.sql. Run by hand, needs torch, numpy and
Pillow:

    git clone https://github.com/junyanz/BicycleGAN /tmp/official
    python3 test/gen/evaluate.py /tmp/official [WHEEL WEIGHTS]

WHEEL and WEIGHTS are those of lpips.py; without them what needs LPIPS is left as the file has it.
The metrics are written anew here from doc/evaluation.md. The file in the repository was made with
commit 40b9d52 of the official code, PyTorch 2.15.0 and Pillow 13.0.0 on a CPU.
"""
import importlib.util
import json
import math
import os
import sys

import numpy
import torch
from PIL import Image

import networks
from pix2pix import philox

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), '..', 'data', 'edges2emoji')
SAMPLES, SEED, NZ = 3, 7, 8
# Input and target of each row of the test's table.
ROWS = [(0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (0, 0)]
G = dict(networks.DEFAULTS, size=128, levels=7, input_nc=1, ngf=14)
E = dict(networks.DEFAULTS, encoder_size=128, nef=20)


def normal(seed):
    """bicycle_latent(NZ, seed)"""
    out = []
    for block in range((NZ + 3) // 4):
        words = [int(w[0]) for w in philox([[block], [0], [0], [0]],
                                           (seed % 2**32, seed // 2**32 % 2**32))]
        for radius, angle in ((words[0], words[1]), (words[2], words[3])):
            r = math.sqrt(-2 * math.log((radius + 0.5) / 2**32))
            a = (((angle & 0x3FFFFFFF) + 0.5) / 2**30 - 0.5 + (angle >> 30)) * math.pi / 2
            out += [r * math.cos(a), r * math.sin(a)]
    return numpy.float32(out[:NZ])


def read(name, mode):
    x = numpy.asarray(Image.open(os.path.join(DATA, 'pairs', name)).convert(mode))
    return x if x.ndim == 3 else x[:, :, None]


def tensor(image):
    return torch.from_numpy(image.astype(numpy.float32) / 127.5 - 1).permute(2, 0, 1)[None]


class Models:
    def __init__(self, official):
        sys.path.insert(0, official)
        from models import networks as nets
        self.g = networks.network_of(nets, 'G', G).eval()
        self.e = networks.network_of(nets, 'E', E).eval()
        self.g.load_state_dict(torch.load(os.path.join(DATA, 'G.pth'), map_location='cpu'))
        self.e.load_state_dict(torch.load(os.path.join(DATA, 'E.pth'), map_location='cpu'))

    def translate(self, a, z):
        with torch.no_grad():
            y = self.g(tensor(a), torch.as_tensor(z)[None])[0].permute(1, 2, 0).numpy()
        return numpy.clip(numpy.round((y + 1) * 127.5), 0, 255).astype(numpy.uint8)

    def encode(self, b):
        with torch.no_grad():
            mu, logvar = self.e(tensor(b))
        return mu[0].numpy().astype(float), logvar[0].numpy().astype(float)


def l1(x, y):
    return numpy.abs(x.astype(float) - y).mean() / 127.5


def shares(to_truths, to_samples):
    """Coverage, precision, and modes reached of an input; to_truths (t, t), to_samples (t, s)."""
    kept = [i for i in range(len(to_truths)) if not any(to_truths[i][j] == 0 for j in range(i))]
    if len(kept) < 2:
        return None
    hits = numpy.array([to_samples[i] < min(to_truths[i][j] for j in kept if j != i) / 2
                        for i in kept])
    nearest = numpy.array([to_samples[i] for i in kept]).argmin(0)
    return hits.any(1).mean(), hits.any(0).mean(), len(set(nearest)) / len(kept)


def kernel(x, y):
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd(inputs, x, y):
    """Over pairs of different inputs, and with its jackknife."""
    h = kernel(x, x) + kernel(y, y) - kernel(x, y) - kernel(x, y).T
    g = numpy.array(inputs)
    other = g[:, None] != g[None]
    left = [h[o].mean() for o in (other & (g != i)[:, None] & (g != i)[None] for i in set(inputs))]
    n = len(left)
    return h[other].mean(), math.sqrt((n - 1) / n * ((left - numpy.mean(left)) ** 2).sum()), n


def over_inputs(values):
    v = numpy.array([x for x in values if x is not None])
    return [v.mean(), v.std(ddof=1) / math.sqrt(len(v)) if len(v) > 1 else None, len(v)]


def measure_all(m, distances, featured):
    """distances: suffix of metrics -> function of two images"""
    values, zs, mus, features = {}, [], [], []

    def add(name, value):
        values.setdefault(name, []).append(value)
    for number, i in enumerate(dict.fromkeys(a for a, _ in ROWS)):
        a = read(f'{i:02}_A.png', 'L')
        truths = [read(f'{b:02}_B.png', 'RGB') for x, b in ROWS if x == i]
        z = [normal(((SEED + number) * 6364136223846793005 + k) % 2**64)
             for k in range(1, SAMPLES + 1)]
        samples = [m.translate(a, x) for x in z]
        codes = [m.encode(b) for b in truths]
        mu = [m.encode(s)[0] for s in samples]
        zs, mus = zs + z, mus + mu
        add('latent_l1', numpy.abs(numpy.array(z) - mu).mean())
        add('kl', numpy.mean([(c ** 2 + numpy.exp(v) - 1 - v).sum() / 2 for c, v in codes]))
        made = [m.translate(a, numpy.float32(c)) for c, _ in codes]
        for by, d in distances.items():
            add('diversity_' + by, numpy.mean([d(x, y) for x, y in zip(samples, samples[1:])]))
            add('reconstruction_' + by, numpy.mean([d(x, y) for x, y in zip(made, truths)]))
            to_samples = numpy.array([[d(s, t) for s in samples] for t in truths])
            add('best_' + by, to_samples.min(1).mean())
            both = shares([[d(t, u) for u in truths] for t in truths], to_samples)
            add('coverage_' + by, both and both[0])
            add('precision_' + by, both and both[1])
            if by == 'l1':
                add('reached_l1', both and both[2])
        add('collapse_share', float(values['diversity_l1'][-1] < 0.01))
        if featured:
            features += [(number, featured(samples[k % SAMPLES]), featured(t))
                         for k, t in enumerate(truths)]
    rows = {name: over_inputs(v) for name, v in values.items()}
    r = [numpy.corrcoef(x, y)[0, 1] ** 2 for x, y in zip(numpy.array(zs).T, numpy.array(mus).T)]
    rows['latent_read'] = [sum(r), None, rows['kl'][2]]
    if featured:
        rows['mmd'] = mmd([f[0] for f in features], *(numpy.array([f[k] for f in features])
                                                      for k in (1, 2)))
    return rows


def alexnet(wheel, weights):
    """LPIPS 0.0 of the lpips package; lpips.py goes by another name beside it."""
    here = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'lpips.py')
    spec = importlib.util.spec_from_file_location('lpips_numbers', here)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    model = script.load_package(wheel).LPIPS(net='alex', version='0.0', pnet_rand=True,
                                             verbose=False)
    stored = script.read_safetensors(os.path.join(weights, 'alex.safetensors'))
    with torch.no_grad():
        for number, layer in script.convolutions(model):
            layer.weight.copy_(stored[f'features.{number}.weight'])
            layer.bias.copy_(stored[f'features.{number}.bias'])
    return model


def main():
    path = os.path.join(DATA, 'evaluate.json')
    rows = json.load(open(path)) if os.path.exists(path) else {}
    distances, featured = {'l1': l1}, None
    if len(sys.argv) > 2:
        model = alexnet(sys.argv[2], sys.argv[3])

        def distance(x, y):
            with torch.no_grad():
                return model(tensor(x), tensor(y)).item()

        def featured(x):
            with torch.no_grad():
                return model.net(tensor(x))[4].mean((2, 3))[0].numpy().astype(float)
        distances['lpips'] = distance
    rows.update(measure_all(Models(sys.argv[1]), distances, featured))
    with open(path, 'w') as out:
        json.dump({name: rows[name] for name in sorted(rows)}, out, indent=1)
        out.write('\n')


if __name__ == '__main__':
    main()
