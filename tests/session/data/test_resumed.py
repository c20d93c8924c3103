"""A damaged image does not cost the run: its remedy, typed as printed, resumes with every other sample in order."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.jobs import make_job, train, train_rank_stopped
from PIL import Image

from raycls.cli import app
from raycls.config.load import load_text
from raycls.data.order import Order
from raycls.data.source import open_dataset
from raycls.data.splits.limit import Limit
from raycls.errors import DataError
from raycls.launch.trainer import evaluate
from raycls.run.folder import RunFolder, survivors
from raycls.run.ledgers import sample_ledger
from raycls.screen.run import Display
from raycls.session.data import record
from raycls.session.data.resumed import searched_data
from raycls.session.prepare import prepare

_SAMPLES, _BATCH, _MICROS, _STEPS = 18, 4, 2, 15  # three epochs of 4, 4, 4, 4 and 2 images
_NAMES = [f"train/{label}/{index:02d}.png" for label in "ab" for index in range(9)]
_VAL = [f"val/{label}/{index}.png" for label in "ab" for index in range(3)]
_OPTIONS = (
    "data.source.name=folder",
    "data.batch_size=4",
    "train.duration=3ep",
    "train.micro_batches=2",
    "train.ledger=ids",
    "optim={name: sgd, lr: 0.05, args: {momentum: 0.9}, weight_decay: 0.01}",
)
_ORDER = Order(0, _SAMPLES, _BATCH, _MICROS)


def _images(names: Sequence[str], folder: str = "p") -> None:
    for number, name in enumerate(names):
        file = Path(folder) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(number).integers(0, 255, (12, 12, 3)).astype("uint8")).save(file)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The weights of the run that nothing happened to."""
    before, home = os.getcwd(), tmp_path_factory.mktemp("undisturbed")
    os.chdir(home)
    try:
        _images([*_NAMES, *_VAL])
        train(_job())
        return _weights()
    finally:
        os.chdir(before)


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    _images([*_NAMES, *_VAL])


def _job(*overrides: str, run: str = "run", executor: str = "inline", world: int = 0) -> Any:
    return make_job(Path("runs", run).absolute(), Path("p"), *_OPTIONS, *overrides, executor=executor, world=world)


def _stopped(step: int, *overrides: str, start: int = 0) -> None:
    """A run that was stopped after `step` steps, `start` of them in earlier starts."""
    assert train_rank_stopped(0, 1, _job(*overrides), step - start, "sigint")["step"] == step


def _resume(*overrides: str) -> list[str]:
    """What is said when the run is prepared to be resumed; the words of the error where it is refused."""
    run = load_text(Path("runs/run/config.yaml").read_text(), "config.yaml", overrides).run
    said: list[str] = []
    prepare(run, new=False, command=[], say=said.append)
    return said


def _damage(*ids: int) -> None:
    for index in ids:
        file = Path("p", _NAMES[index])
        file.write_bytes(file.read_bytes()[:60])


def _without(*names: str) -> str:
    return f"data.source.args.ignore={json.dumps(names)}"


def _expected(out: Mapping[int, int], order: Order = _ORDER) -> list[list[int]]:
    """The ids of every step without those that are left out: `out` says after which step."""
    steps = [order.batch(step).tolist() for step in range(_STEPS)]
    return [[index for index in ids if out.get(index, _STEPS) > step] for step, ids in enumerate(steps)]


def _trained(run: str = "run") -> list[list[int]]:
    """The ids of every step that led to the weights, by the ledger."""
    spans = survivors(RunFolder(f"runs/{run}").attempts())
    lines: dict[tuple[int, int], list[int]] = {}
    for file in Path("runs", run, "ledger").iterdir():
        first, last = spans[int(file.name.split("-")[1])]
        for line in map(json.loads, file.read_text().splitlines()):
            if first < line["step"] <= (_STEPS if last is None else last):
                assert (line["step"], line["micro"]) not in lines
                lines[line["step"], line["micro"]] = line["ids"]
    assert sorted(lines) == [(step, micro) for step in range(1, _STEPS + 1) for micro in range(_MICROS)]
    return [lines[step, 0] + lines[step, 1] for step in range(1, _STEPS + 1)]


def _weights(run: str = "run") -> bytes:
    return Path("runs", run, "model", "model.safetensors").read_bytes()


_FIRST = tuple(int(index) for index in _ORDER.batch(5)[:1])  # of the first batch of the second epoch
_LAST = tuple(int(index) for index in _ORDER.batch(9))  # all of the short last batch of the second epoch
_SOME = tuple(int(index) for index in (_ORDER.batch(6)[1], _ORDER.batch(6)[3], _ORDER.batch(8)[0]))


@pytest.mark.parametrize("ids", [_FIRST, _LAST, _SOME])
def test_all_others_keep_their_order(ids: tuple[int, ...]) -> None:
    _stopped(5)
    _damage(*ids)
    train(_job(_without(*(_NAMES[index] for index in ids))))
    assert _trained() == _expected(dict.fromkeys(ids, 5))
    assert [] in _trained() or ids != _LAST
    report = sample_ledger.check(RunFolder("runs/run"))
    assert report.ok, report.problems
    assert report.left_out == {5: sorted(ids)}
    assert json.loads(Path("runs/run/plan.json").read_text())["left_out"] == sorted(ids)


def test_a_removed_file_is_left_out_and_stays_out() -> None:
    one, two = (int(index) for index in _ORDER.batch(7)[:2])
    _stopped(5)
    data = Path("p", _NAMES[one]).read_bytes()
    Path("p", _NAMES[one]).unlink()
    (said,) = _resume()
    assert (
        f"1 sample of the split train gone or ignored since the run was started, left out from now on: {_NAMES[one]}"
        in said
    )
    _stopped(6, start=5)
    Path("p", _NAMES[one]).write_bytes(data)
    Path("p", _NAMES[two]).unlink()
    said = "\n".join(_resume())
    assert f"1 sample left out before, there again, still left out: {_NAMES[one]}" in said
    assert f"left out from now on: {_NAMES[two]}" in said
    train(_job())
    assert _trained() == _expected({one: 5, two: 6})
    assert sample_ledger.check(RunFolder("runs/run")).left_out == {5: [one], 6: [two]}


def test_a_repaired_file_resumes_to_the_same_bits(undisturbed: bytes) -> None:
    _stopped(5)
    file = Path("p", _NAMES[_FIRST[0]])
    data = file.read_bytes()
    _damage(*_FIRST)
    with pytest.raises(DataError, match="damaged"):
        train(_job())
    file.write_bytes(data)
    assert _resume() == []
    train(_job())
    assert _weights() == undisturbed
    assert "left_out" not in Path("runs/run/plan.json").read_text() + Path("runs/run/attempts.jsonl").read_text()


def test_other_content_under_the_same_name_is_told() -> None:
    _stopped(5)
    for name in (_NAMES[3], _VAL[1]):
        Image.new("RGB", (12, 12)).save(Path("p", name))
    Path("p", _NAMES[7]).unlink()
    said = [line for line in _resume() if "other content" in line]
    assert said == [
        f"1 sample of the split {split} with other content than when the run was started, used as now: {name}"
        for split, name in (("train", _NAMES[3]), ("val", _VAL[1]))
    ]


@pytest.mark.slow
def test_bits_are_the_same_on_any_number_of_workers() -> None:
    ids = (*_LAST, *_SOME)
    _stopped(5)
    _damage(*ids)
    shutil.copytree("runs/run", "runs/two")
    shutil.copytree("runs/run", "runs/processes")
    without = _without(*(_NAMES[index] for index in ids))
    train(_job(without))
    train(_job(without, run="two", world=2), 2)
    train(_job(without, run="processes", executor="processes"))
    assert _weights() == _weights("two") == _weights("processes")
    assert _trained() == _trained("two") == _trained("processes") == _expected(dict.fromkeys(ids, 5))


def test_images_of_the_evaluated_split() -> None:
    _stopped(5)
    Path("p", _VAL[1]).write_bytes(b"")
    Path("p", _VAL[4]).unlink()
    said = _resume(_without(_VAL[1]))
    assert (
        f"2 samples of the split val gone or ignored since the run was started, left out from now on: {_VAL[1]}"
        in said[0]
    )
    train(_job(_without(_VAL[1])))
    assert _trained() == _expected({})
    counts = [
        line["count"]
        for line in map(json.loads, Path("runs/run/history.jsonl").read_text().splitlines())
        if "split" in line
    ]
    assert counts == [6, 4, 4]
    with pytest.raises(DataError, match="all samples of the split val") as caught:
        _resume(_without(*_VAL))
    assert caught.value.found is not None and _VAL[0] in caught.value.found


def test_what_is_left_out_stays_in_the_config() -> None:
    _stopped(5, 'data.source.args.ignore=["notes.txt"]')
    Path("p", _VAL[1]).write_bytes(b"")
    train(_job('data.source.args.ignore=["notes.txt"]', _without(_VAL[1])))
    kept = load_text(Path("runs/run/config.yaml").read_text(), "config.yaml").run
    assert kept.data.source.args["ignore"] == ["notes.txt", _VAL[1]]
    assert evaluate("runs/run", split="val", display=Display(io.StringIO()))["count"] == 5


def test_a_search_keeps_the_splits_that_it_was_started_with() -> None:
    run = load_text("run: {name: s}\ndata: {source: {path: q}}", "s.yaml").run
    names = [f"{label}/{index:02d}.png" for label in "ab" for index in range(10)]
    _images(names, "q")
    first, folder = open_dataset(run.data), RunFolder("runs/s")
    assert searched_data(run, folder, pytest.fail).fingerprint == first.fingerprint
    folder.store.write_bytes("splits.parquet", record.pack(first, "q"))
    assert searched_data(run, folder, pytest.fail).fingerprint == first.fingerprint
    _images([f"a/new{index}.png" for index in range(9)], "q")
    gone = first.splits["test"].key(0)
    Path("q", gone).unlink()
    said: list[str] = []
    again = searched_data(run, folder, said.append)
    keys = {name: list(split.keys) for name, split in again.splits.items()}
    assert keys == {name: [key for key in split.keys if key != gone] for name, split in first.splits.items()}
    assert all(split.ids is None for split in again.splits.values())
    assert "9 samples added" in said[-1] and gone in said[0]


def test_added_files_are_told_and_not_trained(undisturbed: bytes) -> None:
    _stopped(5)
    _images(["train/a/00b.png", "train/c/1.png", "val/a/7.png"])
    (said,) = _resume()
    assert "3 samples added since the run was started, in none of its splits and not trained: train/a/00b.png" in said
    train(_job())
    assert _weights() == undisturbed


def test_what_a_limit_left_out_was_not_added() -> None:
    _stopped(3, "train.overfit=6")
    keys = list(
        open_dataset(load_text(Path("runs/run/config.yaml").read_text(), "c").run.data, Limit(6, True))
        .splits["train"]
        .keys
    )
    os.remove(Path("p", keys[0]))
    said = _resume()
    assert any("1 sample of the split train gone or ignored since the run was started" in line for line in said)
    assert not any("added" in line for line in said)


def test_relabelled_samples_are_refused() -> None:
    rows = {f"p/{name}": name.split("/")[1] for name in _NAMES}

    def write(changed: Mapping[str, str]) -> None:
        lines = [f"{path},{label}" for path, label in {**rows, **changed}.items()]
        Path("m.csv").write_text("\n".join(["path,label", *lines]))

    write({})
    options = ("data.source={name: manifest, path: m.csv}", "data.split={train: 0.5, val: 0.5, test: 0}")
    _stopped(2, *options)
    write({f"p/{_NAMES[3]}": "b"})
    with pytest.raises(DataError, match="relabelled") as caught:
        _resume()
    assert caught.value.found == f"p/{_NAMES[3]}; the first was a and is b"
    write({})
    assert _resume() == []
    Path("p", _NAMES[2]).unlink()  # as a damaged one is removed: the manifest still lists it
    with pytest.raises(DataError, match="do not exist") as caught:
        _resume()
    printed = re.search(r"leave them out with (data.source.args.ignore=.*)", caught.value.fix or "")
    assert printed is not None
    assert _NAMES[2] in _resume(*shlex.split(printed[1]))[0]


def test_most_of_the_data_gone_is_no_damage() -> None:
    _stopped(5)
    for name in _NAMES[:9]:
        Path("p", name).unlink()
    Path("p/train/a").rmdir()
    assert "9 samples" in _resume()[0]
    Path("p", _NAMES[9]).unlink()
    with pytest.raises(DataError, match="most of what it trains on is gone") as caught:
        _resume()
    assert caught.value.found is not None and "10 of 18 training samples are gone" in caught.value.found


_CONFIG = """
run: {name: run}
data: {source: {path: p}, image_size: 12, batch_size: 2, split: {train: 0.9, val: 0.1, test: 0}}
augment: {train: [], eval: []}
model: {name: tiny_cnn, args: {width: 4}}
train: {duration: 1ep, ledger: ids}
checkpoint: {every: 1st}
scale: {workers: 0}
"""
_ODD = [
    "a [1].png",
    "it's.png",
    'say "x".png',
    "* star?.png",
    "$HOME `x`.png",
    "ä ö, #1: {y}.png",
    "\udcff\udcfe.png",
    "-n.png",
]


def test_the_remedy_as_it_is_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Images with names that a shell, YAML or a pattern may misread are damaged, beside others nearly called so."""
    shutil.rmtree("p")
    plain = ["a 1.png", "its.png", "x star1.png", "\udcfe.png", "n.png", "1.png"]
    _images([*(f"a/{name}" for name in _ODD), *(f"{label}/{name}" for label in "ab" for name in plain)])
    _images([f"b/{name}" for name in _ODD[:4]])
    Path("run.yaml").write_text(_CONFIG)
    for name in _ODD:
        Path("p/a", name).write_bytes(b"\xff\xd8\xff no image")

    def call(*words: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["raycls", *words])
        with pytest.raises(SystemExit) as leaving:
            app.main()
        captured = capsys.readouterr()
        assert isinstance(leaving.value.code, int)
        return leaving.value.code, captured.out + captured.err

    added: list[str] = []
    for _ in _ODD:
        code, text = call("train", "run.yaml", *added)
        printed = re.search(r"leave it out: add (.*?) to the command", text)
        assert code == 3 and printed is not None, text
        added = shlex.split(printed[1])
        assert len(added) == 1
    code, text = call("train", "run.yaml", *added)
    assert code == 0, text
    assert len(load_text("{}", "c.yaml", added).run.data.source.args["ignore"]) == len(_ODD)
    splits = json.loads(Path("runs/run/env.json").read_text())["data"]["splits"]
    left_out = json.loads(Path("runs/run/plan.json").read_text())["left_out"]
    assert f"{splits['train'] - len(left_out)} train ({len(left_out)} left out)" in text
    code, text = call("ledger", "run")
    assert code == 0 and "left out after step" in text, text
    kept = sample_ledger.check(RunFolder("runs/run"))
    assert sum(map(len, kept.left_out.values())) == len(left_out)
