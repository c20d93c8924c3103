#!/usr/bin/env bash
# Pillow 13.0.0: the transparent colour of a PNG (tRNS) is not applied to grey of less than 8 bits, nor to 16 bits per
# colour, and a text of that name takes its place.
#
# A pixel of the transparent colour has alpha 0 by the PNG specification (11.3.2.1). Pillow scales grey of 2 or 4 bits
# to 8 and compares it with the unscaled colour; of 16 bits per colour it keeps the high byte and compares that with
# all 16. Both come out opaque. A text chunk whose keyword is `transparency` is stored where Pillow keeps its own
# colour, and a conversion of the image, which has no transparency at all, then raises.
#
# Exit 0: still so. Exit 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install --quiet pillow==13.0.0
"$T/venv/bin/python" - <<'PYTHON' | tee "$T/seen"
import io
import struct
import zlib

import PIL
from PIL import Image, PngImagePlugin


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def alpha(bits, colour_type, row, transparent):
    header = struct.pack(">IIBBBBB", 2, 1, bits, colour_type, 0, 0, 0)
    parts = ((b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b""))
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts))
    with Image.open(file) as image:
        return list(image.convert("RGBA").getchannel("A").tobytes())


print("Pillow", PIL.__version__)
print("alpha of a transparent pixel and a white one:")
print("grey, 8 bits:", alpha(8, 0, bytes((0x55, 0xFF)), struct.pack(">H", 0x55)))
print("grey, 4 bits:", alpha(4, 0, bytes((0x5F,)), struct.pack(">H", 5)))
print("grey, 2 bits:", alpha(2, 0, bytes((0b01110000,)), struct.pack(">H", 1)))
print("RGB, 8 bits:", alpha(8, 2, bytes((1, 2, 3, 255, 255, 255)), struct.pack(">3H", 1, 2, 3)))
row = struct.pack(">6H", 1000, 2000, 3000, 65535, 65535, 65535)
print("RGB, 16 bits:", alpha(16, 2, row, struct.pack(">3H", 1000, 2000, 3000)))
text = PngImagePlugin.PngInfo()
text.add_text("transparency", "none")
file = io.BytesIO()
Image.new("RGB", (2, 2)).save(file, "PNG", pnginfo=text)
with Image.open(file) as image:
    image.load()
    try:
        print("text:", image.convert("RGBA").size)
    except TypeError as error:
        print("text:", type(error).__name__)
PYTHON
diff "$T/seen" - <<'SEEN'
Pillow 13.0.0
alpha of a transparent pixel and a white one:
grey, 8 bits: [0, 255]
grey, 4 bits: [255, 255]
grey, 2 bits: [255, 255]
RGB, 8 bits: [0, 255]
RGB, 16 bits: [255, 255]
text: TypeError
SEEN
