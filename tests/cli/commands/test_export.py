"""`raycls export` as it is typed: what is printed, which files there are then, and the exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.command_line import Result
from harness.object_store import S3

from raycls.export.artefact import Artefact
from raycls.export.formats.network import to_onnx

_kept: list[Any] = []


def _once(*args: Any) -> Any:
    """torch's exporter takes seconds, and the network is the same in all tests of this file."""
    if not _kept:
        _kept.append(to_onnx(*args))
    return _kept[0]


@pytest.fixture
def here(trained: Path, monkeypatch: pytest.MonkeyPatch, raycls_command: Callable[..., Result]) -> Path:
    del raycls_command  # which goes to a folder of its own first
    monkeypatch.chdir(trained)
    monkeypatch.setattr("raycls.export.export.to_onnx", _once)
    return trained


def test_the_file_the_report_and_the_lines(raycls_command: Callable[..., Result], here: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "net.onnx"
    result = raycls_command("export", "shapes", "--to", "onnx", "--out", str(out), "--data", "photos", "--images", "9")
    assert (result.code, sorted(path.name for path in out.parent.iterdir())) == (0, ["net.onnx", "net.onnx.json"])
    assert result.out.splitlines()[0].startswith(f"{out}: ")
    assert "images uint8 [B, H, W, 3] of any size -> probabilities [B, 3] float32" in result.out
    assert "compared on 9 images of photos: top-1 agreement 100.00%" in result.out
    assert len(Artefact(out).probabilities([np.zeros((9, 7, 3), np.uint8)])) == 1


def test_a_file_below_its_gate_is_rejected_and_leaves_an_earlier_one_alone(
    raycls_command: Callable[..., Result], here: Path, tmp_path: Path
) -> None:
    words = ("export", "shapes", "--to", "onnx", "--out", str(tmp_path / "net.onnx"))
    assert raycls_command(*words).code == 0
    before = (tmp_path / "net.onnx").read_bytes()
    result = raycls_command(*words, "--max-difference", "0", "--min-agreement", "1", "--json")
    facts = json.loads(result.out)
    assert (result.code, facts["passed"], len(facts["failures"])) == (1, False, 1)
    assert facts["gate"] == {"agreement": 1.0, "difference": 0.0, "drop": None}
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["net.onnx", "net.onnx.json", "net.onnx.rejected", "net.onnx.rejected.json"]
    assert (tmp_path / "net.onnx").read_bytes() == before
    assert raycls_command(*words).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["net.onnx", "net.onnx.json"]


@pytest.mark.parametrize(
    ("words", "where"),
    [
        (("--out", "net.bin"), "--out"),
        (("--out", ".onnx"), "--out"),
        (("--calibration-images", "3"), "--calibration-images"),
        (("--max-drop", "nan"), None),  # which nothing is above: a gate that lets everything through
        (("--data", "missing"), "--data missing"),
        (("--weights", "step-9999999"), None),
    ],
)
def test_words_that_mean_nothing_are_told_and_nothing_is_written(
    raycls_command: Callable[..., Result], here: Path, words: tuple[str, ...], where: str | None
) -> None:
    result = raycls_command("export", "shapes", "--to", "onnx", *words)
    assert result.code == 2
    assert where is None or f"where: {where}" in result.err
    assert not (here / "runs/shapes/export").exists()


def test_a_task_that_feeds_the_network_otherwise_is_refused(
    raycls_command: Callable[..., Result], here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raycls.tasks.classification import Classification

    class Brighter(Classification):
        def batch(self, arrays: Any, *, train: bool) -> Any:
            return super().batch(arrays, train=train)

    from raycls.session.trained import trained as opened

    build = opened.make_task
    monkeypatch.setattr(opened, "make_task", lambda *args: Brighter(build(*args).setting))
    result = raycls_command("export", "shapes", "--to", "onnx")
    assert (result.code, "its own batch" in result.err) == (2, True)


def test_a_run_in_an_object_store_gets_its_artefact_there(
    raycls_command: Callable[..., Result], here: Path, s3: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    s3.upload(here / "runs" / "shapes", "runs/shapes")
    result = raycls_command("export", s3.uri("runs/shapes"), "--to", "onnx")
    assert result.code == 0, result.err
    found = s3.objects("runs/shapes/export/")
    assert sorted(found) == ["shapes-fp32.onnx", "shapes-fp32.onnx.json"]
    assert json.loads(found["shapes-fp32.onnx.json"])["bytes"] == len(found["shapes-fp32.onnx"])
