"""Masks: what is read, what follows an operation, and what is refused with its file."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.errors import raised
from harness.masks import lesion, scene, write_images, write_volumes
from harness.phantom import Geometry, phantom, write_nifti
from PIL import Image

from raycls.config.sections.data import DataConfig, SourceConfig, SplitConfig
from raycls.data.making.bad import BadImageError
from raycls.data.masks.codes import image_mask
from raycls.data.masks.paired import PairedImages
from raycls.data.source import open_dataset
from raycls.errors import ConfigError, DataError
from raycls.session.data import record

_CLASSES = ["background", "disc", "spot"]


def _open(path: Path, *, classes: list[str] | None = None, **args: Any) -> Any:
    source = SourceConfig(name="masks", path=str(path), args={"classes": classes or _CLASSES, **args})
    return open_dataset(DataConfig(source=source, split=SplitConfig(train=1, val=0, test=0)))


@pytest.mark.parametrize(
    "entry",
    [
        "horizontal_flip",
        "vertical_flip",
        {"rotation": {"degrees": 30, "fill": 9}},
        {"affine": {"degrees": 10, "translate": [0.2, 0.1], "scale": [0.8, 1.2]}},
        "perspective",
        {"random_crop": {"size": 12, "padding": 4}},
        {"random_resized_crop": {"size": 16}},
        {"center_crop": {"size": [30, 10]}},
        {"resize": {"size": [10, 12]}},
        {"resize": {"size": 16, "fit": "pad"}},
    ],
    ids=str,
)
def test_a_mask_follows_its_image(entry: Any) -> None:
    """An image whose levels are its mask: where both are sure, they still say the same."""
    mask = scene(1)[1]
    image = np.repeat((mask * 100)[..., None], 3, 2)
    pair = PairedImages([entry, "horizontal_flip"], train=True, image_size=16, max_pixels=10**6)
    moved = 0
    for sample in range(8):
        found, codes = pair(image, mask + 1, (0, 0, sample), "a")
        assert found.shape[:2] == codes.shape and codes.dtype == np.uint8 and codes.max() <= 3
        inside = codes > 0
        near = np.abs(found[..., 0].astype(int) - (codes.astype(int) - 1) * 100) < 50
        assert near[inside].mean() > 0.9
        moved += not np.array_equal(found[: mask.shape[0], : mask.shape[1]], image[: found.shape[0], : found.shape[1]])
        again = pair(image, mask + 1, (0, 0, sample), "a")
        assert np.array_equal(again[0], found) and np.array_equal(again[1], codes)
    assert moved


def test_colours_leave_a_mask_alone_and_padding_is_ignored() -> None:
    image, mask = scene(1)
    pair = PairedImages(
        [{"color_jitter": {"brightness": 0.5}}, {"center_crop": {"size": 30}}],
        train=True,
        image_size=8,
        max_pixels=10**6,
    )
    found, codes = pair(image, mask + 1, (0, 0, 0), "a")
    assert np.array_equal(codes[5:25, 3:27], mask + 1) and not codes[:5].any() and not codes[:, :3].any()
    assert not np.array_equal(found[5:25, 3:27], image)


@pytest.mark.parametrize("entry", ["rand_augment", {"random_apply": {"operations": ["horizontal_flip"]}}])
def test_operations_that_no_mask_follows_are_refused(entry: Any) -> None:
    with raised(ConfigError, where="augment.train[1]"):
        PairedImages(["horizontal_flip", entry], train=True, image_size=8, max_pixels=10**6)


def test_masks_of_palettes_and_of_16_bits_have_the_values_of_their_pixels(tmp_path: Path) -> None:
    root = write_images(tmp_path / "cells", {"train": 3})
    mask = scene(1)[1]
    coloured = Image.fromarray(mask, mode="P")
    coloured.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    coloured.save(root / "train" / "masks" / "1.png")
    Image.fromarray(mask.astype(np.uint16) * 300).save(root / "train" / "masks" / "2.png")
    split = _open(root).splits["train"]
    at = {Path(split.key(row)).stem: row for row in range(len(split))}
    assert np.array_equal(image_mask(split, at["1"], (0, 1, 2), None), mask + 1)
    assert np.array_equal(image_mask(split, at["2"], (0, 300, 600), None), mask + 1)
    with raised(DataError, where=re.compile(r"masks/0\.png"), found="255"):
        image_mask(split, at["0"], (0, 1, 2), None)
    assert not image_mask(split, at["0"], (0, 1, 2), 255)[:2].any()


def test_a_mask_that_is_none_is_refused_with_its_file(tmp_path: Path) -> None:
    root = write_images(tmp_path / "cells", {"train": 3})
    Image.new("RGB", (24, 20)).save(root / "train" / "masks" / "1.png")
    (root / "train" / "masks" / "2.png").write_bytes(b"no image")
    split = _open(root).splits["train"]
    for row in range(3):
        if (name := Path(split.key(row)).stem) != "0":
            with raised(BadImageError, where=re.compile(rf"masks/{name}\.png")):
                image_mask(split, row, (0, 1, 2), None)


def test_a_folder_and_a_manifest_name_the_same_pairs(tmp_path: Path) -> None:
    root = write_images(tmp_path / "cells", {"train": 4, "test": 2})
    lines = [f"{s}/images/{n}.png,{s}/masks/{n}.png,{s}" for s, c in (("train", 4), ("test", 2)) for n in range(c)]
    (root / "list.csv").write_text("path,mask,split\n" + "\n".join(lines) + "\n")
    listed, found = _open(root / "list.csv"), _open(root, ignore="list.csv")
    assert listed.classes == found.classes == tuple(_CLASSES)
    for name in ("train", "test"):
        one, other = listed.splits[name], found.splits[name]
        assert sorted(one.keys) == sorted(other.keys)
        places = {other.key(row): other.read(row, "mask") for row in range(len(other))}
        assert all(places[one.key(row)] == one.read(row, "mask") for row in range(len(one)))
    (root / "test" / "masks" / "1.png").unlink()
    with raised(DataError, found=re.compile("1.png")):
        _open(root, ignore="list.csv")
    with raised(DataError, found=re.compile("1.png")):
        _open(root / "list.csv")
    with raised(DataError, where="data.source.args.classes"):
        _open(root, classes=["one"])


def test_a_nifti_mask_must_lie_where_its_volume_lies(tmp_path: Path) -> None:
    root, classes = write_volumes(tmp_path / "ct", {"train": 2}), ["background", "lesion"]
    split = _open(root, classes=classes).splits["train"]
    assert np.array_equal(split.read(0, "mask"), lesion(split.reader.read(0).astype(np.int16)))  # type: ignore[union-attr]
    volume, wrong = lesion(phantom(0, 0)), root / "train" / "masks" / "0.nii.gz"
    for geometry in (Geometry(origin=(-9, -10.5, 42)), Geometry(spacing=(2.5, 1, 1)), Geometry(row=(-1.0, 0, 0))):
        write_nifti(wrong, volume, geometry)
        with raised(DataError, where=str(wrong)):
            _open(root, classes=classes)
    write_nifti(wrong, volume[:-1])
    with raised(DataError, where=str(wrong), found="[24, 20, 9]"):
        _open(root, classes=classes)


def test_a_mask_that_was_changed_is_other_content_on_resume(tmp_path: Path) -> None:
    write_images(tmp_path / "cells", {"train": 4, "val": 2})
    before = _open(tmp_path / "cells")
    part = record.unpack(record.pack(before, str(tmp_path / "cells")), "splits.parquet").parts["train"]
    assert not record.changed(part, np.arange(4), before.splits["train"]).any()
    file = tmp_path / "cells" / "train" / "masks" / "2.png"
    mask = np.asarray(Image.open(file)).copy()
    mask[5, 5] = (mask[5, 5] + 1) % 3
    Image.fromarray(mask).save(file)
    assert record.changed(part, np.arange(4), _open(tmp_path / "cells").splits["train"]).tolist() == [0, 0, 1, 0]
