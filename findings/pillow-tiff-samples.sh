#!/usr/bin/env bash
# Pillow 13.0.0 reads some whole TIFF files with other values than were written, without an error or a warning.
#
# - 16 bits per colour in separate planes, uncompressed: each plane is taken for 8-bit samples, so that a pixel gets
#   bytes of its neighbours. The same image with its samples side by side gives the high byte of each, as meant.
# - Signed 8-bit grey: -128 is read as 128 and -1 as 255, so that the order of the values is lost.
# - Grey with a second band that is no alpha: one band is all there is.
#
# tifffile writes the files and reads them back. Exit 0: still so. Exit 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install --quiet pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3
"$T/venv/bin/python" - <<'PYTHON' | tee "$T/seen"
import io

import numpy as np
import PIL
import tifffile
from PIL import Image


def both(name, written, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, written, **options)
    file.seek(0)
    again = tifffile.imread(file)
    assert np.array_equal(again, written)
    file.seek(0)
    with Image.open(file) as image:
        print(f"{name}: written {written.ravel()[:4].tolist()}, Pillow {image.mode} ", end="")
        print(np.asarray(image).shape, np.asarray(image).ravel()[:4].tolist())


print("Pillow", PIL.__version__)
planes = np.arange(24, dtype=np.uint16).reshape(3, 2, 4) * 2000
both("16-bit side by side", np.moveaxis(planes, 0, -1).copy(), photometric="rgb", planarconfig="contig")
both("16-bit planes", planes, photometric="rgb", planarconfig="separate")
print("high bytes of the first pixel:", (planes[:, 0, 0] >> 8).tolist())
both("int8", np.array([[-128, -1, 1, 127]], np.int8), photometric="minisblack")
bands = np.stack([np.full((2, 2), 7, np.uint8), np.full((2, 2), 200, np.uint8)], axis=-1)
both("grey and another band", bands, photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"])
PYTHON
diff "$T/seen" - <<'SEEN'
Pillow 13.0.0
16-bit side by side: written [0, 16000, 32000, 2000], Pillow RGB (2, 4, 3) [0, 62, 125, 7]
16-bit planes: written [0, 2000, 4000, 6000], Pillow RGB (2, 4, 3) [0, 128, 0, 0]
high bytes of the first pixel: [0, 62, 125]
int8: written [-128, -1, 1, 127], Pillow L (1, 4) [128, 255, 1, 127]
grey and another band: written [7, 200, 7, 200], Pillow L (2, 2) [7, 7, 7, 7]
SEEN
