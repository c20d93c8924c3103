#!/usr/bin/env bash
# Pillow 13.0.0: the same `resize` of some images gives other pixels than in 12.3.0, by up to 17 of 255 levels here.
#
# Pillow resizes in two passes and cuts each off at 0 and 255. Up to 12.3.0 the first pass is along the width. In 13.0.0
# it is along the height where more than twice as many rows as columns go (where the width grows: where any rows go).
# With filters that overshoot, as bicubic does, the order shows. Expected: the same pixels, as torch's and onnxruntime's
# resize of bytes begin with the width and agree with 12.3.0 to a level. An exported file has to ask which Pillow it is of.
#
# Exit 0: still so. Exit 1: it has changed.
set -euo pipefail
T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
cat > "$T/resize.py" <<'PYTHON'
import sys

import numpy as np
import PIL
from PIL import Image

draw = np.random.default_rng(0)
sizes = [((300, 200), (224, 224)), ((200, 300), (224, 224)), ((500, 200), (320, 128)), ((400, 200), (256, 128))]
made = {}
for (height, width), (new_height, new_width) in sizes:
    image = Image.fromarray(draw.integers(0, 256, (height, width, 3), dtype=np.uint8))
    for name in ("BICUBIC", "BILINEAR"):
        resized = image.resize((new_width, new_height), Image.Resampling[name])
        made[f"{name} {height}x{width} to {new_height}x{new_width}"] = np.asarray(resized).astype(int)
if len(sys.argv) == 2:
    np.savez(sys.argv[1], **made)
else:
    before = np.load(sys.argv[2])
    print("largest difference of Pillow", PIL.__version__, "from 12.3.0, in levels:")
    for name, pixels in made.items():
        print(f"{name}:", np.abs(pixels - before[name]).max())
PYTHON
for version in 12.3.0 13.0.0; do
    python3 -m venv "$T/$version"
    "$T/$version/bin/python" -m pip install --quiet "pillow==$version" numpy==2.4.6
done
"$T/12.3.0/bin/python" "$T/resize.py" "$T/before.npz"
"$T/13.0.0/bin/python" "$T/resize.py" with "$T/before.npz" | tee "$T/seen"
diff "$T/seen" - <<'SEEN'
largest difference of Pillow 13.0.0 from 12.3.0, in levels:
BICUBIC 300x200 to 224x224: 17
BILINEAR 300x200 to 224x224: 1
BICUBIC 200x300 to 224x224: 0
BILINEAR 200x300 to 224x224: 0
BICUBIC 500x200 to 320x128: 9
BILINEAR 500x200 to 320x128: 1
BICUBIC 400x200 to 256x128: 0
BILINEAR 400x200 to 256x128: 0
SEEN
