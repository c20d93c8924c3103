"""Half of the channels of a small ResNet cut and what is left fine-tuned, on the CIFAR-10 JPEG files.

The network is a ResNet-18 for images of 32x32 pixels (3x3 stem, no max-pool) with a quarter of its channels, 16 to 128,
so that it is trained on one core in minutes. It is trained with the recipe of `configs/cifar10_small.yaml`, pruned by
`raycls prune --structured`, and fine-tuned with the command that this prints: the same recipe again. Beside it, with
`--control`, the network that was not pruned is trained on for as many epochs from its weights, so that what the
further epochs bring is told apart from what pruning costs.

    python tests/benchmarks/prune.py FOLDER
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import pictures

CONFIG = Path(__file__).parents[2] / "configs" / "cifar10_small.yaml"
_NETWORK = """
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet


class Narrow(ResNet):
    def __init__(self, num_classes, width=16):
        super().__init__(BasicBlock, [2, 2, 2, 2], num_classes=num_classes)
        self.inplanes = width
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1, self.maxpool = nn.BatchNorm2d(width), nn.Identity()
        for stage in range(4):
            layer = self._make_layer(BasicBlock, width * 2**stage, 2, stride=1 if stage == 0 else 2)
            setattr(self, f"layer{stage + 1}", layer)
        self.fc = nn.Linear(8 * width, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def narrow(num_classes, width=16):
    return Narrow(num_classes, width)
"""


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    result: dict[str, Any] = {**measure.begin("prune"), "epochs": options.epochs, "ratio": options.ratio}
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        folder = options.folder
        if options.quick:
            folder = pictures.write_folder(home / "images", {"train": 40, "test": 20})
        (home / "narrow_resnet.py").write_text(_NETWORK)
        quick = ["data.batch_size=16", "train.micro_batches=1"] if options.quick else []
        words = [
            f"data.source.path={folder.resolve()}",
            f"train.duration={options.epochs}ep",
            f"evaluate.every={options.epochs}ep",
            "evaluate.keep=last",
            "model.name=narrow_resnet:narrow",
            f"model.args={{width: {4 if options.quick else 16}}}",
            "run.name=first",
            "scale.workers=0",
            f"scale.threads={options.threads}",
            *quick,
        ]
        _raycls(home, "train", str(CONFIG), *words)
        pruned = _raycls(home, "prune", "first", "--structured", f"--ratio={options.ratio}", "--json")
        result["pruned"] = facts = json.loads(pruned)
        _raycls(home, "train", "runs/first-pruned/config.yaml", "run.name=tuned")
        result["accuracy"] = {"before": facts["before"]["top1"], "pruned": facts["after"]["top1"]}
        result["accuracy"]["fine-tuned"] = _top1(home, "tuned")
        if options.control:
            weights = "model.weights=runs/first/model/model.safetensors"
            _raycls(home, "train", "runs/first/config.yaml", "run.name=control", weights)
            result["accuracy"]["control"] = _top1(home, "control")
    _tell(result)
    return measure.finish(result, options.json)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path, nargs="?", help="holds train/<class> and test/<class>")
    parser.add_argument("--epochs", type=int, default=5, help="of the training, and again of the fine-tuning")
    parser.add_argument("--ratio", type=float, default=0.5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--control", action="store_true", help="train the network that was not pruned on, too")
    options = parser.parse_args(argv)
    if options.quick:
        options.epochs = 1
    elif options.folder is None:
        parser.error("name the folder with the images")
    return options


def _raycls(home: Path, *words: str) -> str:
    measure.say("$ raycls " + shlex.join(words))
    command = [sys.executable, "-m", "raycls", *words]
    return subprocess.run(command, check=True, cwd=home, stdout=subprocess.PIPE, text=True).stdout


def _top1(home: Path, name: str) -> float:
    return json.loads(_raycls(home, "eval", name, "scale.workers=0", "--json"))["top1"]


def _tell(result: dict[str, Any]) -> None:
    facts, accuracy = result["pruned"], result["accuracy"]
    before, after = facts["before"], facts["after"]
    for name in ("flops", "parameters"):
        measure.say(f"{name}: {before[name]:,} -> {after[name]:,} ({after[name] / before[name]:.3f})")
    for batch, seconds in before["seconds"].items():
        now = after["seconds"][batch]
        measure.say(f"latency of {batch}: {1e3 * seconds:.3f} -> {1e3 * now:.3f} ms ({now / seconds:.3f})")
    told = ", ".join(f"{name} {100 * value:.2f} %" for name, value in accuracy.items())
    measure.say(f"accuracy on {facts['images']:,} images: {told}")
    measure.say(f"fine-tuned against before: {100 * (accuracy['fine-tuned'] - accuracy['before']):+.2f} points")


if __name__ == "__main__":
    main()
