#!/usr/bin/env bash
# Pillow 13.0.0: rotate and transform of a 16-bit grey image (mode I;16) give noise of 0 to 255 with bilinear and bicubic
# resampling.
#
# Below: a smooth ramp from 20000 to 29450, and a rotation by 10 degrees. Inside the image every value of the result lies
# between those of the original, as in mode F, and so it is with nearest. With bilinear and bicubic no value is above
# 255: a sixteen-bit radiograph or depth map becomes black, without an error. `resize` of the same image is right.
# What does work is to go through mode F (convert the array to float32), and to round after it.
#
# Exit 0: still so. Exit 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
python3 -m venv "$T/venv"
"$T/venv/bin/python" -m pip install --quiet pillow==13.0.0 numpy==2.4.6
"$T/venv/bin/python" - <<'PYTHON' | tee "$T/seen"
import numpy as np
import PIL
from PIL import Image

rows, columns = np.mgrid[0:64, 0:64]
ramp = (20000 + 100 * columns + 50 * rows).astype(np.uint16)
sixteen, floats = Image.fromarray(ramp), Image.fromarray(ramp.astype(np.float32))
inside = np.s_[16:48, 16:48]
print("Pillow", PIL.__version__, "mode", sixteen.mode)
calls = {
    "rotate": lambda image, filtered: image.rotate(10, resample=filtered),
    "transform": lambda image, filtered: image.transform((64, 64), Image.Transform.AFFINE, (1, 0.1, 0, 0, 1, 0), filtered),
    "resize": lambda image, filtered: image.resize((60, 60), filtered),
}
for name, call in calls.items():
    nearest = [Image.Resampling.NEAREST] if name != "resize" else []
    for filtered in (*nearest, Image.Resampling.BILINEAR, Image.Resampling.BICUBIC):
        values = np.asarray(call(sixteen, filtered))[inside].astype(np.float64)
        right = np.asarray(call(floats, filtered))[inside]
        told = "as in mode F" if np.abs(values - right).max() <= 1 else f"wrong, all below 256: {values.max() < 256}"
        print(f"{name}, {filtered.name.lower()}: {told}")
PYTHON
diff "$T/seen" - <<'SEEN'
Pillow 13.0.0 mode I;16
rotate, nearest: as in mode F
rotate, bilinear: wrong, all below 256: True
rotate, bicubic: wrong, all below 256: True
transform, nearest: as in mode F
transform, bilinear: wrong, all below 256: True
transform, bicubic: wrong, all below 256: True
resize, bilinear: as in mode F
resize, bicubic: as in mode F
SEEN
