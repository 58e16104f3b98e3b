#!/usr/bin/env python3
"""Golden numbers for the image tests, made with Pillow; run by hand, from the repository's root:

    python3 test/gen/images.py

Needs pillow and numpy (last run: Pillow 13.0.0 with libjpeg-turbo, numpy 2.4.6). Reads
test/data/png/*.png (the PngSuite) and the JPEG files that are not made here; writes alpha.png,
trns_*.png, apng_*.png and the JPEG files, and

    test/data/png/expected.txt     name width height channels depth crc(gray) crc(rgb), or: name
    damaged
    test/data/jpeg/expected.txt    the same
    test/data/webp/expected.txt    the same
    test/data/png/opaque.txt       name crc(gray) crc(rgb) of convert("RGB"), which drops alpha
    test/data/exif/expected.txt    name width height crc(rgb), turned by exif_transpose
    test/data/resize.txt           channels, size from, size to, crc of Pillow's bicubic
    test/data/halves.txt           size from, channels of A and B, size to, crc of A and B as the
                                   official data/aligned_dataset.py cuts them out of one image

crc is zlib's crc32 of the pixels, row by row. Up to 8 bits Pillow decodes, except that the
transparent gray of 1, 2 and 4 bits, which it compares before scaling, is found here; 16-bit files,
which Pillow reads in several ways, are decoded here from the PNG specification and scaled by
rounding v * 255 / 65535. Alpha goes over white as (c*a + 255*(255-a) + 127) // 255, then gray as
Pillow's L.
"""
import glob
import os
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps

DATA = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data")


def over_white(rgba):
    color, alpha = rgba[..., :3].astype(np.int64), rgba[..., 3:].astype(np.int64)
    return ((color * alpha + 255 * (255 - alpha) + 127) // 255).astype(np.uint8)


def luma(rgb):
    r, g, b = (rgb[..., i].astype(np.int64) for i in range(3))
    return ((19595 * r + 38470 * g + 7471 * b + 32768) >> 16).astype(np.uint8)


def crcs(rgb):
    gray = luma(rgb)
    assert np.array_equal(gray, np.asarray(Image.fromarray(rgb).convert("L")))
    return f"{zlib.crc32(gray.tobytes()):08x} {zlib.crc32(np.ascontiguousarray(rgb).tobytes()):08x}"


def chunks(data):
    at = 8
    while at < len(data):
        length, kind = struct.unpack(">I4s", data[at:at + 8])
        yield kind, data[at + 8:at + 8 + length]
        at += 12 + length


def header(data):
    """Width, height, depth, channels as bicycle counts them, colour type, interlace."""
    width, height, depth, color, _, _, interlace = struct.unpack(">IIBBBBB", data[16:29])
    transparent = color in (4, 6) or any(kind == b"tRNS" for kind, _ in chunks(data))
    return width, height, depth, (3 if color in (2, 3, 6) else 1) + transparent, color, interlace


def unfilter(raw, at, width, height, pixel):
    """One pass of a PNG with whole bytes per pixel; returns rows of bytes and the offset behind
    them."""
    stride = width * pixel
    rows = np.zeros((height, stride), np.uint8)
    above = bytearray(stride)
    for y in range(height):
        kind, line = raw[at], bytearray(raw[at + 1:at + 1 + stride])
        at += 1 + stride
        for x in range(stride):
            a = line[x - pixel] if x >= pixel else 0
            b = above[x]
            c = above[x - pixel] if x >= pixel else 0
            p = a + b - c
            paeth = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            line[x] = (line[x] + (0, a, b, (a + b) // 2, paeth)[kind]) & 255
        rows[y] = line
        above = line
    return rows, at


def decode16(data):
    """A 16-bit PNG as an 8-bit RGB array over white."""
    width, height, _, _, color, interlace = header(data)
    parts = list(chunks(data))
    raw = zlib.decompress(b"".join(body for kind, body in parts if kind == b"IDAT"))
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color]
    image = np.zeros((height, width, channels), np.int64)
    passes = [(0, 0, 1, 1)] if not interlace else [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8),
    	(2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    at = 0
    for x0, y0, dx, dy in passes:
        w, h = len(range(x0, width, dx)), len(range(y0, height, dy))
        if w and h:
            rows, at = unfilter(raw, at, w, h, 2 * channels)
            image[y0::dy, x0::dx] = rows.view(">u2").reshape(h, w, channels)
    alpha = np.full((height, width, 1), 65535, np.int64)
    if color in (4, 6):
        alpha, image = image[..., -1:], image[..., :-1]
    for kind, body in parts:
        if kind == b"tRNS":
            alpha[(image == np.array(struct.unpack(f">{channels}H", body))).all(-1)] = 0
    image = np.broadcast_to(image, (height, width, 3))
    eight = (np.concatenate([image, alpha], -1) * 255 * 2 + 65535) // (2 * 65535)
    return over_white(eight.astype(np.uint8))


def decode8(path, data, depth, color):
    rgba = np.array(Image.open(path).convert("RGBA"))
    if color == 0 and depth < 8:
        for kind, body in chunks(data):
            if kind == b"tRNS":
                rgba[..., 3] = np.where(rgba[..., 0] == struct.unpack(">H", body)[0]
                	* (255 // (2 ** depth - 1)), 0, 255)
    return over_white(rgba)


def readable(path):
    try:
        Image.open(path).load()
        return True
    except (OSError, SyntaxError, ValueError):
        return False


def png_line(path):
    name = os.path.basename(path)
    data = open(path, "rb").read()
    if not readable(path):
        return f"{name} damaged"
    width, height, depth, channels, color, _ = header(data)
    rgb = decode16(data) if depth == 16 else decode8(path, data, depth, color)
    return f"{name} {width} {height} {channels} {depth} {crcs(rgb)}"


def make_alpha():
    """Every value under every opacity."""
    c, a = np.meshgrid(np.arange(256), np.arange(256))
    Image.fromarray(np.stack([c, 255 - c, (c * 7) % 256, a],
    	-1).astype(np.uint8)).save(os.path.join(DATA, "png", "alpha.png"))


def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def save_png(name, width, height, depth, color, rows, transparent):
    """A PNG with a tRNS chunk; rows are the bytes of each row."""
    with open(os.path.join(DATA, "png", name), "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height,
        	depth, color, 0, 0, 0)) +
                   chunk(b"tRNS", struct.pack(f">{len(transparent)}H", *transparent)) +
                   chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
                   	+ chunk(b"IEND", b""))


def make_transparent():
    """One transparent color, not white; at 16 bits one that differs from others in its low byte
    only."""
    dark = [bytes(range(y, y + 16)) for y in range(16)]
    save_png("trns_gray2.png", 16, 4, 2, 0, [bytes([0b00011011] * 4)] * 4, [1])
    save_png("trns_gray8.png", 16, 16, 8, 0, dark, [20])
    save_png("trns_rgb8.png", 16, 16, 8, 2,
    	[b"".join(bytes([v, 0, 7]) for v in row) for row in dark], [20, 0, 7])
    save_png("trns_gray16.png", 16, 16, 16, 0,
    	[b"".join(bytes([9, v]) for v in row) for row in dark], [9 * 256 + 20])
    save_png("trns_rgb16.png", 16, 16, 16, 2,
    	[b"".join(bytes([9, v, 0, 0, 8, v]) for v in row) for row in dark],
    	[9 * 256 + 20, 0, 8 * 256 + 20])


def make_short_palette():
    """Two entries of 256 that are used: the others are black."""
    image = Image.frombytes("P", (256, 1), bytes(range(256)))
    image.putpalette(bytes(range(1, 7)) + bytes(250 * 3))
    path = os.path.join(DATA, "png", "short_palette.png")
    image.save(path)
    with open(path, "rb") as file:
        data = file.read()
    at = data.index(b"PLTE")
    body = data[at + 4:at + 10]
    with open(path, "wb") as file:
        file.write(data[:at - 4] + struct.pack(">I", 6) + b"PLTE" + body
        	+ struct.pack(">I", zlib.crc32(b"PLTE" + body)) + data[data.index(b"IDAT") - 4:])


def make_apngs():
    """Animations, of which the first frame is read: all of the image, a part of it, without IDAT,
    in passes; and one whose image is not part of the animation."""
    def path(name):
        return os.path.join(DATA, "png", f"apng_{name}.png")

    def save(name, width, height, kind, *parts):
        with open(path(name), "wb") as file:
            file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height,
            	8, *kind)) + b"".join(parts) + chunk(b"IEND", b""))

    def control(number, width, height, x, y):
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, width, height, x, y, 1, 10, 0, 0))

    def data(name, number, width, height, channels):
        raw = b"".join(b"\1" + bytes((y * 7 + x * 3) % 250 for x in range(width * channels))
        	for y in range(height))
        return chunk(name, number + zlib.compress(raw, 9))

    y, x = np.mgrid[0:9, 0:13]
    frames = [Image.fromarray(np.stack([x * k, y * 9, x * y], -1).astype(np.uint8))
    	for k in (3, 11, 19)]
    frames[0].save(path("whole"), save_all=True, append_images=frames[1:], duration=20)
    frames[0].save(path("still"), save_all=True, append_images=frames[1:], default_image=True)
    two = chunk(b"acTL", struct.pack(">II", 2, 0))
    save("part", 21, 15, (2, 0, 0, 0), two, control(0, 8, 6, 9, 5), data(b"IDAT", b"", 8, 6, 3),
    	control(1, 4, 4, 0, 0), data(b"fdAT", struct.pack(">I", 2), 4, 4, 3))
    save("only_fdat", 10, 7, (6, 0, 0, 0), two, control(0, 10, 7, 0, 0),
    	data(b"fdAT", struct.pack(">I", 1), 10, 7, 4))
    # every byte could be a filter, wherever rows of passes begin
    small = bytes(y * y % 5 for y in range(8 * 9 + 40))
    save("passes", 18, 11, (0, 0, 0, 1), chunk(b"acTL", struct.pack(">II", 1, 0)),
    	control(0, 9, 8, 3, 2), chunk(b"IDAT", zlib.compress(small)))


def lcg_bytes(seed, n):
    out = bytearray(n)
    for i in range(n):
        seed = (1664525 * seed + 1013904223) & 0xffffffff
        out[i] = seed >> 24
    return np.frombuffer(bytes(out), np.uint8)


def make_jpegs():
    height, width = 45, 61
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 4, y * 5, (x * y) // 12], -1) + lcg_bytes(5,
    	height * width * 3).reshape(height, width, 3) // 16
    image = Image.fromarray(np.clip(rgb, 0, 255).astype(np.uint8))

    def save(name, img=image, **options):
        img.save(os.path.join(DATA, "jpeg", name), "JPEG", **options)

    save("gray.jpg", image.convert("L"), quality=85)
    save("gray_progressive.jpg", image.convert("L"), quality=85, progressive=True)
    for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
        save(f"ycc{subsampling.replace(':', '')}.jpg", quality=90, subsampling=subsampling)
    save("progressive.jpg", quality=75, progressive=True)
    save("restart.jpg", quality=75, restart_marker_blocks=3)
    save("quality10.jpg", quality=10, optimize=True)
    save("rgb.jpg", quality=90, keep_rgb=True)
    save("cmyk.jpg", image.convert("CMYK"), quality=75)
    make_damaged()
    exif = Image.Exif()
    exif[0x0112] = 6
    save("rotated_by_exif.jpg", quality=75, exif=exif)


def make_damaged():
    """Files that the library warns of: what it makes of them are the pixels."""
    def edit(name, source, change):
        with open(os.path.join(DATA, "jpeg", source), "rb") as file:
            data = change(file.read())
        with open(os.path.join(DATA, "jpeg", name), "wb") as file:
            file.write(data)

    def flip(data):
        return data[:-300] + bytes(b ^ 0x55 for b in data[-300:-290]) + data[-290:]

    edit("end_within.jpg", "ycc420.jpg", lambda data: data[:-200] + b"\xff\xd9" + data[-198:])
    edit("no_end.jpg", "ycc444.jpg", lambda data: data[:-2])
    edit("bad_codes.jpg", "ycc422.jpg", flip)
    edit("bad_scan.jpg", "progressive.jpg", flip)
    edit("lost_restart.jpg", "restart.jpg", lambda data: data.replace(b"\xff\xd3", b"\xff\xd5", 1))
    edit("no_adobe.jpg", "cmyk.jpg", lambda data: data.replace(b"Adobe", b"adobe", 1))
    edit("ycck.jpg", "cmyk.jpg", lambda data: data.replace(b"Adobe\0\x64\0\0\0\0\0",
    	b"Adobe\0\x64\0\0\0\0\x02", 1))


def jpeg_line(path):
    name = os.path.basename(path)
    if not readable(path):
        return f"{name} damaged"
    image = Image.open(path)
    channels = len(image.getbands())
    sums = crcs(np.asarray(image.convert('RGB')))
    return f"{name} {image.width} {image.height} {channels} 8 {sums}"


def webp_line(path):
    name = os.path.basename(path)
    if not readable(path):
        return f"{name} damaged"
    image = Image.open(path)
    rgb = over_white(np.array(image.convert("RGBA")))
    return f"{name} {image.width} {image.height} {len(image.getbands())} 8 {crcs(rgb)}"


def make_webps():
    height, width = 45, 61
    y, x = np.mgrid[0:height, 0:width]
    rgb = np.stack([x * 4, y * 5, (x * y) // 12], -1).astype(np.uint8)
    alpha = ((x * 5 + y * 3) % 256)[..., None].astype(np.uint8)
    opaque, clear = Image.fromarray(rgb), Image.fromarray(np.concatenate([rgb, alpha], -1))
    os.makedirs(os.path.join(DATA, "webp"), exist_ok=True)

    def save(name, image, **options):
        image.save(os.path.join(DATA, "webp", name), "WEBP", **options)

    save("lossy.webp", opaque, quality=80)
    save("lossless.webp", opaque, lossless=True)
    save("lossy_alpha.webp", clear, quality=80)
    save("lossless_alpha.webp", clear, lossless=True, exact=True)
    save("gray.webp", opaque.convert("L"), lossless=True)
    save("profile.webp", opaque, quality=50, icc_profile=b"not a profile", xmp=b"<x/>")
    save("animated.webp", clear, save_all=True, lossless=True,
    	append_images=[clear.rotate(90 * i) for i in (1, 2)])
    with open(os.path.join(DATA, "webp", "animated.webp"), "rb") as file:
        data = bytearray(file.read())
    at = data.index(b"ANMF")
    data[24:30] = (79).to_bytes(3, "little") + (69).to_bytes(3, "little")
    data[at + 8:at + 14] = (5).to_bytes(3, "little") + (7).to_bytes(3, "little")
    for name, edited in (("offset.webp", data), ("cut_off.webp", data[:-9])):
        with open(os.path.join(DATA, "webp", name), "wb") as file:
            file.write(edited)


def exif_line(path):
    image = ImageOps.exif_transpose(Image.open(path))
    rgb = np.asarray(image.convert("RGB"))
    return f"{os.path.basename(path)} {image.width} {image.height} {crcs(rgb).split()[1]}"


def make_exif():
    """All orientations, in both orders of bytes, and what is none."""
    y, x = np.mgrid[0:20, 0:33]
    image = Image.fromarray(np.stack([x * 7, y * 12, x * y // 3], -1).astype(np.uint8))
    os.makedirs(os.path.join(DATA, "exif"), exist_ok=True)

    def block(value, order="<", kind=3, count=1):
        body = struct.pack(order + {3: "Hxx", 4: "I", 1: "Bxxx"}[kind], value)
        return ({"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 2)
        	+ struct.pack(order + "HHI", 0x0100, 4, 1) + struct.pack(order + "I", 33)
        	+ struct.pack(order + "HHI", 0x0112, kind, count) + body + b"\0\0\0\0")

    def save(name, kind, exif):
        image.save(os.path.join(DATA, "exif", name), kind, exif=b"Exif\0\0" + exif,
        	**{"JPEG": {"quality": 90}, "PNG": {}, "WEBP": {"lossless": True}}[kind])

    for value in range(0, 10):
        save(f"{value}.jpg", "JPEG", block(value, "<>"[value % 2]))
    save("6.png", "PNG", block(6))
    save("5.webp", "WEBP", block(5))
    save("long_8.jpg", "JPEG", block(8, ">", 4))
    save("byte_8.jpg", "JPEG", block(8, ">", 1))
    save("two_8.jpg", "JPEG", block(8, "<", 3, 2))


def opaque_lines():
    for path in sorted(glob.glob(os.path.join(DATA, "png", "*.png"))):
        if readable(path) and header(open(path, "rb").read())[2] <= 8:
            image = Image.open(path)
            if image.mode in ("LA", "RGBA") or "transparency" in image.info:
                yield f"{os.path.basename(path)} {crcs(np.asarray(image.convert('RGB')))}"


def resize_lines():
    sizes = [((64, 64), (128, 128)), ((128, 128), (64, 64)), ((256, 256), (286, 286)),
    	((286, 286), (256, 256)), ((100, 75), (256, 256)),
             ((300, 20), (64, 64)), ((17, 31), (128, 64)), ((1, 1), (8, 8)), ((2, 3), (5, 7)),
             	((640, 427), (256, 256)), ((255, 257), (256, 256)),
             ((256, 100), (256, 128)), ((100, 256), (128, 256)), ((33, 33), (32, 32)),
             	((500, 3), (7, 90)), ((3, 500), (90, 7)), ((136, 128), (128, 128)),
             ((1000, 1), (1, 1)), ((129, 127), (64, 191)), ((512, 512), (511, 513)),
             	((7, 9), (9, 7)), ((64, 64), (63, 1))]
    for channels in (1, 3):
        for (w, h), (to_w, to_h) in sizes:
            pixels = lcg_bytes(w * 1000 + h, w * h * channels).reshape((h, w) if channels == 1
            	else (h, w, 3))
            out = np.asarray(Image.fromarray(pixels).resize((to_w, to_h), Image.BICUBIC))
            yield f"{channels} {w} {h} {to_w} {to_h} {zlib.crc32(out.tobytes()):08x}"


def halves_lines():
    """aligned_dataset.py: w2 = int(w / 2), then crop; transforms make gray, then resize."""
    for w, h, side in ((128, 64, 64), (129, 64, 64), (2, 1, 64), (3, 9, 64), (515, 256, 286),
    	(1024, 300, 286)):
        pixels = lcg_bytes(w * 1000 + h, w * h * 3).reshape((h, w, 3))
        both = Image.fromarray(pixels)
        w2 = int(w / 2)
        halves = both.crop((0, 0, w2, h)), both.crop((w2, 0, w, h))
        for channels in ((3, 3), (1, 3), (3, 1), (1, 1)):
            sums = [zlib.crc32(np.asarray((half.convert("L") if c == 1 else half).resize((side,
            	side), Image.BICUBIC)).tobytes()) for half, c in zip(halves, channels)]
            yield f"{w} {h} {channels[0]} {channels[1]} {side} {sums[0]:08x} {sums[1]:08x}"


def write(path, lines):
    with open(os.path.join(DATA, path), "w") as file:
        file.writelines(line + "\n" for line in lines)


make_alpha()
make_transparent()
make_short_palette()
make_apngs()
make_jpegs()
make_webps()
make_exif()
write("png/opaque.txt", opaque_lines())
for directory, line in (("webp", webp_line), ("exif", exif_line)):
    write(directory + "/expected.txt", (line(path) for path in
    	sorted(glob.glob(os.path.join(DATA, directory, "*.*"))) if not path.endswith(".txt")))
write("png/expected.txt", (png_line(path) for path
	in sorted(glob.glob(os.path.join(DATA, "png", "*.png")))))
write("jpeg/expected.txt", (jpeg_line(path) for path
	in sorted(glob.glob(os.path.join(DATA, "jpeg", "*.jpg")))))
write("resize.txt", resize_lines())
write("halves.txt", halves_lines())
