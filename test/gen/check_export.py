#!/usr/bin/env python3
"""Do exported models load into the official networks? Run by hand; needs torch, and safetensors for
such files.

    python3 test/gen/check_export.py OFFICIAL make DIR          writes state_dicts of the official
    networks, to be imported
    python3 test/gen/check_export.py OFFICIAL check FILE... [--nz N] [--against DIR]

OFFICIAL is a checkout of junyanz/BicycleGAN (last run with 40b9d52 and torch 2.15.0). check builds,
for each .pth or .safetensors file, the official network that its tensors belong to (G, E or D; at
128 and 256 by define_G and define_E, at other sizes by the class they construct), loads it with
strict keys, as the official code would, and runs it once. With --against each file must also hold
the values of the file of the same name in DIR. --nz is the length of the latent code of a G with
where_add input, which its tensors do not tell (default 8).

Last result, with what make wrote, read and written again in both formats by src/format: 48 of 48.
"""
import argparse
import functools
import os
import sys

import torch


def levels_of(state):
    return sum(value.dim() == 4 for value in state.values()) // 2


def build_generator(networks, state, nz):
    add_all = "model.down.0.weight" in state
    first = state["model.down.0.weight" if add_all else "model.model.0.weight"]
    weights = [(key, value) for key, value in state.items() if value.dim() == 4]
    upsample = "bilinear" if any(value.shape[-1] == 3 for _, value in weights) else "basic"
    last = state[{(True, "basic"): "model.up.1.weight", (True, "bilinear"): "model.up.3.weight",
                  (False, "basic"): "model.model.3.weight",
                  	(False, "bilinear"): "model.model.5.weight"}[add_all, upsample]]
    ngf, levels = first.shape[0], levels_of(state)
    if add_all:
        nz = state["model.submodule.down.1.weight"].shape[1] - ngf
    norm = "batch" if any("running_mean" in key for key in state) else "instance"
    input_nc, output_nc = first.shape[1] - nz, last.shape[1 if upsample == "basic" else 0]
    where = "all" if add_all else "input"
    if levels in (7, 8):
        net = networks.define_G(input_nc, output_nc, nz, ngf, netG=f"unet_{2 ** levels}", norm=norm,
        	where_add=where, upsample=upsample)
    else:
        make = networks.G_Unet_add_all if add_all else networks.G_Unet_add_input
        net = make(input_nc, output_nc, nz, levels, ngf, norm_layer=networks.get_norm_layer(norm),
        	nl_layer=networks.get_non_linearity("relu"),
                   upsample=upsample)
    size = 2 ** levels
    run = functools.partial(net, torch.zeros(1, input_nc, size, size), torch.zeros(1, nz))
    return net, run, f"G {size} {where} {upsample} {norm} {input_nc}->{output_nc} nz {nz} ngf {ngf}"


def build_encoder(networks, state):
    resnet = "conv.1.conv.2.weight" in state
    first, nz = state["conv.0.weight"], state["fc.0.weight"].shape[0]
    norm = "batch" if any("running_mean" in key for key in state) else "instance"
    if resnet:
        blocks = 1 + sum(key.endswith("shortcut.1.weight") for key in state)
    else:
        blocks = sum(value.dim() == 4 for value in state.values())
    size = 2 ** (blocks + 3)
    kind = "resnet" if resnet else "conv"
    if size in (128, 256):
        net = networks.define_E(first.shape[1], nz, first.shape[0], f"{kind}_{size}", norm=norm,
        	vaeLike=True)
    else:
        layers = dict(norm_layer=networks.get_norm_layer(norm),
        	nl_layer=networks.get_non_linearity("lrelu"), vaeLike=True)
        if resnet:
            net = networks.E_ResNet(first.shape[1], nz, first.shape[0], n_blocks=blocks, **layers)
        else:
            net = networks.E_NLayers(first.shape[1], nz, first.shape[0], n_layers=blocks, **layers)
    return net, functools.partial(net, torch.zeros(1, first.shape[1], size,
    	size)), f"E {kind} {size} {norm} {first.shape[1]}->{nz} nef {first.shape[0]}"


def build_discriminator(networks, state):
    scales = len({key.split(".")[0] for key in state})
    prefix = "model_0" if scales > 1 else "model"
    first = state[f"{prefix}.0.weight"]
    layers = sum(value.dim() == 4 for key,
    	value in state.items() if key.startswith(prefix + ".")) - 2
    norm = "batch" if any("running_mean" in key for key in state) else "instance"
    net = networks.D_NLayersMulti(first.shape[1], first.shape[0], n_layers=layers,
    	norm_layer=networks.get_norm_layer(norm), num_D=scales)
    return net, functools.partial(net, torch.zeros(1, first.shape[1], 128,
    	128)), f"D {layers} layers {scales} scales {norm} in {first.shape[1]}"


def build(networks, state, nz):
    if "fc.0.weight" in state:
        return build_encoder(networks, state)
    if any(key.startswith("model_0.") or key == "model.0.weight" for key in state):
        return build_discriminator(networks, state)
    return build_generator(networks, state, nz)


def load(path):
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file
        return load_file(path)
    return torch.load(path, map_location="cpu", weights_only=True)


def check(networks, args):
    failures = 0
    for path in args.files:
        try:
            state = load(path)
            net, run, what = build(networks, state, args.nz)
            net.load_state_dict(state, strict=True)
            net.eval()
            with torch.no_grad():
                run()
            if args.against:
                original = load(os.path.join(args.against,
                	os.path.splitext(os.path.basename(path))[0] + ".pth"))
                assert set(original) == set(state), "other keys than the original"
                for key, value in original.items():
                    assert value.dtype == state[key].dtype and torch.equal(value,
                    	state[key]), f"{key} differs from the original"
                what += ", equal to the original"
            print(f"ok {path}: {what}")
        except Exception as error:
            failures += 1
            print(f"not ok {path}: {error}")
    return failures


def make(networks, args):
    os.makedirs(args.directory, exist_ok=True)
    torch.manual_seed(1)
    norm_of, nl_of = networks.get_norm_layer, networks.get_non_linearity
    nets = {}
    for size in (128, 256):
        for where in ("all", "input"):
            for upsample in ("basic", "bilinear"):
                nets[f"G_{size}_{where}_{upsample}"] = networks.define_G(3, 3, 8, 8,
                	netG=f"unet_{size}", norm="instance", where_add=where, upsample=upsample)
        for kind in ("resnet", "conv"):
            nets[f"E_{kind}_{size}"] = networks.define_E(3, 8, 8, f"{kind}_{size}", norm="instance",
            	vaeLike=True)
    nets["G_128_batch"] = networks.define_G(1, 3, 8, 8, netG="unet_128", norm="batch",
    	where_add="all", upsample="basic")
    nets["E_resnet_128_batch"] = networks.define_E(3, 8, 8, "resnet_128", norm="batch",
    	vaeLike=True)
    for size, levels in ((64, 6), (512, 9)):
        for where, kind in (("all", networks.G_Unet_add_all), ("input", networks.G_Unet_add_input)):
            nets[f"G_{size}_{where}_basic"] = kind(3, 3, 8, levels, 8,
            	norm_layer=norm_of("instance"), nl_layer=nl_of("relu"), upsample="basic")
        layers = dict(norm_layer=norm_of("instance"), nl_layer=nl_of("lrelu"), vaeLike=True)
        nets[f"E_resnet_{size}"] = networks.E_ResNet(3, 8, 8, n_blocks=levels - 3, **layers)
        nets[f"E_conv_{size}"] = networks.E_NLayers(3, 8, 8, n_layers=levels - 3, **layers)
    for scales in (1, 2):
        nets[f"D_{scales}"] = networks.D_NLayersMulti(3, 8, n_layers=2,
        	norm_layer=norm_of("instance"), num_D=scales)
    for i, (name, net) in enumerate(nets.items()):
        torch.save(net.state_dict(), os.path.join(args.directory, name + ".pth"),
        	_use_new_zipfile_serialization=bool(i % 2))
    print(f"{len(nets)} files in {args.directory}")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
    	formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("official")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("directory")
    checking = commands.add_parser("check")
    checking.add_argument("files", nargs="+")
    checking.add_argument("--nz", type=int, default=8)
    checking.add_argument("--against")
    args = parser.parse_args()
    sys.path.insert(0, args.official)
    from models import networks
    return (make if args.command == "make" else check)(networks, args)


sys.exit(main())
