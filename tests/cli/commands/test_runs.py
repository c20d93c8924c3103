"""`raycls train`, `eval` and `ledger`: words in, one function called, lines out. No Ray and no training."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import SUMMARY, Result, Trainer, make_run

from raycls.run.folder import RunFolder
from raycls.run.ledgers.sample_ledger import SampleLedger
from raycls.run.outcome import Outcome


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


def test_what_a_later_layer_left_out_is_told_before_the_run(
    raycls_command: Callable[..., Result], trainer: Trainer, tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text("model: {name: tiny_cnn, args: {width: 8}}")
    result = raycls_command("train", "c.yaml", "model.name=resnet18")
    assert result.code == 0
    assert "model.args {width: 8} of tiny_cnn left out: model.name is resnet18 now" in result.out
    assert trainer.calls[0][0].model.args == {}


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
    ledger = SampleLedger(folder, 1, 0, pixels=False)
    ledger.write(0, 1, 0, ids)
    ledger.close()
    folder.write_json(folder.RESULT, {"step": 1})
    result = raycls_command("ledger", "pets")
    assert (result.code, result.out.split(":")[0]) == (code, verdict)
