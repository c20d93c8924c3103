"""What runs say of labels: which images they were trained on, and which labels they contradict."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

import numpy as np
import pytest

from raycls.config.load import load, load_text
from raycls.data.source import Dataset, open_dataset, open_pool
from raycls.errors import ConfigError
from raycls.launch import trainer
from raycls.screen.run import Display
from raycls.session.checking.judged import Judged, judged, judges


@pytest.fixture(autouse=True)
def inside(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)


def _manifest(file: Path) -> Dataset:
    """The photos in a manifest elsewhere."""
    with file.open("w", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "label"))
        for path in sorted(Path("photos").rglob("*.*")):
            writer.writerow((path.absolute(), path.parent.name))
    return open_dataset(load_text(f"data: {{source: {{name: manifest, path: {file}}}}}", "c.yaml", ()).run.data)


def _paths(dataset: Dataset) -> list[str]:
    places = (split.locate(row) for split in dataset.splits.values() for row in range(len(split)))
    return [os.path.relpath(place) for place in places]


def _judged(dataset: Dataset, *runs: str, said: list[str] | None = None) -> Judged:
    return judged(dataset, judges(dataset, runs), ([] if said is None else said).append)


def test_what_was_trained_on_is_said_and_labels_are_ordered(tmp_path: Path) -> None:
    own = open_dataset(load_text(Path("shapes.yaml").read_text(), "shapes.yaml").run.data)
    seen = {os.path.relpath(own.splits["train"].locate(row)) for row in range(len(own.splits["train"]))}
    dataset = _manifest(tmp_path / "m.csv")
    found = _judged(dataset, "runs/shapes")
    paths = _paths(dataset)
    assert found.trained_on.tolist() == [path in seen for path in paths]
    assert len(found.suspects) == max(30, found.contradicted)
    contradicted = [suspect.contradicted for suspect in found.suspects]
    assert contradicted == sorted(contradicted, reverse=True)
    margins = [suspect.of_label - suspect.of_suggested for suspect in found.suspects[: found.contradicted]]
    assert margins == sorted(margins)


@pytest.mark.slow
def test_of_20_flipped_labels_that_were_trained_on_15_are_among_the_first_30(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pool = open_pool(load_text("data: {source: {name: digits, path: d}}", "c.yaml", ()).run.data)
    draw = np.random.default_rng(0)
    flipped = set(draw.choice(len(pool.labels), 20, replace=False).tolist())
    rows = [
        f"d/{pool.keys[row]},{(label + row % 9 + 1) % 10 if row in flipped else label}"
        for row, label in enumerate(pool.labels.tolist())
    ]
    Path("m.csv").write_text("\n".join(["path,label", *rows]))
    words = ["data.source.name=manifest", "data.source.path=m.csv", "data.split={train: 0.9, val: 0.1, test: 0.0}"]
    words += ["scale.workers=0", "run.name=flipped", "evaluate.every=15ep", "train.duration=8ep"]
    words += ["model.args={width: 16}"]
    run = load("recipe:digits", words).run
    trainer.train(run, display=Display(io.StringIO()))
    dataset = open_dataset(run.data)
    found = _judged(dataset, "runs/flipped")
    wrong = {f"d/{pool.keys[row]}" for row in flipped}
    paths = _paths(dataset)
    assert found.trained_on.sum() == len(dataset.splits["train"])
    assert len({paths[suspect.image] for suspect in found.suspects[:30]} & wrong) >= 15


def test_of_several_runs_those_judge_that_were_not_trained_on_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = _manifest(tmp_path / "m.csv")
    count = len(_paths(dataset))
    answers = iter([np.full((count, 3), [0.9, 0.1, 0.0]), np.full((count, 3), [0.1, 0.9, 0.0])])
    seen = iter([np.arange(count) < 10, np.arange(count) < 20])
    asked: list[np.ndarray] = []
    module = "raycls.session.checking.judged"
    monkeypatch.setattr(f"{module}._probabilities", lambda *args: next(answers))
    monkeypatch.setattr(f"{module}._trained_on", lambda *args: next(seen))
    monkeypatch.setattr(f"{module}.suspects", lambda mean, labels, least: asked.append(mean) or [])
    found = _judged(dataset, "runs/shapes", "runs/shapes")
    assert found.trained_on.tolist() == [index < 10 for index in range(count)]
    np.testing.assert_allclose(asked[0][:10], [[0.5, 0.5, 0]] * 10)  # both were trained on these
    np.testing.assert_allclose(asked[0][10:20], [[0.9, 0.1, 0]] * 10)  # of these the second alone was
    np.testing.assert_allclose(asked[0][20:], [[0.5, 0.5, 0]] * (count - 20))


def test_a_run_whose_data_is_gone_counts_as_trained_on_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = _manifest(tmp_path / "m.csv")
    run = os.path.abspath("runs/shapes")
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    assert _judged(dataset, run, said=said).trained_on.all()
    assert "all images count as trained on" in said[0]


def test_a_run_that_does_not_know_the_classes_is_refused(tmp_path: Path) -> None:
    rows = ["path,label"]
    for number, path in enumerate(sorted(Path("photos").rglob("*.*"))):
        rows.append(f"{path.absolute()},{('x', 'y')[number % 2]}")
    (tmp_path / "m.csv").write_text("\n".join(rows))
    config = load_text(f"data: {{source: {{name: manifest, path: {tmp_path / 'm.csv'}}}}}", "c.yaml", ()).run.data
    with pytest.raises(ConfigError, match="judge labels"):
        _judged(open_dataset(config), "runs/shapes")
