"""The preprocessing of an artefact beside that of the training: Pillow's, to a level, for images of any size."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from PIL import Image
from torch import nn

from raycls.data.images import operations
from raycls.errors import ConfigError
from raycls.export.artefact import normalised
from raycls.export.formats.pt2 import _done as done_in_torch
from raycls.export.formats.pt2 import program, saved
from raycls.export.preprocessing import Preprocessing, size_of, steps_of

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)
SIZES = [(60, 40), (40, 61), (28, 28), (29, 28), (333, 500), (31, 200), (24, 24), (20, 90), (1, 1), (7, 300)]
SIZES += [(300, 40), (40, 29), (61, 44), (60, 44), (59, 44)]  # Pillow 13 begins with the height of some of these
LISTS: dict[str, list[Any]] = {
    "shorter side, crop": [{"resize": {"size": 28}}, {"center_crop": {"size": 24}}],
    "odd": [{"resize": {"size": 27}}, {"center_crop": {"size": [24, 23]}}],
    "height and width": [{"resize": {"size": [30, 45]}}],
    "bicubic": [{"resize": {"size": 28, "interpolation": "bicubic"}}, {"center_crop": {"size": 24}}],
    "bicubic height and width": [{"resize": {"size": [28, 36], "interpolation": "bicubic"}}],
    "a list of one": [{"resize": {"size": [28]}}, {"center_crop": {"size": [24]}}],
    "a crop that pads": [{"center_crop": {"size": 33}}, {"resize": {"size": [24, 24]}}],
    "a crop that pads after a resize": [{"resize": {"size": 20}}, {"center_crop": {"size": [33, 20]}}],
    "default": list(operations.default_operations(train=False, image_size=24)),
    "fit crop": [{"resize": {"fit": "crop"}}],
    "fit crop into a rectangle": [{"resize": {"size": [20, 33], "fit": "crop", "interpolation": "bicubic"}}],
    "fit pad": [{"resize": {"size": 24, "fit": "pad", "fill": 77}}],
    "fit pad into a rectangle": [{"resize": {"size": [33, 20], "fit": "pad"}}, {"center_crop": {"size": 24}}],
    "fit stretch": [{"resize": {"size": 24, "fit": "stretch"}}],
    "names alone": ["resize", "center_crop"],
}


def _image(height: int, width: int) -> np.ndarray:
    """Smooth parts, edges and noise."""
    draw = np.random.default_rng(height * 1000 + width)
    y, x = np.mgrid[:height, :width]
    waves = 127 + 100 * np.sin(y / 5)[..., None] * np.cos(x[..., None] / (3, 5, 7))
    edges = np.where((x // 9 + y // 7) % 2, 255, 0)[..., None]
    pixels = np.where(draw.random((height, width, 1)) < 0.3, edges, waves) + draw.normal(0, 20, (height, width, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _session(wanted: Preprocessing) -> onnxruntime.InferenceSession:
    nodes, constants = wanted.nodes("images", "pixels")
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, [None, None, None, 3])],
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [None, 3, None, None])],
        initializer=constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.checker.check_model(model)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("entries", LISTS.values(), ids=LISTS.keys())
def test_pixels_are_pillows_to_a_level(entries: list[Any]) -> None:
    """In onnxruntime and in torch: each of two passes rounds, so two levels are the bound, and one nearly always."""
    augment = operations.build(tuple(entries), train=False, image_size=24)
    steps = steps_of(entries, 24)
    session = _session(Preprocessing(steps, tuple(entries), MEAN, STD, (24, 24)))
    apart, far, count = 0, 0, 0
    for height, width in SIZES:
        image = _image(height, width)
        truth = augment(Image.fromarray(image), (0, -1, 0))
        assert size_of(steps, (height, width))[0] == truth.shape[:2]
        (pixels,) = session.run(None, {"images": image[None]})
        levels = np.abs(pixels - normalised(truth[None], MEAN, STD)) * np.array(STD)[:, None, None] * 255
        assert levels.max() < 2.001, (height, width)
        in_torch = torch.from_numpy(image)[None].permute(0, 3, 1, 2)
        for step in steps:
            in_torch = done_in_torch(step, in_torch)
        assert np.abs(in_torch[0].permute(1, 2, 0).numpy().astype(int) - truth).max() <= 2, (height, width)
        apart, count = apart + int((levels > 0.5).sum()), count + levels.size
        far += int((levels > 1.5).sum())
    assert apart < 0.05 * count
    assert far < 0.001 * count


class _Flat(nn.Module):
    """In the place of a network: what it is given, so near to each other that softmax keeps every digit."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return pixels.flatten(1) / 1000


@pytest.mark.parametrize(
    "name",
    [
        "a crop that pads",
        pytest.param("bicubic height and width", marks=pytest.mark.nightly),
        pytest.param("odd", marks=pytest.mark.nightly),
    ],
)
def test_a_program_of_torch_takes_images_of_every_size(name: str) -> None:
    """Of one row or one column, smaller than the crop, of its size: not only those that are like the traced ones."""
    entries = LISTS[name]
    augment = operations.build(tuple(entries), train=False, image_size=24)
    steps = steps_of(entries, 24)
    end, _ = size_of(steps, (50, 50))
    wanted = Preprocessing(steps, tuple(entries), (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255), end)
    file = io.BytesIO(saved(program(_Flat(), wanted), {}))
    loaded = torch.export.load(file).module()
    for height, width in [*SIZES, (1, 40), (40, 1), (33, 33), (33, 20), (20, 33)]:
        image = _image(height, width)
        said = loaded(torch.from_numpy(image)[None])[0].double().log() * 1000
        truth = augment(Image.fromarray(image), (0, -1, 0)).transpose(2, 0, 1).ravel().astype(np.float64)
        pixels = (said - said.mean()).numpy() + truth.mean()
        assert np.abs(pixels - truth).max() < 2.5, (height, width)


def test_normalisation_is_the_trainings_to_the_bit() -> None:
    pixels = np.arange(256 * 3, dtype=np.uint8).reshape(1, 16, 16, 3)
    (found,) = _session(Preprocessing((), (), MEAN, STD, (16, 16), (16, 16))).run(None, {"images": pixels})
    mean, std = (torch.tensor(values, dtype=torch.float64) for values in (MEAN, STD))
    scale, shift = (part.float().view(1, 3, 1, 1) for part in (1 / (255 * std), -mean / std))
    truth = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() * scale + shift
    assert np.array_equal(found, truth.numpy())
    assert np.array_equal(normalised(pixels, MEAN, STD), truth.numpy())


@pytest.mark.parametrize(
    ("entry", "found"),
    [
        ("horizontal_flip", "horizontal_flip, which is random"),
        ({"shades:invert": {"share": 0.5}}, "shades:invert, a plug-in"),
    ],
)
def test_what_cannot_be_inside_is_refused(entry: Any, found: str) -> None:
    with pytest.raises(ConfigError) as refused:
        steps_of(["resize", entry], 24)
    assert (refused.value.where, refused.value.found) == ("augment.eval[1]", found)
    assert "--preprocess=outside" in str(refused.value.fix)
