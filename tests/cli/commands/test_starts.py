"""`raycls init` and `demo`: words in, files and lines out. No Ray and no training."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result, Trainer
from PIL import Image

from raycls.cli.commands import starts
from raycls.run.outcome import Outcome


def test_init_writes_a_config_once(raycls_command: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (16, 16), (index, 0, 0)).save(tmp_path / "pets" / name / f"{index}.png")
    result = raycls_command("init", "pets")
    assert result.code == 0
    assert result.out.splitlines()[-2:] == ["wrote raycls.yaml", "next: raycls train raycls.yaml"]
    assert raycls_command("config", "raycls.yaml").code == 0
    again = raycls_command("init", "pets")
    assert again.code == 2
    assert "--force" in again.err
    assert raycls_command("init", "pets", "--force").code == 0
    assert raycls_command("init", "cats", "--out", "cats.yaml").code == 3


def test_init_checks_every_image_of_a_folder_or_a_config(raycls_command: Callable[..., Result], tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (16, 16), (index, 0, 0)).save(tmp_path / "pets" / name / f"{index}.png")
    (tmp_path / "pets/cat/it's [1].png").write_bytes(b"<html>")
    (tmp_path / "raycls.yaml").write_text("data: {source: {path: pets}, image_size: 16}")
    result = raycls_command("init", "pets", "--check")
    assert (result.code, result.out.splitlines()[0].split(": ")[1]) == (3, "1 cannot be used")
    option = shlex.split(result.out.splitlines()[-1])[-1]
    assert raycls_command("init", "pets", option, "--check").code == 0
    assert raycls_command("init", "raycls.yaml", "--check").code == 3
    assert raycls_command("init", "raycls.yaml", option, "--check").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pets", "raycls.yaml"]  # and nothing was written
    assert raycls_command("init", "raycls.yaml", "--check", "--ignore=x").code == 2


@pytest.mark.parametrize(("accuracy", "code"), [(0.97, 0), (0.9699, 1)])
def test_demo_trains_then_tests_and_fails_below_97_per_cent(
    raycls_command: Callable[..., Result],
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    accuracy: float,
    code: int,
) -> None:
    prepared: list[bool] = []
    monkeypatch.setattr(starts, "prepare", lambda: prepared.append(True))
    monkeypatch.setattr(trainer, "evaluate", lambda *words, **more: {"top1": accuracy, "count": 180})
    result = raycls_command("demo")
    assert prepared  # what Ray reads when it is imported
    assert result.code == code
    assert f"test accuracy {accuracy:.4f} on 180 images" in result.out
    assert "run folder runs/pets" in result.out
    ((run, new, command),) = trainer.calls
    assert (run.run.name, run.scale.workers, new, command) == ("demo", 2, False, ["raycls", "demo"])


def test_demo_starts_again_where_one_was_finished_and_goes_on_where_not(
    raycls_command: Callable[..., Result], trainer: Trainer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    trainer.outcome = Outcome("stopped", "runs/demo", 10, 1.0, None, None, 130, 1.0)
    assert raycls_command("demo").code == 130  # nothing is evaluated
    for state in ("stopped", "budget", "done", "early"):
        (tmp_path / "runs" / "demo" / "result.json").write_text(json.dumps({"state": state}))
        raycls_command("demo")
    assert [new for _, new, _ in trainer.calls] == [False, False, False, True, True]
