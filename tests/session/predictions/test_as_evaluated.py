"""What `predict` answers and what `eval` writes of the same images: the same bytes, in the precision of the run."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness.trained import CONFIG
from pyarrow import parquet

from raycls.config.load import load_text
from raycls.launch import trainer
from raycls.screen.run import Display
from raycls.session.predictions.predict import Predicted, Request, predict
from raycls.session.scoring.options import Scoring
from raycls.session.trained.trained import Trained, open_trained
from raycls.tasks.scores.probabilities import Probabilities


@pytest.fixture(scope="module")
def mixed(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the run `runs/mixed`, which was trained in bf16."""
    home = shutil.copytree(trained, tmp_path_factory.mktemp("mixed") / "home")
    overrides = ["run.name=mixed", "train.amp=bf16", "train.duration=1ep"]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(home)
        trainer.train(load_text(CONFIG, "shapes.yaml", overrides).run, display=Display(io.StringIO()))
    return home


def _predict(run: str, said: list[str]) -> Predicted:
    def join(*_: object) -> None:
        raise AssertionError("nobody asked for Ray")

    return predict(Request(run, ("photos",), every=True), join=join, say=said.append)  # pyright: ignore


def _evaluate(run: str, screen: io.StringIO) -> dict[str, list[object]]:
    summary = trainer.evaluate(run, data="photos", scoring=Scoring(), display=Display(screen))
    table = parquet.read_table(Path(run) / summary["predictions"])
    return {name: table[name].to_pylist() for name in table.column_names}


def _assert_same_bytes(run: str) -> None:
    """The rows of `eval --data photos` and of `predict photos`."""
    said, screen = list[str](), io.StringIO()
    found, written = _predict(run, said), _evaluate(run, screen)
    (part,), classes = found.parts, np.array(found.work.trained.classes)
    assert [str(Path(key).resolve()) for key in found.work.split.keys] == written["path"]
    assert classes[part.classes].tolist() == written["top_classes"]
    assert part.top.tobytes() == np.array(written["top_probabilities"]).tobytes()
    assert part.top[:, 0].tobytes() == np.array(written["confidence"]).tobytes()
    probabilities = Probabilities(np.array(written["logits"], np.float32))
    assert part.probabilities.tobytes() == probabilities.rows(slice(0, len(part.probabilities))).tobytes()
    assert len(part.errors) == 120
    told = any("computed in float32" in line for line in said)
    assert told == ("computed in float32" in screen.getvalue())
    assert told == (found.work.precision != open_trained(run).plan.precision)


def test_in_float32(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mixed)
    _assert_same_bytes("runs/shapes")


def test_in_bf16(mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mixed)
    _assert_same_bytes("runs/mixed")
    found = _predict("runs/mixed", [])
    assert found.work.precision == "bf16"
    monkeypatch.setattr(Trained, "precision_on", lambda *_: "off")
    (part,), (other,) = found.parts, _predict("runs/mixed", []).parts
    assert not np.array_equal(part.top, other.top)  # it does make a difference here


def test_on_a_cpu_that_has_no_bf16(mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose training took bf16 because its device had it."""
    home = shutil.copytree(mixed, tmp_path / "home")
    config = home / "runs/mixed/config.yaml"
    text = config.read_text()
    assert "amp: bf16" in text
    config.write_text(text.replace("amp: bf16", "amp: auto"))
    monkeypatch.chdir(home)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    _assert_same_bytes("runs/mixed")
    assert _predict("runs/mixed", []).work.precision == "off"
    config.write_text(text)  # a user who said bf16 has it
    assert _predict("runs/mixed", []).work.precision == "bf16"
