"""The networks of the official defaults in PyTorch, stated once more from their description: a
U-Net with the latent at every level, a residual encoder; instance norm. For the comparisons:
numbered() gives them the weights that bench_model.h gives ours, so that all paint the same.
"""
import numpy
import torch
from torch import nn
import torch.nn.functional as F

NZ = 8


class Generator(nn.Module):
    # True: maps stay in channels_last, which norm and concatenation do not see to
    keep_layout = False

    def __init__(self, levels, base=64):
        super().__init__()
        width = [base * min(2 ** k, 8) for k in range(levels)]
        self.down = nn.ModuleList(nn.Conv2d((width[k - 1] if k else 3) + NZ, width[k], 4, 2, 1)
        	for k in range(levels))
        self.up = nn.ModuleList(nn.ConvTranspose2d(width[k] * (1 if k == levels - 1 else 2),
        	width[k - 1] if k else 3, 4, 2, 1) for k in range(levels))

    def laid(self, x):
        return x.contiguous(memory_format=torch.channels_last) if self.keep_layout else x

    def level(self, k, x, z):
        planes = z[:, :, None, None].expand(-1, -1, x.shape[2], x.shape[3])
        joined = torch.cat([x, self.laid(planes)], 1)
        y = self.down[k](joined if k == 0 else F.leaky_relu(joined, 0.2))
        last = k == len(self.down) - 1
        if 0 < k and not last:
            y = self.laid(F.instance_norm(y))
        if not last:
            y = self.level(k + 1, y, z)
        y = self.up[k](F.relu(y))
        return torch.tanh(y) if k == 0 else torch.cat([self.laid(F.instance_norm(y)), x], 1)

    def forward(self, x, z):
        return self.level(0, x, z)


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.first = nn.Conv2d(inputs, inputs, 3, 1, 1)
        self.second = nn.Conv2d(inputs, outputs, 3, 1, 1)
        self.shortcut = nn.Conv2d(inputs, outputs, 1)

    def forward(self, x):
        y = self.first(F.leaky_relu(F.instance_norm(x), 0.2))
        y = self.second(F.leaky_relu(F.instance_norm(y), 0.2))
        return F.avg_pool2d(y, 2) + self.shortcut(F.avg_pool2d(x, 2))


class Encoder(nn.Module):
    def __init__(self, base=64, layers=5):
        super().__init__()
        self.mu = nn.Linear(base * min(4, layers), NZ)
        self.logvar = nn.Linear(base * min(4, layers), NZ)
        self.first = nn.Conv2d(3, base, 4, 2, 1)
        self.blocks = nn.Sequential(*(Block(base * min(4, n), base * min(4, n + 1)) for n
        	in range(1, layers)))

    def forward(self, x, z):
        y = F.avg_pool2d(F.leaky_relu(self.blocks(self.first(x)), 0.2), 8).flatten(1)
        return self.mu(y), self.logvar(y)


def numbers(seed, scale, count):
    """As bench.h has it: a linear congruential generator, here all of its steps at once."""
    powers = numpy.cumprod(numpy.full(count, 1664525, numpy.uint32), dtype=numpy.uint32)
    sums = numpy.cumsum(numpy.concatenate(([1], powers[:-1])).astype(numpy.uint32),
                        dtype=numpy.uint32)
    state = powers * numpy.uint32(seed) + sums * numpy.uint32(1013904223)
    return ((2.0 * state / 4294967296.0 - 1) * scale).astype(numpy.float32)


def in_official_order(net):
    """Parameters as the official state_dict has them, which is the order of bench_model.h."""
    if isinstance(net, Generator):
        layers = list(net.down) + list(net.up)[::-1]
        return [p for layer in layers for p in (layer.weight, layer.bias)]
    return list(net.parameters())


def numbered(name):
    """A network by its name, such as G256, with the made-up weights of its model."""
    size = int(name[1:])
    generator = Generator(size.bit_length() - 1)
    number = 0
    if name[0] == "E":
        number = len(in_official_order(generator))
        net = Encoder(layers=size.bit_length() - 4)
    else:
        net = generator
    with torch.no_grad():
        for parameter in in_official_order(net):
            number += 1
            scale = (parameter.shape[0] / parameter.numel()) ** 0.5 if parameter.dim() > 1 else 0.1
            made = numbers(number, scale, parameter.numel()).reshape(parameter.shape)
            parameter.copy_(torch.from_numpy(made))
    return net.eval()
