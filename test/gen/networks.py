#!/usr/bin/env python3
"""Makes test/data/networks.bin, the outputs of the official networks that test_nn_official compares
with. Run by hand, needs torch:

    git clone https://github.com/junyanz/BicycleGAN /tmp/official
    python3 test/gen/networks.py /tmp/official test/data/networks.bin

Weights and images come from a linear congruential generator that the test has too
(test/unit/nn_fixture.h), so only samples of the outputs are stored: every so-manieth element in
NHWC order, in float64. All networks are run in float64 and in evaluation mode. The file in the
repository was made with commit 40b9d52 of the official code and PyTorch 2.15.0 on a CPU.

The file is a sequence of cases. A case is the length of its description (uint32, little-endian),
the description (JSON) and the samples (float64):
    name, network (G, E, D), config (the options that are not the defaults), base (seed of the
    weights), image (what is in it), shape (N, H, W, C) state: name and shape of each entry of the
    official state_dict, in its order outputs: for each, its shape, the sums of its values and
    squares, and stride and count of its samples
"""
import json
import math
import struct
import sys

import numpy
import torch

DEFAULTS = dict(size=256, levels=8, input_nc=3, output_nc=3, nz=8, ngf=64, nef=64, ndf=64,
	where_add='all', upsample='basic', norm='instance', nl='relu',
                net_e='resnet', encoder_size=256, num_ds=2, conditional_d=False)
SMALL = dict(size=128, levels=7, encoder_size=128, ngf=8, nef=8, ndf=8)
SAMPLES = 500


def lcg(seed, n):
    """n values in [-1, 1): x = 1664525 x + 1013904223 mod 2^32, by doubling the part that is
    known."""
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


def fill(net, base):
    k, j = 0, 500
    with torch.no_grad():
        for name, p in net.named_parameters():
            scale = 1 / math.sqrt(p.numel() / p.shape[0]) if p.dim() > 1 else 0.1
            p.copy_(torch.from_numpy(lcg(base + k, p.numel()) * scale).view(p.shape))
            k += 1
        for name, b in net.named_buffers():
            if name.endswith('running_mean'):
                b.copy_(torch.from_numpy(0.1 * lcg(base + j, b.numel())))
                j += 1
            elif name.endswith('running_var'):
                b.copy_(torch.from_numpy(1 + 0.5 * lcg(base + j, b.numel())))
                j += 1


def fill_networks(model):
    """A model's networks by name, in float64: the generator's weights, fresh running statistics."""
    nets = {name: getattr(model, 'net' + name) for name in model.model_names}
    for base, name in enumerate(('G', 'E', 'D', 'D2')):
        if name in nets:
            net = nets[name].double()
            stats = {k: b.clone() for k, b in net.named_buffers()}
            fill(net, 1000 * (base + 1))
            for k, b in net.named_buffers():
                b.copy_(stats[k])
    return nets


def picture(kind, n, c, size):
    if kind in ('white', 'black'):
        return torch.full((n, c, size, size), 1.0 if kind == 'white' else -1.0, dtype=torch.float64)
    if kind == 'stroke':
        y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing='ij')
        plane = 1.0 - 2.0 * ((y - x).abs() <= 1).double()
        return plane.expand(n, c, size, size).contiguous()
    return torch.from_numpy(lcg(int(kind), n * c * size * size)).view(n, c, size, size)


def halvings(size):
    return int(math.log2(size)) - 3


def network_of(nets, which, c, use_dropout=False):
    norm, nl, leaky = nets.get_norm_layer(c['norm']), nets.get_non_linearity(
    	c['nl']), nets.get_non_linearity('lrelu')
    if which == 'G':
        kind = nets.G_Unet_add_all if c['where_add'] == 'all' else nets.G_Unet_add_input
        return kind(c['input_nc'], c['output_nc'], c['nz'], c['levels'], c['ngf'], norm_layer=norm,
        	nl_layer=nl, use_dropout=use_dropout,
                    upsample=c['upsample'])
    if which == 'E':
        if c['net_e'] == 'resnet':
            return nets.E_ResNet(c['output_nc'], c['nz'], c['nef'],
            	n_blocks=halvings(c['encoder_size']), norm_layer=norm, nl_layer=leaky, vaeLike=True)
        return nets.E_NLayers(c['output_nc'], c['nz'], c['nef'],
        	n_layers=halvings(c['encoder_size']), norm_layer=norm, nl_layer=leaky, vaeLike=True)
    channels = c['output_nc'] + (c['input_nc'] if c['conditional_d'] else 0)
    return nets.D_NLayersMulti(channels, c['ndf'], n_layers=2 if c['size'] <= 128 else 3,
    	norm_layer=norm, num_D=c['num_ds'])


def run(nets, which, options, image, batch):
    c = dict(DEFAULTS, **options)
    base = {'G': 1000, 'E': 2000, 'D': 3000}[which]
    net = network_of(nets, which, c).double().eval()
    fill(net, base)
    size = c['encoder_size'] if which == 'E' else c['size']
    channels = {'G': c['input_nc'], 'E': c['output_nc'],
    	'D': c['output_nc'] + (c['input_nc'] if c['conditional_d'] else 0)}[which]
    x = picture(image, batch, channels, size)
    with torch.no_grad():
        if which == 'G':
            z = torch.from_numpy(1.5 * lcg(99, batch * c['nz'])).view(batch,
            	c['nz']) if c['nz'] > 0 else None
            y = net(x, z)
        else:
            y = net(x)
    state = [[name, list(value.shape)] for name, value in net.state_dict().items()]
    return base, channels, size, list(y) if isinstance(y, (list, tuple)) else [y], state


def write_case(out, nets, name, which, options, image=None, batch=1):
    image = image or ('11' if which == 'G' else '22')
    write_results(out, name, which, options, image, batch, *run(nets, which, options, image, batch))


def write_results(out, name, which, options, image, batch, base, channels, size, results, state):
    outputs, samples = [], []
    for y in results:
        y = y.view(y.shape[0], y.shape[1], 1, 1) if y.dim() == 2 else y
        flat = y.permute(0, 2, 3, 1).contiguous().view(-1)
        stride = max(1, flat.numel() // SAMPLES) | 1
        stride += 2 * (stride % 3 == 0)
        samples.append(flat[::stride].numpy())
        outputs.append(dict(shape=[y.shape[0], y.shape[2], y.shape[3], y.shape[1]],
        	sum=flat.sum().item(), sumsq=(flat * flat).sum().item(),
                            stride=stride, count=len(samples[-1])))
    text = json.dumps(dict(name=name, network=which, config=options, base=base, image=image,
    	shape=[batch, size, size, channels], state=state,
                           outputs=outputs)).encode()
    out.write(struct.pack('<I', len(text)) + text + b''.join(s.astype('<f8').tobytes() for s
    	in samples))
    print(which, name, flush=True)


