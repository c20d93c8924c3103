"""The stream: the same bytes from every executor and for every world, in order, and nothing else is disturbed."""

from __future__ import annotations

import dataclasses
import hashlib
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from harness.tasks import arrays
from PIL import Image

from raycls.config.sections.data import DataConfig, SourceConfig, SplitConfig
from raycls.data.images import operations as augment
from raycls.data.order import Order
from raycls.data.slices import Maker, Position, Slice, Timeline, micro_rows
from raycls.data.source import Dataset, open_dataset
from raycls.data.stream import Stream, open_stream
from raycls.errors import DataError

_ROWS, _BATCH, _MICRO, _EVALUATED, _EVALUATE_BATCH = 23, 8, 3, 7, 4  # 8, 8, 7 rows a step; 4 and 3 evaluated
_OPERATIONS: tuple[Any, ...] = ({"random_crop": {"size": 8, "padding": 1}}, "horizontal_flip")
_FOREIGN: tuple[Any, ...] = ({"tests.harness.transforms:noise": {"strength": 9}},)


def _write(folder: Path) -> None:
    pixels = np.random.RandomState(0)
    for split, count in (("train", _ROWS), ("val", _EVALUATED)):
        for index in range(count):
            path = folder / split / ("cat", "dog")[index % 2] / f"{index:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.randint(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)


def _config(folder: Path, processes: int = 2) -> DataConfig:
    source = SourceConfig(name="folder", path=str(folder))
    return DataConfig(source=source, split=SplitConfig(), image_size=8, processes=processes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images")
    _write(path)
    return path


@pytest.fixture(scope="module")
def dataset(folder: Path) -> Dataset:
    return open_dataset(_config(folder))


def _maker(dataset: Dataset, world: int, operations: tuple[Any, ...] = _OPERATIONS, seed: int = 6) -> Maker:
    return Maker(
        order=Order(seed, _ROWS, _BATCH, _MICRO),
        world=world,
        train=dataset.splits["train"],
        evaluated=dataset.splits["val"],
        evaluate_batch=_EVALUATE_BATCH,
        arrays=arrays(operations, seed=seed),
    )


def _timeline(maker: Maker, start: int = 0, stop: int = 7) -> Timeline:
    return Timeline(maker.order, maker.world, start, stop, 3, _EVALUATED, _EVALUATE_BATCH)


def _slices(dataset: Dataset, folder: Path, executor: str, world: int, rank: int, **options: Any) -> list[Slice]:
    """Everything that one rank sees, taken as the loop takes it."""
    start = options.pop("start", 0)
    maker = _maker(dataset, world, **options)
    timeline = _timeline(maker, start)
    stream = open_stream(_config(folder, processes=1), executor, timeline, maker, rank)
    found = []
    try:
        for step in range(start, timeline.stop):
            found.append(stream.next("train", step))
            if timeline.evaluated_after(step + 1):
                found += stream.evaluation(step + 1, timeline.evaluate_batches, world)
        with pytest.raises(DataError, match="out of step"):
            stream.next("train", timeline.stop)
    finally:
        stream.close()
    return found


def _bytes(made: Slice) -> tuple[Any, ...]:
    every = {"": made.ids, **made.arrays}
    return (made.position, *((name, array.dtype.str, array.shape, array.tobytes()) for name, array in every.items()))


def _rows(slices: list[Slice]) -> dict[tuple[str, int], list[tuple[int, int, str]]]:
    """Per (kind, step) each sample's id, label and digest in order."""
    rows: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
    for made in slices:
        images, labels = (made.arrays.get(name, np.zeros(0)) for name in ("image", "label"))
        digests = [hashlib.sha256(image.tobytes()).hexdigest() for image in images]
        found = zip(made.ids.tolist(), labels.tolist(), digests, strict=True)
        rows.setdefault((made.position.kind, made.position.step), []).extend(found)
    return rows


def test_slices_are_what_order_and_augmentation_say(dataset: Dataset, folder: Path) -> None:
    maker = _maker(dataset, 1)
    for made in _slices(dataset, folder, "inline", 1, 0):
        if made.position.kind == "train":
            ids, split = maker.order.batch(made.position.step), dataset.splits["train"]
            transform = augment.build(_OPERATIONS, train=True, image_size=8)
            epoch = made.position.step // 3
        else:
            first = made.position.index * _EVALUATE_BATCH
            ids, split = np.arange(first, min(first + _EVALUATE_BATCH, _EVALUATED)), dataset.splits["val"]
            transform, epoch = augment.build((), train=False, image_size=8), -1
        assert made.error is None
        assert made.ids.tolist() == ids.tolist()
        assert made.arrays["label"].tolist() == split.labels[ids].tolist()
        expected = np.stack([transform(split.image(index), (6, epoch, index)) for index in ids.tolist()])
        assert made.arrays["image"].dtype == np.uint8
        np.testing.assert_array_equal(made.arrays["image"], expected)


@pytest.mark.parametrize("operations", [_OPERATIONS, _FOREIGN], ids=["built-in", "foreign"])
def test_processes_give_the_bytes_of_inline(
    operations: tuple[Any, ...], dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCLS_WORKDIR", str(Path(__file__).parents[2]))
    for world in (1, 2, 3):
        for rank in range(world):
            options = {"operations": operations}
            inline = _slices(dataset, folder, "inline", world, rank, **options)
            beside = _slices(dataset, folder, "processes", world, rank, **options)
            assert [_bytes(made) for made in beside] == [_bytes(made) for made in inline]


@pytest.mark.parametrize("operations", [_OPERATIONS, _FOREIGN], ids=["built-in", "foreign"])
def test_worlds_see_the_same_rows(
    operations: tuple[Any, ...], dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCLS_WORKDIR", str(Path(__file__).parents[2]))
    alone = _rows(_slices(dataset, folder, "inline", 1, 0, operations=operations))
    assert {kind for kind, _ in alone} == {"train", "evaluate"}
    for world in (2, 3):
        ranks = [_slices(dataset, folder, "inline", world, rank, operations=operations) for rank in range(world)]
        assert len({len(slices) for slices in ranks}) == 1, "ranks have different numbers of slices"
        together: dict[tuple[str, int], list[tuple[int, int, str]]] = {}
        for slices in ranks:
            for where, rows in _rows(slices).items():
                together.setdefault(where, []).extend(rows)
        assert {where: sorted(rows) for where, rows in together.items()} == {
            where: sorted(rows) for where, rows in alone.items()
        }
        train = {where: rows for where, rows in together.items() if where[0] == "train"}
        assert train == {where: alone[where] for where in train}, "training rows are in the order of ranks"


def test_epochs_and_seeds_differ(dataset: Dataset, folder: Path) -> None:
    def epochs(seed: int) -> list[dict[int, str]]:
        rows = _rows(_slices(dataset, folder, "inline", 1, 0, seed=seed))
        steps = [{index: digest for index, _, digest in rows["train", step]} for step in range(6)]
        return [{**steps[0], **steps[1], **steps[2]}, {**steps[3], **steps[4], **steps[5]}]

    first, second = epochs(6)
    assert list(first) != list(second)
    assert sorted(first) == sorted(second) == list(range(_ROWS))
    # 9 crops x 2 flips: a sample looks the same again once in 18 times
    assert sum(first[index] != second[index] for index in first) > _ROWS / 2
    other = epochs(7)[0]
    assert list(other) != list(first)
    assert sum(first[index] != other[index] for index in first) > _ROWS / 2


def test_every_evaluation_sees_the_same(dataset: Dataset, folder: Path) -> None:
    rows = _rows(_slices(dataset, folder, "inline", 1, 0))
    evaluations = [rows[where] for where in rows if where[0] == "evaluate"]
    assert [step for kind, step in rows if kind == "evaluate"] == [3, 6, 7]  # every 3 steps, and at the end
    assert evaluations[0] == evaluations[1] == evaluations[2]
    assert [index for index, _, _ in evaluations[0]] == list(range(_EVALUATED))


@pytest.mark.parametrize("executor", ["inline", "processes"])
@pytest.mark.parametrize("start", [2, 3, 6])
def test_resume_gives_the_tail(executor: str, start: int, dataset: Dataset, folder: Path) -> None:
    for rank in range(2):
        whole = _slices(dataset, folder, "inline", 2, rank)
        tail = _slices(dataset, folder, executor, 2, rank, start=start)
        last = next(index for index, made in enumerate(whole) if made.position == tail[0].position)
        assert tail[0].position == Position("train", start // 3, start, 0, rank)
        assert [_bytes(made) for made in tail] == [_bytes(made) for made in whole[last:]]


def _refused(slices: Iterator[Slice], expected: Iterator[Position], kind: str, step: int) -> None:
    with pytest.raises(DataError, match="refused"):
        Stream(slices, expected).next(kind, step)


def test_wrong_slices_are_refused(dataset: Dataset) -> None:
    maker = _maker(dataset, 2)
    timeline = _timeline(maker)
    for wrong in (
        {"rank": 1},
        {"step": 1},
        {"epoch": 1},
        {"kind": "evaluate"},
        {"index": 1},
    ):
        position = dataclasses.replace(next(timeline.of(0)), **wrong)
        _refused(
            iter([dataclasses.replace(maker(next(timeline.of(0))), position=position)]), timeline.of(0), "train", 0
        )
    _refused(iter([]), timeline.of(0), "train", 0)  # the data ends early
    _refused((maker(position) for position in timeline.of(0)), timeline.of(0), "train", 1)  # the loop is ahead
    _refused((maker(position) for position in timeline.of(0)), timeline.of(0), "evaluate", 0)
    twice = Stream(iter([maker(next(timeline.of(0)))] * 2), timeline.of(0))
    twice.next("train", 0)
    with pytest.raises(DataError, match="refused"):
        twice.next("train", 1)


@pytest.mark.parametrize("executor", ["inline", "processes"])
def test_unreadable_image_arrives_in_its_place(executor: str, tmp_path: Path) -> None:
    _write(tmp_path)
    dataset = open_dataset(_config(tmp_path))
    bad = sorted((tmp_path / "train").rglob("*.png"))[5]
    index = next(i for i in range(_ROWS) if dataset.splits["train"].locate(i) == str(bad))
    bad.write_bytes(bad.read_bytes()[:30])
    maker = _maker(dataset, 2)
    before = _descendants()
    for rank in range(2):
        timeline = _timeline(maker)
        stream = open_stream(_config(tmp_path), executor, timeline, maker, rank)
        for step in range(3):
            made = stream.next("train", step)
            if index in maker.order.slice_ids(step, rank, 2):
                assert isinstance(made.error, DataError)
                assert bad.name in str(made.error)
                assert (len(made.ids), made.arrays) == (0, {})
            else:
                assert made.error is None
        assert [made.error for made in stream.evaluation(3, timeline.evaluate_batches, 2)] == [None]
        stream.close()
    assert _descendants() <= before, "a decoding process was left behind"


def _descendants() -> set[int]:
    """Processes below this one, the fork server and its resource tracker left out: they serve all tests."""
    mine = psutil.Process()
    return {child.pid for server in mine.children() for child in server.children()}


def test_closed_in_the_middle_leaves_no_process(dataset: Dataset, folder: Path) -> None:
    before = _descendants()
    maker = _maker(dataset, 1)
    stream = open_stream(_config(folder), "processes", _timeline(maker, stop=3000), maker, 0)
    stream.next("train", 0)
    assert len(_descendants() - before) == 2
    stream.close()
    assert _descendants() <= before


def test_two_streams_do_not_disturb_each_other(dataset: Dataset, folder: Path) -> None:
    expected = {seed: [_bytes(made) for made in _slices(dataset, folder, "inline", 1, 0, seed=seed)] for seed in (6, 7)}
    streams, makers = {}, {seed: _maker(dataset, 1, seed=seed) for seed in (6, 7)}
    for seed, maker in makers.items():
        streams[seed] = open_stream(_config(folder), "inline", _timeline(maker), maker, 0)
    found: dict[int, list[Any]] = {6: [], 7: []}
    for step in range(7):
        for seed, stream in streams.items():
            torch.rand(step + 1), np.random.rand(), random.random()
            found[seed].append(_bytes(stream.next("train", step)))
            if _timeline(makers[seed]).evaluated_after(step + 1):
                found[seed] += [_bytes(made) for made in stream.evaluation(step + 1, 2, 1)]
    assert found == expected


def test_two_streams_of_processes_in_two_threads(dataset: Dataset, folder: Path) -> None:
    expected = {seed: [_bytes(made) for made in _slices(dataset, folder, "inline", 1, 0, seed=seed)] for seed in (6, 7)}
    found: dict[int, list[Any]] = {}

    def read(seed: int) -> None:
        found[seed] = [_bytes(made) for made in _slices(dataset, folder, "processes", 1, 0, seed=seed)]

    threads = [threading.Thread(target=read, args=(seed,)) for seed in (6, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


@pytest.mark.parametrize("executor", ["inline", "processes"])
@pytest.mark.parametrize("operations", [_OPERATIONS, _FOREIGN], ids=["built-in", "foreign"])
def test_generators_of_the_process_are_untouched(
    executor: str, operations: tuple[Any, ...], dataset: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCLS_WORKDIR", str(Path(__file__).parents[2]))
    torch.manual_seed(5)
    np.random.seed(5)
    random.seed(5)
    before = torch.get_rng_state(), str(np.random.get_state(legacy=False)), random.getstate()
    threads = torch.get_num_threads()
    _slices(dataset, folder, executor, 1, 0, operations=operations)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert str(np.random.get_state(legacy=False)) == before[1]
    assert random.getstate() == before[2]
    assert torch.get_num_threads() == threads


def test_timeline_of_an_evaluation_alone(dataset: Dataset) -> None:
    timeline = Timeline(Order(0, _ROWS, _BATCH, _MICRO), 3, 0, 0, 1, _EVALUATED, 2, True)
    positions = [position for rank in range(3) for position in timeline.of(rank)]
    # 7 rows in batches of 2: four batches, and two places beyond the end, so that every rank has two
    assert sorted(position.index for position in positions) == [0, 1, 2, 3, 4, 5]
    assert {(position.kind, position.step, position.epoch) for position in positions} == {("evaluate", 0, 0)}
    maker = dataclasses.replace(_maker(dataset, 3), evaluate_batch=2)
    assert [len(maker(position).ids) for position in sorted(positions, key=lambda item: item.index)] == [
        2,
        2,
        2,
        1,
        0,
        0,
    ]


def test_timeline_without_evaluation() -> None:
    order = Order(0, _ROWS, _BATCH, _MICRO)
    positions = list(Timeline(order, 1, 0, 7, 0, 0, 1).of(0))
    assert [(position.kind, position.step, position.epoch) for position in positions] == [
        ("train", step, step // 3) for step in range(7)
    ]
    assert list(Timeline(order, 1, 7, 7, 3, 5, 2).of(0)) == []


@pytest.mark.parametrize("world", [1, 2, 3])
def test_micro_rows_name_the_rows_of_a_slice(world: int) -> None:
    order = Order(1, 41, 20, 3)
    for step in range(3):
        for rank in range(world):
            ids = order.slice_ids(step, rank, world)
            parts = micro_rows(order, step, rank, world)
            assert [micro for micro, _, _ in parts] == list(order.owned(rank, world))
            for micro, start, stop in parts:
                assert ids[start:stop].tolist() == order.micro(step, micro).tolist()


def test_images_of_two_sizes_are_an_error_that_names_both(tmp_path: Path) -> None:
    _write(tmp_path)
    Image.new("RGB", (9, 8)).save(sorted((tmp_path / "train").rglob("*.png"))[0])
    dataset = open_dataset(_config(tmp_path))
    maker = _maker(dataset, 1, operations=())
    errors = [maker(Position("train", 0, step, 0, 0)).error for step in range(3)]
    assert [error is not None for error in errors].count(True) == 1
    assert "[8, 9, 3]" in (next(error for error in errors if error).found or "")


def test_without_the_split_an_evaluation_is_an_error(dataset: Dataset) -> None:
    maker = dataclasses.replace(_maker(dataset, 1), evaluated=None)
    assert isinstance(maker(Position("evaluate", 0, 3, 0, 0)).error, DataError)
