"""A run of any number of labels per image after its training: every command gives the answers of its evaluation."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.command_line import Result
from harness.tagged import TAGS, write_tagged
from pyarrow import parquet
from sklearn.metrics import average_precision_score, f1_score

from raycls.cli import app
from raycls.export.artefact import Artefact
from raycls.serve.answer import Answer
from raycls.serve.predictor import Predictor, Served
from raycls.session.trained.thresholds import thresholds_of
from raycls.session.trained.trained import open_trained
from raycls.tasks.reading import SEVERAL
from raycls.tasks.scores.multilabel import sigmoid

CLASSES = sorted(TAGS)


@pytest.fixture(scope="module")
def tagged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, evaluated on val and on test."""
    folder = tmp_path_factory.mktemp("tagged")
    write_tagged(folder, 80)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for words in (["train", "c.yaml"], ["eval", "c", "--split=val"], ["eval", "c", "--split=test"]):
            patch.setattr(sys, "argv", ["raycls", *words])
            with pytest.raises(SystemExit) as leaving:
                app.main()
            assert leaving.value.code == 0
    return folder


@pytest.fixture
def command(
    raycls_command: Callable[..., Result], tagged: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    monkeypatch.chdir(tagged)
    return raycls_command


def _evaluated(tagged: Path, name: str = "test-best") -> tuple[list[str], np.ndarray, np.ndarray, list[list[str]]]:
    """Paths, logits, truth and what was predicted, of an evaluation."""
    table = parquet.read_table(tagged / f"runs/c/predictions/{name}.parquet")
    logits = np.array(table["logits"].to_pylist(), np.float32)
    truth = np.array([[name in labels for name in CLASSES] for labels in table["labels"].to_pylist()])
    return table["path"].to_pylist(), logits, truth, table["predicted"].to_pylist()


def test_predictions_are_the_rows_of_the_evaluation(command: Callable[..., Result], tagged: Path) -> None:
    paths, logits, truth, predicted = _evaluated(tagged)
    said = {f"i/{index}.png": json.loads(line)["label"] for index, line in enumerate(_lines(tagged))}
    assert [sorted(said[_short(path)]) for path in paths] == [
        [name for name, one in zip(CLASSES, row, strict=True) if one] for row in truth
    ]
    result = command("predict", "c", *paths, "--json")
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert (result.code, len(rows)) == (0, len(paths))
    for row, own, labels in zip(rows, sigmoid(logits), predicted, strict=True):
        assert [row["probabilities"][name] for name in CLASSES] == own.tolist()  # to the bit
        assert row["labels"] == labels == [name for name, one in zip(CLASSES, own >= 0.5, strict=True) if one]
        assert row["top_probabilities"] == sorted(own.tolist(), reverse=True)
        assert row["thresholds"] == "0.5"
    assert len({tuple(labels) for labels in predicted}) > 1


def _lines(folder: Path) -> list[str]:
    return (folder / "m.jsonl").read_text().splitlines()


def _short(path: str) -> str:
    return "/".join(Path(path).parts[-2:])


def test_thresholds_of_the_validation_split(command: Callable[..., Result], tagged: Path, tmp_path: Path) -> None:
    summary = json.loads((tagged / "runs/c/predictions/val-best.json").read_text())
    values = np.array([summary["per_class"][name]["best_threshold"] for name in CLASSES])
    _best_thresholds_are_told_from_those_applied(command, summary)
    result = command("eval", "c", "--split=test", "--threshold=max-f1", "--by=site", "--json")
    scores = json.loads(result.out)
    paths, logits, truth, predicted = _evaluated(tagged)
    there = sigmoid(logits) >= values
    chosen = scores["threshold"]
    assert (chosen["rule"], chosen["fitted_on"]) == ("max-f1", {"split": "val", "count": summary["count"]})
    assert list(chosen["values"].values()) == values.tolist()
    assert chosen["f1_macro"] == pytest.approx(f1_score(truth, there, average="macro", zero_division=0))
    assert chosen["exact"] == (there == truth).all(1).mean()
    assert predicted == [[name for name, one in zip(CLASSES, row, strict=True) if one] for row in there]
    site = np.array([json.loads(line)["site"] for line in _lines(tagged)])
    rows = np.array([int(Path(path).stem) for path in paths])
    for name, found in scores["by"]["site"].items():
        own = site[rows] == name
        known = [index for index in range(3) if truth[own, index].any()]
        binned = np.floor(logits[own] * 32)
        wanted = [average_precision_score(truth[own, index], binned[:, index]) for index in known]
        assert (found["count"], found["map_classes"]) == (int(own.sum()), len(known))
        assert found["map"] == pytest.approx(np.mean(wanted))
    result = command("predict", "c", *paths, "--thresholds=stored", f"--out={tmp_path}/a.csv")
    assert result.code == 0
    with open(tmp_path / "a.csv", newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["labels"] for row in table] == [";".join(labels) for labels in predicted]
    has = np.array([[int(row[f"has {name}"]) for name in CLASSES] for row in table])
    np.testing.assert_array_equal(has, there)
    assert [[float(row[f"probability of {name}"]) for name in CLASSES] for row in table] == sigmoid(logits).tolist()
    # and those of a file, written by hand, into Parquet
    (tmp_path / "own.json").write_text(json.dumps({"red": 0, "green": 1, "blue": 0.5}))
    assert command("predict", "c", *paths, f"--thresholds={tmp_path}/own.json", f"--out={tmp_path}/a.parquet").code == 0
    written = parquet.read_table(tmp_path / "a.parquet")
    assert all("red" in labels and "green" not in labels for labels in written["labels"].to_pylist())
    about = json.loads(written.schema.metadata[b"raycls"])
    assert about["threshold_values"] == [0.5, 1.0, 0.0]
    command("eval", "c", "--split=test")  # as the other tests expect it


def _best_thresholds_are_told_from_those_applied(command: Callable[..., Result], summary: dict[str, Any]) -> None:
    """In the words of `eval`: which were found, and that the plain evaluation of val alone keeps them."""
    kept = "; kept for --thresholds stored in predictions/val-best.json"
    for words, applied, stored in (
        (["--split=val"], "0.5000", True),
        (["--split=val", "--threshold=0.3"], "0.3000", True),
        (["--split=val", "--tta=mirror"], "0.5000", False),
        (["--split=val", "--predictions=off"], "0.5000", False),
        (["--data=m.jsonl"], "0.5000", False),
        (["--split=test"], "0.5000", False),
    ):
        result = command("eval", "c", *words)
        lines = result.out.splitlines()
        assert result.code == 0 and any(
            line.split()[-5:] == ["applied", "best", "f1", "at", "images"] for line in lines
        )
        rows = {row[0]: row[1:] for row in map(str.split, lines) if row and row[0] in CLASSES}
        assert [row[4] for row in rows.values()] == [applied] * 3
        if stored:
            best = [f"{summary['per_class'][name]['best_threshold']:.4f}" for name in CLASSES]
            assert [rows[name][5] for name in CLASSES] == best != [applied] * 3
        said = [line for line in lines if line.startswith("best f1 at ")]
        assert len(said) == 1 and "on these images" in said[0] and said[0].endswith(kept) == stored


def test_the_answer_of_a_server(tagged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tagged)
    paths, logits, _, _ = _evaluated(tagged)
    run = open_trained("runs/c")
    thresholds = thresholds_of(run, threshold=0.3)
    predictor = Predictor(Served(run, "cpu", 1, 8, 10**6, str(tagged), thresholds))
    try:
        data = [(tagged / "i" / Path(path).name).read_bytes() for path in paths]

        async def ask() -> list[Answer]:
            return await asyncio.gather(*(predictor.predict(each, 2) for each in data))

        found = asyncio.run(ask())
    finally:
        predictor.close()
    for answer, own in zip(found, sigmoid(logits), strict=True):
        there = [index for index in range(3) if own[index] >= 0.3]
        assert [entry["class"] for entry in answer.body["labels"]] == [CLASSES[index] for index in there]
        assert [entry["probability"] for entry in answer.body["labels"]] == pytest.approx(own[there], abs=1e-6)
        assert {entry["threshold"] for entry in answer.body["labels"]} <= {0.3}
        assert [entry["class"] for entry in answer.body["top"]] == [CLASSES[index] for index in np.argsort(-own)[:2]]
        assert answer.body["model"]["thresholds"] == "0.3"


@pytest.mark.parametrize("form", ["onnx", "pt2"])
def test_an_exported_file_has_the_probabilities_and_the_thresholds(
    form: str, command: Callable[..., Result], tagged: Path, tmp_path: Path
) -> None:
    words = ["--thresholds=stored", "--min-agreement=1", "--max-difference=1e-5", "--json"]
    result = command("export", "c", f"--to={form}", f"--out={tmp_path}/c.{form}", *words)
    facts = json.loads(result.out)
    assert (result.code, facts["passed"], facts["activation"]) == (0, True, "sigmoid")
    summary = json.loads((tagged / "runs/c/predictions/val-best.json").read_text())
    assert facts["thresholds"] == {name: summary["per_class"][name]["best_threshold"] for name in CLASSES}
    assert facts["comparison"]["metric"] == "map"
    _, logits, truth, _ = _evaluated(tagged, "val-best")
    wanted = np.mean([average_precision_score(truth[:, index], logits[:, index]) for index in range(3)])
    assert facts["comparison"]["accuracy"] == pytest.approx(wanted)
    artefact = Artefact(tmp_path / f"c.{form}")
    paths, logits, _, _ = _evaluated(tagged)
    images = [np.asarray(_image(tagged / "i" / Path(path).name)) for path in paths]
    np.testing.assert_allclose(artefact.probabilities(images), sigmoid(logits), atol=1e-5)


def _image(path: Path) -> Any:
    from PIL import Image

    return Image.open(path).convert("RGB")


@pytest.mark.nightly
def test_a_file_with_other_probabilities_is_rejected(
    command: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(SEVERAL), "operator", "Softmax")
    result = command("export", "c", "--to=onnx", f"--out={tmp_path}/c.onnx", "--json")
    facts = json.loads(result.out)
    assert (result.code, facts["passed"]) == (1, False)
    assert any("label set agreement" in line for line in facts["failures"])
    assert [file.name for file in tmp_path.glob("*.onnx*")] and not (tmp_path / "c.onnx").exists()


def test_the_report_has_average_precision_thresholds_and_doubtful_labels(
    command: Callable[..., Result], tagged: Path, tmp_path: Path
) -> None:
    command("eval", "c", "--split=train")
    result = command("report", "c", "--split=train", f"--out={tmp_path}/r.html", "--card")
    assert result.code == 0, result.err
    page, card = (tmp_path / "r.html").read_text(), (tmp_path / "model_card.md").read_text()
    summary = json.loads((tagged / "runs/c/predictions/train-best.json").read_text())
    for name in CLASSES:
        found = summary["per_class"][name]
        assert f"{100 * found['average_precision']:.1f} %" in card
        assert f"| {100 * found['best_threshold']:.1f} % | {found['support']} |" in card
        row = page[page.index(f'<td class="name"><bdi>{name}</bdi></td>') :].partition("</tr>")[0]
        assert f'data-value="{found["average_precision"]}"' in row and f'data-value="{found["best_threshold"]}"' in row
        count = f'<td data-value="{found["support"]}">{found["support"]}</td>'
        assert row.count(count) == 2  # those that are evaluated are those that were trained on
    assert "| threshold of the highest F1 on these images | images |" in card
    assert "the best threshold is the probability from which F1 is highest on these images" in page
    assert "mean average precision" in page and "confusion" not in page.lower()
    _, logits, truth, _ = _evaluated(tagged, "train-best")
    own = sigmoid(logits)
    missed = np.where(truth & (own < 0.5), own, 2.0)
    lowest = missed.min(1)[missed.min(1) < 2]
    shown = page.partition("A label, and not predicted")[2]
    assert shown.count('class="picture"') == min(24, len(lowest)) > 0
    assert f"<span>{100 * lowest.min():.1f} %</span>" in shown or f"<span>{100 * lowest.min():.2f} %</span>" in shown
    told = command("curves", "c")
    assert told.code == 0 and "mean average precision" in told.out


@pytest.mark.parametrize(
    ("words", "fragment"),
    [
        (("predict", "c", "i", "--calibrated"), "each class has its own"),
        (("predict", "c", "i", "--threshold=0.4", "--thresholds=stored"), "two kinds"),
        (("predict", "c", "i", "--thresholds=no.json"), "there is no such file"),
        (("predict", "c", "i", "--thresholds=m.jsonl"), "cannot be read"),
        (("predict", "c", "i", "--thresholds=few.json"), "none of blue; one of grey"),
        (("predict", "c", "i", "--thresholds=high.json"), "0 to 1"),
        (("predict", "c", "i", "--thresholds=stored", "--weights=last"), "raycls eval"),
        (("eval", "c", "--calibrate"), "--calibrate"),
        (("eval", "c", "--threshold=youden"), "max-f1"),
        (("eval", "c", "--threshold=1.5"), "max-f1"),
        (("eval", "c", "--threshold=max-f1", "--split=val"), "fitted on what is evaluated"),
        (("report", "c", "c"), "are not compared"),
    ],
)
def test_what_has_no_meaning_is_refused(
    words: tuple[str, ...], fragment: str, command: Callable[..., Result], tagged: Path
) -> None:
    (tagged / "few.json").write_text('{"red": 0.5, "green": 0.5, "grey": 0.5}')
    (tagged / "high.json").write_text('{"red": 0.5, "green": 0.5, "blue": 1.5}')
    result = command(*words)
    assert (result.code, result.out) == (2, "")
    assert fragment in result.err and "Traceback" not in result.err


@pytest.mark.nightly
def test_int8_bench_and_pruning_measure_mean_average_precision(command: Callable[..., Result], tagged: Path) -> None:
    _, logits, truth, _ = _evaluated(tagged, "val-best")
    wanted = np.mean([average_precision_score(truth[:, index], logits[:, index]) for index in range(3)])
    result = command("bench", "model", "c", "--no-compile", "--seconds=0", "--json")
    facts = json.loads(result.out)
    assert (result.code, facts["metric"], facts["missing"]) == (0, "map", [])
    assert {row["name"]: row["map"] for row in facts["rows"][:2]} == pytest.approx(
        {"eager": wanted, "onnx fp32": wanted}
    )
    result = command("prune", "c", "--ratio=0.5", "--json")
    assert json.loads(result.out)["before"]["map"] == pytest.approx(wanted)
    int8 = json.loads(command("export", "c", "--to=onnx", "--precision=int8", "--max-drop=100", "--json").out)
    assert int8["comparison"]["metric"] == "map" and int8["passed"]
