"""What an evaluation scores: the split that the run was started with, or other data as a whole."""

from __future__ import annotations

import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from raycls.config.load import load_text
from raycls.data.source import cut, open_pool
from raycls.errors import ConfigError, DataError
from raycls.launch import trainer
from raycls.run.folder import RunFolder
from raycls.screen.run import Display
from raycls.session.data import record as recorded
from raycls.session.data.resumed import resumed_data
from raycls.session.data.scored import find_record, score

_CONFIG = """
run: {name: r}
data: {source: {path: p}, image_size: 8, batch_size: 16, split: {train: 0.5, val: 0.2, test: 0.3}}
augment: {train: [], eval: []}
model: {name: tiny_cnn, args: {width: 4}}
train: {duration: 1ep}
scale: {workers: 0}
"""


def _image(file: Path, seed: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype("uint8")).save(file)


def _images(root: str, classes: Sequence[str], count: int, seed: int = 0, first: int = 0) -> None:
    for number, name in enumerate(classes):
        for index in range(first, first + count):
            _image(Path(root) / name / f"{index:02d}.png", seed + 100 * number + index)


def _manifest(file: str, rows: dict[str, str]) -> None:
    Path(file).write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows.items()))


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on `p` (10 images each of a, b, c: 15 to train on, 6 for validation, 9 to test), and one on a manifest."""
    home, before = tmp_path_factory.mktemp("begun"), os.getcwd()
    os.chdir(home)
    try:
        _images("p", "abc", 10)
        rows = {f"p/{name}/{index:02d}.png": f"is-{name}" for name in "abc" for index in range(10)}
        _manifest("m.csv", rows)
        for words in ([], ["run.name=m", "data.source.name=manifest", "data.source.path=m.csv"]):
            trainer.train(load_text(_CONFIG, "r.yaml", words).run, display=Display(io.StringIO()))
    finally:
        os.chdir(before)
    return home


@pytest.fixture(autouse=True)
def inside(begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


def _evaluate(*overrides: str, run: str = "r", **options: Any) -> tuple[dict[str, Any], str]:
    screen = io.StringIO()
    summary = trainer.evaluate(f"runs/{run}", overrides=overrides, display=Display(screen), **options)
    return summary, screen.getvalue()


def _refused(*overrides: str, run: str = "r", **options: Any) -> DataError:
    with pytest.raises(DataError) as caught:
        _evaluate(*overrides, run=run, **options)
    return caught.value


def _names(split: str, run: str = "r") -> list[str]:
    record = find_record(RunFolder(f"runs/{run}"))
    assert record is not None
    part = record.parts[split]
    return [part.name(index) for index in range(len(part))]


def _rows(summary: dict[str, Any]) -> list[int]:
    """Images of each class, by the truth."""
    return [sum(row) for row in summary["confusion"]]


def test_the_data_as_it_was() -> None:
    summary, said = _evaluate(split="test")
    assert (summary["split"], summary["count"], _rows(summary)) == ("test", 9, [3, 3, 3])
    assert summary["split_changes"] == {
        what: {"count": 0, "first": []} for what in ("gone", "ignored", "changed", "relabelled", "new")
    }
    assert said == "evaluating 9 images of split test\n"
    assert sorted(_names("train") + _names("val") + _names("test")) == sorted(
        str(file.relative_to("p")) for file in Path("p").rglob("*.png")
    )


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_what_was_added_is_not_scored(split: str) -> None:
    before, _ = _evaluate(split=split)
    _images("p", "abd", 7, seed=5000, first=50)
    after, said = _evaluate(split=split)
    assert after.pop("split_changes")["new"]["count"] == 21
    assert before.pop("split_changes") and after == before
    assert "21 samples not scored, added since the run was started: a/50.png" in said


@pytest.mark.parametrize("option", ["train.overfit=4", "train.fast_dev_run=true"])
def test_what_a_limit_left_out_is_not_new(option: str) -> None:
    run = load_text(_CONFIG, "r.yaml", ["run.name=few", "data.batch_size=2", option]).run
    trainer.train(run, display=Display(io.StringIO()))
    name = "few-dev" if run.train.fast_dev_run else "few"
    summary, said = _evaluate(run=name)
    assert (summary["count"], summary["split_changes"]["new"]) == (4, {"count": 0, "first": []})
    assert "added" not in said
    by_heart = run.train.overfit != "off"
    assert summary.get("trained_on") == (4 if by_heart else None)
    assert ("split test is the 4 images that this run was trained on (train.overfit)" in said) == by_heart
    os.remove(Path("p", _names("test", run=name)[0].removeprefix("p/")))
    summary, said = _evaluate(run=name)
    assert (summary["count"], summary["split_changes"]["gone"]["count"]) == (3, 1)
    assert "1 sample of split test not scored, gone since the run was started" in said and "added" not in said


def test_what_is_gone_or_changed_is_told_and_not_scored() -> None:
    names = _names("test")
    Path("p", names[0]).unlink()
    _image(Path("p", names[4]), 77)
    with Path("p", names[8]).open("ab") as file:
        file.write(b"more")
    trained = Path("p", _names("train")[0])
    shutil.copyfile(trained, Path("p", names[5]))  # a trained image in the place of one to test
    summary, said = _evaluate(split="test")
    assert (summary["count"], _rows(summary)) == (5, [2, 1, 2])
    changes = summary["split_changes"]
    assert changes["gone"] == {"count": 1, "first": [names[0]]}
    assert changes["changed"] == {"count": 3, "first": [names[4], names[5], names[8]]}
    assert f"1 sample of split test not scored, gone since the run was started: {names[0]}" in said
    assert "3 samples of split test not scored, other content" in said


def test_what_has_another_label_is_told_and_not_scored() -> None:
    names = _names("test", "m")
    rows = {f"p/{name}/{index:02d}.png": f"is-{name}" for name in "abc" for index in range(10)}
    _manifest("m.csv", rows | {names[0]: "is-b", names[1]: "is-new"})
    summary, said = _evaluate(run="m", split="test")
    assert summary["count"] == 7
    assert summary["split_changes"]["relabelled"] == {"count": 2, "first": names[:2]}
    assert "2 samples of split test not scored, of another class" in said


def test_a_class_that_vanished() -> None:
    shutil.rmtree("p/b")
    summary, _ = _evaluate(split="test")
    assert (_rows(summary), summary["split_changes"]["gone"]["count"]) == ([3, 0, 3], 3)


def test_nothing_left_is_an_error() -> None:
    for name in _names("test"):
        Path("p", name).unlink()
    error = _refused(split="test")
    assert error.found is not None and "9 gone" in error.found
    assert error.fix is not None and "raycls eval runs/r --data p" in error.fix
    assert _evaluate(data="p")[0]["count"] == 21


def test_a_damaged_image_may_be_left_out() -> None:
    name = _names("test")[2]
    Path("p", name).write_bytes(b"")
    summary, said = _evaluate(f'data.source.args.ignore=["{name}"]', split="test")
    assert (summary["split"], summary["count"]) == ("test", 8)
    assert summary["split_changes"]["ignored"] == {"count": 1, "first": [name]}
    assert summary["split_changes"]["gone"]["count"] == 0
    assert f"1 sample of split test not scored, left out by data.source.args.ignore: {name}" in said


def test_a_copy_in_another_place_is_the_same_split() -> None:
    before, _ = _evaluate(split="test")
    shutil.copytree("p", "moved")
    shutil.rmtree("p")
    after, said = _evaluate("data.source.path=moved", split="test")
    assert after == before
    assert "the other 21 images there are not part of the split test" in said


def test_other_data_at_a_path_is_evaluated_as_a_whole() -> None:
    _images("only/test", "abc", 4, seed=900)
    summary, said = _evaluate("data.source.path=only")
    assert (summary["count"], summary["split"]) == (12, "all")
    assert "other data than the run was trained with" in said
    assert "12 test" in said
    assert "trained on" not in said
    shutil.copytree("p", "two")
    shutil.rmtree("two/c")
    summary, said = _evaluate("data.source.path=two")
    assert (_rows(summary), summary["trained_on"]) == ([10, 10, 0], 10)
    assert "10 of 20 images were trained on" in said
    _images("same_names", "abc", 10, seed=4000)
    assert _evaluate("data.source.path=same_names")[0]["count"] == 30


def test_all_images_of_a_folder_by_the_names_of_its_classes() -> None:
    _images("hold", "cb", 3, seed=800)
    summary, said = _evaluate(data="hold")
    assert (_rows(summary), summary["count"], summary["data"]) == ([0, 3, 3], 6, "hold")
    assert (summary["trained_on"], summary["split"]) == (0, "all")
    assert "1 of the 3 classes of the model have no image there: a" in said
    alone, _ = _evaluate(data="hold/../hold")
    assert alone["loss"] == summary["loss"]
    shutil.rmtree("hold/b")
    assert _rows(_evaluate(data="hold")[0]) == [0, 0, 3]


def test_classes_that_the_model_does_not_know() -> None:
    _images("hold", ["a", "b", "B", "dog"], 3, seed=700)
    error = _refused(data="hold")
    assert error.exit_code == 3
    assert error.found is not None and "B (3), dog (3)" in error.found
    assert "did you mean b" in error.found
    summary, said = _evaluate(data="hold", extra_classes="leave-out")
    assert (summary["count"], summary["left_out_classes"]) == (6, {"B": 3, "dog": 3})
    assert "left out: 6 images" in said
    _images("others", ["x", "y"], 3)
    assert "no image" in str(_refused(data="others", extra_classes="leave-out"))


def test_data_with_splits_of_its_own() -> None:
    _images("s/train", "abc", 2, seed=600)
    _images("s/test", "ac", 3, seed=650)
    summary, said = _evaluate(data="s")
    assert summary["count"] == 12
    assert "6 train, 6 test" in said or "6 test, 6 train" in said
    assert _rows(_evaluate(data="s", split="test")[0]) == [3, 0, 3]
    assert _refused(data="s", split="val").found in ("train, test", "test, train")
    assert "leave --split out" in str(_refused(data="p", split="test"))


def test_manifests_arrays_and_configs() -> None:
    _images("q", "abc", 2, seed=500)
    rows = {f"q/{name}/0{index}.png": name for name in "abc" for index in range(2)}
    of_folder, _ = _evaluate(data="q")
    _manifest("q.csv", rows)
    Path("q.jsonl").write_text("".join(json.dumps({"path": path, "label": name}) + "\n" for path, name in rows.items()))
    np.savez(
        "q.npz",
        images=np.stack([np.asarray(Image.open(path)) for path in rows]),
        labels=np.array(list(rows.values())),
    )
    Path("q.yaml").write_text("data: {source: {name: manifest, path: q.csv}}")
    for path in ("q.csv", "q.jsonl", "q.npz", "q.yaml"):
        summary, _ = _evaluate(data=path)
        assert (summary["count"], summary["loss"], summary["confusion"]) == (
            6,
            of_folder["loss"],
            of_folder["confusion"],
        )


@pytest.mark.parametrize("path", ["nowhere", "nowhere.csv", "p/a/00.png", "r"])
def test_what_is_no_data(path: str) -> None:
    with pytest.raises(ConfigError, match="no data to evaluate"):
        _evaluate(data=path)


def test_arguments_of_the_other_data() -> None:
    _images("hold", "abc", 2)
    Path("hold/a/notes.txt").write_text("no image")
    error = _refused(data="hold")
    assert error.fix is not None and "data.source.args.ignore" in error.fix
    assert _evaluate('data.source.args.ignore=["*.txt"]', data="hold")[0]["count"] == 6


def test_images_that_were_trained_on_are_found_by_their_content() -> None:
    for index, name in enumerate(_names("train")[:4]):
        Path("hold/b").mkdir(parents=True, exist_ok=True)
        shutil.copyfile(Path("p", name), f"hold/b/other{index}.png")
    _images("hold", "ab", 3, seed=300)
    summary, said = _evaluate(data="hold")
    assert (summary["count"], summary["trained_on"]) == (10, 4)
    assert "4 of 10 images were trained on" in said


def test_images_that_were_trained_on_are_found_by_their_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "MOST_BYTES", 0)
    trainer.train(load_text(_CONFIG, "r.yaml", ["run.name=large"]).run, display=Display(io.StringIO()))
    assert _evaluate(data="p", run="large")[0]["trained_on"] == 15
    train = _names("train", "large")
    of_b = sum(name.startswith("b/") for name in train)
    _manifest("b.csv", {f"p/b/{index:02d}.png": "b" for index in range(10)})
    assert _evaluate(data="b.csv", run="large")[0]["trained_on"] == of_b


def test_images_that_were_trained_on_and_encoded_anew_are_found_by_their_place() -> None:
    trainer.train(load_text(_CONFIG, "r.yaml", ["run.name=here"]).run, display=Display(io.StringIO()))
    for file in Path("p").rglob("*.png"):
        with Image.open(file) as image:
            image.load()
        image.save(file, compress_level=0)
    summary, said = _evaluate(data="p", run="here")
    assert (summary["count"], summary["trained_on"]) == (30, 15)
    assert "15 of 30 images were trained on" in said


def test_the_order_of_the_classes_is_that_of_the_run(tmp_path: Path) -> None:
    """An earlier version sorted integers as texts: its runs are evaluated and resumed in their own order."""
    _images("n", ["2", "10", "9"], 10)
    config = _CONFIG.replace("path: p", "path: n")
    trainer.train(load_text(config, "n.yaml", ["run.name=n"]).run, display=Display(io.StringIO()))
    pool = open_pool(load_text(config, "n.yaml").run.data)
    assert pool.classes == ("2", "9", "10")
    earlier = pool.ordered(["10", "2", "9"])
    assert earlier.classes == ("10", "2", "9")
    names = [earlier.classes[label] for label in earlier.labels]
    assert names == [key.split("/")[0] for key in earlier.keys]
    assert pool.ordered(["10", "2"]) is pool
    folder, run = RunFolder("runs/n"), load_text(config, "n.yaml", ["run.name=n"]).run
    dataset = cut(earlier, run.data)
    environment = folder.read_json(RunFolder.ENV) or {}
    environment["data"] |= {"classes": list(dataset.classes), "fingerprint": dataset.fingerprint}
    folder.store.write_bytes(RunFolder.ENV, json.dumps(environment).encode())
    Path("runs/n/splits.parquet").unlink()
    wanted = sorted(dataset.splits["test"].keys)
    scored = score(
        folder, run, split="test", moved=False, whole=False, extra_classes="refuse", name="n", say=lambda _: None
    )
    assert (scored.dataset.classes, sorted(scored.dataset.splits["test"].keys)) == (("10", "2", "9"), wanted)
    resumed = resumed_data(run, folder, None, lambda _: None).dataset
    assert (resumed.classes, resumed.fingerprint) == (("10", "2", "9"), dataset.fingerprint)


def test_a_run_of_an_earlier_version() -> None:
    before, _ = _evaluate(split="test")
    Path("runs/r/splits.parquet").unlink()
    summary, said = _evaluate(split="test")
    assert {name: before[name] for name in summary} == summary
    assert "earlier version" in said
    _images("p", "a", 1, first=50)
    assert "raycls eval RUN --data PATH" in str(_refused(split="test"))
    summary, said = _evaluate(data="p")
    assert summary["count"] == 31
    assert "trained on is not known" in said


def test_a_split_that_the_run_has_not() -> None:
    trainer.train(
        load_text(_CONFIG, "r.yaml", ["run.name=n", "data.split={train: 0.5, val: 0.5, test: 0}"]).run,
        display=Display(io.StringIO()),
    )
    assert _refused(run="n", split="test").found == "train, val"
    assert _evaluate(run="n")[0]["split"] == "val"
