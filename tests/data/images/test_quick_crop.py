"""`random_resized_crop: {resampling: fast}`: near Pillow's pixels, equal on every CPU, and never another decision."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raycls.data.images.decoding.decode import decoded
from raycls.data.images.decoding.turbo import Encoded, size
from raycls.data.images.operations import Augment, build
from raycls.data.source import Files, Keys, Split
from raycls.errors import DataError

FAST = {"random_resized_crop": {"resampling": "fast"}}


def _augment(side: int = 24, **args: object) -> Augment:
    return build(({"random_resized_crop": {"resampling": "fast", **args}},), train=True, image_size=side)


def _pixels(height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * 100 + width)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), 3)
    return np.clip(np.asarray(coarse) + random.integers(-9, 10, (height, width, 3)), 0, 255).astype(np.uint8)


def _jpeg(pixels: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "jpeg", **options)
    return buffer.getvalue()


def _split(folder: Path, **files: bytes) -> Split:
    for name, data in files.items():
        (folder / name).write_bytes(data)
    keys = Keys(list(files))
    labels = np.zeros(len(files), np.int64)
    return Split("train", ("a", "b"), labels, keys, Files(str(folder), keys), ("jpeg", "png"), 10**7, ignore=())


def _encoded(data: bytes) -> Encoded:
    found = size(data, 10**7)
    assert found is not None
    return Encoded(data, *found, lambda: decoded(data, "x", formats=("jpeg",), max_pixels=10**7))


def test_pixels_are_at_most_two_levels_from_those_of_pillow() -> None:
    exact, fast = build(("random_resized_crop",), train=True, image_size=24), _augment()
    differ = 0
    for sample, (height, width) in enumerate(((40, 60), (100, 75), (24, 24), (300, 200), (9, 11)) * 6):
        key = (1, 2, sample)
        apart = np.abs(exact(_pixels(height, width), key).astype(int) - fast(_pixels(height, width), key))
        assert apart.shape == (24, 24, 3)
        assert apart.max() <= 2
        differ += int((apart > 0).sum())
    assert 0 < differ < 0.1 * 30 * 24 * 24 * 3


@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize(("height", "width"), [(64, 64), (65, 130), (203, 71)])
def test_a_file_decoded_smaller_is_what_pillow_drafts(height: int, width: int, subsampling: int) -> None:
    data = _jpeg(_pixels(height, width), subsampling=subsampling)
    for scale in (2, 4, 8):
        drafted = Image.open(io.BytesIO(data))
        drafted.draft("RGB", (width // scale, height // scale))
        np.testing.assert_array_equal(_encoded(data).scaled(scale), np.asarray(drafted))


@pytest.mark.parametrize(("factor", "scale"), [(1, 1), (2, 2), (3, 2), (4, 4), (7, 4), (8, 8), (20, 8)])
def test_it_is_decoded_no_smaller_than_the_part_needs(factor: int, scale: int, monkeypatch: pytest.MonkeyPatch) -> None:
    side = 24 * factor
    data = _jpeg(_pixels(side, side))
    asked: list[int] = []

    def scaled(self: Encoded, by: int) -> np.ndarray:
        asked.append(by)
        return np.zeros((-(-side // by), -(-side // by), 3), np.uint8)

    monkeypatch.setattr(Encoded, "scaled", scaled)
    whole = Encoded(data, side, side, lambda: asked.append(1) or np.zeros((side, side, 3), np.uint8))
    _augment(scale=[1.0, 1.0], ratio=[1.0, 1.0])(whole, (1, 2, 3))
    assert asked == [scale]


def test_a_part_of_a_smaller_image_is_the_part_that_was_drawn() -> None:
    rows, columns = np.mgrid[0:400, 0:600]
    ramp = np.stack([rows * 255 // 400, columns * 255 // 600, (rows + columns) * 255 // 1000], -1).astype(np.uint8)
    data, fast = _jpeg(ramp, quality=98, subsampling=0), _augment(scale=[0.2, 0.6])
    exact = build(({"random_resized_crop": {"scale": (0.2, 0.6)}},), train=True, image_size=24)
    for sample in range(20):  # parts of 170 pixels and more: decoded at 1/4 or 1/8, so 8 pixels are 5 levels
        apart = np.abs(exact(ramp, (1, 2, sample)).astype(int) - fast(_encoded(data), (1, 2, sample)))
        assert apart.max() <= 7
        assert apart.mean() <= 3


def test_what_is_not_a_usual_jpeg_is_decoded_whole(tmp_path: Path) -> None:
    pixels = _pixels(90, 70)
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "png")
    exif = Image.Exif()
    exif[0x0112] = 6
    split = _split(tmp_path, jpeg=_jpeg(pixels), png=png.getvalue(), turned=_jpeg(pixels, exif=exif))
    assert [isinstance(split.encoded(index), Encoded) for index in range(3)] == [True, False, False]
    turned = split.encoded(2)
    assert isinstance(turned, Image.Image)
    assert turned.size == (90, 70)
    np.testing.assert_array_equal(_augment()(split.encoded(1), (1, 2, 3)), _augment()(pixels, (1, 2, 3)))


def test_a_damaged_file_is_refused_in_the_same_words(tmp_path: Path) -> None:
    data = _jpeg(_pixels(400, 400))
    split = _split(tmp_path, cut=data[: len(data) // 2])
    with pytest.raises(DataError) as wanted:
        split.pixels(0)
    for side in (24, 300):  # once it is decoded smaller, once not
        with pytest.raises(DataError) as found:
            _augment(side, scale=[1.0, 1.0], ratio=[1.0, 1.0])(split.encoded(0), (1, 2, 3))
        assert found.value.to_dict() == wanted.value.to_dict()


def test_other_operations_follow_it() -> None:
    listed = (FAST, "horizontal_flip", {"color_jitter": {"brightness": 0.3}})
    found = build(listed, train=True, image_size=24)(_encoded(_jpeg(_pixels(64, 64))), (1, 2, 3))
    assert (found.shape, found.dtype) == ((24, 24, 3), np.uint8)


MANY = """
import sys
sys.path[:] = {paths!r}
from test_quick_crop import digest
print(digest())
"""


def digest() -> str:
    """sha256 over decoded, scaled, resized and flipped pixels of several images."""
    augment, made = build((FAST, "horizontal_flip"), train=True, image_size=56), hashlib.sha256()
    for sample, (height, width) in enumerate(((70, 50), (130, 300), (640, 480), (57, 900)) * 4):
        made.update(augment(_encoded(_jpeg(_pixels(height, width))), (1, 2, sample)).tobytes())
        made.update(augment(_pixels(height, width), (1, 2, sample)).tobytes())
    return made.hexdigest()


@pytest.mark.slow
def test_the_bits_do_not_depend_on_the_instructions_of_the_cpu() -> None:
    plain = {"ATEN_CPU_CAPABILITY": "default", "JSIMD_FORCENONE": "1"}  # of torch, and of libjpeg-turbo
    run = subprocess.run(
        [sys.executable, "-c", MANY.format(paths=[str(Path(__file__).parent), *sys.path])],
        env={**os.environ, **plain},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert run.stdout.strip() == digest(), run.stderr[-2000:]
