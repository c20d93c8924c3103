"""A trained run as its folder holds it: the answers of its network are those of an evaluation."""

from __future__ import annotations

import io
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from raycls.data.samples import Files, Keys
from raycls.errors import CheckpointError, ConfigError, ModelError
from raycls.launch import trainer
from raycls.screen.run import Display
from raycls.session.trained.trained import Network, Trained, open_trained


def _answers(run: Trained, files: list[Path]) -> np.ndarray:
    keys = Keys([str(file) for file in files])
    split, arrays = run.split(keys, Files("/", keys)), run.arrays()
    network = Network(run, torch.device("cpu"))
    samples = [run.sample(arrays, split, row) for row in range(len(files))]
    return network.rows_of(samples)["logits"]


def test_the_answers_are_those_of_an_evaluation(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    run = open_trained("runs/shapes")
    files = sorted((trained / "photos").rglob("*.*"))
    logits = _answers(run, files)
    labels = np.array([run.classes.index(file.parent.name) for file in files])

    summary = trainer.evaluate("runs/shapes", data="photos", display=Display(io.StringIO()))

    confusion = np.zeros((3, 3), int)
    np.add.at(confusion, (labels, logits.argmax(1)), 1)
    assert summary["confusion"] == confusion.tolist()
    assert summary["top1"] > 0.6  # a network that learned something
    assert summary["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels)).item(), rel=1e-5
    )


def test_the_generators_stay_as_they_were(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    run, file = open_trained("runs/shapes"), trained / "photos" / "circle" / "000.png"
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    _answers(run, [file])
    assert torch.equal(torch.rand(4), expected)


def test_it_says_where_it_comes_from(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    run = open_trained("runs/shapes")
    assert run.classes == ("circle", "square", "stripes")
    assert run.provenance["run"] == str(trained / "runs" / "shapes")
    assert run.provenance["weights"] == "best"
    assert len(run.provenance["sha256"]) == 64
    last = open_trained("runs/shapes", weights="last")
    assert last.weights.step == run.plan.total_steps


def test_what_is_no_run_and_what_is_not_complete_is_refused(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as none:
        open_trained(str(tmp_path))
    assert none.value.where == str(tmp_path / "config.yaml")
    run = shutil.copytree(trained / "runs" / "shapes", tmp_path / "copy")
    (run / "plan.json").unlink()
    with pytest.raises(CheckpointError) as partial:
        open_trained(str(run))
    assert partial.value.where == str(run / "plan.json")


def test_a_config_that_was_changed_since_is_told(trained: Path, tmp_path: Path) -> None:
    run = shutil.copytree(trained / "runs" / "shapes", tmp_path / "copy")
    config = run / "config.yaml"
    text = config.read_text()
    assert text.count("width: 8\n") == 1
    config.write_text(text.replace("width: 8\n", "width: 16\n"))
    with pytest.raises(ModelError) as changed:
        Network(open_trained(str(run)), torch.device("cpu"))
    assert changed.value.where == str(config)
    found = r"features.0.weight: \[4, 3, 3, 3\] in the weights, \[8, 3, 3, 3\] in the network; and \d+ more"
    assert re.fullmatch(found, str(changed.value.found))
