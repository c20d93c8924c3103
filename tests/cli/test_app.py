"""The command line by itself: words in, one function called, errors as one block. No Ray and no training."""

from __future__ import annotations

import io
import json
import os
import shlex
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import raycls.launch
from raycls import __version__
from raycls.cli import app
from raycls.errors import DataError, LaunchError, ModelError, RayclsError
from raycls.launch.trainer import Outcome
from raycls.run.folder import RunFolder
from raycls.run.sample_ledger import Ledger
from raycls.tasks.metrics import summarise

SUMMARY = summarise(np.array([[3, 1], [0, 4]]), loss_sum=4.0, top5=8, classes=("cat", "dog"))


class Result:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def raycls_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Result]:
    """Runs `raycls WORDS...` in this process, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def call(*words: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["raycls", *words])
        with pytest.raises(SystemExit) as leaving:
            app.main()
        captured = capsys.readouterr()
        assert isinstance(leaving.value.code, int)
        return Result(leaving.value.code, captured.out, captured.err)

    return call


class Trainer(types.ModuleType):
    """Stands for raycls.launch.trainer: notes its calls, and returns or raises what the test wants."""

    def __init__(self) -> None:
        super().__init__("raycls.launch.trainer")
        self.calls: list[tuple[Any, ...]] = []
        self.outcome = Outcome("done", "runs/pets", 10, 1.0, None, None, 0, 1.0)
        self.error: Exception | None = None

    def train(self, run: Any, *, new: bool, command: list[str], display: Any) -> Outcome:
        self.calls.append((run, new, command))
        if self.error is not None:
            raise self.error
        display.finish(self.outcome)
        return self.outcome

    def evaluate(
        self,
        folder: str,
        *,
        split: str | None,
        data: str | None,
        extra_classes: str,
        weights: str | None,
        overrides: Any,
        display: Any,
    ) -> dict[str, Any]:
        other = () if data is None else (data, extra_classes)
        other += () if weights is None else (weights,)
        self.calls.append((folder, split, *other, tuple(overrides)))
        return SUMMARY


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch) -> Trainer:
    fake = Trainer()
    monkeypatch.setitem(sys.modules, "raycls.launch.trainer", fake)
    monkeypatch.setattr(raycls.launch, "trainer", fake)
    return fake


def make_run(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")


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


@pytest.mark.parametrize(
    "words", [(), ("trian", "a.yaml"), ("train",), ("train", "a.yaml", "--scale.workers", "2"), ("eval",)]
)
def test_usage_errors_exit_2_without_a_traceback(raycls_command: Callable[..., Result], words: tuple[str, ...]) -> None:
    result = raycls_command(*words)
    assert result.code == 2
    assert "Usage: raycls" in result.out + result.err
    assert "Traceback" not in result.err


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


def test_problems_are_told_on_stderr_with_exit_2(raycls_command: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("optim:\n  lrr: 1\ntrain:\n  duratoin: 3ep\n")
    for command in ("config", "train"):
        result = raycls_command(command, "pets.yaml")
        assert result.code == 2
        assert result.out == ""
        assert "pets.yaml:2" in result.err and "pets.yaml:4" in result.err
        assert "Traceback" not in result.err


def test_train_passes_the_config_the_command_and_new(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "pets.yaml").write_text("data:\n  batch_size: 32\n")
    assert raycls_command("train", "pets.yaml", "optim.lr=3e-4", "--new").code == 0
    ((run, new, command),) = trainer.calls
    assert (run.run.name, run.data.batch_size, run.optim.lr, new) == ("pets", 32, 3e-4, True)
    assert command == ["raycls", "train", "pets.yaml", "optim.lr=3e-4", "--new"]


@pytest.mark.parametrize(("state", "code"), [("done", 0), ("stopped", 130), ("stopped", 143), ("budget", 4)])
def test_train_exits_as_the_outcome_says(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path, state: str, code: int
) -> None:
    (tmp_path / "pets.yaml").write_text("")
    trainer.outcome = Outcome(state, "runs/pets", 10, 1.0, None, None, code, 1.0)
    assert raycls_command("train", "pets.yaml").code == code


def test_a_run_that_was_done_is_told(raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("")
    trainer.outcome = Outcome("already", "runs/pets", 10, 1.0, None, None, 0, 0.0)
    assert "already done" in raycls_command("train", "pets.yaml").out


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


def test_eval_prints_one_json_object_and_nothing_else(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs" / "pets")
    result = raycls_command("eval", "pets", "--json", "--split", "val", "scale.workers=0")
    assert json.loads(result.out) == SUMMARY
    assert len(result.out.splitlines()) == 1
    assert trainer.calls == [("runs/pets", "val", ("scale.workers=0",))]


def test_eval_hands_on_which_weights_are_meant(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    make_run(tmp_path / "runs" / "pets")
    assert raycls_command("eval", "pets", "--weights", "step-240").code == 0
    assert trainer.calls == [("runs/pets", None, "step-240", ())]


def test_eval_prints_json_that_any_parser_reads(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "runs" / "pets")
    monkeypatch.setattr(trainer, "evaluate", lambda *words, **more: {**SUMMARY, "loss": float("nan")})
    assert json.loads(raycls_command("eval", "pets", "--json").out, parse_constant=pytest.fail)["loss"] == "nan"


def test_a_name_is_a_run_before_it_is_a_folder(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "pets").mkdir()  # images, say
    result = raycls_command("eval", "pets")
    assert result.code == 2
    assert "without config.yaml" in result.err
    make_run(tmp_path / "runs" / "pets")
    make_run(tmp_path / "elsewhere" / "runs" / "pets")
    for word in ("pets", "runs/pets", "elsewhere/runs/pets"):
        raycls_command("eval", word)
    assert [folder for folder, _, _ in trainer.calls] == ["runs/pets", "runs/pets", "elsewhere/runs/pets"]


def test_eval_prints_a_table(raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path) -> None:
    make_run(tmp_path / "elsewhere")
    result = raycls_command("eval", "elsewhere")
    assert "top1       0.8750" in result.out.splitlines()
    assert trainer.calls == [("elsewhere", None, ())]


def test_a_run_that_is_not_there_is_named_with_those_that_are(
    raycls_command: Callable[..., Result], tmp_path: Path
) -> None:
    make_run(tmp_path / "runs" / "pets")
    (tmp_path / "runs" / "images").mkdir()
    for command in ("eval", "ledger"):
        result = raycls_command(command, "pest")
        assert result.code == 2
        assert "valid: pets\n" in result.err
        assert "did you mean pets?" in result.err


@pytest.mark.parametrize(("ids", "code", "verdict"), [([0, 1, 2], 0, "exact"), ([0, 1, 1], 1, "not exact")])
def test_ledger_exits_1_unless_every_sample_was_seen_once(
    raycls_command: Callable[..., Result], tmp_path: Path, ids: list[int], code: int, verdict: str
) -> None:
    make_run(tmp_path / "runs" / "pets")
    folder = RunFolder(tmp_path / "runs" / "pets")
    plan = {"samples": 3, "steps_per_epoch": 1, "batch_size": 3, "micro_batches": 1, "seed": 0}
    folder.write_json(folder.PLAN, plan)
    folder.begin_attempt(0, workers=1, threads=1)
    ledger = Ledger(folder, 1, 0, pixels=False)
    ledger.write(0, 1, 0, ids)
    ledger.close()
    folder.write_json(folder.RESULT, {"step": 1})
    result = raycls_command("ledger", "pets")
    assert (result.code, result.out.split(":")[0]) == (code, verdict)


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


def test_plain_lines_go_to_stdout_and_the_live_display_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    from raycls.config.sections.track import TrackConfig
    from raycls.screen.run import PlainDisplay, RichDisplay

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert isinstance(app._display(TrackConfig()), PlainDisplay)  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert isinstance(app._display(TrackConfig()), RichDisplay)  # pyright: ignore[reportPrivateUsage]


@pytest.mark.parametrize(("accuracy", "code"), [(0.97, 0), (0.9699, 1)])
def test_demo_trains_then_tests_and_fails_below_97_per_cent(
    raycls_command: Callable[..., Result],
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
    accuracy: float,
    code: int,
) -> None:
    from raycls.cli import demo

    prepared: list[bool] = []
    monkeypatch.setattr(app, "_prepare", lambda: prepared.append(True))
    monkeypatch.setattr(demo, "trainer", trainer)
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
    from raycls.cli import demo

    monkeypatch.setattr(demo, "trainer", trainer)
    (tmp_path / "runs" / "demo").mkdir(parents=True)
    trainer.outcome = Outcome("stopped", "runs/demo", 10, 1.0, None, None, 130, 1.0)
    assert raycls_command("demo").code == 130  # nothing is evaluated
    for state in ("stopped", "budget", "done", "early"):
        (tmp_path / "runs" / "demo" / "result.json").write_text(json.dumps({"state": state}))
        raycls_command("demo")
    assert [new for _, new, _ in trainer.calls] == [False, False, False, True, True]


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

    def cpu_seconds() -> float:
        before = os.times()
        python("-c", LIGHT, *words, cwd=tmp_path)
        after = os.times()
        return after.children_user + after.children_system - before.children_user - before.children_system

    # what a busy machine adds to the wall clock is not ours, nor what it adds to one of three
    assert any(cpu_seconds() < 1.0 for _ in range(3))


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


def test_what_a_later_layer_left_out_is_told_before_the_run(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("model: {name: tiny_cnn, args: {width: 8}}")
    result = raycls_command("train", "c.yaml", "model.name=resnet18")
    assert result.code == 0
    assert "model.args {width: 8} of tiny_cnn left out: model.name is resnet18 now" in result.out
    assert trainer.calls[0][0].model.args == {}


def test_the_same_command_without_new_is_the_remedy_of_one_that_started_anew(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("")
    trainer.error = LaunchError("lost", fix="the same command goes on from the newest checkpoint")
    assert "fix:   the same command goes on" in raycls_command("train", "c.yaml").err
    assert "fix:   the same command without --new goes on" in raycls_command("train", "c.yaml", "--new").err
