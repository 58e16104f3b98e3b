#!/usr/bin/env python3
"""Makes test/data/training_random.json: two training steps of each of the six methods under options
drawn at random, by the official code; for
test_train_random.  Run by hand, needs torch:

    git clone https://github.com/junyanz/BicycleGAN /tmp/official
    python3 test/gen/training_random.py /tmp/official 36 1 test/data/training_random.json

The second argument is the number of cases, the third the seed. More cases than the repository keeps
can be made and given to the test as its argument.

Losses, networks and the order of updates are the official code's, in float64. What it lacks is put
in where the class Method says so, from the paper and doc/training.md: methods that encode all of a
batch, a deterministic code, a latent loss that trains E, no E at all, terms of weight 0 that are
left out, and discriminators without a norm. Weights, images and codes come from the generator of
networks.py.

The file is a list of cases:
    options: as bicycle_train takes them
    losses: of both steps, by their names; absent terms are absent
    gradients: of the first step, network -> [norm, sum of the products with the generator's numbers
    from 5000 + place of the tensor in its network] buffers: after the first step, network -> sum of
    absolute values of running means and variances
"""
import argparse
import json
import math
import random
import sys
import tempfile

import torch

from networks import DEFAULTS, fill_networks, lcg, network_of
from training import rounded

STEPS = 2
HALVES = ('bicycle', 'cvae_gan++')
PRESETS = {
    'bicycle': {},
    'cvae_gan++': dict(lambda_z=0.0),
    'cvae_gan': dict(lambda_gan2=0.0, lambda_z=0.0),
    'cae_gan': dict(lambda_gan2=0.0, lambda_z=0.0, lambda_kl=0.0),
    'clr_gan': dict(lambda_gan=0.0, lambda_l1=0.0, lambda_kl=0.0),
    'pix2pix_noise': dict(lambda_gan2=0.0, lambda_z=0.0, lambda_kl=0.0, conditional_d=True),
}
LAMBDAS = dict(lambda_l1=10.0, lambda_gan=1.0, lambda_gan2=1.0, lambda_z=0.5, lambda_kl=0.01)


# ---- Options ---------------------------------------------------------------

def draw_options(r, method):
    """What a user may ask for; sizes are small, widths odd."""
    o = dict(method=method, size=r.choice([64, 64, 64, 128]), batch_size=r.randint(1, 3))
    if method in HALVES:
        o['batch_size'] *= 2
    o['nz'] = 0 if method == 'pix2pix_noise' and r.random() < 0.3 else r.choice([1, 2, 3, 5, 8, 11])
    for name in ('ngf', 'nef', 'ndf'):
        o[name] = r.randint(2, 7)
    o['num_ds'] = r.choice([1, 2, 2, 3])
    o['input_nc'], o['output_nc'] = r.choice([1, 3]), r.choice([1, 3])
    o['where_add'] = r.choice(['all', 'input']) if o['nz'] else 'input'
    o['upsample'] = r.choice(['basic', 'bilinear'])
    o['norm'] = r.choice(['instance', 'instance', 'batch', 'none'])
    o['nl'] = r.choice(['relu', 'lrelu', 'elu'])
    o['gan_mode'] = r.choice(['lsgan', 'vanilla'])
    o['lr'], o['beta1'] = r.choice([0.0002, 0.001]), r.choice([0.0, 0.5, 0.9])
    if method != 'pix2pix_noise':
        o['net_e'] = r.choice(['resnet', 'conv'])
        o['conditional_d'] = r.random() < 0.3
    for name in LAMBDAS:
        if r.random() < 0.4 and (method != 'pix2pix_noise' or name in ('lambda_l1', 'lambda_gan')):
            o[name] = r.choice([0.0, 0.3, 2.0])
    full = complete(o)
    # the official code has no answer to one discriminator for both branches of which one is off
    if full['lambda_gan'] > 0 and full['lambda_gan2'] > 0 and r.random() < 0.3:
        o['same_d'] = True
    return o


def complete(options):
    """All options, by the defaults and the method's."""
    full = dict(DEFAULTS, batch_size=2, gan_mode='lsgan', same_d=False, lr=0.0002, beta1=0.5,
    	dropout=False, **LAMBDAS)
    full.update(PRESETS[options['method']])
    full.update(options)
    full['levels'] = int(math.log2(full['size']))
    full['encoder_size'] = full['size']
    return full


def trains_all(o):
    """Whether every network gets a gradient; other options are refused."""
    encoded = o['lambda_gan'] > 0 or o['lambda_l1'] > 0
    g = encoded or o['lambda_gan2'] > 0 or o['lambda_z'] > 0
    e = encoded or o['lambda_kl'] > 0 or (o['method'] == 'clr_gan' and o['lambda_z'] > 0)
    return g and (e or o['method'] == 'pix2pix_noise')


def leaves_maps(o):
    """Whether every scale of a discriminator has channels, and norms of more than one element;
    other options are refused."""
    size, strided = o['size'], 2 if o['size'] <= 128 else 3
    for scale in range(o['num_ds']):
        inner = (size >> strided) - 1
        if inner < 2 or round(o['ndf'] / 2**scale) < 1:
            return False
        size = (size + 1) // 2
    return True


# ---- The official code -----------------------------------------------------

class Without(torch.nn.Module):
    """Stands in a list of layers for a norm there is none of."""


def make_method(module, nets):
    """The official model's class, with what it lacks."""

    class Scales(nets.D_NLayersMulti):
        def get_layers(self, *args):
            return [layer for layer in super().get_layers(*args) if not isinstance(layer, Without)]

    class Method(module.BiCycleGANModel):
        def __init__(self, o):
            self.o = o
            halves = o['method'] in HALVES
            self.n = o['batch_size'] // 2 if halves else o['batch_size']
            self.first_real = self.n if halves else 0
            self.encoded = o['lambda_gan'] > 0 or o['lambda_l1'] > 0
            self.random = o['lambda_gan2'] > 0 or o['lambda_z'] > 0
            nets.define_G = lambda *args, **kwargs: self.network('G')
            nets.define_E = lambda *args, **kwargs: self.network('E')
            nets.define_D = lambda *args, **kwargs: self.network('D')
            super().__init__(argparse.Namespace(
                gpu_ids=[], isTrain=True, checkpoints_dir=tempfile.gettempdir(), name='golden',
                	preprocess='none', batch_size=2 * self.n,
                direction='AtoB', lambda_GAN=o['lambda_gan'], lambda_GAN2=o['lambda_gan2'],
                	lambda_L1=o['lambda_l1'], lambda_z=o['lambda_z'],
                lambda_kl=o['lambda_kl'], lr=o['lr'], beta1=o['beta1'], input_nc=o['input_nc'],
                	output_nc=o['output_nc'], nz=o['nz'], ngf=o['ngf'],
                nef=o['nef'], ndf=o['ndf'], netG='', netE='', netD='', netD2='', num_Ds=o['num_ds'],
                	norm=o['norm'], nl=o['nl'], use_dropout=o['dropout'],
                init_type='', init_gain=0, where_add=o['where_add'], upsample=o['upsample'],
                	gan_mode=o['gan_mode'], conditional_D=o['conditional_d'],
                use_same_D=o['same_d'], no_encode=False))
            self.criterionGAN.double()
            if not hasattr(self, 'netD'):
                self.netD = None
            if o['method'] == 'pix2pix_noise':
                self.model_names.remove('E')

        def network(self, which):
            o = self.o
            if which == 'E' and o['method'] == 'pix2pix_noise':
                # only so that there is something to optimise
                return torch.nn.Linear(1, 1)
            if which == 'D' and o['norm'] == 'none':
                channels = o['output_nc'] + (o['input_nc'] if o['conditional_d'] else 0)
                return Scales(channels, o['ndf'], n_layers=2 if o['size'] <= 128 else 3,
                	norm_layer=lambda c: Without(), num_D=o['num_ds'])
            return network_of(nets, which, o, use_dropout=o['dropout'])

        def encode(self, image):
            """The code of the encoded branch."""
            if self.o['method'] == 'pix2pix_noise':
                return self.z_random, None, None
            if self.o['method'] == 'cae_gan':
                mu, logvar = self.netE(image)
                return mu, mu, logvar
            return super().encode(image)

        def forward(self):
            n, o = self.n, self.o
            self.real_A_encoded = self.real_A[:n]
            self.real_B_encoded = self.real_B[:n]
            self.real_A_random = self.real_A[self.first_real:]
            self.real_B_random = self.real_B[self.first_real:]
            self.z_random = self.z
            if self.encoded or o['lambda_kl'] > 0:
                self.z_encoded, self.mu, self.logvar = self.encode(self.real_B_encoded)
            self.fake_data_encoded = self.fake_data_random = None
            if self.encoded:
                self.fake_B_encoded = self.netG(self.real_A_encoded, self.z_encoded)
                self.fake_data_encoded = self.exhibit(self.real_A_encoded, self.fake_B_encoded)
            if self.random:
                self.fake_B_random = self.netG(self.real_A_encoded, self.z_random)
                self.fake_data_random = self.exhibit(self.real_A_encoded, self.fake_B_random)
            self.real_data_encoded = self.exhibit(self.real_A_encoded, self.real_B_encoded)
            self.real_data_random = self.exhibit(self.real_A_random, self.real_B_random)
            if o['lambda_z'] > 0:
                self.mu2, _ = self.netE(self.fake_B_random)

        def exhibit(self, a, b):
            return torch.cat([a, b], 1) if self.o['conditional_d'] else b

        def backward_EG(self):
            if any(self.o[name] > 0 for name in ('lambda_gan', 'lambda_gan2', 'lambda_l1',
            	'lambda_kl')):
                super().backward_EG()

        def set_requires_grad(self, networks, wanted=False):
            if self.o['method'] != 'clr_gan' or networks != [self.netE]:
                super().set_requires_grad(networks, wanted)

    return Method


# ---- Two steps -------------------------------------------------------------

def describe(net):
    squares, projection = 0.0, 0.0
    for k, (name, p) in enumerate(net.named_parameters()):
        if p.grad is not None:
            g = p.grad.reshape(-1)
            squares += (g * g).sum().item()
            projection += (g * torch.from_numpy(lcg(5000 + k, g.numel()))).sum().item()
    return [math.sqrt(squares), projection]


def terms(model):
    """The official code leaves numbers where a term is off."""
    present = dict(G_GAN='lambda_gan', D='lambda_gan', G_GAN2='lambda_gan2', D2='lambda_gan2',
    	G_L1='lambda_l1', z_L1='lambda_z', kl='lambda_kl')
    return {name: float(getattr(model, 'loss_' + name)) for name,
    	weight in present.items() if model.o[weight] > 0}


def run(method, options, prepare=None):
    o = complete(options)
    model = method(o)
    nets = fill_networks(model)
    if prepare:
        prepare(model)
    shape = (o['batch_size'], o['size'], o['size'])
    for name, seed, channels in (('real_A', 11, o['input_nc']), ('real_B', 22, o['output_nc'])):
        setattr(model, name, torch.from_numpy(lcg(seed, math.prod(shape) * channels)).view(shape[0],
        	channels, *shape[1:]))
    losses, gradients, buffers = [], {}, {}
    for step in range(STEPS):
        def code(seed):
            return torch.from_numpy(1.5 * lcg(seed + 2 * step, model.n * o['nz'])).view(model.n,
            	o['nz']) if o['nz'] > 0 else torch.zeros(model.n, 0)
        model.z = code(101)
        model.get_z_random = lambda n, nz: code(100)
        model.step = step
        model.forward()
        model.update_G_and_E()
        if step == 0:
            # those of D are cleared before its own pass, which then leaves them
            for name in nets:
                if name in ('G', 'E'):
                    gradients[name] = describe(nets[name])
        model.update_D()
        if step == 0:
            for name in nets:
                if name in ('D', 'D2'):
                    gradients[name] = describe(nets[name])
                buffers[name] = sum(b.double().abs().sum().item() for k,
                	b in nets[name].named_buffers() if 'running' in k)
        losses.append(terms(model))
    return losses, gradients, buffers


def cases(count, seed):
    r = random.Random(seed)
    methods = list(PRESETS)
    while count > 0:
        o = draw_options(r, methods[count % len(methods)])
        if trains_all(complete(o)) and leaves_maps(complete(o)):
            yield o
            count -= 1


def main():
    sys.path.insert(0, sys.argv[1])
    from models import bicycle_gan_model, networks
    torch.set_num_threads(1)
    method = make_method(bicycle_gan_model, networks)
    lines = []
    for options in cases(int(sys.argv[2]), int(sys.argv[3])):
        losses, gradients, buffers = run(method, options)
        assert all(math.isfinite(v) for step in losses for v in step.values()), options
        lines.append(json.dumps(dict(options=options, losses=rounded(losses),
        	gradients=rounded(gradients), buffers=rounded(buffers))))
        print(options['method'], losses[0], flush=True)
    with open(sys.argv[4], 'w') as out:
        out.write('[\n' + ',\n'.join(lines) + '\n]\n')


if __name__ == '__main__':
    main()
