#!/usr/bin/env python3
"""Makes the table of test_train_augment.c by the official code of differentiable augmentation. Run
by hand, needs torch:

    git clone https://github.com/mit-han-lab/data-efficient-gans /tmp/official
    python3 test/gen/diff_augment.py /tmp/official

Images of 12 x 12 and 9 x 14 pixels, and what the gradient is taken of, come from the generator of
test/unit/nn_fixture.h. The code's random numbers are replaced: by the numbers of the table, in the
order in which it draws them. What is printed was made with commit 0b63395 and PyTorch 2.15.0, in
float64.
"""
import sys

import torch

from networks import lcg

# policy, shape, and numbers of each image: brightness, saturation, contrast; shift down, right;
# centre of the cutout, y and x
CASES = (
    ('color', (2, 12, 12, 3), ((0.3, 1.7, 0.6), (-0.45, 0.2, 1.4))),
    ('translation', (2, 12, 12, 3), ((2, -1), (-1, 2))),
    ('cutout', (2, 12, 12, 3), ((0, 12), (5, 3))),
    ('color,translation,cutout', (2, 9, 14, 3), ((0.1, 0.4, 1.3, 1, -2, 8, 2),
                                                 (-0.2, 1.9, 0.7, -1, 1, 4, 11))),
)


def numbers(policy, of):
    """As the code draws them: of all images, one after the other."""
    drawn = []
    for k in range(len(of[0])):
        drawn.append(torch.tensor([image[k] for image in of], dtype=torch.float64))
    if 'color' in policy:
        drawn[0], drawn[1], drawn[2] = drawn[0] + 0.5, drawn[1] / 2, drawn[2] - 0.5
    return drawn


def images(seed, shape):
    n, h, w, c = shape
    return torch.tensor(lcg(seed, n * h * w * c)).reshape(n, h, w, c).permute(0, 3, 1, 2)


def main():
    sys.path.insert(0, sys.argv[1])
    import DiffAugment_pytorch
    for policy, shape, of in CASES:
        drawn = numbers(policy, of)
        torch.rand = lambda *size, **_: drawn.pop(0).reshape(size)
        torch.randint = lambda low, high, size, **_: drawn.pop(0).long().reshape(size)
        x = images(5, shape).requires_grad_()
        y = DiffAugment_pytorch.DiffAugment(x, policy=policy)
        weight = images(6, shape)
        (y * weight).sum().backward()
        assert not drawn
        other = images(7, shape)
        sums = y.sum(), (y * weight).sum(), x.grad.sum(), (x.grad * other).sum()
        print(f'{{ "{policy}", {", ".join(f"{s.item():.12g}" for s in sums)} }},')


main()
