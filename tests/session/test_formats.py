"""One set of images is one run, to the bit, whatever format it is stored in and however many workers train it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import pytest
from harness.formats import CLASSES, write_formats
from harness.jobs import ledger, make_job, train, weights

from raycls.config.load import load_text
from raycls.data.source import Dataset, open_dataset

_STEPS = ("train.micro_batches=2", "data.batch_size=32", "train.duration=2ep", "train.ledger=ids")


def _open(source: str) -> Dataset:
    return open_dataset(load_text("", "", [f"data.source={source}"]).run.data)


def _samples(dataset: Dataset) -> dict[str, list[tuple[str, str]]]:
    """Class and pixels of each sample of each split, in the order of their ids."""
    return {
        name: [(split.label(at), hashlib.sha256(split.image(at).tobytes()).hexdigest()) for at in range(len(split))]
        for name, split in dataset.splits.items()
    }


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str]:
    return write_formats(tmp_path_factory.mktemp("formats"), 60)


def test_every_format_has_the_same_ids_splits_classes_and_pixels(small: Mapping[str, str]) -> None:
    found = {name: _open(source) for name, source in small.items()}
    assert all(dataset.classes == CLASSES for dataset in found.values())
    expected = _samples(found["folder"])
    assert {name: len(rows) for name, rows in expected.items()} == {"train": 42, "val": 12, "test": 6}
    assert len({digest for rows in expected.values() for _, digest in rows}) == 60
    for name, dataset in found.items():
        assert _samples(dataset) == expected, name


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_a_thousand_images_give_the_same_weights_from_every_format_on_one_and_two_workers(tmp_path: Path) -> None:
    sources = write_formats(tmp_path / "data", 1000)
    expected: tuple[object, object] | None = None
    for world in (1, 2):
        for name, source in sources.items():
            folder = tmp_path / f"{name}-{world}"
            result = train(make_job(folder, tmp_path, f"data.source={source}", *_STEPS, world=world), world)
            assert (result["state"], result["step"]) == ("done", 44)
            found = weights(folder), ledger(folder)
            expected = found if expected is None else expected
            assert found == expected, f"{name} on {world} workers"
