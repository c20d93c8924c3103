"""Masks of a segmentation: those that an evaluation counts, on the grid of their files, whatever ends the command."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from harness.errors import raised
from harness.jobs import job_of, train
from harness.masks import CLASSES, lesion, write_images, write_volumes
from harness.pages import type_in
from harness.phantom import Geometry, phantom, write_nifti, write_series
from PIL import Image
from pyarrow import parquet
from scipy.ndimage import binary_erosion

from raycls.config.load import load_text
from raycls.config.sections.types import Operation
from raycls.data.images.operations import build as of_images
from raycls.data.masks.back import moves_of, undone
from raycls.data.masks.written import nifti_of, type_of
from raycls.data.volumes.geometry import oriented, resampled
from raycls.data.volumes.nifti import directions_of
from raycls.data.volumes.operations import build as of_volumes
from raycls.data.volumes.readers import Volumes
from raycls.errors import ConfigError, DataError
from raycls.launch import trainer
from raycls.screen.run import Display
from raycls.session.predictions import predict as predictions
from raycls.session.predictions.masks import names_of
from raycls.session.predictions.predict import Predicted, Request, predict
from raycls.session.scoring.options import Scoring
from raycls.tasks.scores.masks import overlap

_IMAGES = """
data: {source: {name: masks, args: {classes: [background, disc, spot]}}, batch_size: 6, image_size: 16}
augment: {train: [{random_crop: {size: 16}}], eval: []}
task: {name: segmentation, args: {ignore_index: 255, values: [0, 1, 2]}}
model: {name: unet, args: {width: 4, depth: 2}}
optim: {lr: 0.05}
train: {duration: 3ep, micro_batches: 2, amp: off}
evaluate: {keep: last, metric: dice}
"""
_VOLUMES = """
data: {source: {name: masks, args: {classes: [background, lesion]}}, batch_size: 4, window: [bone]}
augment: {train: [{random_crop: {size: [8, 16, 16]}}, flip], eval: []}
task: {name: volume_segmentation}
model: {name: unet, in_channels: 1, args: {dimensions: 3, width: 4, depth: 2}}
optim: {lr: 0.05}
train: {duration: 3ep, micro_batches: 2, amp: off}
evaluate: {keep: last, metric: dice}
"""
_TURNED = Geometry(row=(0.0, -1.0, 0.0), column=(0.0, 0.0, -1.0), origin=(12.5, 3.0, 7.0), tilt=0.4)
"""A sagittal volume whose slices are shifted."""


def _run(text: str, data: Path, folder: Path, *overrides: str) -> str:
    names = [f"run.storage={folder.parent}", f"run.name={folder.name}", f"data.source.path={data}"]
    run = load_text(text, "a.yaml", [*names, "scale.workers=0", "data.executor=inline", *overrides]).run
    assert train(job_of(run), 0)["state"] == "done"
    return str(folder)


@pytest.fixture(scope="module")
def cells(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images with masks, and a run."""
    root = tmp_path_factory.mktemp("cells")
    _run(_IMAGES, write_images(root / "cells", {"train": 12, "val": 2, "test": 5}), root / "run")
    return root


@pytest.fixture(scope="module")
def ct(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Volumes with masks, oriented as no slice is shown, and a run."""
    root = tmp_path_factory.mktemp("ct")
    _run(_VOLUMES, write_volumes(root / "ct", {"train": 4, "val": 2, "test": 3}, _TURNED), root / "run")
    return root


def _ask(run: str | Path, *inputs: str | Path, masks: Path, **more: Any) -> Predicted:
    def join(*_: object) -> Any:
        raise AssertionError("nobody asked for Ray")

    request = Request(str(run), tuple(map(str, inputs)), masks=str(masks), **more)
    return predict(request, join=join, say=lambda line: None)


def _evaluated(root: Path) -> dict[str, Any]:
    overrides = ("scale.workers=0",)
    scoring = Scoring(predictions="off")
    return trainer.evaluate(str(root / "run"), overrides=overrides, scoring=scoring, display=Display(io.StringIO()))


def _dice(pairs: list[tuple[np.ndarray, np.ndarray]], label: int, ignored: int) -> float:
    """The mean over the files, as told by the numbers in the two masks."""
    each = [overlap(true == label, (found == label) & (true != ignored)).dice for true, found in pairs]
    return float(np.nanmean(each))


def _files(folder: Path) -> dict[str, bytes]:
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_the_masks_of_images_are_those_that_an_evaluation_counts(cells: Path, tmp_path: Path) -> None:
    found = _ask(cells / "run", cells / "cells" / "test" / "images", masks=tmp_path / "found")
    pairs = []
    for number in range(5):
        with Image.open(tmp_path / "found" / f"{number}.png") as image:
            assert (image.mode, image.size) == ("L", (24, 20))
            said = np.array(image)
        with Image.open(cells / "cells" / "test" / "masks" / f"{number}.png") as image:
            pairs.append((np.array(image), said))
    summary = _evaluated(cells)
    for label, name in enumerate(CLASSES):
        assert _dice(pairs, label, 255) == pytest.approx(summary["per_class"][name]["dice"], abs=1e-12), name
    with (tmp_path / "found" / "masks.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["mask"] for row in rows] == [f"{number}.png" for number in range(5)]
    for row, (_, said) in zip(rows, pairs, strict=True):
        assert [int(row[f"pixels of {name}"]) for name in CLASSES] == np.bincount(said.ravel(), minlength=3).tolist()
    assert (found.rows, found.bad, rows[0]["outside"]) == (5, 0, "0")


def test_the_masks_of_volumes_are_on_the_grid_of_their_files(ct: Path, tmp_path: Path) -> None:
    _ask(ct / "run", ct / "ct" / "test" / "images", masks=tmp_path / "m", out=str(tmp_path / "t.parquet"))
    rows = parquet.read_table(tmp_path / "t.parquet").to_pylist()
    pairs = []
    for number, row in enumerate(rows):
        made: Any = nibabel.load(tmp_path / "m" / row["mask"])
        truth: Any = nibabel.load(ct / "ct" / "test" / "masks" / f"{number}.nii.gz")
        image: Any = nibabel.load(ct / "ct" / "test" / "images" / f"{number}.nii.gz")
        assert np.array_equal(made.affine, image.affine) and made.header["sform_code"] == image.header["sform_code"]
        assert np.allclose(made.header.get_zooms(), image.header.get_zooms()) and made.get_data_dtype() == np.uint8
        pairs.append((np.asarray(truth.dataobj), np.asarray(made.dataobj)))
        voxel = abs(np.linalg.det(image.affine[:3, :3])) / 1000
        assert row["voxels"] == np.bincount(pairs[-1][1].ravel(), minlength=2).tolist()
        # the slices are sheared, so the product of the spacings is not the volume of a voxel
        assert row["ml"] == pytest.approx([count * voxel for count in row["voxels"]])
    summary = _evaluated(ct)
    for label, name in enumerate(("background", "lesion")):
        assert _dice(pairs, label, -1) == pytest.approx(summary["per_class"][name]["dice"], abs=1e-12)


def test_a_dicom_series_has_the_mask_of_the_same_volume_as_nifti(ct: Path, tmp_path: Path) -> None:
    volume = phantom(7, 0, _TURNED)
    write_nifti(tmp_path / "n" / "a.nii.gz", volume, _TURNED)
    write_series(tmp_path / "d" / "patient" / "s1", volume, _TURNED, uid="1.2.3.4")
    _ask(ct / "run", tmp_path / "n", masks=tmp_path / "mn")
    found = _ask(ct / "run", tmp_path / "d", masks=tmp_path / "md")
    assert found.work.split.key(0) == f"{tmp_path}/d/patient/s1"
    first: Any = nibabel.load(tmp_path / "mn" / "a.nii.gz")
    other: Any = nibabel.load(tmp_path / "md" / "s1.nii.gz")
    assert np.allclose(first.affine, other.affine, atol=1e-4)
    assert np.array_equal(np.asarray(first.dataobj), np.asarray(other.dataobj)) and np.asarray(first.dataobj).any()
    assert b"PAT-77" not in (tmp_path / "md" / "masks.csv").read_bytes()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", ["ct", "cells"])
def test_any_number_of_processes_and_a_kill_give_the_same_bytes(
    kind: str, processes: int, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, one, two = request.getfixturevalue(kind), tmp_path / "one", tmp_path / "two"
    data = sorted(root.glob("c*/*/images"))
    _ask(root / "run", *data, masks=one)
    with monkeypatch.context() as patch:
        patch.setattr(predictions, "_FEW_PARTS", 1)
        patch.setattr(predictions.Target, "write", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            _ask(root / "run", *data, masks=two, overrides=(f"data.processes={processes}",))
    assert not (two / "masks.csv").exists() and (two / "masks.csv.parts").exists()
    with monkeypatch.context() as patch:
        patch.setattr("raycls.session.predictions.compute.Predictor.part", _interrupted)  # nothing is computed again
        _ask(root / "run", *data, masks=two)
    assert _files(one) == _files(two) and len(_files(one)) > 3


def _interrupted(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    "listed",
    [
        [],
        [{"resize": {"size": [27, 40, 61]}}],
        [{"resize": {"size": [45, 31, 43]}}, {"center_crop": {"size": [37, 36, 32]}}],
        [{"pad": {"size": [43, 50, 8]}}, {"resize": {"size": [66, 35, 32]}}],
    ],
)
@pytest.mark.parametrize("spacing", [None, ((2.5, 1.0, 0.75), (1.7, 1.3, 0.75))])
def test_what_operations_moved_in_a_volume_is_put_back(listed: list[Operation], spacing: Any) -> None:
    """The operations themselves move the coordinates of each voxel, and these come back where they were."""
    sizes = (30, 37, 44)
    places = np.stack(np.meshgrid(*map(np.arange, sizes), indexing="ij")).astype(np.float32)
    moved = places if spacing is None else resampled(places, *spacing)
    moved = of_volumes(tuple(listed), train=False, image_size=8)(moved, (0, -1, 0))
    _back(moved, moves_of(listed, sizes, volumes=True, image_size=8, spacing=spacing), places, within=0.1)


@pytest.mark.parametrize(
    "listed",
    [
        None,
        [{"resize": {"size": 31}}],
        [{"resize": {"size": [45, 52]}}, {"center_crop": {"size": [40, 60]}}],
        [{"resize": {"size": [48, 40], "fit": "crop"}}],
        [{"resize": {"size": [41, 64], "fit": "pad"}}, "grayscale"],
        [{"center_crop": {"size": 37}}],
        [{"center_crop": {"size": [81, 30]}}],
    ],
)
def test_what_operations_moved_in_an_image_is_put_back(listed: list[Operation] | None) -> None:
    height, width = 60, 47
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"))
    image = np.concatenate([places * 4, np.zeros_like(places[:1])]).astype(np.uint8).transpose(1, 2, 0)
    done = [entry for entry in listed or () if entry != "grayscale"]  # which leaves no coordinates
    moved = of_images(tuple(done) if listed is not None else None, train=False, image_size=28)(image, (0, -1, 0))
    values = moved.transpose(2, 0, 1)[:2, None].astype(np.float32) / 4
    moves = moves_of(listed, (1, height, width), volumes=False, image_size=28)
    _back(values, moves, places[:, None].astype(np.float32), within=0.3)


def _back(moved: np.ndarray, moves: list[Any], places: np.ndarray, within: float) -> None:
    values, inside = undone(moved, moves)
    assert values.shape == places.shape and inside.any()
    wide = np.ones([1 if size == 1 else 11 for size in inside.shape])
    core = binary_erosion(inside, wide, border_value=0)  # at a border what is interpolated is the border
    assert core.sum() > 0.1 * core.size and np.abs(values - places)[:, core].max() <= within


def test_what_the_network_did_not_see_is_told_and_ignored(cells: Path, tmp_path: Path) -> None:
    run = _run(_IMAGES.replace("eval: []", "eval: [{center_crop: {size: [16, 20]}}]"), cells / "cells", tmp_path / "r")
    _ask(run, cells / "cells" / "test" / "images", masks=tmp_path / "m")
    with Image.open(tmp_path / "m" / "0.png") as image:
        mask = np.array(image)
    assert (mask[:2] == 255).all() and (mask[:, :2] == 255).all() and (mask[2:-2, 2:-2] < 3).all()
    with (tmp_path / "m" / "masks.csv").open() as file:
        assert next(csv.DictReader(file))["outside"] == str(20 * 24 - 16 * 20)


def test_a_file_that_is_no_volume_has_an_error(ct: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "bad.nii.gz").write_bytes(b"no volume")
    write_nifti(tmp_path / "in" / "good.nii.gz", phantom(3, 0))
    words = ("raycls", "predict", str(ct / "run"), str(tmp_path / "in"), "--masks", str(tmp_path / "m"))
    code, said = type_in((*words, "--out", str(tmp_path / "t.jsonl")))
    assert code == 0 and "1 image without an answer" in said and "cannot read a NIfTI file" in said, said
    assert sorted(_files(tmp_path / "m")) == ["good.nii.gz"]
    code, said = type_in(words)
    assert code == 2 and "is there already" in said
    code, said = type_in((*words[:3], str(tmp_path / "in" / "bad.nii.gz"), "--masks", str(tmp_path / "n")))
    assert code == 3, said


def test_what_does_not_fit_is_refused(cells: Path, ct: Path, tmp_path: Path) -> None:
    images = cells / "cells" / "test" / "images"
    with raised(ConfigError, where="task.name", fix="add --masks=DIR to the command"):
        predict(Request(str(cells / "run"), (str(images),)), join=None, say=print)  # type: ignore[arg-type]
    with raised(ConfigError, where="--all, --threshold"):
        _ask(cells / "run", images, masks=tmp_path, every=True, threshold=0.5)
    with raised(ConfigError, where="augment.eval[1]", found="flip"):
        moves_of([{"resize": {"size": 8}}, "flip"], (4, 4, 4), volumes=True, image_size=8)
    with raised(ConfigError, found="0 to 70000"):
        type_of((0, 70000), "png")
    assert type_of((-1, 300), "nifti") == np.int16
    with raised(DataError, where="a.png"):
        names_of(["x/a.png", "x/a.jpg"], volumes=False)
    assert list(names_of(["/d/x/1.nii.gz", "/d/y/z/1.nii", "/d/s.1"], volumes=True)) == [
        *("x/1.nii.gz", "y/z/1.nii.gz", "s.1.nii.gz")
    ]


@pytest.mark.parametrize("build", [lambda: Geometry(), lambda: _TURNED])
def test_a_mask_that_is_written_is_read_as_it_was(build: Callable[[], Geometry], tmp_path: Path) -> None:
    geometry = build()
    path = write_nifti(tmp_path / "a.nii", phantom(1, 0, geometry), geometry)
    directions = directions_of(str(path))
    volumes = Volumes.of("nifti", str(tmp_path), [("a.nii",)], directions[None])
    mask = lesion(volumes.read(0))
    (tmp_path / "m.nii.gz").write_bytes(nifti_of(mask, volumes, 0))
    made: Any = nibabel.load(tmp_path / "m.nii.gz")
    assert np.array_equal(oriented(np.asarray(made.dataobj), directions_of(str(tmp_path / "m.nii.gz"))), mask)
