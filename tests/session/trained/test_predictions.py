"""What an evaluation writes of each row: complete, in order, what was counted, and the same bytes on 1, 2, 3 ranks."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as parquet
import pytest
import torch
from harness.jobs import evaluate_rank, make_job, train, write_arrays
from harness.ranks import run_ranks

from raycls.config.sections.data import SourceConfig
from raycls.data.samples import Files, Keys
from raycls.launch import trainer
from raycls.run.folder import RunFolder
from raycls.run.kept import choose
from raycls.screen.run import Display
from raycls.session.job import Job
from raycls.session.scoring.options import Scoring
from raycls.session.trained.predictions import file_of
from raycls.session.trained.trained import Network, open_trained


def _job(folder: Path, rows: int, scoring: Scoring) -> Job:
    data = write_arrays(folder / "data.npz", train=64, val=rows, classes=7)
    job = make_job(folder / "run", data, "train.duration=2st", "evaluate.every=off", "evaluate.batch_size=64")
    train(job)
    weights = choose(RunFolder(job.folder), None)
    provenance = (("run", "here"), ("weights", weights.name), ("step", weights.step), ("sha256", ""))
    scoring = dataclasses.replace(scoring, provenance=provenance)
    return dataclasses.replace(job, split="val", weights=weights, scoring=scoring)


def _result(job: Job, world: int) -> tuple[str, bytes]:
    """The summary as JSON and the file of predictions, which is deleted."""
    summary: dict[str, Any] = run_ranks(world, evaluate_rank, job)[0]
    file = Path(job.folder) / summary["predictions"]
    data = file.read_bytes()
    file.unlink()
    return json.dumps(summary), data


_ASKED = [(70, "turns"), *(pytest.param(403, tta, marks=pytest.mark.slow) for tta in ("off", "flips"))]


@pytest.mark.parametrize(("rows", "tta"), _ASKED)
def test_one_two_and_three_ranks_give_the_same_bytes(rows: int, tta: Any, tmp_path: Path) -> None:
    job = _job(tmp_path, rows, Scoring(tta=tta))
    alone = _result(job, 1)
    assert _result(job, 2) == alone
    assert _result(job, 3) == alone  # of 70 rows, the third rank has none
    assert json.loads(alone[0])["count"] == rows


def test_rows_are_those_of_the_data_with_what_the_network_says(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = shutil.copytree(trained, tmp_path / "home")
    monkeypatch.chdir(home)
    summary = trainer.evaluate("runs/shapes", data="photos", scoring=Scoring(), display=Display(io.StringIO()))

    table = parquet.read_table(Path("runs/shapes") / summary["predictions"])
    files = sorted(file.relative_to("photos") for file in Path("photos").rglob("*.*"))
    assert table["key"].to_pylist() == [str(file) for file in files]
    assert table["path"].to_pylist() == [str(home / "photos" / file) for file in files]
    assert table["label"].to_pylist() == [file.parent.name for file in files]
    run = open_trained("runs/shapes")
    keys = Keys(table["path"].to_pylist())
    split, arrays = run.split(keys, Files("/", keys)), run.arrays()
    logits = Network(run, torch.device("cpu")).rows_of([run.sample(arrays, split, row) for row in range(len(keys))])
    found = np.array(table["logits"].to_pylist())
    np.testing.assert_allclose(found, logits["logits"], atol=1e-5)  # the batches are others
    probabilities = torch.from_numpy(found).softmax(1).numpy()
    np.testing.assert_allclose(table["confidence"].to_numpy(), probabilities.max(1), rtol=1e-12)
    best = [run.classes[label] for label in probabilities.argmax(1)]
    assert table["predicted"].to_pylist() == best
    assert [names[0] for names in table["top_classes"].to_pylist()] == best
    assert [sorted(names) for names in table["top_classes"].to_pylist()] == [["circle", "square", "stripes"]] * 120
    right = np.mean([a == b for a, b in zip(table["label"].to_pylist(), best, strict=True)])
    assert summary["top1"] == pytest.approx(right, rel=1e-12)
    about = json.loads(table.schema.metadata[b"raycls"])
    assert about["classes"] == ["circle", "square", "stripes"]
    assert {name: about[name] for name in run.provenance} == run.provenance
    assert (about["split"], about["data"], about["count"], about["tta"]) == ("all", "photos", 120, "off")


def test_less_is_written_where_less_is_asked_for(tmp_path: Path) -> None:
    job = _job(tmp_path, 20, Scoring(predictions="top"))
    summary = run_ranks(1, evaluate_rank, job)[0]
    names = parquet.read_schema(Path(job.folder) / summary["predictions"]).names
    assert "logits" not in names and "top_probabilities" in names
    (Path(job.folder) / summary["predictions"]).unlink()
    off = dataclasses.replace(job, scoring=Scoring(predictions="off"))
    assert "predictions" not in run_ranks(1, evaluate_rank, off)[0]
    assert list((Path(job.folder) / "predictions").iterdir()) == []


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (("test", "best", None, {}), "test-best"),
        (("val", "step-7", None, {"tta": "flips"}), "val-step-7-flips"),
        (("test", "best", None, {"calibrated": True}), "test-best-calibrated"),
        (("all", "best", "/data/holdout/", {}), "data-holdout-[0-9a-f]{6}-best"),
        (("test", "last", "a b/über 2.csv", {"calibrated": True}), "data-_ber_2-[0-9a-f]{6}-test-last-calibrated"),
        (("test", "", None, {}), "test-model"),
    ],
)
def test_the_file_is_called_after_what_it_holds(given: tuple[str, str, str | None, dict[str, Any]], name: str) -> None:
    split, weights, path, more = given
    data = None if path is None else SourceConfig(name="folder", path=path)
    assert re.fullmatch(f"predictions/{name}.parquet", file_of(split, weights, data=data, **more))


def test_other_data_of_the_same_name_has_a_file_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("o1")

    def name(path: str, **args: Any) -> str:
        return file_of("all", "best", data=SourceConfig(name="manifest", path=path, args=args))

    names = [name("o1/test.csv"), name("o2/test.csv"), name("o1/test.csv", columns={"label": "site"})]
    assert len(set(names)) == 3
    again = [
        name(path) for path in ("o1/test.csv", "./o1/../o1/test.csv", str(tmp_path / "o1/test.csv"), "link/test.csv")
    ]
    assert set(again) == {names[0]}
