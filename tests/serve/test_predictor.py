"""One copy of a network: images of several shapes, what draws, what fails, and a run folder on an object store."""

from __future__ import annotations

import asyncio
import io
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.object_store import S3
from PIL import Image

from raycls.errors import DataError, ModelError
from raycls.serve.answer import Answer
from raycls.serve.predictor import Predictor, Served, check
from raycls.session.trained.trained import Network, Trained, open_trained


def _ask(run: Trained, images: list[bytes], **options: Any) -> list[Answer | BaseException]:
    given = {"device": "cpu", "threads": 1, "max_batch": 8, "max_pixels": 10**6, "workdir": ".", **options}
    predictor = Predictor(Served(run, **given))

    async def ask() -> list[Answer | BaseException]:
        asked = [predictor.predict(data, 3) for data in images]
        return await asyncio.gather(*asked, return_exceptions=True)

    try:
        return asyncio.run(ask())
    finally:
        predictor.close()


def _files(home: Path, count: int) -> list[bytes]:
    return [file.read_bytes() for file in sorted((home / "photos" / "square").iterdir())[:count]]


def test_samples_of_several_shapes_are_answered_beside_each_other(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    run = open_trained("runs/shapes", overrides=["augment.eval=[{resize: {size: 28}}]"])
    images = _files(trained, 12)
    found = _ask(run, images)
    network = Network(run, torch.device("cpu"))
    shapes = set()
    for data, answer in zip(images, found, strict=True):
        image = Image.open(io.BytesIO(data)).convert("RGB")
        scale = 28 / min(image.size)
        # torchvision's rule for one number: the longer side is rounded down
        size = tuple(28 if side == min(image.size) else int(side * scale) for side in image.size)
        pixels = np.asarray(image.resize(size, Image.Resampling.BILINEAR))
        shapes.add(pixels.shape)
        logits = network.rows({"image": pixels[None], "label": np.zeros(1, np.int64)})["logits"][0].astype(np.float64)
        powers = np.exp(logits - logits.max())
        assert isinstance(answer, Answer)
        probabilities = {entry["class"]: entry["probability"] for entry in answer.body["top"]}
        expected = dict(zip(run.classes, (powers / powers.sum()).tolist(), strict=True))
        assert probabilities == pytest.approx(expected, abs=1e-6)
    assert len(shapes) > 1


def test_a_limit_of_pixels_is_that_of_the_server(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    file = io.BytesIO()
    Image.new("RGB", (101, 100)).save(file, "PNG")
    (large,) = _ask(open_trained("runs/shapes"), [file.getvalue()], max_pixels=10_000)
    (whole,) = _ask(open_trained("runs/shapes"), [file.getvalue()], max_pixels=10_100)
    assert isinstance(large, Answer) and isinstance(whole, Answer)
    assert (large.status, whole.status) == (422, 200)
    assert "101 x 100" in large.body["found"]


_PLUGIN = """
import numpy as np

def dark():
    def operation(image):
        if np.asarray(image).mean() < 1:
            return image
        raise RuntimeError("it is too bright")
    return operation
"""


def test_a_fault_of_a_plug_in_is_no_fault_of_the_image(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "darkness.py").write_text(textwrap.dedent(_PLUGIN))
    monkeypatch.chdir(tmp_path)
    overrides = ['augment.eval=[{resize: {size: 28}}, center_crop, {"darkness:dark": {}}]']
    run = open_trained(str(trained / "runs" / "shapes"), overrides=overrides)
    black = io.BytesIO()
    Image.new("RGB", (40, 40)).save(black, "PNG")
    found = _ask(run, [black.getvalue(), *_files(trained, 1)], workdir=str(tmp_path))
    assert isinstance(found[0], Answer) and found[0].status == 200
    assert isinstance(found[1], DataError) and "it is too bright" in str(found[1])


def test_a_network_that_gives_no_numbers_is_an_error_and_no_answer(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setattr(
        Network, "rows_of", lambda self, samples: {"logits": np.full((len(samples), 3), np.nan, np.float32)}
    )
    (found,) = _ask(open_trained("runs/shapes"), _files(trained, 1))
    assert isinstance(found, ModelError)


def test_a_task_without_logits_is_refused_before_anything_is_started(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    monkeypatch.setattr(Network, "rows_of", lambda self, samples: {})
    threads = torch.get_num_threads()
    with pytest.raises(ModelError) as refused:
        check(Served(open_trained("runs/shapes"), "cpu", threads + 1, 8, 10**6, str(trained)))
    assert refused.value.where == "task.name: classification"
    assert torch.get_num_threads() == threads


def test_a_run_folder_on_an_object_store(trained: Path, s3: S3) -> None:
    folder = trained / "runs" / "shapes"
    s3.upload(folder, "runs/shapes")
    images = _files(trained, 3)
    there, here = (_ask(open_trained(uri), images, max_batch=1) for uri in (s3.uri("runs/shapes"), str(folder)))
    for one, other in zip(there, here, strict=True):
        assert isinstance(one, Answer) and isinstance(other, Answer)
        assert one.body["top"] == other.body["top"]
        assert one.body["model"] == {**other.body["model"], "run": "s3://bucket/runs/shapes"}
