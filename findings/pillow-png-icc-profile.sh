#!/usr/bin/env bash
# Pillow 13.0.0: a whole PNG whose ICC profile unpacks to more than 1 MiB cannot be opened.
#
# PngImagePlugin.MAX_TEXT_CHUNK, named and documented as the limit of text chunks, bounds the profile (iCCP) too. A
# text chunk beyond it raises as well, so metadata decides whether the pixels can be read; the same profile in a JPEG
# or a TIFF is no obstacle. The error is a ValueError without the file's name, as for a damaged file.
#
# Exit 0: still so. Exit 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install --quiet pillow==13.0.0
"$T/venv/bin/python" - <<'PYTHON' | tee "$T/seen"
import io
import random

import PIL
from PIL import Image

print("Pillow", PIL.__version__)
for size in (1_000_000, 1_200_000):
    profile = random.Random(0).randbytes(size)
    for format in ("PNG", "JPEG", "TIFF"):
        file = io.BytesIO()
        Image.new("RGB", (8, 8), (10, 20, 30)).save(file, format, icc_profile=profile)
        file.seek(0)
        try:
            with Image.open(file) as image:
                image.load()
                print(size, format, image.size)
        except ValueError as error:
            print(size, format, f"{type(error).__name__}: {error}")
PYTHON
diff "$T/seen" - <<'SEEN'
Pillow 13.0.0
1000000 PNG (8, 8)
1000000 JPEG (8, 8)
1000000 TIFF (8, 8)
1200000 PNG ValueError: Decompressed data too large for PngImagePlugin.MAX_TEXT_CHUNK
1200000 JPEG (8, 8)
1200000 TIFF (8, 8)
SEEN
