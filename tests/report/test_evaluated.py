"""Evaluations in a run folder: which one a report is about, and what its samples are."""

from __future__ import annotations

import html
import io
import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
from harness.html import parse
from harness.typed import raycls

from raycls.launch import trainer
from raycls.report.card import card
from raycls.report.evaluated import find_evaluated, read_samples, value_of
from raycls.report.page.report import report
from raycls.report.runs import tell
from raycls.run.folder import RunFolder
from raycls.screen.run import Display
from raycls.session.scoring.options import Saved, Scoring


@pytest.fixture
def run(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    os.symlink(trained / "photos", tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs" / "shapes"


def _evaluate(run: Path, split: str | None = None, saved: Saved = "full", **more: Any) -> dict[str, Any]:
    scoring = Scoring(predictions=saved, **more)
    return trainer.evaluate(str(run), split=split, scoring=scoring, display=Display(io.StringIO()))


@pytest.mark.parametrize("saved", ["full", "top"])
def test_samples_are_what_was_predicted(run: Path, saved: Saved) -> None:
    summary = _evaluate(run, saved=saved)
    told = tell(RunFolder(run))
    found = find_evaluated(told)
    assert found is not None
    assert {name: value for name, value in found.summary.items() if name != "provenance"} == json.loads(
        json.dumps(summary)
    )
    samples = read_samples(told.folder, found)
    assert samples is not None
    assert len(samples) == summary["count"]
    assert samples.right.mean() == pytest.approx(summary["top1"])
    assert -np.log(samples.truth).mean() == pytest.approx(summary["calibration"]["nll"], rel=1e-12)
    matrix = np.zeros((3, 3), int)
    np.add.at(matrix, (samples.label, samples.predicted), 1)
    assert matrix.tolist() == summary["confusion"]
    table = parquet.read_table(run / "predictions" / "test-best.parquet").to_pylist()
    named = [(row["key"], row["path"], row["label"], row["predicted"], row["confidence"]) for row in table]
    assert named == [
        (key, path, samples.classes[label], samples.classes[predicted], sure)
        for key, path, label, predicted, sure in zip(
            samples.keys, samples.paths, samples.label, samples.predicted, samples.confidence, strict=True
        )
    ]


def test_the_evaluation_of_a_report_is_of_the_weights_in_model(run: Path) -> None:
    told = tell(RunFolder(run))
    assert find_evaluated(told) is None
    _evaluate(run, "val")
    assert find_evaluated(told).split == "val"  # type: ignore[union-attr]
    _evaluate(run)
    assert find_evaluated(told).split == "test"  # type: ignore[union-attr]
    assert find_evaluated(told, "val").split == "val"  # type: ignore[union-attr]
    assert find_evaluated(told, "train") is None
    for file in (run / "predictions").glob("test-*"):
        file.unlink()
    _evaluate(run, tta="mirror")
    trainer.evaluate(str(run), weights="last", scoring=Scoring(), display=Display(io.StringIO()))
    trainer.evaluate(str(run), data="photos", scoring=Scoring(), display=Display(io.StringIO()))
    assert find_evaluated(told).split == "val"  # type: ignore[union-attr] - none of the others is what is meant
    info = json.loads((run / "model" / "model.json").read_text())
    (run / "model" / "model.json").write_text(json.dumps({**info, "sha256": "another"}))
    assert find_evaluated(tell(RunFolder(run))) is None


def test_a_calibrated_evaluation_lies_beside_the_plain_one_and_is_never_taken_for_it(run: Path) -> None:
    """Of a run that was calibrated before anything else, a report has the numbers of the network as it is."""
    calibrated = _evaluate(run, calibrate=True)
    temperature = calibrated["calibration"]["temperature"]
    assert temperature != 1
    told = tell(RunFolder(run))
    assert find_evaluated(told) is None
    plain = _evaluate(run)
    assert {file.name for file in (run / "predictions").iterdir()} == {
        f"test-best{middle}.{end}" for middle in ("", "-calibrated") for end in ("json", "parquet")
    }
    _evaluate(run, calibrated=True)
    found = find_evaluated(told)
    assert found is not None and found.calibrated is not None
    assert found.file == "predictions/test-best.parquet"
    assert found.summary["calibration"] == plain["calibration"]
    assert found.summary["calibration"]["temperature"] == 1
    assert found.calibrated["calibration"]["nll"] == calibrated["calibration"]["nll"] != plain["calibration"]["nll"]
    samples = read_samples(told.folder, found)
    assert samples is not None
    assert -np.log(samples.truth).mean() == pytest.approx(plain["loss"], rel=1e-12)
    numbers = ", ".join(
        f"{name.upper()} {plain['calibration'][name]:.4f} -> {calibrated['calibration'][name]:.4f}"
        for name in ("nll", "ece")
    )
    assert found.probabilities == (
        f"Probabilities are not calibrated; a temperature of {temperature:.4f} was fitted beside them "
        f"(raycls eval --calibrate): {numbers}."
    )
    for text in (
        card(told, found).decode().replace("\\", ""),
        report(told, found, samples, lambda wanted: ({}, "")).decode(),
    ):
        assert html.unescape(found.probabilities) in html.unescape(text)


def test_a_calibrated_run_is_compared_by_what_its_network_says(run: Path) -> None:
    """As one that an earlier version left under the name of the plain evaluation."""
    shutil.copytree(run, run.parent / "twin")
    _evaluate(run, calibrate=True)
    for end in ("json", "parquet"):
        (run / "predictions" / f"test-best-calibrated.{end}").rename(run / "predictions" / f"test-best.{end}")
    assert raycls("report", "shapes", "twin") == 0
    summaries = [
        json.loads((run.parent / name / "predictions" / "test-best.json").read_text()) for name in ("shapes", "twin")
    ]
    assert summaries[0]["calibration"] == summaries[1]["calibration"]
    text = parse(Path("comparison.html").read_text()).text
    assert "Probabilities of both as the networks give them, not calibrated." in text
    nll = f"{summaries[0]['calibration']['nll']:.4f}"[:5]
    assert re.search(rf"negative log-likelihood paired bootstrap {nll}\d* {nll}\d* \+0.0000", text)


def test_nothing_is_kept_where_no_predictions_are_asked_for(run: Path) -> None:
    _evaluate(run, saved="off")
    assert not (run / "predictions").exists()


def test_numbers_are_found_by_the_names_of_their_intervals() -> None:
    summary = {
        "top1": 0.5,
        "f1": {"macro": 0.25, "per_class": {}},
        "calibration": {"ece": 0.1},
        "auroc": {"macro": None},
    }
    assert [value_of(summary, name) for name in ("top1", "f1_macro", "ece", "auroc_macro", "brier")] == [
        0.5,
        0.25,
        0.1,
        None,
        None,
    ]
