"""A network of one channel: its files take the images of before, and make the grey values themselves."""

from __future__ import annotations

import asyncio
import io
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from harness.depths import write_bands, write_deep
from harness.trained import CONFIG, write_photos
from PIL import Image

from raycls.config.load import load_text
from raycls.errors import ConfigError
from raycls.export.artefact import normalised
from raycls.export.export import Wanted, export
from raycls.export.triton.config import contract
from raycls.launch import trainer
from raycls.screen.export_text import exported_lines
from raycls.screen.run import Display
from raycls.serve.answer import Answer
from raycls.serve.predictor import Predictor, Served
from raycls.session.predictions.output import rows_of
from raycls.session.predictions.predict import Request, predict
from raycls.session.trained.trained import Network, Trained, open_trained

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


@pytest.fixture
def decoded_grey(home: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A run whose images are grey before any operation."""
    monkeypatch.chdir(home)
    if not Path("runs/early").exists():
        write_photos(home / "photos", 12)
        given = ["run.name=early", "data.channels=1", "model.in_channels=1", "train.duration=2ep"]
        given += ["augment.mean=[0.4815]", "augment.std=[0.24075]"]
        trainer.train(load_text(CONFIG, "shapes.yaml", given).run, display=Display(io.StringIO()))
    return open_trained("runs/early")


@pytest.mark.parametrize("to", ["onnx", "pt2"])
def test_a_file_makes_images_grey_before_the_operations(to: str, decoded_grey: Trained, tmp_path: Path) -> None:
    done = export(decoded_grey, tmp_path, "early", Wanted(to=to))  # pyright: ignore[reportArgumentType]
    assert (done.passed, done.comparison.agreement) == (True, 1.0)
    assert done.comparison.difference < 2e-3
    told = done.facts["preprocessing"]
    assert (told["channels"], told["network_channels"]) == ("RGB", 1)
    assert told["decoded"] == {"channels": 1, "bits": 8, "white": 255}


@pytest.fixture
def deep(home: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A run on 16-bit grey files."""
    monkeypatch.chdir(home)
    if not Path("runs/deep").exists():
        write_deep(home / "deep")
        given = ["run.name=deep", "data.source.path=deep", "data.channels=1", "model.in_channels=1"]
        given += ["data.bit_depth=16", "augment.mean=[0.2515]", "augment.std=[0.001]"]
        trainer.train(load_text(CONFIG, "deep.yaml", given).run, display=Display(io.StringIO()))
    return open_trained("runs/deep")


def test_16_bits_are_exported_without_the_preprocessing(deep: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a 16-bit grey image cannot be prepared") as raised:
        export(deep, tmp_path, "inside", Wanted())
    assert "--preprocess=outside" in (raised.value.fix or "")
    done = export(deep, tmp_path, "outside", Wanted(inside=False))
    assert done.passed
    assert done.comparison.difference < 1e-5
    assert done.facts["preprocessing"]["decoded"] == {"channels": 1, "bits": 16, "white": 65535}


def test_16_bits_outside_are_divided_by_their_white() -> None:
    pixels = np.array([0, 257, 40000, 65535], np.uint16).reshape(1, 2, 2, 1)
    found = normalised(pixels, (0.0,), (1.0,))
    np.testing.assert_array_equal(found.ravel(), pixels.ravel().astype(np.float32) * np.float32(1 / 65535))
    scale, shift = np.float32(1 / (65535 * 0.001)), np.float32(-0.2515 / 0.001)
    assert normalised(pixels, (0.2515,), (0.001,)).ravel()[2] == np.float32(40000) * scale + shift


def test_predict_and_serve_have_the_low_bytes(deep: Trained) -> None:
    """Both say what the network says of the values of the file, as numpy makes them."""
    network = Network(deep, torch.device("cpu"))
    files = sorted(Path("deep/val/light").iterdir())[:2]
    served = Predictor(Served(deep, "cpu", 1, 8, 10**6, "."))

    async def ask() -> list[Answer]:
        return await asyncio.gather(*(served.predict(file.read_bytes(), 2) for file in files))

    try:
        answers = asyncio.run(ask())
    finally:
        served.close()
    done = predict(Request("runs/deep", tuple(map(str, files)), every=True), join=lambda *_: nullcontext(), say=print)  # pyright: ignore
    parts = [row for part in done.parts for row in rows_of(done.work, part)]
    for file, answer, row in zip(files, answers, parts, strict=True):
        values = np.asarray(Image.open(file)).astype(np.float32)
        levels = np.asarray(Image.fromarray(values).resize((28, 28), Image.Resampling.BILINEAR))
        levels = np.rint(levels)[2:26, 2:26].astype(np.uint16)
        logits = network.rows({"image": levels[None, ..., None], "label": np.zeros(1, np.int64)})["logits"][0]
        chances = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        assert answer.status == 200
        assert row["probabilities"] == pytest.approx(chances.tolist(), abs=1e-6)
        said = {entry["class"]: entry["probability"] for entry in answer.body["top"]}
        for name, chance in zip(deep.classes, chances.tolist(), strict=True):
            assert said[name] == pytest.approx(chance, abs=1e-6)


@pytest.fixture
def banded(home: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """A run on arrays of five channels."""
    monkeypatch.chdir(home)
    if not Path("runs/bands").exists():
        write_bands(home)
        given = ["run.name=bands", "data.source={name: manifest, path: bands.csv}", "data.formats=[npy]"]
        given += ["data.channels=5", "model.in_channels=5", "data.bit_depth=16", "augment.mean=[0, 0, 0, 0, 0.2515]"]
        given += ["augment.std=[1, 1, 1, 1, 0.001]"]
        trainer.train(load_text(CONFIG, "bands.yaml", given).run, display=Display(io.StringIO()))
    return open_trained("runs/bands")


def test_channels_are_exported_without_the_preprocessing(banded: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a 16-bit image of 5 channels cannot be prepared") as raised:
        export(banded, tmp_path, "inside", Wanted())
    assert "--preprocess=outside" in (raised.value.fix or "")
    done = export(banded, tmp_path, "outside", Wanted(inside=False))
    assert done.passed
    assert done.comparison.difference < 1e-5
    assert contract(done.facts)["input"][0]["dims"] == [5, 24, 24]
    told = done.facts["preprocessing"]
    assert (told["channels"], told["decoded"]) == ("as decoded", {"channels": 5, "bits": 16, "white": 65535})


def test_predict_and_serve_take_arrays(banded: Trained) -> None:
    files = sorted(Path("bands").glob("val*.npy"))[:2]
    served = Predictor(Served(banded, "cpu", 1, 8, 10**6, "."))

    async def ask() -> list[Answer]:
        asked = [served.predict(file.read_bytes(), 2) for file in files]
        return await asyncio.gather(*asked, served.predict(b"\x89PNG\r\n\x1a\n", 2))

    try:
        *answers, refused = asyncio.run(ask())
    finally:
        served.close()
    assert refused.status == 422
    done = predict(Request("runs/bands", tuple(map(str, files)), every=True), join=lambda *_: nullcontext(), say=print)  # pyright: ignore
    rows = [row for part in done.parts for row in rows_of(done.work, part)]
    for answer, row in zip(answers, rows, strict=True):
        said = {entry["class"]: entry["probability"] for entry in answer.body["top"]}
        assert [said[name] for name in banded.classes] == pytest.approx(row["probabilities"], abs=1e-6)
