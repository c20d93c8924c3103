"""Packed data read back: the same samples in the same order, the pixels that were meant, the same bytes again."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from harness.trained import CLASSES, CONFIG, write_photos
from PIL import Image
from pyarrow import parquet
from torchvision.transforms import v2

from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.data.source import Dataset, Split, open_dataset, open_pool
from raycls.errors import CheckpointError, ConfigError, DataError, LaunchError
from raycls.launch import trainer
from raycls.screen.run import Display
from raycls.session.computing import parted
from raycls.session.packing import facts, pack, work
from raycls.session.packing.pack import Packed, Request


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """36 photos of three classes, 30 to 63 pixels wide and high, JPEG and PNG."""
    write_photos(tmp_path / "photos", 12)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 5 images: 5 of the train split, 2 of val, 2 of test."""
    monkeypatch.setattr(pack, "_MOST_ROWS", 5)


def _run(*overrides: str) -> Run:
    return load_text(CONFIG, "shapes.yaml", overrides).run


def _pack(run: Run, out: str = "packed", said: list[str] | None = None, **options: Any) -> Packed:
    def join(*_: object) -> Any:
        raise AssertionError("nobody asked for Ray")

    return pack.pack(run, Request(out, **options), join=join, say=([] if said is None else said).append)


def _packed(run: Run, folder: str = "packed", **args: Any) -> Run:
    return load_text(CONFIG, "c", [f"data.source={json.dumps({'name': 'packed', 'path': folder, 'args': args})}"]).run


def _bytes(folder: str) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(Path(folder).iterdir())}


def _both(before: Dataset, after: Dataset) -> Iterator[tuple[Split, Split, int]]:
    for name, split in before.splits.items():
        yield from ((split, after.splits[name], index) for index in range(len(split)))


@pytest.mark.usefixtures("home", "small_shards")
@pytest.mark.parametrize("form", ["arrow", "parquet"])
@pytest.mark.parametrize("quality", [0, 75])
def test_the_samples_are_the_same_and_their_pixels_those_of_the_operation_resize(form: str, quality: int) -> None:
    run = _run()
    found = _pack(run, form=form, size=40, quality=quality)
    before, after = open_dataset(run.data), open_dataset(_packed(run).data)
    assert after.fingerprint == before.fingerprint
    assert after.classes == before.classes == CLASSES
    assert found.manifest["splits"] == {name: len(split) for name, split in before.splits.items()}
    assert [shard["rows"] for shard in found.manifest["shards"]] == [5, 5, 5, 5, 2, 5, 2, 5, 2]
    kept = 0
    for old, new, index in _both(before, after):
        assert (new.key(index), new.label(index)) == (old.key(index), old.label(index))
        image = old.image(index)
        resized = image if min(image.size) <= 40 else v2.Resize(40, antialias=True)(image)
        kept += image is resized
        if quality and image is not resized:
            stream = io.BytesIO()
            resized.save(stream, "JPEG", quality=quality)
            resized = Image.open(stream)
        assert np.array_equal(np.asarray(new.image(index)), np.asarray(resized)), new.locate(index)
    assert 5 < kept < 31


@pytest.mark.usefixtures("home", "small_shards")
@pytest.mark.parametrize("options", [{"size": 64}, {"size": None, "quality": 0, "form": "parquet"}])
def test_a_run_from_packed_data_that_was_not_resized_is_that_from_the_files(options: dict[str, Any]) -> None:
    _pack(_run(), **options)
    digests = []
    for name, run in (("files", _run()), ("packed", _packed(_run()))):
        changed = {"run": {"name": name}, "train": {"duration": "1ep", "micro_batches": 2, "amp": "off"}}
        values = run.model_dump(mode="json") | {key: run.model_dump(mode="json")[key] | v for key, v in changed.items()}
        trainer.train(load_text(json.dumps(values), "c").run, display=Display(io.StringIO()))
        digests.append(hashlib.sha256(Path("runs", name, "model/model.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


@pytest.mark.usefixtures("small_shards")
def test_files_that_are_not_resized_are_kept_as_they_are(home: Path) -> None:
    _pack(_run(), size=64)
    split = open_dataset(_packed(_run()).data).splits["train"]
    for index in range(len(split)):
        assert split.reader.read(index) == (home / "photos" / split.key(index)).read_bytes()
    assert getattr(split.reader, "sizes")().tolist() == [  # noqa: B009 - optional for a reader
        (home / "photos" / key).stat().st_size for key in split.keys
    ]


@pytest.mark.usefixtures("home", "small_shards")
@pytest.mark.parametrize("form", ["arrow", "parquet"])
def test_a_command_that_was_ended_is_resumed_to_the_same_bytes(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _pack(_run(), "whole", form=form)
    real = work.Work.made

    def made(self: work.Work, number: int, *more: Any) -> bytes:
        if number == 4:
            raise KeyboardInterrupt
        return real(self, number, *more)

    with monkeypatch.context() as patched:
        patched.setattr(work.Work, "made", made)
        with pytest.raises(KeyboardInterrupt):
            _pack(_run(), form=form)
    Path(f"packed/shard-00004.{form}.77.tmp").write_bytes(b"half of it")
    assert sorted(name for name in os.listdir("packed") if name.startswith("shard")) == [
        *(f"shard-{number:05d}.{form}" for number in range(4)),
        f"shard-00004.{form}.77.tmp",
    ]
    with pytest.raises(DataError) as caught:
        open_dataset(_packed(_run()).data)
    assert caught.value.found == "no pack.json, which is written last"
    changed = Path(f"packed/shard-00002.{form}").stat().st_mtime_ns
    said: list[str] = []
    found = _pack(_run(), said=said, form=form)
    assert "resuming: 4 of 9 shards are there already" in said
    assert (whole.made, found.made) == (9, 5)
    assert Path(f"packed/shard-00002.{form}").stat().st_mtime_ns == changed
    assert _bytes("packed") == _bytes("whole")
    assert len(_bytes("packed")) == 11  # with the index and the manifest, and nothing else


@pytest.mark.usefixtures("home", "small_shards")
def test_processes_make_the_same_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    _pack(_run(), "one", processes=1)
    monkeypatch.setattr(pack, "_FEW", 1)
    _pack(_run(), "two", processes=2)
    assert _bytes("one") == _bytes("two")


@pytest.mark.usefixtures("small_shards")
def test_other_data_and_options_are_refused_unless_they_are_to_replace_it(home: Path) -> None:
    _pack(_run())
    before = _bytes("packed")
    assert _pack(_run()).made == 0
    for change in ({"quality": 89}, {"size": 32}, {"form": "parquet"}):
        with pytest.raises(ConfigError) as caught:
            _pack(_run(), **change)
        assert next(iter(change)).replace("form", "to") in (caught.value.found or "")
    photo = home / "photos/circle/001.jpg"
    os.utime(photo, ns=(1, 1))  # which may hold other pixels now
    with pytest.raises(ConfigError) as caught:
        _pack(_run())
    assert (caught.value.found or "").startswith("files {")
    assert _bytes("packed") == before
    assert _pack(_run(), force=True, size=32, form="parquet").made == 9
    assert {Path(name).suffix for name in _bytes("packed")} == {".parquet", ".arrow", ".json"}
    assert not list(Path("packed").glob("shard*.arrow"))


@pytest.mark.usefixtures("home", "small_shards")
def test_a_shard_that_is_gone_is_made_again() -> None:
    _pack(_run())
    before = _bytes("packed")
    Path("packed/shard-00003.arrow").unlink()
    Path("packed/shard-00001.arrow").write_bytes(b"short")
    with pytest.raises(DataError) as caught:
        open_dataset(_packed(_run()).data)
    assert (caught.value.where or "").endswith("packed/shard-00001.arrow")
    assert _pack(_run()).made == 2
    assert _bytes("packed") == before


@pytest.mark.usefixtures("home", "small_shards")
@pytest.mark.parametrize(("form", "quality"), [("arrow", 90), ("parquet", 90), ("arrow", 0), ("parquet", 0)])
def test_a_damaged_image_is_an_error_that_names_it_and_no_other(form: str, quality: int) -> None:
    _pack(_run(), form=form, quality=quality)
    split = open_dataset(_packed(_run()).data).splits["train"]
    stored: Any = split.reader.read(7)
    content = stored if isinstance(stored, bytes) else stored.tobytes()
    file = Path(f"packed/shard-00001.{form}")
    data = bytearray(file.read_bytes())
    place = data.index(content) + len(content) // 2
    data[place] ^= 1
    file.write_bytes(data)
    split = open_dataset(_packed(_run()).data).splits["train"]
    assert split.image(6).size
    with pytest.raises(DataError) as caught:
        split.image(7)
    assert caught.value.where == f"{file.absolute()}[2]: {split.key(7)}"
    assert "CRC-32" in (caught.value.found or "")
    count, bad = facts.check("packed")
    assert (count, [name for name, _ in bad]) == (10, [file.name])


@pytest.mark.usefixtures("small_shards")
def test_a_bad_file_is_named_as_training_names_it_and_nothing_is_left_out(home: Path) -> None:
    (home / "photos/square/003.jpg").write_bytes((home / "photos/square/003.jpg").read_bytes()[:200])
    with pytest.raises(DataError) as caught:
        _pack(_run())
    assert caught.value.where == str(home / "photos/square/003.jpg")
    assert "data.source.args.ignore=" in (caught.value.fix or "")
    assert not Path("packed/pack.json").exists()
    left = _run("data.source.args.ignore=[square/003.jpg]")
    assert sum(_pack(left, force=True).manifest["splits"].values()) == 35


def test_any_number_of_classes_and_columns_of_the_manifest(home: Path) -> None:
    names = sorted(path.relative_to(home / "photos").as_posix() for path in (home / "photos").rglob("*.*"))
    rows = [
        {"path": name, "label": [["red"], ["red", "blue"], []][row % 3], "camera": f"c{row % 2}", "size": "s"}
        for row, name in enumerate(names)
    ]
    (home / "photos/list.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    run = _run(
        "data.source.name=manifest", "data.source.path=photos/list.jsonl", "task.name=multilabel", "evaluate.metric=map"
    )
    with pytest.raises(ConfigError) as caught:
        _pack(run, by=("size",))
    assert caught.value.where == "--by size"
    _pack(run, by=("camera",))
    before, after = open_dataset(run.data), open_dataset(_packed(run).data)
    assert before.fingerprint == after.fingerprint
    labels = [old.label(index) for old, _, index in _both(before, after)]
    assert labels == [new.label(index) for _, new, index in _both(before, after)]
    assert set(labels) == {"red", "blue, red", ""}
    pool = open_pool(_packed(run).data, about=["camera"])
    assert list(pool.about["camera"]) == [f"c{names.index(key) % 2}" for key in pool.keys]
    with pytest.raises(DataError) as error:
        open_pool(_packed(run).data, about=["camra"])
    assert error.value.fix == "did you mean camera?"


_POOL = """
import numpy as np
from raycls.data.samples import Samples

class Reader:
    def read(self, index):
        return np.full((3 + index % 2, 5), index, np.uint8)

def pool(path):
    return Samples((), None, [f"n{index}" for index in range(9)], Reader())

def masked(path):
    return Samples(("a", "b"), [0, 1] * 3, [str(index) for index in range(6)], Reader(), parts={"mask": Reader()})
"""


def test_samples_without_labels_are_packed_and_those_with_masks_are_refused(home: Path) -> None:
    (home / "plug.py").write_text(_POOL)
    run = _run("data.source={name: 'plug:pool'}")
    found = _pack(run, quality=0)
    assert found.manifest["labels"] == "none"
    assert found.manifest["bytes_before"] is None
    before, after = open_dataset(run.data), open_dataset(_packed(run).data)
    assert (after.fingerprint, after.classes) == (before.fingerprint, ())
    assert all(np.array_equal(old.image(index), new.image(index)) for old, new, index in _both(before, after))
    with pytest.raises(DataError) as caught:
        _pack(_run("data.source={name: 'plug:masked'}"), "other")
    assert caught.value.found == "mask"


def test_names_that_are_no_unicode_stay_what_they_are(home: Path) -> None:
    os.rename(home / "photos/circle", os.fsencode(home / "photos") + b"/circl\xe9")
    _pack(_run(), form="parquet")
    before, after = open_dataset(_run().data), open_dataset(_packed(_run()).data)
    assert before.fingerprint == after.fingerprint
    assert any("\udce9" in key for key in after.splits["train"].keys)


def test_samples_are_left_out_by_their_keys(home: Path) -> None:
    _pack(_run())
    whole = open_dataset(_packed(_run()).data)
    gone = whole.splits["train"].key(3)
    left = open_dataset(_packed(_run(), ignore=[f"/{gone}"]).data)
    assert list(left.splits["train"].keys) == [key for key in whole.splits["train"].keys if key != gone]
    for new, name in ((left, "train"), (left, "val")):
        for index in range(len(new.splits[name])):
            old = list(whole.splits[name].keys).index(new.splits[name].key(index))
            assert np.array_equal(new.splits[name].image(index), whole.splits[name].image(old))


@pytest.mark.usefixtures("home")
def test_parquet_says_what_its_columns_are_as_datasets_does() -> None:
    _pack(_run(), form="parquet", size=None)
    file = parquet.ParquetFile("packed/shard-00000.parquet")
    told = json.loads(file.schema_arrow.metadata[b"huggingface"])["info"]["features"]
    assert told == {
        "image": {"_type": "Image"},
        "label": {"names": list(CLASSES), "_type": "ClassLabel"},
        "key": {"dtype": "string", "_type": "Value"},
    }
    assert file.schema_arrow.field("image").type == pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    (row, *_) = file.read().to_pylist()
    assert row["image"]["bytes"] == Path("photos", row["key"]).read_bytes()
    assert row["key"].startswith(f"{CLASSES[row['label']]}/")
    assert row["image"]["path"] == row["key"].split("/")[1]


@pytest.mark.usefixtures("home", "small_shards")
def test_what_is_open_does_not_travel_and_no_file_stays_open() -> None:
    _pack(_run(), quality=0)
    split = open_dataset(_packed(_run()).data).splits["train"]
    before = len(os.listdir("/proc/self/fd"))
    pixels = [np.asarray(split.image(index)) for index in range(len(split))]
    assert len(os.listdir("/proc/self/fd")) == before
    data = pickle.dumps(split)
    assert len(data) < 4000
    copy: Split = pickle.loads(data)
    assert all(np.array_equal(copy.image(index), each) for index, each in enumerate(pixels))


def _other(folder: str) -> None:
    Path(folder).mkdir()
    Path(folder, "mine.txt").write_text("x")


def _unknown(folder: str) -> None:
    Path(folder).mkdir()
    Path(folder, "shard-00000.arrow").write_text("x")


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize(
    ("out", "prepare", "found"),
    [
        ("packed", _other, "mine.txt"),
        ("packed", _unknown, "shard-00000.arrow"),
        ("photos/circle/000.png", lambda _: None, "File exists"),
        ("s3://bucket/packed", lambda _: None, "s3://bucket/packed"),
    ],
)
def test_a_folder_that_cannot_be_packed_into(out: str, prepare: Callable[[str], None], found: str) -> None:
    prepare(out)
    with pytest.raises(ConfigError) as caught:
        _pack(_run(), out)
    assert caught.value.found == found


@pytest.mark.usefixtures("home", "small_shards")
def test_two_commands_do_not_pack_into_one_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parted, "_WAIT_SECONDS", 0.0)
    real, inner = work.Work.made, []

    def made(self: work.Work, number: int, *more: Any) -> bytes:
        if not inner:
            inner.append(number)
            with pytest.raises(LaunchError):
                _pack(_run())
        return real(self, number, *more)

    monkeypatch.setattr(work.Work, "made", made)
    assert _pack(_run()).made == 9
    assert inner == [0]


@pytest.mark.usefixtures("home")
def test_a_disk_that_is_full_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(CheckpointError) as caught:
        work.put("photos/x.arrow", b"abc")
    assert (caught.value.where, caught.value.found) == ("photos/x.arrow", "No space left on device")
    assert not list(Path("photos").glob("*.tmp"))


@pytest.mark.parametrize(
    ("size", "wanted", "found"),
    [((500, 375), 256, (341, 256)), ((375, 500), 256, (256, 341)), ((256, 900), 256, (256, 900)), ((9, 5), 1, (1, 1))],
)
def test_the_shorter_side(size: tuple[int, int], wanted: int, found: tuple[int, int]) -> None:
    assert work.shorter(size, wanted) == found
