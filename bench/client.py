#!/usr/bin/env python3
"""What one would write without the extension: a client that fetches images, decodes them with
Pillow, runs the network in PyTorch and writes the answers back.

    client.py THREADS

Reads orders as peer.py does: "open G256 fp32", and "run ROWS", which answers with the milliseconds
of an image. By its best settings: rows are fetched by one connection and written by COPY through
another, in binary; batches of 16; the next batch is decoded and the one before encoded, by threads,
while the network runs; PNG at level 1. The connection is that of PGHOST and the like.
"""
import io
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor

BATCH = 16
SIZE = 256


def decode(image):
    return numpy.asarray(Image.open(io.BytesIO(image)).convert("RGB").resize(
        (SIZE, SIZE), Image.Resampling.BICUBIC))


def encode(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", compress_level=1)
    return file.getvalue()


class Client:
    def __init__(self, threads):
        torch.set_num_threads(threads)
        self.pool = ThreadPoolExecutor(threads)
        self.fetching, self.writing = psycopg.connect(), psycopg.connect()

    def open(self, name, bf16):
        self.net, self.bf16 = numbered(name), bf16
        if bf16:
            self.net = self.net.to(memory_format=torch.channels_last)

    def infer(self, images):
        x = torch.from_numpy(numpy.stack(images)).permute(0, 3, 1, 2)
        x = x.to(torch.float32, memory_format=torch.channels_last if self.bf16
                 else torch.contiguous_format).div_(127.5).sub_(1)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            y = self.net(x, torch.randn(len(images), NZ))
        return y.float().add(1).mul(127.5).round().clamp(0, 255).to(torch.uint8).permute(
            0, 2, 3, 1).contiguous().numpy()

    def batches(self, cursor):
        """Rows, decoded while the caller is busy with those before."""
        ahead = None
        while True:
            rows = cursor.fetchmany(BATCH)
            going = [(row[0], self.pool.submit(decode, row[1])) for row in rows]
            if ahead:
                yield ahead
            if not rows:
                return
            ahead = going

    def run(self, rows):
        start = time.perf_counter()
        before = []
        self.writing.execute("TRUNCATE made")
        with self.fetching.cursor("pictures", binary=True) as cursor, \
                self.writing.cursor().copy("COPY made FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "bytea"])
            cursor.itersize = BATCH
            cursor.execute("SELECT id, image FROM pictures WHERE id < %s", (rows,))
            for batch in self.batches(cursor):
                made = self.infer([image.result() for _, image in batch])
                going = [(number, self.pool.submit(encode, pixels))
                         for (number, _), pixels in zip(batch, made)]
                for number, image in before:
                    copy.write_row((number, image.result()))
                before = going
            for number, image in before:
                copy.write_row((number, image.result()))
        self.writing.commit()
        self.fetching.commit()
        return (time.perf_counter() - start) * 1e3 / rows


def main():
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries say things, too
    client = Client(int(sys.argv[1]))
    print(json.dumps({"version": f"PyTorch {torch.__version__}, psycopg {psycopg.__version__}, "
                                 f"Pillow {PIL.__version__}"}), file=out, flush=True)
    for line in sys.stdin:
        order = line.split()
        if order[0] == "open":
            client.open(order[1], order[2] == "bf16")
            said = {}
        else:
            said = {"ms": [round(client.run(int(order[1])), 4)]}
        print(json.dumps(said), file=out, flush=True)


try:
    import numpy
    import PIL
    import psycopg
    import torch
    from PIL import Image

    from networks import NZ, numbered
except ImportError as missing:
    print(json.dumps({"skip": str(missing)}), flush=True)
else:
    main()
