"""Predictions of a run on real image files: the answers of an evaluation, each image once, whatever ends a command."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from harness.trained import CLASSES
from pyarrow import parquet

from raycls.errors import CheckpointError, ConfigError, LaunchError
from raycls.launch import trainer
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.screen.predictions import visible
from raycls.screen.run import Display
from raycls.session.predictions import compute
from raycls.session.predictions import predict as predictions
from raycls.session.predictions.compute import Part, Work
from raycls.session.predictions.predict import Predicted, Request, predict
from raycls.session.trained.temperature import write_temperature


@pytest.fixture
def here(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the working directory with the run."""
    shutil.copytree(trained, tmp_path / "w")
    monkeypatch.chdir(tmp_path / "w")
    return tmp_path / "w"


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts of 16 images, the size of a batch: 8 of them in the 120 photos."""
    monkeypatch.setattr(predictions, "_PART_ROWS", 16)


def _ask(*inputs: str, run: str = "runs/shapes", said: list[str] | None = None, **more: Any) -> Predicted:
    def join(*_: object) -> Any:
        raise AssertionError("nobody asked for Ray")

    request = Request(run, inputs, **more)
    return predict(request, join=join, say=([] if said is None else said).append)


def _table(file: Path) -> list[dict[str, Any]]:
    return parquet.read_table(file).to_pylist()


def test_the_answers_are_those_of_an_evaluation(here: Path) -> None:
    _ask("photos", out="p.parquet")
    confusion = np.zeros((3, 3), int)
    for row in _table(here / "p.parquet"):
        confusion[CLASSES.index(Path(row["path"]).parent.name), CLASSES.index(row["predicted"])] += 1
    summary = trainer.evaluate(
        "runs/shapes", data="photos", overrides=("scale.workers=0",), display=Display(io.StringIO())
    )
    assert confusion.tolist() == summary["confusion"]
    assert confusion.sum() == 120


def test_the_three_forms_say_the_same(here: Path) -> None:
    for form in ("parquet", "csv", "jsonl"):
        found = _ask("photos", out=f"p.{form}", every=True, top=2)
    assert (found.rows, found.bad) == (120, 0)
    rows = _table(here / "p.parquet")
    lines = [json.loads(line, parse_constant=_refuse) for line in (here / "p.jsonl").read_text().splitlines()]
    with open(here / "p.csv", newline="", encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    assert len(rows) == len(lines) == len(cells) == 120
    for row, line, cell in zip(rows, lines, cells, strict=True):
        assert line == {**row, "probabilities": dict(zip(CLASSES, row["probabilities"], strict=True))}
        assert [cell["class_1"], cell["class_2"]] == row["top_classes"]
        assert [float(cell["probability_1"]), float(cell["probability_2"])] == row["top_probabilities"]
        assert [float(cell[f"probability of {name}"]) for name in CLASSES] == row["probabilities"]
        assert (cell["path"], cell["predicted"], cell["error"]) == (row["path"], row["predicted"], "")
        assert float(cell["confidence"]) == row["confidence"] == max(row["probabilities"])
        assert sum(row["probabilities"]) == pytest.approx(1.0, abs=1e-12)
        assert row["top_classes"][0] == row["predicted"] == CLASSES[int(np.argmax(row["probabilities"]))]
    assert [row["path"] for row in rows] == sorted(str(path) for path in Path("photos").rglob("*.*"))


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is no JSON")


def test_a_file_says_which_run_it_is_from(here: Path) -> None:
    _ask("photos", out="p.parquet")
    info = json.loads((here / "runs/shapes/model/model.json").read_text())
    schema = parquet.read_schema(here / "p.parquet")
    facts = json.loads((schema.metadata or {})[b"raycls"])
    assert facts["classes"] == list(CLASSES)
    row = _table(here / "p.parquet")[0]
    for found in (facts, row):
        assert found["run"] == str(here / "runs/shapes")
        assert (found["weights"], found["step"]) == (info["weights"]["name"], info["weights"]["step"])
        assert found["sha256"] == info["sha256"]
    assert schema.field("top_probabilities").type == pa.list_(pa.float64())


def test_other_weights_give_other_answers(here: Path) -> None:
    best = _ask("photos").parts[0]
    other = _ask("photos", weights="last").parts[0]
    assert not np.array_equal(best.top, other.top)


def test_weights_that_changed_since_the_command_began_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    info = here / "runs/shapes/model/model.json"
    real = compute.Network

    def network(*words: Any, **more: Any) -> Any:
        found = real(*words, **more)
        info.write_text(json.dumps({**json.loads(info.read_text()), "sha256": "0" * 64}))
        return found

    monkeypatch.setattr(compute, "Network", network)
    with pytest.raises(CheckpointError) as caught:
        _ask("photos", out="p.csv")
    assert (caught.value.found, caught.value.where) == ("0" * 64, str(info.with_name("model.safetensors")))
    assert not (here / "p.csv").exists()


def test_the_fitted_temperature_is_applied_when_asked(here: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        _ask("photos", calibrated=True)
    assert caught.value.where == "--calibrated"
    folder = RunFolder("runs/shapes")
    write_temperature(folder, 2.0, {})
    plain, found = (_ask("photos", every=True, calibrated=asked).parts[0].probabilities for asked in (False, True))
    expected = plain**0.5 / (plain**0.5).sum(1, keepdims=True)  # softmax(x / 2) from softmax(x)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert not np.allclose(plain, found)
    for asked, temperature in ((True, 2.0), (False, 1.0)):
        said: list[str] = []
        for form in ("parquet", "csv", "jsonl"):
            _ask("photos", calibrated=asked, out=f"{asked}.{form}", said=said)
        line = "calibrated: logits are divided by the fitted temperature 2.0000"
        assert said.count(line) == (3 if asked else 0)
        facts = (parquet.read_schema(here / f"{asked}.parquet").metadata or {})[b"raycls"]
        assert json.loads(facts)["temperature"] == temperature
        rows = [
            _table(here / f"{asked}.parquet")[0],
            next(csv.DictReader((here / f"{asked}.csv").read_text().splitlines())),
            json.loads((here / f"{asked}.jsonl").read_text().splitlines()[0]),
        ]
        assert [float(row["temperature"]) for row in rows] == [temperature] * 3
    with pytest.raises(ConfigError):
        _ask("photos", calibrated=True, weights="last")  # other weights than those in model/


def test_files_that_are_no_images_have_a_reason_and_change_nothing(here: Path) -> None:
    before = {row["path"]: row for row in _rows(_ask("photos"))}
    (here / "photos/circle/000a.png").write_bytes(b"")
    (here / "photos/square/notes.jpg").write_text("hello")
    whole = (here / "photos/circle/001.jpg").read_bytes()
    (here / "photos/circle/001.jpg").write_bytes(whole[: len(whole) // 2])
    found = _ask("photos", out="p.parquet", every=True)
    rows = {row["path"]: row for row in _table(here / "p.parquet")}
    bad = {path: row for path, row in rows.items() if row["error"] is not None}
    assert {path: row["error"].partition(":")[0] for path, row in bad.items()} == {
        "photos/circle/000a.png": "a sample is not an image",
        "photos/circle/001.jpg": "a sample is a damaged image",
        "photos/square/notes.jpg": "a sample is not an image",
    }
    assert "empty file" in bad["photos/circle/000a.png"]["error"]
    for row in bad.values():
        assert [row[name] for name in ("predicted", "confidence", "top_classes", "probabilities")] == [None] * 4
    assert (found.rows, found.bad) == (122, 3)
    assert [path for path, _ in found.first] == sorted(bad)
    assert len(rows) == 122
    for path, row in rows.items():
        if path not in bad:  # in another batch, so equal but for the order in which a kernel adds up
            assert row["predicted"] == before[path]["predicted"]
            assert row["confidence"] == pytest.approx(before[path]["confidence"], abs=1e-6)


def _rows(found: Predicted) -> list[dict[str, Any]]:
    from raycls.session.predictions.output import rows_of

    return [row for part in found.parts for row in rows_of(found.work, part)]


def test_an_image_above_the_limit_is_not_decoded(here: Path) -> None:
    found = _ask("photos/circle/000.png", overrides=("data.max_pixels=100",))
    assert found.bad == 1
    assert "larger than allowed" in (found.parts[0].errors[0] or "")


def test_names_on_the_screen_cannot_move_its_cursor() -> None:
    assert visible("a\x1b[2Jb\nc\u202ed\udcff.png") == "a\\x1b[2Jb\\nc\\u202ed\\udcff.png"
    assert visible("größe 图.png") == "größe 图.png"


def test_cells_that_a_spreadsheet_would_run_are_texts(here: Path) -> None:
    (here / "odd").mkdir()
    names = ["=1+1.png", "+a.png", "-b.png", "@c.png", "'d.png", "e,f\n.png", "plain.png"]
    for name in names:
        shutil.copy(here / "photos/circle/000.png", here / "odd" / name)
    import os

    os.chdir(here / "odd")
    _ask(*names, run="../runs/shapes", out="../p.csv")
    with open(here / "p.csv", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert paths == ["'=1+1.png", "'+a.png", "'-b.png", "'@c.png", "''d.png", "e,f\n.png", "plain.png"]


# --- ends and resumes -----------------------------------------------------------------------------------------------


class _EndedError(Exception):
    """Stands for a kill."""


def _ending(after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command ends after so many parts were computed and before the next one is."""
    real, made = compute.Predictor.part, []

    def part(self: Any, number: int, *more: Any) -> Part:
        if len(made) == after:
            raise _EndedError
        made.append(number)
        return real(self, number, *more)

    monkeypatch.setattr(compute.Predictor, "part", part)


def _numbers(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    real, made = compute.Predictor.part, []

    def part(self: Any, number: int, *more: Any) -> Part:
        made.append(number)
        return real(self, number, *more)

    monkeypatch.setattr(compute.Predictor, "part", part)
    return made


@pytest.fixture
def inline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts are computed in this process, however many there are."""
    monkeypatch.setattr(predictions, "_FEW_PARTS", 1000)


@pytest.mark.usefixtures("small_parts", "inline")
@pytest.mark.parametrize("form", ["parquet", "csv", "jsonl"])
def test_a_command_that_was_ended_is_resumed_and_gives_the_same_bytes(
    here: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    _ask("photos", out=f"whole.{form}")
    with monkeypatch.context() as patched:
        _ending(3, patched)
        with pytest.raises(_EndedError):
            _ask("photos", out=f"p.{form}")
    assert not (here / f"p.{form}").exists()
    assert sorted(path.name for path in (here / f"p.{form}.parts").glob("part*")) == [
        "part-00000.npz",
        "part-00001.npz",
        "part-00002.npz",
    ]
    said: list[str] = []
    with monkeypatch.context() as patched:
        made = _numbers(patched)
        _ask("photos", out=f"p.{form}", said=said)
    assert made == [3, 4, 5, 6, 7]
    assert "resuming: 3 of 8 parts are there already" in said
    assert (here / f"p.{form}").read_bytes() == (here / f"whole.{form}").read_bytes()
    assert not (here / f"p.{form}.parts").exists()
    assert not [path.name for path in here.iterdir() if path.name.startswith(".")]


@pytest.mark.usefixtures("small_parts", "inline")
def test_parts_of_other_images_weights_or_options_are_refused(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        _ending(2, patched)
        with pytest.raises(_EndedError):
            _ask("photos", out="p.csv")
    image = here / "photos/square/001.jpg"
    times = image.stat()
    image.write_bytes(image.read_bytes()[:-2] + b"\xff\xd9")
    with pytest.raises(ConfigError) as caught:
        _ask("photos", out="p.csv")
    assert (caught.value.where, "images" in (caught.value.found or "")) == (str(here / "p.csv.parts"), True)
    import os

    os.utime(image, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(ConfigError) as caught:
        _ask("photos", out="p.csv", top=1)
    assert caught.value.found == "top 5, now 1"
    with pytest.raises(ConfigError) as caught:
        _ask("photos", out="p.csv", weights="last")
    assert "step" in (caught.value.found or "") or "weights" in (caught.value.found or "")
    made = _numbers(monkeypatch)
    _ask("photos", out="p.csv", top=1, force=True)
    assert made == list(range(8))
    assert len((here / "p.csv").read_text().splitlines()) == 121


@pytest.mark.usefixtures("small_parts", "inline")
def test_a_damaged_part_is_told_and_computed_again_when_it_is_deleted(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        _ending(4, patched)
        with pytest.raises(_EndedError):
            _ask("photos", out="p.csv")
    part = here / "p.csv.parts/part-00001.npz"
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(CheckpointError) as caught:
        _ask("photos", out="p.csv")
    assert caught.value.where == str(part)
    part.unlink()
    _ask("photos", out="p.csv")
    _ask("photos", out="whole.csv")
    assert (here / "p.csv").read_bytes() == (here / "whole.csv").read_bytes()


def test_a_file_that_is_there_is_replaced_when_asked_and_stays_until_then(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (here / "p.csv").write_text("mine")
    with pytest.raises(ConfigError) as caught:
        _ask("photos", out="p.csv")
    assert "--force" in (caught.value.fix or "")
    with monkeypatch.context() as patched:
        _ending(0, patched)
        with pytest.raises(_EndedError):
            _ask("photos", out="p.csv", force=True)
    assert (here / "p.csv").read_text() == "mine"
    _ask("photos", out="p.csv", force=True)
    assert len((here / "p.csv").read_text().splitlines()) == 121


@pytest.mark.usefixtures("small_parts", "inline")
def test_two_commands_for_one_file_do_not_mix(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raycls.session.computing import parted

    monkeypatch.setattr(parted, "_WAIT_SECONDS", 0.0)
    inner: list[BaseException] = []
    real = compute.Predictor.part

    def part(self: Any, number: int, *more: Any) -> Part:
        if number == 0 and not inner:
            with pytest.raises(LaunchError) as caught:
                _ask("photos", out="p.csv")
            inner.append(caught.value)
        return real(self, number, *more)

    monkeypatch.setattr(compute.Predictor, "part", part)
    _ask("photos", out="p.csv")
    assert len(inner) == 1
    assert len((here / "p.csv").read_text().splitlines()) == 121


@pytest.mark.usefixtures("small_parts")
def test_processes_give_the_same_bytes(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "photos/circle/000a.png").write_bytes(b"")
    monkeypatch.setattr(predictions, "cores", lambda: 2)
    _ask("photos", out="many.parquet")
    monkeypatch.setattr(predictions, "_FEW_PARTS", 1000)
    _ask("photos", out="one.parquet")
    assert (here / "many.parquet").read_bytes() == (here / "one.parquet").read_bytes()
    assert len(_table(here / "one.parquet")) == 121


def test_what_a_cluster_computes_in_any_order_is_written_in_the_order_of_the_images(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_PART_ROWS", 16)

    class Cluster:
        device = "cpu"

        def compute(self, work: Work, numbers: Sequence[int]) -> Generator[Part, None, None]:
            with compute.Predictor(work) as predictor:
                yield from (predictor.part(number) for number in reversed(numbers))

    from contextlib import nullcontext

    request = Request("runs/shapes", ("photos",), "p.csv", overrides=("scale.workers=3",))
    predict(request, join=lambda run, say: nullcontext(Cluster()), say=print)
    monkeypatch.setattr(predictions, "_FEW_PARTS", 1000)
    _ask("photos", out="whole.csv")
    assert (here / "p.csv").read_bytes() == (here / "whole.csv").read_bytes()


@pytest.mark.usefixtures("small_parts")
def test_a_command_that_fails_leaves_the_process_as_it_was(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(predictions, "_FEW_PARTS", 1000)
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    monkeypatch.setattr(Store, "write_bytes", lambda *_, **__: full())
    with pytest.raises(OSError, match="No space left"):
        _ask("photos", out="p.csv")
    assert (torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()) == before
