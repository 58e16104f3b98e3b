#!/usr/bin/env python3
"""One side of a comparison on a processor: PyTorch, ONNX Runtime or OpenVINO, each by its best
settings.

    peer.py torch|onnxruntime|openvino THREADS

Reads orders and answers each by a line of JSON, as engine_bench does: "open G256 fp32" makes that
network, or says why not; "check FILE" writes what it makes of one image; "run 4 1.5" runs batches
of four for so many seconds, after one that warms up, and gives the milliseconds of an image of
each. What it is comes first. bf16 is PyTorch's autocast over channels_last, and OpenVINO's hint;
ONNX Runtime has none on processors.
"""
import json
import os
import sys
import tempfile
import time
import warnings

import torch

from networks import NZ, numbered, numbers

LEAST_RUNS = 2


class Torch:
    version = f"PyTorch {torch.__version__}"

    def __init__(self, threads):
        torch.set_num_threads(threads)

    def open(self, name, bf16):
        self.net, self.bf16 = numbered(name), bf16
        if bf16:
            self.net = self.net.to(memory_format=torch.channels_last)

    def runner(self, x, z):
        if self.bf16:
            x = x.contiguous(memory_format=torch.channels_last)

        def run():
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
                y = self.net(x, z)
            return [part.float() for part in y] if isinstance(y, tuple) else [y.float()]

        return run


class Onnx:
    """What both that read ONNX share: the file, of any batch."""

    def __init__(self, threads):
        self.threads = threads
        self.directory = tempfile.TemporaryDirectory()
        self.path = os.path.join(self.directory.name, "network.onnx")

    def export(self, name):
        size, encoder = int(name[1:]), name[0] == "E"
        torch.set_num_threads(self.threads)
        example = torch.zeros(2, 3, size, size), torch.zeros(2, NZ)
        outputs = ["mu", "logvar"] if encoder else ["y"]
        inputs = ["x"] if encoder else ["x", "z"]
        torch.onnx.export(numbered(name), example, self.path, input_names=["x", "z"],
                          output_names=outputs, opset_version=17, dynamo=False,
                          dynamic_axes={value: {0: "batch"} for value in inputs + outputs})


class OnnxRuntime(Onnx):
    def __init__(self, threads):
        super().__init__(threads)
        import onnxruntime
        self.library = onnxruntime
        self.version = f"ONNX Runtime {onnxruntime.__version__}"

    def open(self, name, bf16):
        if bf16:
            return "it has no bf16 on processors"
        self.export(name)

    def runner(self, x, z):
        options = self.library.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = self.threads, 1
        options.add_free_dimension_override_by_name("batch", len(x))
        session = self.library.InferenceSession(self.path, options, ["CPUExecutionProvider"])
        given = {"x": x.numpy(), "z": z.numpy()}
        given = {value.name: given[value.name] for value in session.get_inputs()}
        return lambda: [torch.from_numpy(part) for part in session.run(None, given)]


class OpenVino(Onnx):
    def __init__(self, threads):
        super().__init__(threads)
        import openvino
        self.library, self.core = openvino, openvino.Core()
        self.version = f"OpenVINO {openvino.__version__.split('-')[0]}"

    def open(self, name, bf16):
        self.hint = "bf16" if bf16 else "f32"
        self.export(name)

    def runner(self, x, z):
        model = self.core.read_model(self.path)
        given = {"x": x.numpy(), "z": z.numpy()}
        given = {value.any_name: given[value.any_name] for value in model.inputs}
        model.reshape({name: list(array.shape) for name, array in given.items()})
        compiled = self.core.compile_model(model, "CPU", {
            "INFERENCE_NUM_THREADS": self.threads, "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self.hint, "PERFORMANCE_HINT": "LATENCY"})
        request = compiled.create_infer_request()
        for name, array in given.items():
            request.set_tensor(name, self.library.Tensor(array))

        def run():
            request.infer()
            return [torch.from_numpy(request.get_output_tensor(i).data)
                    for i in range(len(compiled.outputs))]

        return run


def inputs(name, batch):
    """The images and codes that engine_bench takes."""
    size = int(name[1:])
    x = torch.from_numpy(numbers(7, 1, batch * size * size * 3).reshape(batch, size, size, 3))
    return x.permute(0, 3, 1, 2).contiguous(), torch.from_numpy(numbers(8, 1, batch * NZ)).reshape(
        batch, NZ)


def answer(side, name, order):
    if order[0] == "open":
        why = side.open(order[1], order[2] == "bf16")
        return {"skip": why} if why else {}
    if order[0] == "check":
        made = side.runner(*inputs(name, 1))()
        with open(order[1], "wb") as file:
            for part in made:  # images as pixels with their channels
                part = part.permute(0, 2, 3, 1) if part.dim() == 4 else part
                file.write(part.contiguous().numpy().astype("f4").tobytes())
        return {}
    run, times = side.runner(*inputs(name, int(order[1]))), []
    run()
    began = time.perf_counter()
    while len(times) < LEAST_RUNS or time.perf_counter() - began < float(order[2]):
        start = time.perf_counter()
        run()
        times.append(round((time.perf_counter() - start) * 1e3 / int(order[1]), 4))
    return {"ms": times}


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries say things, too
    warnings.simplefilter("ignore")  # of ways to export
    try:
        side = {"torch": Torch, "onnxruntime": OnnxRuntime, "openvino": OpenVino}[sys.argv[1]](
            int(sys.argv[2]))
    except ImportError as error:
        print(json.dumps({"skip": str(error)}), file=out, flush=True)
        return
    name = None
    print(json.dumps({"version": side.version}), file=out, flush=True)
    for line in sys.stdin:
        order = line.split()
        name = order[1] if order[0] == "open" else name
        try:
            said = answer(side, name, order)
        except Exception as error:  # pylint: disable=broad-except
            said = {"skip": f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"}
        print(json.dumps(said), file=out, flush=True)


if __name__ == "__main__":
    main()
