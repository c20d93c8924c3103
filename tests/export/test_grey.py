"""A network of one channel: its files take the images of before, and make the grey values themselves."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from harness.trained import CONFIG, write_photos
from PIL import Image

from raycls.config.load import load_text
from raycls.export.artefact import normalised
from raycls.export.export import Wanted, export
from raycls.export.triton.config import contract
from raycls.launch import trainer
from raycls.screen.export_text import exported_lines
from raycls.screen.run import Display
from raycls.session.trained.trained import Trained, open_trained

MEAN, STD = (0.4815,), (0.24075,)
"""0.299, 0.587 and 0.114 of those of the run: (0.4, 0.5, 0.6) and (0.2, 0.25, 0.3), which Pillow rounds to 1/65536."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grey")


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    monkeypatch.chdir(home)
    if not Path("runs").exists():
        write_photos(home / "photos", 12)
        config = load_text(CONFIG, "shapes.yaml", ["model.in_channels=1", "train.duration=2ep"]).run
        trainer.train(config, display=Display(io.StringIO()))
    return open_trained("runs/shapes")


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_file_makes_grey_values_itself(to: str, run: Trained, tmp_path: Path) -> None:
    done = export(run, tmp_path, "grey", Wanted(to=to))  # pyright: ignore[reportArgumentType]
    assert (done.passed, done.comparison.agreement) == (True, 1.0)
    assert done.comparison.difference < 2e-3  # some pixels differ by one level, as with colours
    told = done.facts["preprocessing"]
    assert (told["channels"], told["network_channels"], len(told["mean"])) == ("RGB", 1, 1)
    assert contract(done.facts)["input"][0]["dims"] == [-1, -1, 3]


def test_outside_takes_grey_values(run: Trained, tmp_path: Path) -> None:
    done = export(run, tmp_path, "outside", Wanted(inside=False))
    assert done.passed
    assert done.comparison.difference < 1e-5  # nothing is resampled, and grey values are exact
    session = onnxruntime.InferenceSession(done.path, providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 1, 24, 24]
    assert contract(done.facts)["input"][0]["dims"] == [1, 24, 24]
    lines = exported_lines(done.facts, "grey")
    assert "images float32 [B, 1, H, W] of 24 x 24 pixels" in lines[1]
    assert lines[3] == f"accuracy {done.comparison.accuracy:.2%} trained, in float32; {lines[3].rpartition('; ')[2]}"
    told = done.facts["preprocessing"]
    assert (told["channels"], told["network_channels"]) == ("grey", 1)
    assert told["mean"] == pytest.approx(MEAN, abs=1e-6)
    assert told["std"] == pytest.approx(STD, abs=1e-6)


def test_grey_values_outside_are_those_of_pillow() -> None:
    pixels = np.random.RandomState(0).randint(0, 256, (1, 200, 300, 3), dtype=np.uint8)
    level = np.asarray(Image.fromarray(pixels[0]).convert("L"))
    found = normalised(pixels, (0.0,), (1 / 255,))
    assert found.dtype == np.float32
    assert np.array_equal(found, level[None, None].astype(np.float32))
