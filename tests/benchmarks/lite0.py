"""A real network with its published weights: what ONNX, INT8 and a wrong preprocessing do to its answers.

    python tests/benchmarks/lite0.py FOLDER

FOLDER holds image files named as in the public sample of ImageNet with one image of a class (`n01440764_tench.JPEG`);
a third of them calibrates, the others are compared. Prints, for each artefact, its size, agreement and accuracy, and
for three wrong ones what the gate said; then the latencies: `raycls bench model` in the folder that is printed.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import onnx
from harness.imagenet import make_lite0
from onnx import helper, numpy_helper

from raycls.export.export import Exported, Wanted, export
from raycls.export.preprocessing import Crop, Preprocessing, Resize
from raycls.session.trained.trained import open_trained


class Reversed(Preprocessing):
    """Blue, green, red."""

    def nodes(self, source: str, target: str) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
        nodes, constants = super().nodes("reversed", target)
        order = numpy_helper.from_array(np.array([2, 1, 0]), "order")
        return [helper.make_node("Gather", [source, "order"], ["reversed"], axis=3), *nodes], [order, *constants]


RIGHT = Preprocessing((Resize((256,)), Crop((224, 224))), (), (0.498,) * 3, (0.502,) * 3, (224, 224))
WRONG = {
    "ImageNet's mean and std": replace(RIGHT, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
    "resized to 224 x 224": replace(RIGHT, steps=(Resize((224, 224)),)),
    "channels reversed": Reversed(RIGHT.steps, (), RIGHT.mean, RIGHT.std, RIGHT.size),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--home", type=Path, help="a working directory that stays; default: one that is deleted")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = given.home or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        run, others = make_lite0(home, given.folder.resolve())
        os.chdir(home)
        trained = open_trained(str(run))
        for precision in ("fp32", "fp16", "int8"):
            wanted = Wanted(precision=precision, data=str(others))
            _show(precision, export(trained, home / "artefacts", f"lite0-{precision}", wanted))
        for name, preprocessing in WRONG.items():
            wanted = Wanted(data=str(others))
            _show(name, export(trained, home / "wrong", "lite0", wanted, preprocessing=preprocessing))
        print(f"raycls bench model {run} --data {others}")


def _show(name: str, done: Exported) -> None:
    found = done.comparison
    print(
        f"{name}: {'passed' if done.passed else 'rejected'}, {done.facts['bytes'] / 1e6:.2f} MB, {found.images} files, "
        f"agreement {found.agreement:.2%}, largest difference {found.difference:.2g}, "
        f"accuracy {found.accuracy:.2%} -> {found.artefact_accuracy:.2%}",
        flush=True,
    )
    if "int8" in done.facts:
        facts = done.facts["int8"]
        print(f"  {facts['activations']}, ms {facts['milliseconds']}, float: {facts['float'] or 'nothing'}", flush=True)


if __name__ == "__main__":
    main()
