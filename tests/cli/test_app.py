"""The command line by itself: help, errors as one block, exit codes, and how fast it answers."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from harness.command_line import Result, Trainer

from raycls import __version__
from raycls.cli import app, commands
from raycls.errors import DataError, LaunchError, ModelError, RayclsError


def test_version(raycls_command: Callable[..., Result]) -> None:
    result = raycls_command("--version")
    assert (result.code, result.out) == (0, f"raycls {__version__}\n")


@pytest.mark.parametrize("words", [("--help",), ("train", "--help"), ("eval", "--help"), ("init", "--help")])
def test_help(raycls_command: Callable[..., Result], words: tuple[str, ...]) -> None:
    result = raycls_command(*words)
    assert result.code == 0
    assert result.out.startswith("Usage: raycls")


def test_every_command_is_listed(raycls_command: Callable[..., Result]) -> None:
    listed = {line.split()[0] for line in raycls_command("--help").out.split("Commands:")[1].splitlines() if line}
    assert listed >= {"train", "eval", "ledger", "config", "init", "demo", "submit", "status", "logs", "stop"}


def test_every_file_of_commands_is_part_of_the_command_line(raycls_command: Callable[..., Result]) -> None:
    listed = {line.split()[0] for line in raycls_command("--help").out.split("Commands:")[1].splitlines() if line}
    files = [file for file in Path(commands.__file__).parent.glob("*.py") if file.name != "__init__.py"]
    assert len(files) >= 7
    for file in files:
        alone = typer.Typer()
        alone.callback()(lambda: None)
        importlib.import_module(f"{commands.__name__}.{file.stem}").register(alone)
        group = typer.main.get_command(alone)
        assert set(group.commands) <= listed, file.name
        assert group.commands, file.name


@pytest.mark.parametrize(
    "words", [(), ("trian", "a.yaml"), ("train",), ("train", "a.yaml", "--scale.workers", "2"), ("eval",)]
)
def test_usage_errors_exit_2_without_a_traceback(raycls_command: Callable[..., Result], words: tuple[str, ...]) -> None:
    result = raycls_command(*words)
    assert result.code == 2
    assert "Usage: raycls" in result.out + result.err
    assert "Traceback" not in result.err


@pytest.mark.parametrize(
    ("error", "code"),
    [(RayclsError("it broke", fix="mend it"), 1), (DataError("bad image"), 3), (ModelError("no model"), 2)],
)
def test_our_errors_are_one_block_with_their_exit_code(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path, error: RayclsError, code: int
) -> None:
    (tmp_path / "pets.yaml").write_text("")
    trainer.error = error
    result = raycls_command("train", "pets.yaml")
    assert (result.code, result.err) == (code, f"raycls: {error}\n")


def test_an_unexpected_error_leaves_its_traceback_in_a_file(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    (tmp_path / "pets.yaml").write_text("")
    trainer.error = ZeroDivisionError("nothing to divide by")
    result = raycls_command("train", "pets.yaml")
    first, second = result.err.splitlines()
    assert (result.code, first) == (1, "raycls: unexpected ZeroDivisionError: nothing to divide by")
    trace = Path(second.removeprefix("  trace: "))
    assert trace.parent == tmp_path
    assert trace.read_text().startswith("Traceback (most recent call last)")
    assert "in train" in trace.read_text()


def test_without_room_for_the_file_the_traceback_is_shown(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    (tmp_path / "pets.yaml").write_text("")
    trainer.error = ZeroDivisionError("nothing to divide by")
    assert "Traceback (most recent call last)" in raycls_command("train", "pets.yaml").err


def test_an_interrupt_exits_130(raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("")
    trainer.error = KeyboardInterrupt()  # type: ignore[assignment]
    assert raycls_command("train", "pets.yaml").code == 130


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment["PYTHONPATH"] = str(Path(app.__file__).parents[2])
    return subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60
    )


LIGHT = """
import sys
from raycls.cli import app
sys.argv = ["raycls", *sys.argv[1:]]
try:
    app.main()
finally:
    heavy = {"torch", "ray", "matplotlib", "torchvision", "pandas", "numpy", "rich"} & set(sys.modules)
    print("heavy:", *sorted(heavy), file=sys.stderr)
"""


@pytest.mark.parametrize(
    "words", [("--help",), ("config", "pets.yaml"), ("config", "schema"), ("train", "absent.yaml")]
)
def test_help_and_config_answer_at_once(tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "pets.yaml").write_text("")
    result = python("-c", LIGHT, *words, cwd=tmp_path)
    assert result.stderr.splitlines()[-1] == "heavy:"

    def cpu_seconds(*typed: str) -> float:
        before = os.times()
        python(*typed, cwd=tmp_path)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    # beside what it cannot do without; what a busy machine adds to one of three is not ours
    needs = "import pydantic, typer, yaml"
    assert any(cpu_seconds("-c", LIGHT, *words) < 5 * cpu_seconds("-c", needs) for _ in range(3))


def test_python_dash_m_is_the_same_command(tmp_path: Path) -> None:
    result = python("-m", "raycls", "--version", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (0, f"raycls {__version__}\n")


def test_a_reader_that_left_is_no_traceback(tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("")
    reading, writing = os.pipe()
    os.close(reading)
    environment = {**os.environ, "PYTHONPATH": str(Path(app.__file__).parents[2])}
    words = [sys.executable, "-m", "raycls", "config", "pets.yaml"]
    try:
        result = subprocess.run(
            words, cwd=tmp_path, env=environment, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=60
        )
    finally:
        os.close(writing)
    assert (result.returncode, result.stderr) == (1, "")


def test_the_same_command_without_new_is_the_remedy_of_one_that_started_anew(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("")
    trainer.error = LaunchError("lost", fix="rerun the command to resume from the latest checkpoint")
    assert "fix:   rerun the command to resume" in raycls_command("train", "c.yaml").err
    assert "fix:   rerun the command without --new to resume" in raycls_command("train", "c.yaml", "--new").err
