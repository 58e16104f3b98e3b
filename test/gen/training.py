#!/usr/bin/env python3
"""Makes test/data/training.json, the training steps of the official code that test_train_official
compares with. Run by hand, needs torch:

    git clone https://github.com/junyanz/BicycleGAN /tmp/official
    python3 test/gen/training.py /tmp/official test/data/training.json

Networks of width 8 at 128 x 128 are trained in float64 for 12 steps on one batch. Weights, images
and codes come from a linear congruential generator that the test has too (test/unit/nn_fixture.h
and train_fixture.h), so only results are stored. The file in the repository was made with commit
40b9d52 of the official code and PyTorch 2.15.0 on a CPU.

The file is a list of cases:
    name, options (as bicycle_train takes them, besides size and widths)
    losses: of each step, by their names
    gradients: of the first step, network -> tensor -> [norm, projection on the generator's numbers
    from 5000 + place of the tensor in its network] buffers: after the first step, network -> tensor
    -> norm
"""
import argparse
import json
import math
import sys
import tempfile

import torch

from networks import fill_networks, lcg

STEPS = 12
CASES = {
    'default': {},
    'where_add = input': dict(where_add='input'),
    'upsample = bilinear': dict(upsample='bilinear'),
    'net_e = conv': dict(net_e='conv'),
    'nl = elu': dict(nl='elu'),
    'norm = batch': dict(norm='batch'),
    'gan_mode = vanilla': dict(gan_mode='vanilla'),
    'conditional_d': dict(conditional_d=True),
    'same_d': dict(same_d=True),
}


def official_options(options):
    o = argparse.Namespace(
        gpu_ids=[], isTrain=True, checkpoints_dir=tempfile.gettempdir(), name='golden',
        	preprocess='none', batch_size=2, direction='AtoB',
        lambda_GAN=1.0, lambda_GAN2=1.0, lambda_L1=10.0, lambda_z=0.5, lambda_kl=0.01, lr=0.0002,
        	beta1=0.5, input_nc=3, output_nc=3, nz=8, ngf=8, nef=8, ndf=8,
        netG='unet_128', netE='%s_128' % options.get('net_e', 'resnet'), netD='basic_128_multi',
        	netD2='basic_128_multi', num_Ds=2,
        norm=options.get('norm', 'instance'), nl=options.get('nl', 'relu'), use_dropout=False,
        	init_type='xavier', init_gain=0.02,
        where_add=options.get('where_add', 'all'), upsample=options.get('upsample', 'basic'),
        	gan_mode=options.get('gan_mode', 'lsgan'),
        conditional_D=options.get('conditional_d', False), use_same_D=options.get('same_d', False),
        	no_encode=False)
    return o


def run(module, options):
    model = module.BiCycleGANModel(official_options(options))
    model.criterionGAN.double()
    nets = fill_networks(model)
    codes = iter(torch.from_numpy(1.5 * lcg(100 + i, 8)).view(1, 8) for i in range(2 * STEPS))
    model.get_z_random = lambda n, nz, random_type='gauss': next(codes)
    model.real_A = torch.from_numpy(lcg(11, 2 * 3 * 128 * 128)).view(2, 3, 128, 128)
    model.real_B = torch.from_numpy(lcg(22, 2 * 3 * 128 * 128)).view(2, 3, 128, 128)
    losses, gradients, buffers = [], {}, {}
    for step in range(STEPS):
        model.forward()
        model.update_G_and_E()
        if step == 0:
            # those of D are cleared before its own pass, which then leaves them
            for name in ('G', 'E'):
                gradients[name] = describe(nets[name])
        model.update_D()
        if step == 0:
            for name in nets:
                if name in ('D', 'D2'):
                    gradients[name] = describe(nets[name])
                buffers[name] = {k: b.double().norm().item() for k, b in nets[name].named_buffers()}
        losses.append({n: float(getattr(model, 'loss_' + n)) for n in model.loss_names
        	if hasattr(model, 'loss_' + n)})
    return losses, gradients, buffers


def describe(net):
    found = {}
    for k, (name, p) in enumerate(net.named_parameters()):
        g = p.grad.reshape(-1)
        found[name] = [g.norm().item(),
        	(g * torch.from_numpy(lcg(5000 + k, g.numel()))).sum().item()]
    return found


def rounded(x):
    if isinstance(x, dict):
        return {k: rounded(v) for k, v in x.items()}
    if isinstance(x, list):
        return [rounded(v) for v in x]
    return float('%.13g' % x)


def main():
    sys.path.insert(0, sys.argv[1])
    from models import bicycle_gan_model
    torch.set_num_threads(1)
    with open(sys.argv[2], 'w') as out:
        lines = []
        for name, options in CASES.items():
            losses, gradients, buffers = run(bicycle_gan_model, options)
            assert all(math.isfinite(v) for step in losses for v in step.values())
            lines.append(json.dumps(dict(name=name, options=options, losses=rounded(losses),
            	gradients=rounded(gradients), buffers=rounded(buffers))))
            print(name, losses[0], flush=True)
        out.write('[\n' + ',\n'.join(lines) + '\n]\n')


if __name__ == '__main__':
    main()
