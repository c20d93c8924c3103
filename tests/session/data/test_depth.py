"""Grey images of 8 and of 16 bits: what a network is given is what is in the files, whoever decodes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.depths import HIGH, write_bands, write_deep
from harness.errors import raised
from harness.jobs import curve, make_job, train, weights
from harness.masks import write_images
from harness.trained import write_photos
from PIL import Image

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.data.source import open_dataset
from raycls.errors import ConfigError
from raycls.run.folder import RunFolder
from raycls.session.setup import make_task

_GREY = ("data.channels=1", "model.in_channels=1")
_DEEP = (*_GREY, "data.bit_depth=16")
_MEAN, _STD = 0.2515, 0.001
_RUN = (
    *("data.source.name=folder", "data.batch_size=8", "train.micro_batches=2", "train.duration=6ep"),
    *(f"augment.mean=[{_MEAN}]", f"augment.std=[{_STD}]", "augment.train=[horizontal_flip, vertical_flip]"),
)


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, np.ndarray]]:
    folder = tmp_path_factory.mktemp("deep")
    return folder / "files", write_deep(folder / "files")


@pytest.fixture(scope="module")
def alone(deep: tuple[Path, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on them in one process."""
    folder = tmp_path_factory.mktemp("alone") / "run"
    train(make_job(folder, deep[0], *_RUN, *_DEEP))
    return folder


def _run(source: Path, *overrides: str) -> Run:
    common = ("data.source.name=folder", f"data.source.path={source}", "model.name=tiny_cnn", "data.image_size=12")
    return load_text("", "c.yaml", [*common, *overrides]).run


def _inputs(run: Run, split: str, *, train: bool) -> dict[str, np.ndarray]:
    """What the network is given of each file, `[C, H, W] float32`."""
    dataset = open_dataset(run.data)
    task, samples = make_task(run, dataset.classes, torch.device("cpu")), dataset.splits[split]
    made = {samples.key(row): task.arrays(samples, row, (0, 0, row), train=train) for row in range(len(samples))}
    return {
        key: task.batch({name: array[None] for name, array in arrays.items()}, train=False).images[0].numpy()
        for key, arrays in made.items()
    }


def test_16_bits_come_to_the_network_as_they_are(deep: tuple[Path, dict[str, np.ndarray]]) -> None:
    source, pixels = deep
    given = (f"augment.mean=[{_MEAN}]", f"augment.std=[{_STD}]", "augment.eval=[]", "augment.train=[horizontal_flip]")
    found = _inputs(_run(source, *_DEEP, *given), "val", train=False)
    scale, shift = np.float32(1 / (65535 * _STD)), np.float32(-_MEAN / _STD)
    assert len(found) == 8
    for key, images in found.items():
        assert images.dtype == np.float32
        np.testing.assert_array_equal(images, (pixels[key].astype(np.float32) * scale + shift)[None], strict=True)
    assert len({float(value) for images in found.values() for value in images.ravel()}) > 150  # of 192 low bytes
    flipped = _inputs(_run(source, *_DEEP, *given), "train", train=True)
    plain = _inputs(_run(source, *_DEEP, *given), "train", train=False)
    turned = [key for key in plain if not np.array_equal(flipped[key], plain[key])]
    assert 0 < len(turned) < len(plain)
    assert all(np.array_equal(flipped[key], plain[key][..., ::-1]) for key in turned)


def test_what_8_bits_lose_is_learned_from_16(alone: Path, deep: tuple[Path, Any], tmp_path: Path) -> None:
    assert _top1(alone) == 1.0
    train(make_job(tmp_path / "run", deep[0], *_RUN, *_GREY))
    assert _top1(tmp_path / "run") == 0.5
    levels = _inputs(_run(deep[0], *_GREY, "augment.eval=[]"), "val", train=False)
    assert len({float(value) for images in levels.values() for value in images.ravel()}) == 1  # 64 of 255


def _top1(folder: Path) -> float:
    return [line for line in curve(folder) if line["kind"] == "evaluate"][-1]["top1"]


@pytest.mark.parametrize(
    ("world", "executor", "more"),
    [(2, "inline", ()), (0, "processes", ()), (0, "inline", ("data.cache=memory",))],
)
def test_the_bits_are_those_of_one_process(
    world: int, executor: str, more: tuple[str, ...], alone: Path, deep: tuple[Path, Any], tmp_path: Path
) -> None:
    train(make_job(tmp_path / "run", deep[0], *_RUN, *_DEEP, *more, world=world, executor=executor), world)
    assert weights(tmp_path / "run") == weights(alone)
    assert curve(tmp_path / "run") == curve(alone)


def test_a_run_is_resumed_with_its_own_depth_alone(alone: Path, deep: tuple[Path, Any]) -> None:
    with raised(ConfigError) as error:
        make_job(alone, deep[0], *_RUN, *_GREY, "data.bit_depth=8")
    assert "another config" in error.value.what
    assert "data.bit_depth" in (error.value.found or "")
    told = RunFolder(str(alone)).read_json(RunFolder.MODEL_INFO)
    assert told is not None
    about = told["preprocessing"]
    assert (about["channels"], about["bit_depth"], about["mean"], about["std"]) == (1, 16, [_MEAN], [_STD])


def test_grey_files_are_the_same_to_a_network_of_one_channel(tmp_path: Path) -> None:
    """Decoded as grey, or repeated, augmented as RGB and made grey on the device: to the bit, and half the memory."""
    draw = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 4)):
        for index in range(count):
            path = tmp_path / "grey" / split / "ab"[index % 2] / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw.integers(0, 256, (20, 17), dtype=np.uint8)).save(path)
    run = ("data.source.name=folder", "train.duration=2ep", "data.batch_size=4", "train.micro_batches=2")
    run += ("augment.train=[random_resized_crop, horizontal_flip, {rotation: {degrees: 20}}, equalize]",)
    run += ("augment.eval=[resize, center_crop]",)
    train(make_job(tmp_path / "as-rgb", tmp_path / "grey", *run, "model.in_channels=1"))
    train(make_job(tmp_path / "as-grey", tmp_path / "grey", *run, *_GREY))
    assert weights(tmp_path / "as-grey") == weights(tmp_path / "as-rgb")
    assert curve(tmp_path / "as-grey") == curve(tmp_path / "as-rgb")


def test_colours_become_the_grey_of_pillow(tmp_path: Path) -> None:
    """JPEG by the fast decoder, and PNG by Pillow; with 16 bits times 257."""
    write_photos(tmp_path / "photos", 8)
    run = (
        f"augment.mean=[{0.0}]",
        "augment.std=[1.0]",
        "augment.eval=[]",
        "data.split={train: 0.5, val: 0.5, test: 0}",
    )
    grey = _inputs(_run(tmp_path / "photos", *_GREY, *run), "val", train=False)
    deep = _inputs(_run(tmp_path / "photos", *_DEEP, *run), "val", train=False)
    assert {Path(key).suffix for key in grey} == {".png", ".jpg"}
    for key, images in grey.items():
        level = np.asarray(Image.open(tmp_path / "photos" / key).convert("RGB").convert("L")).astype(np.float32)
        np.testing.assert_array_equal(images, level[None] * np.float32(1 / 255))
        np.testing.assert_array_equal(deep[key], level[None] * np.float32(257) * np.float32(1 / 65535))


def test_what_people_are_shown_has_8_bits(deep: tuple[Path, dict[str, np.ndarray]]) -> None:
    run = _run(deep[0], *_DEEP)
    split = open_dataset(run.data).splits["val"]
    shown = np.asarray(split.image(0))
    assert (shown.dtype, shown.shape) == (np.dtype(np.uint8), (12, 12, 3))
    expected = np.rint(deep[1][split.key(0)] / 257)
    assert np.array_equal(shown, np.repeat(expected[..., None], 3, 2))
    assert HIGH // 257 <= shown.min() <= shown.max() <= HIGH // 257 + 2
    task = make_task(run, ("dark", "light"), torch.device("cpu"))
    arrays = task.arrays(split, 0, (0, -1, 0), train=False)
    batch = task.batch({name: array[None] for name, array in arrays.items()}, train=False)
    pictures = task.shown(batch)
    assert pictures is not None
    assert np.abs(pictures[0][0].astype(float) - np.rint(arrays["image"] / 257)).max() <= 1


_BANDS = (
    *("data.source.name=manifest", "data.formats=[npy]", "data.channels=5", "model.in_channels=5", "data.bit_depth=16"),
    *("data.batch_size=8", "train.micro_batches=2", "train.duration=6ep", "augment.train=[horizontal_flip]"),
    f"augment.mean=[0.5, 0.5, 0.5, 0.5, {_MEAN}]",
    f"augment.std=[0.3, 0.3, 0.3, 0.3, {_STD}]",
)


@pytest.fixture(scope="module")
def banded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A manifest of arrays of five channels, and a run on it."""
    home = tmp_path_factory.mktemp("banded")
    manifest = write_bands(home)
    train(make_job(home / "run", manifest, *_BANDS))
    return manifest, home / "run"


def test_all_channels_come_to_the_network(banded: tuple[Path, Path]) -> None:
    manifest, folder = banded
    common = ("model.name=tiny_cnn", "data.image_size=12", f"data.source.path={manifest}", "augment.eval=[]")
    found = _inputs(load_text("", "c.yaml", [*_BANDS, *common]).run, "val", train=False)
    mean, std = np.array([0.5] * 4 + [_MEAN]), np.array([0.3] * 4 + [_STD])
    scale, shift = (1 / (65535 * std)).astype(np.float32), (-mean / std).astype(np.float32)
    assert len(found) == 8
    for key, images in found.items():
        values = np.load(manifest.parent / key).astype(np.float32)
        np.testing.assert_array_equal(images, (values * scale + shift).transpose(2, 0, 1), strict=True)
    assert _top1(folder) == 1.0  # it is the last channel that tells


@pytest.mark.parametrize(
    ("world", "executor", "more"),
    [(2, "inline", ()), (0, "processes", ()), (0, "inline", ("data.cache=memory",))],
)
def test_the_bits_of_channels_are_those_of_one_process(
    world: int, executor: str, more: tuple[str, ...], banded: tuple[Path, Path], tmp_path: Path
) -> None:
    train(make_job(tmp_path / "run", banded[0], *_BANDS, *more, world=world, executor=executor), world)
    assert weights(tmp_path / "run") == weights(banded[1])
    assert curve(tmp_path / "run") == curve(banded[1])


@pytest.mark.parametrize("task", ["segmentation", "simclr", "multilabel"])
def test_other_tasks_take_grey_files_alike(task: str, tmp_path: Path) -> None:
    """As in `test_grey_files_are_the_same_to_a_network_of_one_channel`."""
    data, run = write_images(tmp_path / "cells", {"train": 8, "val": 4}), ["data.batch_size=4", "train.duration=1ep"]
    files = sorted(data.glob("*/images/*.png"))
    for file in files:
        Image.open(file).convert("L").save(file)
    run += ["train.micro_batches=2", "data.image_size=16", "augment.train=[{random_crop: {size: 16}}, horizontal_flip]"]
    run += ["augment.eval=[{center_crop: {size: 16}}]", f"task.name={task}"]
    if task == "segmentation":
        run += ["data.source={name: masks, path: null, args: {classes: [background, disc, spot]}}"]
        run += ["task.args.ignore_index=255", "model={name: unet, args: {width: 4, depth: 1}}", "evaluate.metric=dice"]
    else:
        lines = [f"{file},{'ab'[index % 2]},{file.parts[-3]}" for index, file in enumerate(files)]
        data = tmp_path / "list.csv"
        data.write_text("\n".join(["path,label,split", *lines]) + "\n")
        several = str(task == "multilabel").lower()
        run += [f"data.source={{name: manifest, path: null, args: {{multilabel: {several}}}}}"]
        run += ["evaluate.metric=map"] * (task == "multilabel")
    run += [f"data.source.path={data}"]
    train(make_job(tmp_path / "as-rgb", data, *run, "model.in_channels=1"))
    train(make_job(tmp_path / "as-grey", data, *run, *_GREY))
    assert weights(tmp_path / "as-grey") == weights(tmp_path / "as-rgb")
    assert curve(tmp_path / "as-grey") == curve(tmp_path / "as-rgb")
