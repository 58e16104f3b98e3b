#!/usr/bin/env python3
"""Odd encodings and damaged files, decoded by the engine's code and by Pillow: decisions and pixels
are compared.

    make tools && test/diff/images.py [NUMBER [SEED [DIRECTORY]]]

Needs pillow 13.0.0 and numpy; ImageMagick's convert and libjpeg's cjpeg are used if they are there.
NUMBER (20000) files are made, each a function of SEED (1) and its number. Files about which both do
not agree are kept in DIRECTORY (build/diff). The last lines are a table by kind of file. Fails if
pixels differ, or if more than 0.1 % of the decisions do. Pixels of one kind may: a progressive JPEG
that lacks scans is smoothed, and versions of libjpeg-turbo do that by a few levels otherwise.

Files are made and compared PART at a time, and none of more than PIXELS is decoded, which bounds
the memory of each process.

16 bits, which Pillow reads in several ways, are compared by size only; so are gray PNGs of 2 and 4
bits with a transparent level, which Pillow compares before it scales.
"""
import collections
import io
import multiprocessing
import os
import random
import shutil
import struct
import subprocess
import sys
import time
import warnings
import zlib

import numpy as np
from PIL import Image

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
DECODER = os.environ.get("DECODER", os.path.join(ROOT, "build", "release", "tools",
	"decode_images"))
READ = ("PNG", "JPEG", "MPO", "WEBP")
PART = 500
PIXELS = 1 << 24
SMOOTHED = 8  # levels by which pixels that are smoothed may differ; 3 were seen

Image.MAX_IMAGE_PIXELS = PIXELS // 2  # Pillow refuses what is larger than twice that

warnings.simplefilter("ignore")


# ---- Files -----------------------------------------------------------------

def picture(rng, mode):
    """Something between noise and a flat area, of a size that fits blocks or does not."""
    width, height = rng.choice([(1, 1), (8, 8), (17, 5), (33, 31), (64, 48), (100, 3), (40, 90)])
    channels = {"L": 1, "1": 1, "P": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    y, x = np.mgrid[0:height, 0:width]
    layers = [(x * rng.randrange(9) + y * rng.randrange(9) + rng.randrange(256)) % 256 for _ in
    	range(channels)]
    pixels = np.stack(layers, -1) + np.random.default_rng(rng.randrange(1 << 30)).integers(0,
    	rng.choice([1, 8, 200]), (height, width, channels))
    pixels = np.clip(pixels, 0, 255).astype(np.uint8)
    if mode == "1":
        return Image.fromarray((pixels[..., 0] > 127).astype(np.uint8) * 255).convert("1")
    if mode == "P":
        return Image.fromarray(pixels[..., 0]).convert("RGB").quantize(rng.choice([2, 4, 16, 256]))
    if mode in ("L",):
        return Image.fromarray(pixels[..., 0])
    return Image.fromarray(pixels, mode)


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def make_png(rng):
    mode = rng.choice(["L", "1", "P", "LA", "RGB", "RGBA"])
    image, options = picture(rng, mode), {"compress_level": rng.randrange(10)}
    if mode in ("L", "RGB") and rng.random() < 0.3:
        options["transparency"] = 40 if mode == "L" else (40, 41, 42)
    if mode == "P" and rng.random() < 0.5:
        options["transparency"] = bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9)))
    if rng.random() < 0.1:
        options["dpi"] = (72, 72)
    if rng.random() < 0.1:
        options.update(save_all=True, append_images=[image.copy()], duration=10)
        options.pop("transparency", None)
    return saved(image, "PNG", **options)


def make_jpeg(rng):
    image = picture(rng, rng.choice(["L", "RGB", "RGB", "CMYK"]))
    options = {"quality": rng.choice([1, 30, 75, 95, 100]), "progressive": rng.random() < 0.3,
    	"optimize": rng.random() < 0.3}
    if image.mode == "RGB":
        options["subsampling"] = rng.randrange(3)
        if rng.random() < 0.2:
            options["keep_rgb"] = True
            options["subsampling"] = 0
    if rng.random() < 0.3:
        options["restart_marker_blocks"] = rng.randrange(1, 5)
    return saved(image, "JPEG", **options)


def make_webp(rng):
    image = picture(rng, rng.choice(["RGB", "RGBA"]))
    options = {"lossless": rng.random() < 0.5, "quality": rng.randrange(101), "method":
    	rng.randrange(3)}
    if rng.random() < 0.2:
        options.update(save_all=True, append_images=[image.rotate(180)])
    if rng.random() < 0.2:
        options["exif"] = b"Exif\0\0II*\0\x08\0\0\0\0\0"
    return saved(image, "WEBP", **options)


def run(command, data):
    done = subprocess.run(command, input=data, capture_output=True)
    return done.stdout if done.returncode == 0 else b""


def make_foreign(rng):
    """By other programs; falls back on Pillow's."""
    image = picture(rng, rng.choice(["L", "RGB"]))
    if rng.random() < 0.5 and shutil.which("convert"):
        command = ["convert", "png:-", "-depth", rng.choice(["8", "8", "16"])]
        command += rng.choice([["-interlace", "PNG"], [], ["-type", "Palette"], ["-colorspace",
        	"CMYK"], ["-sampling-factor", "4x1"], ["-sampling-factor", "1x2"]])
        command += [rng.choice(["png:-", "jpeg:-"]) if "CMYK" not in command else "jpeg:-"]
        return run(command, saved(image, "PNG")) or make_png(rng)
    if shutil.which("cjpeg"):
        command = ["cjpeg"] + rng.choice([["-arithmetic"], ["-progressive"], ["-restart", "1"],
        	["-optimize"], ["-sample", "2x1,1x2"], ["-dct", "fast"]])
        return run(command, saved(image, "PPM")) or make_jpeg(rng)
    return make_jpeg(rng)


# ---- Damage ----------------------------------------------------------------

def flip_bits(rng, data):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(rng, data):
    return data[:rng.randrange(len(data))] if rng.random() < 0.7 else data[:-rng.randrange(1, 20)]


def insert(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 5))) + data[at:]


def remove(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randrange(1, 9):]


def append(rng, data):
    return data + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 40)))


def chunks(data):
    at, found = 8, []
    while at + 8 <= len(data):
        n = struct.unpack(">I", data[at:at + 4])[0]
        found.append((data[at + 4:at + 8], data[at + 8:at + 8 + n]))
        at += 12 + n
    return found


def pack(found):
    return b"\x89PNG\r\n\x1a\n" + b"".join(struct.pack(">I", len(body)) + name + body
    	+ struct.pack(">I", zlib.crc32(name + body)) for name, body in found)


def edit_png(rng, data):
    """Chunks that are whole and wrong."""
    found = chunks(data)
    which = rng.randrange(len(found))
    name, body = found[which]
    way = rng.randrange(8)
    if way == 0:
        found[which] = (name, flip_bits(rng, body)) if body else (name, b"x")
    elif way == 1:
        del found[which]
    elif way == 2:
        found.insert(rng.randrange(len(found)), found[which])
    elif way == 3:
        rng.shuffle(found)
    elif way == 4:
        found.insert(rng.randrange(len(found)), (rng.choice([b"tRNS", b"gAMA", b"PLTE", b"sRGB",
        	b"pHYs", b"tEXt", b"zTXt", b"iCCP", b"abCd", b"ABCD", b"acTL", b"fcTL", b"fdAT",
        	b"eXIf", b"iTXt", b"cHRM"]), bytes(rng.randrange(4) for _ in range(rng.randrange(40)))))
    elif way == 5:
        raw = b"".join(body for name, body in found if name == b"IDAT")
        step = rng.randrange(1, 60)
        at = [name for name, _ in found].index(b"IDAT")
        found = [c for c in found if c[0] != b"IDAT"]
        found[at:at] = [(b"IDAT", raw[i:i + step]) for i in range(0, len(raw), step)]
    elif way == 6:
        at = [name for name, _ in found].index(b"IDAT")
        body = bytearray(found[at][1])
        body[0] = rng.choice([0x08, 0x18, 0x48, 0x78, 0x88]) if len(body) > 1 else 0
        if len(body) > 1:
            body[1] = 31 - (body[0] << 8) % 31
        found[at] = (b"IDAT", bytes(body))
    else:
        body = bytearray(found[0][1])
        body[rng.choice([3, 7, 8, 9, 12]) % len(body)] = rng.choice([0, 1, 2, 3, 4, 6, 8, 16, 33])
        found[0] = (found[0][0], bytes(body))
    return pack(found)


def edit_jpeg(rng, data):
    """Segments that are whole and wrong, and markers."""
    marks = [i for i in range(2, len(data) - 1) if data[i] == 0xff and data[i + 1] not in (0, 0xff)]
    at = rng.choice(marks)
    way = rng.randrange(7)
    if way == 0:
        return data[:at] + bytes(rng.randrange(256) for _ in range(rng.randrange(1, 9))) + data[at:]
    if way == 1:
        return data[:at] + b"\xff" * rng.randrange(1, 5) + data[at:]
    if way == 2 and at + 4 <= len(data):
        return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2:at + 4])[0]:]
    if way == 3:
        marker = rng.choice([0xe0, 0xe1, 0xe2, 0xed, 0xee, 0xfe, 0xdd, 0xdb, 0xdc])
        body = rng.choice([b"", b"JFIF\0\1", b"Adobe\0\x64\0\0\0\0" + bytes([rng.randrange(4)]),
        	b"ICC_PROFILE\0\1", b"Photoshop 3.0\x008BIM\4\4", b"Exif\0\0", b"\0\2"])
        return (data[:at] + bytes([0xff, marker]) + struct.pack(">H", len(body) + 2) + body
        	+ data[at:])
    if way == 4:
        return data[:at + 1] + bytes([rng.randrange(0xc0, 256)]) + data[at + 2:]
    if way == 5:
        return data[:-2] if rng.random() < 0.5 else data[:len(data) - rng.randrange(3, 60)] \
        	+ b"\xff\xd9"
    return data[:-2] + bytes(rng.randrange(255) for _ in range(rng.randrange(1, 30))) + data[-2:]


def make(seed, number):
    rng = random.Random(f"{seed} {number}")
    maker = rng.choice([make_png, make_png, make_jpeg, make_jpeg, make_webp, make_foreign])
    data = maker(rng)
    name = "png" if data[:2] == b"\x89P" else "jpeg" if data[:2] == b"\xff\xd8" else "webp"
    damages = {"whole": None, "bits": flip_bits, "cut": cut, "insert": insert, "remove": remove,
    	"append": append}
    if name != "webp":
        damages["edit"] = edit_png if name == "png" else edit_jpeg
    damage = rng.choice(list(damages) + ["edit"] * (2 if name != "webp" else 0))
    if damages[damage]:
        data = damages[damage](rng, data)
    return f"{name} {damage}", data


# ---- Pillow ----------------------------------------------------------------

def deep(image, data):
    if image.format == "PNG":
        transparent = "transparency" in image.info
        for name, body in chunks(data):
            if name == b"IHDR" and len(body) >= 10:
                if body[8] == 16 or (body[8] in (2, 4) and body[9] == 0 and transparent):
                    return True
    return False


def over_white(rgba):
    """255 + 255 * 255 + 127 is less than 2 ** 16."""
    color, alpha = rgba[..., :3].astype(np.uint16), rgba[..., 3:].astype(np.uint16)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def ask_pillow(data):
    try:
        image = Image.open(io.BytesIO(data))
        if image.format not in READ:
            return "no another format"
        image.load()
        if deep(image, data):
            return f"ok {image.width} {image.height} - -"
        rgb = np.asarray(image.convert("RGB"))
        rgba = np.asarray(image.convert("RGBA"))
    except Exception as error:
        return f"no {type(error).__name__} {error}"
    return (f"ok {image.width} {image.height} {zlib.crc32(over_white(rgba).tobytes()):08x} "
    	f"{zlib.crc32(np.ascontiguousarray(rgb).tobytes()):08x}")


# ---- Both ------------------------------------------------------------------

def lacks_scans(data):
    """Whether a progressive JPEG gives a component's DC, but not all bits of its first AC."""
    at, progressive, bits = 2, False, {}
    while at + 4 <= len(data):
        if data[at] != 0xff or data[at + 1] in (0, 1, 0xff) or 0xd0 <= data[at + 1] <= 0xd8:
            at += 1
            continue
        marker, n = data[at + 1], struct.unpack(">H", data[at + 2:at + 4])[0]
        body = data[at + 4:at + 2 + n]
        if marker == 0xd9:
            break
        if marker == 0xc2:
            progressive = True
        if marker == 0xda and body and len(body) >= 4 + 2 * body[0]:
            first, last, shift = body[1 + 2 * body[0]:4 + 2 * body[0]]
            for i in range(body[0]):
                known = bits.setdefault(body[1 + 2 * i], {})
                known.update((k, shift & 15) for k in range(first, min(last, 63) + 1))
        at += 2 + n
    return progressive and any(0 in known and any(known.get(k, -1) != 0 for k in range(1, 10))
    	for known in bits.values())


def pack_images(files):
    return b"".join(struct.pack("=I", len(data)) + data for data in files)


def decode(files, *arguments):
    return subprocess.run([DECODER, *arguments], input=pack_images(files), capture_output=True,
    	check=True).stdout


def is_smoothed(data):
    """Whether pixels differ as two ways of smoothing do."""
    if not lacks_scans(data):
        return False
    theirs = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(int).ravel()
    ours = np.frombuffer(decode([data], "-"), np.uint8).astype(int)
    return len(ours) == len(theirs) and np.abs(ours - theirs).max() <= SMOOTHED


def compare(data, theirs, ours):
    a, b = theirs.split(), ours.split()
    if a[0] != b[0]:
        return "other decision"
    if a[0] == "no":
        return "both refuse"
    if a[1:3] == b[1:3] and (a[3] == "-" or a[3:] == b[3:]):
        return "both read"
    return "smoothed" if a[1:3] == b[1:3] and is_smoothed(data) else "other pixels"


def work(job):
    kind, data = make(*job)
    return kind, data, ask_pillow(data)


def main():
    number = int(sys.argv[1]) if len(sys.argv) > 1 else 20000
    seed = sys.argv[2] if len(sys.argv) > 2 else "1"
    directory = sys.argv[3] if len(sys.argv) > 3 else os.path.join(ROOT, "build", "diff")
    table = collections.defaultdict(collections.Counter)
    total = collections.Counter()
    making = decoding = 0
    os.makedirs(directory, exist_ok=True)
    with multiprocessing.Pool(int(os.environ.get("JOBS", os.cpu_count()))) as pool:
        for first in range(0, number, PART):
            begin = time.time()
            results = pool.map(work, [(seed, i) for i in range(first, min(first + PART, number))],
            	chunksize=25)
            made = time.time()
            lines = decode([data for _, data, _ in results], str(PIXELS)).decode().splitlines()
            assert len(lines) == len(results), f"{len(lines)} answers for {len(results)} files"
            making, decoding = making + made - begin, decoding + time.time() - made
            for i, ((kind, data, theirs), ours) in enumerate(zip(results, lines), first):
                what = compare(data, theirs, ours)
                table[kind][what] += 1
                total[what] += 1
                if what.startswith("both"):
                    continue
                with open(os.path.join(directory, f"{seed}_{i}.{kind.split()[0]}"), "wb") as file:
                    file.write(data)
                print(f"{seed}_{i} {kind}: {what}\n    Pillow: {theirs}\n    here:   {ours}",
                	flush=True)
    print("| Files | | Both read | Both refuse | Other decision | Smoothed otherwise |"
    	" Other pixels |")
    print("|---|---|---|---|---|---|---|")
    for kind in [*sorted(table), "all"]:
        row = table[kind] if kind in table else total
        print(f"| {kind} | {sum(row.values())} | {row['both read']} | {row['both refuse']} | "
        	f"{row['other decision']} | {row['smoothed']} | {row['other pixels']} |")
    print(f"{number} files, seed {seed}: {total['other decision']} other decisions, "
    	f"{total['smoothed']} smoothed otherwise, {total['other pixels']} other pixels; made and "
    	f"asked Pillow in {making:.0f} s, decoded in {decoding:.1f} s")
    return 1 if total["other pixels"] > 0 or total["other decision"] * 1000 > number else 0


if __name__ == "__main__":
    sys.exit(main())
