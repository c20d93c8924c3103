"""What `raycls eval` says by a column, with a threshold and with a temperature, from its own rows by scikit-learn."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.processes import raycls as raycls_process
from harness.trained import CONFIG
from harness.typed import raycls
from pyarrow import parquet
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score, log_loss, precision_score, recall_score
from sklearn.metrics import roc_auc_score as auroc

_CAMERAS = ("north", "south", "")


@pytest.fixture
def home(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run of three classes, with a manifest of its images and their cameras."""
    shutil.copytree(trained / "runs", tmp_path / "runs")
    os.symlink(trained / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    files = sorted(str(file.relative_to(trained)) for file in (trained / "photos").rglob("*.*"))
    with open("labels.csv", "w", newline="") as file:
        rows = [(path, Path(path).parent.name, _CAMERAS[index % 3]) for index, path in enumerate(files)]
        csv.writer(file).writerows([("path", "label", "camera"), *rows])
    return tmp_path


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Any:
    def command(*words: str) -> dict[str, Any]:
        capsys.readouterr()
        assert raycls("eval", *words, "--json") == 0
        return json.loads(capsys.readouterr().out)

    return command


def _rows(run: str, summary: dict[str, Any]) -> tuple[Any, np.ndarray, np.ndarray]:
    """The table, the labels `[N]` and the logits `[N, C]` of what was written."""
    table = parquet.read_table(Path("runs", run, summary["predictions"]))
    names = json.loads(table.schema.metadata[b"raycls"])["classes"]
    labels = np.array([names.index(name) for name in table["label"].to_pylist()])
    return table, labels, np.array(table["logits"].to_pylist())


def _calibration(labels: np.ndarray, probabilities: np.ndarray) -> dict[str, float]:
    """NLL, Brier score, and the calibration error in 15 bins that have their upper ends."""
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    place = np.ceil(sure * 15)
    gaps = [abs((right[place == each] - sure[place == each]).sum()) for each in range(16)]
    return {
        "nll": log_loss(labels, probabilities, labels=range(probabilities.shape[1])),
        "brier": np.square(probabilities - np.eye(probabilities.shape[1])[labels]).sum(1).mean(),
        "ece": sum(gaps) / len(labels),
    }


def test_by_a_column(home: Path, printed: Any) -> None:
    summary = printed("shapes", "--data", "labels.csv", "--by", "camera")
    table, labels, logits = _rows("shapes", summary)
    cameras, probabilities = np.array(table["by_camera"].to_pylist()), softmax(logits, 1)
    assert list(summary["by"]["camera"]) == sorted(_CAMERAS)
    for camera, found in summary["by"]["camera"].items():
        rows = cameras == camera
        truth, each = labels[rows], probabilities[rows]
        best = each.argmax(1)
        assert found["count"] == rows.sum() == 40
        assert found["top1"] == pytest.approx(accuracy_score(truth, best), rel=1e-12)
        assert found["f1_macro"] == pytest.approx(f1_score(truth, best, average="macro"), rel=1e-12)
        assert found["nll"] == pytest.approx(log_loss(truth, each, labels=range(3)), rel=1e-9)
        expected = auroc(truth, each / each.sum(1, keepdims=True), multi_class="ovr", average="macro")
        assert found["auroc_macro"] == pytest.approx(expected, rel=1e-12)
        assert found["top1_interval"]["low"] < found["top1"] < found["top1_interval"]["high"]
    with (home / "labels.csv").open(newline="") as file:
        listed = {row["path"]: row["camera"] for row in csv.DictReader(file)}
    assert dict(zip(table["key"].to_pylist(), cameras.tolist(), strict=True)) == listed


@pytest.mark.parametrize("words", [(), ("--data", "photos")])
def test_a_folder_has_no_columns(home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]) -> None:
    assert raycls("eval", "shapes", *words, "--by", "camera") == 3
    said = capsys.readouterr().err
    assert said.count("raycls:") == 1
    for fact in ("--by camera", "images of the source folder", "CSV", "--data", "path, label, camera"):
        assert fact in said


def test_with_a_temperature(home: Path, printed: Any) -> None:
    """The one that makes the validation split likeliest; the numbers of the test split are those at it."""
    plain = printed("shapes", "--split", "val")
    _, labels, logits = _rows("shapes", plain)

    def cost(temperature: float) -> float:
        return -log_softmax(logits / temperature, 1)[np.arange(len(labels)), labels].mean()

    best = minimize_scalar(cost, bounds=(0.05, 20), method="bounded", options={"xatol": 1e-9}).x
    summary = printed("shapes", "--calibrate")
    fit = summary["calibration"]["fit"]
    assert fit["temperature"] == summary["calibration"]["temperature"] == pytest.approx(best, rel=1e-5)
    for name, expected in _calibration(labels, softmax(logits / fit["temperature"], 1)).items():
        assert fit["after"][name] == pytest.approx(expected, rel=1e-9)
        assert fit["before"][name] == pytest.approx(plain["calibration"][name], rel=1e-12)
    table, labels, logits = _rows("shapes", summary)
    probabilities = softmax(logits / fit["temperature"], 1)
    assert table["confidence"].to_numpy() == pytest.approx(probabilities.max(1), rel=1e-12)
    assert json.loads(table.schema.metadata[b"raycls"])["temperature"] == fit["temperature"]
    for name, expected in _calibration(labels, probabilities).items():
        assert summary["calibration"][name] == pytest.approx(expected, rel=1e-9)
    for name, expected in _calibration(labels, softmax(logits, 1)).items():
        assert summary["calibration"]["raw"][name] == pytest.approx(expected, rel=1e-9)
    again = printed("shapes", "--calibrated")
    assert again["calibration"] == {name: value for name, value in summary["calibration"].items() if name != "fit"}
    assert again["auroc"]["macro"] == pytest.approx(auroc(labels, probabilities, multi_class="ovr"), rel=1e-12)


def test_with_a_threshold(home: Path, printed: Any) -> None:
    """Of two classes; it is fitted on the validation split and measured on the test split."""
    manifest = (home / "labels.csv").read_text().splitlines()
    (home / "two.csv").write_text("\n".join(line for line in manifest if ",stripes," not in line))
    (home / "two.yaml").write_text(CONFIG)
    overrides = ("run.name=two", "data.source.name=manifest", "data.source.path=two.csv", "train.duration=2ep")
    assert raycls("train", "two.yaml", *overrides) == 0
    table, labels, logits = _rows("two", printed("two", "--split", "val"))
    scores = softmax(logits, 1)[:, 0]  # of the class circle
    cuts = np.unique(scores)
    best = max(f1_score(labels == 0, scores >= cut) for cut in cuts)

    summary = printed("two", "--threshold", "max-f1", "--positive", "circle")
    found = summary["threshold"]
    assert (found["positive"], found["fitted_on"]) == ("circle", {"split": "val", "count": len(labels)})
    assert f1_score(labels == 0, scores >= found["value"]) == pytest.approx(best, rel=1e-12)
    table, labels, logits = _rows("two", summary)
    assert len(table) == summary["count"] == 16
    positive, called = labels == 0, softmax(logits, 1)[:, 0] >= found["value"]
    names = ("true_negative", "false_positive", "false_negative", "true_positive")
    assert [found[name] for name in names] == confusion_matrix(positive, called, labels=[False, True]).ravel().tolist()
    assert found["accuracy"] == pytest.approx(accuracy_score(positive, called))
    assert found["f1"] == pytest.approx(f1_score(positive, called, zero_division=0))
    assert found["recall"] == pytest.approx(recall_score(positive, called))
    assert found["specificity"] == pytest.approx(recall_score(~positive, ~called))
    if called.any():
        assert found["precision"] == pytest.approx(precision_score(positive, called))
    given = printed("two", "--threshold", "0.5")["threshold"]
    called = softmax(logits, 1)[:, 1] >= 0.5
    assert (given["positive"], given["value"], given["fitted_on"]) == ("square", 0.5, None)
    assert given["accuracy"] == pytest.approx(accuracy_score(labels == 1, called))


@pytest.mark.ray
@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_on_ray_the_rows_and_the_summary_are_the_same(home: Path) -> None:
    found = []
    for workers in (0, 2):
        words = ("eval", "shapes", "--data", "labels.csv", "--by", "camera", "--json", f"scale.workers={workers}")
        with raycls_process(home, *words, name=f"workers{workers}") as command:
            assert command.wait(200) == 0, command.said()
            summary = json.loads(command.stdout)
        file = home / "runs" / "shapes" / summary["predictions"]
        found.append((summary, file.read_bytes()))
        file.unlink()
    assert found[0] == found[1]
