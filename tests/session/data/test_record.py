"""The splits of a run as they were written down: nothing is lost, and what changed is found."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raycls.config.sections.data import DataConfig, SourceConfig, SplitConfig
from raycls.data.samples import Files, Keys
from raycls.data.source import Dataset, Pool, Split, cut, open_dataset
from raycls.errors import CheckpointError, DataError
from raycls.session.data import record as recorded
from raycls.session.data.record import Record, compare, pack, unpack

_NAMES = ["a/1.jpg", "b/\udcff\udcfe.jpg", "a/ä ö.jpg", "b/3.jpg", "b/[x].jpg"]


def _pool(names: list[str], labels: list[int], classes: tuple[str, ...] = ("a", "b"), root: str = "/none") -> Pool:
    keys = Keys(names)
    return Pool(classes, np.array(labels, np.int64), keys, Files(root, keys), {"train": [0, 1, 3], "val": [2, 4]})


def _record(pool: Pool) -> Record:
    return unpack(pack(cut(pool, DataConfig()), None), "here")


@pytest.mark.parametrize("names", [_NAMES, [name.replace("\udcff\udcfe", "2") for name in _NAMES]])
def test_what_is_written_is_read(names: list[str]) -> None:
    record = _record(_pool(names, [0, 1, 0, 1, 1]))
    assert (record.classes, record.place) == (("a", "b"), "/none")
    assert list(record.parts) == ["train", "val"]
    found = {name: [part.name(index) for index in range(len(part))] for name, part in record.parts.items()}
    assert found == {"train": [names[0], names[1], names[3]], "val": [names[2], names[4]]}
    assert record.parts["train"].labels.tolist() == [0, 1, 1]
    assert record.parts["val"].labels.tolist() == [0, 1]
    assert record.parts["val"].sizes.tolist() == [-1, -1]
    assert record.parts["val"].digests is None


def test_a_class_that_is_no_utf8() -> None:
    record = _record(_pool(_NAMES, [0, 1, 0, 1, 1], ("a", "\udcff")))
    assert record.classes == ("a", "\udcff")
    assert record.parts["train"].labels.tolist() == [0, 1, 1]


def test_samples_are_found_wherever_they_are_today() -> None:
    record = _record(_pool(_NAMES, [0, 1, 0, 1, 1]))
    today = _pool(["c/9.jpg", _NAMES[4], _NAMES[1], _NAMES[0], _NAMES[2]], [2, 1, 0, 0, 0], ("a", "b", "c"))
    found = compare(record, today, limited=False)
    assert found.rows["train"].tolist() == [3, 2, -1]
    assert found.rows["val"].tolist() == [4, 1]
    assert found.relabelled["train"].tolist() == [False, True, False]
    assert (found.new.tolist(), found.ambiguous) == ([0], False)


def test_classes_are_compared_by_their_names() -> None:
    record = _record(_pool(_NAMES, [0, 1, 0, 1, 1]))
    assert not compare(record, _pool(_NAMES, [1, 0, 1, 0, 0], ("b", "a")), limited=False).relabelled["train"].any()
    assert compare(record, _pool(_NAMES, [0, 1, 0, 1, 1], ("b", "a")), limited=False).relabelled["train"].all()


def test_keys_that_occur_twice_are_told() -> None:
    names = ["a/1.jpg", "b/1.jpg", "x", "b/2.jpg", "x"]
    assert compare(_record(_pool(names, [0, 1, 0, 1, 1])), _pool(names, [0, 1, 0, 1, 1]), limited=False).ambiguous


def _folder(root: Path) -> Dataset:
    for label, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (3, 2), (label, index, 0)).save(root / name / f"{index}.png")
    return _open(root)


def _open(root: Path) -> Dataset:
    return open_dataset(DataConfig(source=SourceConfig(path=str(root)), split=SplitConfig(train=1, val=0, test=0)))


def _changed(record: Record, split: Split) -> list[int]:
    return np.flatnonzero(recorded.changed(record.parts["train"], np.arange(8), split)).tolist()


def test_contents_of_small_data_are_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = _folder(tmp_path / "d")
    small = unpack(pack(data, None), "here")
    assert small.place == str(tmp_path / "d")
    files = sorted((tmp_path / "d").rglob("*.png"))
    assert small.parts["train"].sizes.tolist() == [file.stat().st_size for file in files]
    total = int(small.parts["train"].sizes.sum())
    monkeypatch.setattr(recorded, "MOST_BYTES", total)
    assert unpack(pack(data, None), "here").parts["train"].digests is not None
    monkeypatch.setattr(recorded, "MOST_BYTES", total - 1)
    large = unpack(pack(data, None), "here")
    assert large.parts["train"].digests is None
    assert _changed(small, data.splits["train"]) == _changed(large, data.splits["train"]) == []
    one, two = tmp_path / "d" / "a" / "1.png", tmp_path / "d" / "b" / "3.png"
    content = bytearray(one.read_bytes())
    content[-1] ^= 1
    one.write_bytes(content)
    two.write_bytes(two.read_bytes() + b"0")
    assert _changed(small, data.splits["train"]) == [1, 7]
    assert _changed(large, data.splits["train"]) == [7]


def test_a_file_that_cannot_be_read_has_no_digest(tmp_path: Path) -> None:
    data = _folder(tmp_path / "d")
    (tmp_path / "d" / "a" / "1.png").unlink()
    record = unpack(pack(data, None), "here")
    assert record.parts["train"].sizes[1] == -1
    with pytest.raises(DataError):
        data.splits["train"].image(1)


def test_arrays_have_digests_of_their_rows(tmp_path: Path) -> None:
    images = np.arange(6 * 4 * 4 * 3, dtype=np.uint8).reshape(6, 4, 4, 3)
    np.savez(tmp_path / "d.npz", images=images, labels=np.array([0, 1] * 3))
    config = DataConfig(
        source=SourceConfig(name="arrays", path=str(tmp_path / "d.npz")), split=SplitConfig(train=0.5, val=0.5, test=0)
    )
    record = unpack(pack(open_dataset(config), config.source.path), "here")
    images[int(record.parts["train"].name(1).removeprefix("images:"))] += 1
    np.savez(tmp_path / "d.npz", images=images, labels=np.array([0, 1] * 3))
    part = record.parts["train"]
    assert recorded.changed(part, np.arange(3), open_dataset(config).splits["train"]).tolist() == [False, True, False]
    assert part.sizes.tolist() == [48, 48, 48]


@pytest.mark.parametrize("data", [b"", b"no parquet", b"PAR1" * 4])
def test_a_damaged_file_is_an_error(data: bytes) -> None:
    with pytest.raises(CheckpointError) as caught:
        unpack(data, "runs/r/splits.parquet")
    assert caught.value.where == "runs/r/splits.parquet"
