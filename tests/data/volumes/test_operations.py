"""Operations on volumes: what they do, and that they are drawn by the key of a sample alone."""

from __future__ import annotations

import pickle
import re
from typing import Any

import numpy as np
import pytest
import torch
from harness.errors import raised

from raycls.config.names.builtin import VOLUME_OPERATIONS
from raycls.data.samples import UnfitError
from raycls.data.volumes.operations import build
from raycls.errors import ConfigError, DataError

_VOLUME = np.random.default_rng(0).random((2, 6, 8, 8)).astype(np.float32)
_ALL: dict[str, dict[str, Any]] = {
    "resize": {"size": [3, 10, 8]},
    "center_crop": {"size": [4, 10, 6]},
    "random_crop": {"size": 4},
    "pad": {"size": [9, 4, 8]},
    "flip": {"axes": [0, 2]},
    "rotate90": {"axes": [1, 2], "p": 1.0},
    "intensity": {"shift": 0.2, "scale": 0.3},
    "noise": {"std": 0.1, "p": 1.0},
}


def _made(name: str, seed: int = 0, volume: np.ndarray = _VOLUME, **args: Any) -> np.ndarray:
    operations = ({name: args},) if args else (name,)
    return build(operations, train=True, image_size=5)(volume, (0, 0, seed))


def test_every_operation_is_tried_here() -> None:
    assert set(_ALL) == set(VOLUME_OPERATIONS)


@pytest.mark.parametrize("name", _ALL)
def test_an_operation_depends_on_the_key_alone(name: str) -> None:
    torch.manual_seed(1)
    before, augment = _VOLUME.copy(), build(({name: _ALL[name]},), train=True, image_size=5)
    first = [augment(_VOLUME, (0, 1, index)) for index in range(8)]
    torch.manual_seed(2)
    state = torch.get_rng_state()
    again = pickle.loads(pickle.dumps(augment))
    assert all(np.array_equal(one, again(_VOLUME, (0, 1, index))) for index, one in reversed(list(enumerate(first))))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(before, _VOLUME)
    assert all(made.dtype == np.float32 and made.flags.c_contiguous for made in first)
    assert augment.random is any(not np.array_equal(first[0], other) for other in first)


def test_crops_and_paddings_by_hand() -> None:
    assert _made("resize", size=[3, 10, 8]).shape == (2, 3, 10, 8)
    assert _made("resize").shape == (2, 5, 5, 5)
    middle = _made("center_crop", size=[4, 10, 6])
    assert np.array_equal(middle[:, :, 1:9], _VOLUME[:, 1:5, :, 1:7])
    assert not middle[:, :, 0].any() and not middle[:, :, 9].any()
    padded = _made("pad", size=[9, 4, 8])
    assert np.array_equal(padded[:, 1:7], _VOLUME) and padded.shape == (2, 9, 8, 8)
    found = set()
    for seed in range(40):
        part = _made("random_crop", seed, size=[6, 8, 7])
        start = next(start for start in (0, 1) if np.array_equal(part, _VOLUME[..., start : start + 7]))
        found.add(start)
    assert found == {0, 1}


def test_flips_and_turns_by_hand() -> None:
    assert np.array_equal(_made("flip", axes=1, p=1.0), _VOLUME[:, :, ::-1])
    assert np.array_equal(_made("flip", axes=[0, 2], p=1.0), _VOLUME[:, ::-1, :, ::-1])
    assert np.array_equal(_made("flip", axes=[0, 2], p=0.0), _VOLUME)
    turns = {turn: np.rot90(_VOLUME, turn, (2, 3)) for turn in (1, 2, 3)}
    seen = set()
    for seed in range(40):
        made = _made("rotate90", seed, p=1.0)
        seen.add(next(turn for turn, wanted in turns.items() if np.array_equal(made, wanted)))
    assert seen == {1, 2, 3}


def test_intensities_are_within_their_bounds() -> None:
    line = np.zeros((1, 1, 1, 2), np.float32)
    line[..., 1] = 1
    low, high = np.array([_made("intensity", seed, line, shift=0.2, scale=0.3)[0, 0, 0] for seed in range(200)]).T
    assert -0.2 <= low.min() < -0.18 and 0.18 < low.max() <= 0.2
    assert 0.7 - 1e-6 <= (high - low).min() < 0.72 and 1.28 < (high - low).max() <= 1.3 + 1e-6
    noise = _made("noise", std=0.1, p=1.0, volume=np.zeros((1, 20, 20, 20), np.float32))
    assert abs(float(noise.std()) - 0.1) < 0.005 and abs(float(noise.mean())) < 0.005


@pytest.mark.parametrize(
    ("entry", "where"),
    [
        ({"horizontal_flip": {}}, "augment.train[0]"),
        ({"flip": {"axis": 1}}, "augment.train[0].flip"),
        ({"flip": {"axes": [0, 3]}}, "augment.train[0].flip"),
        ({"rotate90": {"axes": [1]}}, "augment.train[0].rotate90"),
        ({"noise": {"p": 2}}, "augment.train[0].noise"),
        ({"resize": {"size": [4, 4]}}, "augment.train[0].resize"),
    ],
)
def test_what_is_wrong_with_a_list_is_told_before_anything_starts(entry: Any, where: str) -> None:
    with raised(ConfigError, where=where):
        build((entry,), train=True, image_size=5)


def test_a_volume_that_an_operation_does_not_suit_is_an_error_that_says_so() -> None:
    with raised(UnfitError, what=re.compile(r"rotate90 \(augment\.train\[0\]\)"), found=re.compile(r"\[2, 6, 8, 8\]")):
        _made("rotate90", axes=[0, 1])
    large = build(({"resize": {"size": 100}},), train=True, image_size=5, max_pixels=1000)
    with raised(UnfitError, valid=re.compile("data.max_pixels")):
        large(_VOLUME, (0, 0, 0))


def test_a_plug_in_returns_a_volume_or_is_refused(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "voxels.py").write_text(
        "import random\ndef dim(by=0.5):\n"
        "    return lambda volume: volume * type(volume.flat[0])(by * random.random())\n"
        "def flat():\n    return lambda volume: volume[0]\n"
    )
    augment = build(({"voxels:dim": {"by": 0.5}},), train=True, image_size=5)
    assert np.array_equal(augment(_VOLUME, (0, 0, 1)), augment(_VOLUME, (0, 0, 1)))
    assert not np.array_equal(augment(_VOLUME, (0, 0, 1)), augment(_VOLUME, (0, 0, 2)))
    with raised(DataError, found="float32 [6, 8, 8]"):
        build(("voxels:flat",), train=True, image_size=5)(_VOLUME, (0, 0, 0))
