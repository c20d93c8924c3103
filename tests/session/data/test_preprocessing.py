"""What is said where images do not come to the weights as they did when these were trained; its remedies are typed."""

from __future__ import annotations

import shlex
from typing import Any

import pytest
import torchvision.models
from torchvision.models import WeightsEnum

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.session.data.preprocessing import differences

_BASE = ("model.name=resnet18", "data.source.path=photos")


def run(*overrides: str) -> Run:
    return load_text("", "run.yaml", [*_BASE, *overrides]).run


def weights(model: str, name: str = "DEFAULT") -> WeightsEnum:
    return torchvision.models.get_model_weights(model)[name]


def fixed(lines: list[str], *overrides: str) -> Run:
    """The run with the overrides that the lines say, as a shell reads them."""
    typed = next(line for line in lines if line.startswith("as theirs: "))
    return run(*overrides, *shlex.split(typed.removeprefix("as theirs: ")))


@pytest.mark.parametrize(
    "found", [weights("resnet18"), weights("resnet50", "IMAGENET1K_V1"), weights("resnet50", "IMAGENET1K_V2")]
)
def test_the_defaults_are_those_of_torchvision(found: WeightsEnum) -> None:
    """Whether they resize to 256 or 232 pixels."""
    assert differences(run(), found) == []
    assert differences(run("augment.mean=[0.485, 0.4561, 0.406]"), found) == []


@pytest.mark.parametrize("model", ["efficientnet_b0", "vit_b_16", "swin_t", "googlenet", "mobilenet_v3_small"])
def test_every_remedy_leaves_nothing_to_say(model: str) -> None:
    odd = ("augment.mean=[0.5, 0.5, 0.5]", "augment.std=[0.5, 0.5, 0.5]")
    for name in torchvision.models.get_model_weights(model).__members__:
        found = weights(model, name)
        side = f"data.image_size={found.transforms().crop_size[0]}"
        lines = differences(run(*odd, side), found)
        assert "augment.mean [0.5, 0.5, 0.5] instead of " in lines[0]
        assert len(lines) == 2
        assert differences(fixed(lines, *odd, side), found) == []


def test_only_what_differs_is_said() -> None:
    lines = differences(run("augment.std=[1.0, 1.0, 1.0]"), weights("resnet18"))
    assert lines == [
        "preprocessing differs from that of the weights: augment.std [1.0, 1.0, 1.0] instead of [0.229, 0.224, 0.225]",
        "as theirs: augment.std='[0.229, 0.224, 0.225]'",
    ]


def test_interpolation_is_changed_where_the_config_resizes() -> None:
    found = weights("efficientnet_b0")
    assert found.transforms().interpolation.value == "bicubic"
    lines = differences(run(), found)
    assert "bilinear instead of bicubic" in lines[0]
    resized = fixed(lines)
    assert resized.augment.eval == ({"resize": {"size": 256, "interpolation": "bicubic"}}, "center_crop")
    own = "augment.eval=[{resize: {size: [200, 300]}}, {center_crop: {size: 190}}]"
    assert fixed(differences(run(own), found), own).augment.eval == (
        {"resize": {"size": [200, 300], "interpolation": "bicubic"}},
        {"center_crop": {"size": 190}},
    )
    assert differences(run("augment.eval=[]"), found) == []  # nothing is resized
    assert differences(run("augment.eval=[{resize: {size: 9, interpolation: bicubic}}]"), found) == []


def test_another_size_is_mentioned_and_no_more() -> None:
    (line,) = differences(run("data.image_size=64"), weights("resnet18"))
    assert "224" in line
    assert "64" in line
    assert "differs" not in line


_OURS: dict[str, Any] = {"image_size": 224, "eval": None, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}


@pytest.mark.parametrize("eval_list", [None, [], ["center_crop"], [{"resize": {"size": [8, 9]}}, "center_crop"]])
def test_a_model_of_raycls(eval_list: Any) -> None:
    ours = {**_OURS, "eval": eval_list}
    lines = differences(run("augment.eval=[{resize: {size: 7}}]"), ours)
    assert all(f"augment.{name}" in lines[0] for name in ("mean", "std", "eval"))
    changed = fixed(lines, "augment.eval=[{resize: {size: 7}}]")
    assert changed.augment.mean == (0.5, 0.4, 0.3)
    assert differences(changed, ours) == []


@pytest.mark.parametrize("found", [None, {}, {"mean": "x", "std": [1, 2], "eval": 3, "image_size": "big"}])
def test_where_nothing_is_known_nothing_is_said(found: Any) -> None:
    assert differences(run("augment.mean=[0.1, 0.1, 0.1]"), found) == []
