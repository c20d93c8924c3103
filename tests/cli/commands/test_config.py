"""`raycls config`: each value with its origin, the schema, and every error at once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from harness.command_line import Result


def test_config_prints_values_with_their_origin(raycls_command: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("data:\n  batch_size: 32\n")
    result = raycls_command("config", "pets.yaml", "optim.lr=3e-4")
    lines = {line.split("#")[0].strip(): line.split("#")[1].strip() for line in result.out.splitlines() if "#" in line}
    assert result.code == 0
    assert lines["batch_size: 32"] == "pets.yaml:2"
    assert lines["lr: 0.0003"] == "command line"
    assert lines["label_smoothing: 0.0"] == "default"


def test_config_schema_is_json_schema(raycls_command: Callable[..., Result]) -> None:
    schema = json.loads(raycls_command("config", "schema").out)
    assert "optim" in schema["properties"]
    assert raycls_command("config", "schema", "optim.lr=1").code == 2


def test_errors_are_told_on_stderr_with_exit_2(raycls_command: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("optim:\n  lrr: 1\ntrain:\n  duratoin: 3ep\n")
    for command in ("config", "train"):
        result = raycls_command(command, "pets.yaml")
        assert result.code == 2
        assert result.out == ""
        assert "pets.yaml:2" in result.err and "pets.yaml:4" in result.err
        assert "Traceback" not in result.err
