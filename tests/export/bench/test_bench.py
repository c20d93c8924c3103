"""The ways to compute a network beside each other: the same answers, and what is left out where it cannot be had."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from raycls.export.bench import variants
from raycls.export.bench.bench import Wanted, bench
from raycls.export.timing import interleaved, threads_set
from raycls.launch import trainer
from raycls.report.plots.bench import svg
from raycls.screen.measured.bench_text import bench_lines
from raycls.screen.run import Display
from raycls.session.trained.trained import Network, open_trained


@pytest.fixture(autouse=True)
def _no_cache_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What torch compiles goes to a folder of the test, and it ends what it started for that."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    before = set(psutil.Process().children(recursive=True))
    yield
    torch.compiler.reset()
    assert set(psutil.Process().children(recursive=True)) <= before


_WITHOUT = """
import json, sys
for name in ("onnx", "onnxruntime", "onnxscript"):
    sys.modules[name] = None
from raycls.export.bench.bench import Wanted, bench
from raycls.session.trained.trained import open_trained
from torch._inductor import config
with config.patch({"cpp.cxx": (None, "no-such-compiler")}):
    print(json.dumps(bench(open_trained("runs/shapes"), Wanted(seconds=0.0))))
"""


@pytest.mark.nightly
def test_without_a_compiler_and_without_the_extra_the_rows_are_left_out_with_the_reason(trained: Path) -> None:
    command = [sys.executable, "-c", _WITHOUT]
    done = subprocess.run(command, cwd=trained, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout.splitlines()[-1])
    assert [row["name"] for row in facts["rows"]] == ["eager"]
    missing = {each["name"]: each for each in facts["missing"]}
    assert list(missing) == ["compiled", "onnx fp32", "onnx int8"]
    assert missing["compiled"]["why"].startswith("InvalidCxxCompiler")
    assert "C++ compiler" in missing["compiled"]["fix"]
    assert missing["onnx fp32"]["fix"] == missing["onnx int8"]["fix"] == "pip install 'raycls[export]'"
    lines = bench_lines(facts, ["somewhere"])
    assert any(line.startswith("onnx int8 left out") and "pip install" in line for line in lines)
    assert lines[-1] == "wrote somewhere"


def test_eager_and_onnx_answer_alike_and_the_accuracy_is_that_of_an_evaluation(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    facts = bench(open_trained("runs/shapes"), Wanted(seconds=0.0, compiled=False))
    rows = {row["name"]: row for row in facts["rows"]}
    assert list(rows) == ["eager", "onnx fp32", "onnx int8"]
    summary = trainer.evaluate("runs/shapes", split="val", display=Display(io.StringIO()))
    assert facts["images"] == summary["count"] == 24
    assert rows["eager"]["top1"] == rows["onnx fp32"]["top1"] == summary["top1"]
    for row in facts["rows"]:
        for batch, found in row["batches"].items():
            assert 0 < found["p50"] <= found["p99"]
            assert found["images_per_second"] == pytest.approx(int(batch) / found["p50"])
        assert row["batches"]["1"]["calls"] == 100
        assert row["batches"]["32"]["calls"] == 20
    assert facts["size"] == [24, 24]
    assert rows["onnx int8"]["notes"]
    assert any(
        line.endswith("24 images; eager is in float32, whatever train.amp says") for line in bench_lines(facts, [])
    )
    drawn = ElementTree.fromstring(svg(facts))
    text = " ".join(drawn.itertext())
    assert all(name in text for name in rows)
    assert "32 images at a time" in text
    assert svg(facts) == svg(json.loads(json.dumps(facts)))


@pytest.mark.nightly
@pytest.mark.skipif(shutil.which("g++") is None, reason="it needs a C++ compiler: apt-get install g++")
def test_what_is_compiled_answers_as_it_was(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    network = Network(open_trained("runs/shapes"), torch.device("cpu"))
    pixels = np.random.default_rng(0).normal(size=(32, 3, 24, 24)).astype(np.float32)
    way = variants.compiled(network, (1, 32), pixels)
    assert isinstance(way, variants.Variant), way
    for count in (1, 32):
        expected = variants.eager(network).scores(pixels[:count])
        np.testing.assert_allclose(way.scores(pixels[:count]), expected, atol=1e-4)


def test_calls_take_turns_and_each_begins_as_often() -> None:
    said: list[str] = []
    calls: dict[str, Any] = {name: (lambda name=name: said.append(name)) for name in "abc"}
    found = interleaved(calls, seconds=0.0, least=6)
    assert {name: len(values) for name, values in found.items()} == {"a": 6, "b": 6, "c": 6}
    rounds = ["".join(said[start : start + 3]) for start in range(9, len(said), 3)]
    assert rounds == ["abc", "bca", "cab", "abc", "bca", "cab"]


def test_the_threads_are_as_before_whatever_happens() -> None:
    before = torch.get_num_threads()
    with pytest.raises(RuntimeError), threads_set(before + 1):
        assert torch.get_num_threads() == before + 1
        raise RuntimeError
    assert torch.get_num_threads() == before
