#!/usr/bin/env python3
"""Makes test/data/fit/extents.bin, the outputs of official generators at sizes that are not the
model's own, with which test_nn_extent compares. Run by hand, needs torch:

    git clone https://github.com/junyanz/BicycleGAN /tmp/official
    python3 test/gen/extents.py /tmp/official test/data/fit/extents.bin

Weights, images and format are those of networks.py, but that descriptions have no state. The file
in the repository was made with commit 40b9d52 of the official code and PyTorch 2.15.0 on a CPU.
"""
import json
import struct
import sys

import torch

from networks import DEFAULTS, fill, lcg, network_of

SAMPLES = 200
SIX = dict(size=64, levels=6, ngf=4, net_e='none', encoder_size=0)
SEVEN = dict(SIX, size=128, levels=7)
EIGHT = dict(SIX, size=256, levels=8)

# options, then height and width in units of 2^levels
CASES = (
    [(dict(SIX), h, w) for h, w in ((1, 2), (2, 1), (2, 2), (3, 5), (8, 1), (1, 8), (7, 3))] +
    [(dict(SIX, where_add='input', upsample='bilinear'), h, w)
     for h, w in ((1, 3), (4, 1), (2, 3), (5, 5))] +
    [(dict(SIX, norm='batch', nl='elu', ngf=6), 2, 3), (dict(SIX, norm='none', nl='lrelu'), 3, 1),
     (dict(SIX, upsample='bilinear', nz=3, input_nc=1), 3, 2),
     (dict(SIX, where_add='input', output_nc=1, ngf=16), 3, 4)] +
    [(dict(SEVEN), 1, 4), (dict(SEVEN, size=256, upsample='bilinear'), 1, 1),
     (dict(SEVEN, where_add='input'), 3, 2)] +
    [(dict(EIGHT), 1, 2), (dict(EIGHT, where_add='input', upsample='bilinear'), 3, 2)])


def write_case(out, nets, options, h, w):
    c = dict(DEFAULTS, **options)
    unit = 1 << c['levels']
    net = network_of(nets, 'G', c).double().eval()
    fill(net, 1000)
    shape = (1, c['input_nc'], h * unit, w * unit)
    x = torch.from_numpy(lcg(11, shape[1] * shape[2] * shape[3])).view(shape)
    z = torch.from_numpy(1.5 * lcg(99, c['nz'])).view(1, c['nz'])
    with torch.no_grad():
        flat = net(x, z).permute(0, 2, 3, 1).contiguous().view(-1)
    stride = max(1, flat.numel() // SAMPLES) | 1
    stride += 2 * (stride % 3 == 0)
    samples = flat[::stride].numpy()
    text = json.dumps(dict(config=options, height=shape[2], width=shape[3], stride=stride,
                           count=len(samples), sumsq=(flat * flat).sum().item())).encode()
    out.write(struct.pack('<I', len(text)) + text + samples.astype('<f8').tobytes())
    print(shape[3], 'x', shape[2], options, flush=True)


def main():
    sys.path.insert(0, sys.argv[1])
    from models import networks
    with open(sys.argv[2], 'wb') as out:
        for options, h, w in CASES:
            write_case(out, networks, options, h, w)


if __name__ == '__main__':
    main()
