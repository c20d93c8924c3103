"""Networks of every kind, with random weights, from image files: the artefact says what the run says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.trained import write_photos
from harness.untrained import make_untrained
from PIL import Image
from torch import nn

from raycls.export.artefact import Artefact
from raycls.export.export import GATES, Exported, Wanted, export
from raycls.session.trained.trained import open_trained

pytestmark = pytest.mark.timeout(900)

_CONFIG = """
run: {{name: {name}, seed: 3}}
data:
  source: {{path: photos}}
  image_size: {size}
  batch_size: 8
augment:
  eval: [{{resize: {{size: {resized}, interpolation: {interpolation}}}}}, {{center_crop: {{size: {size}}}}}]
model: {{name: {name}{args}}}
train: {{duration: 1ep, amp: "off"}}
scale: {{workers: 0, threads: 2}}
"""
_MODELS = [
    ("resnet18", 64, "bilinear", ""),
    ("mobilenet_v3_small", 64, "bilinear", ""),
    ("efficientnet_b0", 64, "bicubic", ""),
    ("vit_b_16", 64, "bilinear", ", args: {image_size: 64}"),
    ("convnext_tiny", 64, "bilinear", ""),
    ("swin_t", 64, "bicubic", ""),
]


_TINY = ("mobilenet_v3_small", "efficientnet_b0")
"""With random weights their activations shrink from block to block, to less than float16 can hold."""


def _lively(model: nn.Module) -> None:
    """Let answers depend on the image: logits of a network that was never trained are hardly apart."""
    draw = torch.Generator().manual_seed(0)
    photos = [np.asarray(Image.open(file).resize((64, 64))) for file in sorted(Path("photos").rglob("*.*"))]
    images = torch.from_numpy(np.stack(photos)).permute(0, 3, 1, 2) / 127.5 - 1
    head = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1]
    with torch.no_grad():
        head.weight.copy_(torch.randn(head.weight.shape, generator=draw))
        logits = model.eval()(images)
        head.weight.mul_(1 / logits.std(0).mean())
        logits = model(images)
        head.bias.sub_(logits.mean(0))


def _exported(home: Path, name: str, size: int, interpolation: str, args: str, **wanted: object) -> Exported:
    text = _CONFIG.format(name=name, size=size, resized=size * 8 // 7, interpolation=interpolation, args=args)
    run = make_untrained(home, text, _lively)
    return export(open_trained(str(run)), home / "out", name, Wanted(**wanted))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "model",
    [pytest.param(model, id=model[0], marks=pytest.mark.nightly) for model in _MODELS],
)
def test_a_network_with_random_weights_passes(
    model: tuple[str, int, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_photos(tmp_path / "photos", 12)
    monkeypatch.chdir(tmp_path)
    for precision, agreement in (("fp32", 0.999), ("fp16", 0.95)):  # float16 may turn one near tie of 36
        if precision == "fp16" and model[0] in _TINY:
            continue
        gate = replace(GATES[precision], agreement=agreement)
        done = _exported(tmp_path, *model, precision=precision, data="photos", gate=gate)
        images = [np.asarray(Image.open(file)) for file in sorted(Path("photos").rglob("*.*"))]
        said = Artefact(done.path).probabilities(images)
        assert said.std(0).max() > 0.05  # another image, another answer
        assert (precision, done.failures, done.comparison.images) == (precision, (), 36)
