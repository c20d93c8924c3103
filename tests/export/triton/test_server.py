"""What `raycls export --to triton` writes, read by Triton's own protocol buffer and served by a real tritonserver.

The package registry has Triton without its onnxruntime backend: a backend in Python stands for it, see
harness/triton_backend.py. Server, scheduler, batcher, warm-up, labels and repository are Triton's own.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.tritons import Installed, Triton, install, running

from raycls.data.samples import Files, Keys
from raycls.export.export import Wanted, export
from raycls.export.triton.config import Serving, config_text
from raycls.export.triton.repository import add
from raycls.session.trained.trained import Network, open_trained
from raycls.tasks.reading import ONE

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(900)]

_BOUND = 0.01
"""What Pillow's and onnxruntime's antialiased resize may differ by in a probability: the gate of an export."""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(tmp_path_factory.mktemp("environment") / "triton")


@pytest.fixture(scope="module")
def triton(installed: Installed, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Triton]:
    with running(installed, tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("tensorrt", [None, "fp16", "int8"])
def test_the_protocol_buffer_of_triton_reads_the_config(
    installed: Installed, tmp_path: Path, layout: str, tensorrt: Any
) -> None:
    facts = {"classes": ["a", "b", "c"], "preprocessing": {"input": {"layout": layout, "size": [24, 32]}}}
    asked = Serving(max_batch=16, queue_microseconds=500, instances=2, device="gpu", tensorrt=tensorrt)
    file = tmp_path / "config.pbtxt"
    file.write_text(config_text('pets "of" Zoë\\n', facts, asked))
    read = installed.say("", "", "config", str(file))
    kind, dims = ("TYPE_UINT8", [24, 32, 3]) if layout == "NHWC" else ("TYPE_FP32", [3, 24, 32])
    strings = [str(side) for side in dims]  # JSON has no integers of 64 bits
    accelerator = read.pop("optimization", None)
    assert read == {
        "name": 'pets "of" Zoë\\n',
        "backend": "onnxruntime",
        "default_model_filename": "model.onnx",
        "max_batch_size": 16,
        "input": [{"name": "images", "data_type": kind, "dims": strings}],
        "output": [{"name": "probabilities", "data_type": "TYPE_FP32", "dims": ["3"], "label_filename": "labels.txt"}],
        "version_policy": {"latest": {"num_versions": 1}},
        "dynamic_batching": {"max_queue_delay_microseconds": "500"},
        "instance_group": [{"count": 2, "kind": "KIND_GPU"}],
        "model_warmup": [
            {
                "name": f"batch of {size}",
                "batch_size": size,
                "inputs": {"images": {"data_type": kind, "dims": strings, "zero_data": True}},
            }
            for size in (1, 16)
        ],
    }
    if tensorrt is None:
        assert accelerator is None
    else:
        (engine,) = accelerator["execution_accelerators"]["gpu_execution_accelerator"]
        assert (engine["name"], engine["parameters"]["precision_mode"]) == ("tensorrt", tensorrt.upper())


def _export(run: Path, scratch: Path, repository: Path, weights: str, serving: Serving) -> Path:
    scratch.mkdir(exist_ok=True)
    done = export(open_trained(str(run), weights=weights), scratch, "shapes", Wanted())
    assert done.passed
    return add(repository / "shapes", done.path, done.report, done.facts, serving)


def _expected(run: Path, files: list[Path], weights: str) -> np.ndarray:
    """What the trained network says, `[B, C] float64`, and by which images, decoded, it was asked."""
    trained, keys = open_trained(str(run), weights=weights), Keys([str(file) for file in files])
    split, arrays = trained.split(keys, Files("/", keys)), trained.arrays()
    samples = [trained.sample(arrays, split, row) for row in range(len(files))]
    return ONE.probabilities(Network(trained, torch.device("cpu")).rows_of(samples)["logits"])


def _images(run: Path, files: list[Path]) -> list[np.ndarray]:
    trained, keys = open_trained(str(run)), Keys([str(file) for file in files])
    split = trained.split(keys, Files("/", keys))
    return [np.asarray(split.image(row)) for row in range(len(files))]


def test_a_real_server_answers_as_the_run_does_and_takes_new_versions_without_a_pause(
    triton: Triton, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    run, files = trained / "runs" / "shapes", sorted((trained / "photos").rglob("*.*"))[::3]
    images, classes = _images(run, files), ("circle", "square", "stripes")
    serving = Serving(max_batch=8, queue_microseconds=50_000)
    assert _export(run, tmp_path / "one", triton.repository, "best", serving).name == "1"
    triton.until_ready("shapes", 1)
    largest = _compare(triton.ask("shapes", images, tmp_path), _expected(run, files, "best"), "1", classes)

    same = [image for image in images for _ in range(2) if image.shape == images[0].shape][:16]
    same += [images[0]] * (16 - len(same))
    together = triton.ask("shapes", same, tmp_path, "together")
    assert together["inference_count"] == 16 > together["execution_count"]  # Triton made batches

    stop = tmp_path / "stop"
    np.savez(tmp_path / "one.npz", images[0])
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(triton.say, "shapes", "keep", str(tmp_path / "one.npz"), str(stop))
        assert _export(run, tmp_path / "two", triton.repository, "last", serving).name == "2"
        triton.until_ready("shapes", 2)
        threading.Event().wait(1.0)
        stop.touch()
        kept = asking.result()
    assert kept == {"versions": ["1", "2"], "failures": []}
    second = _compare(triton.ask("shapes", images, tmp_path), _expected(run, files, "last"), "2", classes)
    log = triton.command.said()
    assert not [line for line in log.splitlines() if line.startswith("E") and "model_" in line], log
    print(
        f"{len(images)} images, largest difference of a probability: version 1 {largest:.2g}, version 2 {second:.2g};",
        f"16 requests at once: {together['execution_count']} computations;",
        "a client that kept asking:",
        json.dumps(kept),
    )


def _compare(found: list[dict[str, Any]], expected: np.ndarray, version: str, classes: tuple[str, ...]) -> float:
    given = np.asarray([one["probabilities"] for one in found])
    assert {one["version"] for one in found} == {version}
    assert [one["labels"][0] for one in found] == [classes[place] for place in expected.argmax(1)]
    assert given.shape == expected.shape and abs(given - expected).max() < _BOUND
    return float(abs(given - expected).max())
