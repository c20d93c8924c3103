"""`raycls export RUN --to triton --repository DIR`, typed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from harness.pages import type_in

from raycls.export.artefact import Artefact
from raycls.session.trained.trained import open_trained


def _type(line: str) -> tuple[int, str]:
    return type_in(("raycls", *line.split()))


def test_what_passed_is_a_model_and_what_did_not_is_beside_the_run(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    run = tmp_path / "shapes"
    run.symlink_to(trained / "runs" / "shapes")
    command = f"export {run} --to triton --repository {tmp_path}/models --images 4"
    code, said = _type(f"{command} --max-batch 4 --instances 2 --tensorrt fp16 --model-name drawn")
    assert code == 0, said
    model = tmp_path / "models" / "drawn"
    assert said.startswith(f"{model / '1'}: ")
    artefact = Artefact(model / "1" / "model.onnx")
    assert artefact.classes == open_trained("runs/shapes").classes
    assert artefact.provenance["step"] == open_trained("runs/shapes").weights.step
    config = (model / "config.pbtxt").read_text()
    for line in ("max_batch_size: 4", "count: 2", 'name: "tensorrt"', 'name: "drawn"'):
        assert line in config


def test_a_file_that_fails_its_gate_does_not_come_into_the_repository(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained / "runs" / "shapes", tmp_path / "runs" / "shapes")
    monkeypatch.chdir(trained)
    command = f"export {tmp_path}/runs/shapes --to triton --repository {tmp_path}/models --images 4"
    code, said = _type(f"{command} --max-difference 0")
    assert code == 1 and "rejected:" in said
    assert not (tmp_path / "models").exists()
    rejected = sorted(file.name for file in (tmp_path / "runs" / "shapes" / "export").iterdir())
    assert rejected == ["shapes-fp32.onnx.rejected", "shapes-fp32.onnx.rejected.json"]


@pytest.mark.parametrize(
    ("words", "where", "fix"),
    [
        ("--to triton", "--to triton", "--repository=DIR"),
        ("--to triton --repository r --out m.onnx", "--to triton", "and no file"),
        ("--to onnx --repository r", "--repository", "leave --repository out"),
        ("--to pt2 --max-batch 3", "--max-batch", "leave --max-batch out"),
        ("--to triton --repository r --tensorrt int8", "--tensorrt int8", "--precision=int8"),
    ],
)
def test_options_that_would_do_nothing_are_refused(
    words: str, where: str, fix: str, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    code, said = _type(f"export shapes {words}")
    assert code == 2 and f"where: {where}" in said and fix in said
    assert not (trained / "r").exists()
