#!/usr/bin/env python3
"""Writes the convolutions of a safetensors file as torch.save writes a network of torchvision: a
zip file of a pickled state_dict of the names features.N.weight and so on, and one of classifier.N
beside them, which are all 0 here.

    torchvision_pth.py IN.safetensors OUT.pth alex|vgg

What it writes torch.load(OUT.pth, weights_only=True) takes. PyTorch is not needed.
"""
import json
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict

CLASSIFIER = {'alex': {1: (4096, 9216), 4: (4096, 4096), 6: (1000, 4096)},
              'vgg': {0: (4096, 25088), 3: (4096, 4096), 6: (1000, 4096)}}

# Names that a pickle refers to must lead to what they stand for.
torch = types.ModuleType('torch')
torch._utils = types.ModuleType('torch._utils')
sys.modules.update({'torch': torch, 'torch._utils': torch._utils})


def _rebuild_tensor_v2():
    pass


class FloatStorage:
    pass


for place, thing in ((torch._utils, _rebuild_tensor_v2), (torch, FloatStorage)):
    thing.__module__ = place.__name__
    setattr(place, thing.__name__, thing)


class Storage:
    def __init__(self, key, data):
        self.key, self.data = key, data


class Tensor:
    def __init__(self, storage, shape):
        self.storage, self.shape = storage, shape

    def __reduce__(self):
        stride = [1]
        for n in self.shape[:0:-1]:
            stride.insert(0, stride[0] * n)
        return _rebuild_tensor_v2, (self.storage, 0, tuple(self.shape), tuple(stride), False,
                                    OrderedDict())


class Pickler(pickle.Pickler):
    def persistent_id(self, thing):
        if isinstance(thing, Storage):
            return 'storage', FloatStorage, thing.key, 'cpu', len(thing.data) // 4
        return None


def tensors(path, net):
    """name, shape, bytes"""
    with open(path, 'rb') as file:
        header = json.loads(file.read(struct.unpack('<Q', file.read(8))[0]))
        data = file.read()
    for name, place in header.items():
        yield name, place['shape'], data[slice(*place['data_offsets'])]
    for number, (outputs, inputs) in CLASSIFIER[net].items():
        yield f'classifier.{number}.weight', (outputs, inputs), bytes(4 * outputs * inputs)
        yield f'classifier.{number}.bias', (outputs,), bytes(4 * outputs)


def main(source, target, net):
    state = OrderedDict()
    for name, shape, data in tensors(source, net):
        state[name] = Tensor(Storage(str(len(state)), data), shape)
    state._metadata = OrderedDict({'': {'version': 1}})
    with zipfile.ZipFile(target, 'w', zipfile.ZIP_STORED) as archive:
        with archive.open('archive/data.pkl', 'w') as file:
            Pickler(file, protocol=2).dump(state)
        for tensor in state.values():
            archive.writestr(f'archive/data/{tensor.storage.key}', tensor.storage.data)
        archive.writestr('archive/version', '3\n')


if __name__ == '__main__':
    main(*sys.argv[1:])
