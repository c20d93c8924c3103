"""Options by their old paths: in files, on the command line, in spaces, in what raycls printed before."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from raycls.config.load import ConfigProblemsError, load, load_text
from raycls.config.names.moved import MOVED
from raycls.config.sections.run import Run
from raycls.config.space.check import apply, space_of
from raycls.config.write import render, to_dict

PRINTED = """\
loss:
  task: classification
  label_smoothing: 0.1
optim:
  name: rmsprop
  lr: 0.05
  weight_decay: 0.0
  weight_decay_on: all
  momentum: 0.8
  nesterov: false
  betas: [0.9, 0.999]
  eps: 1.0e-06
  alpha: 0.9
  clip_norm: 'off'
  ema: 'off'
  ema_warmup: ramp
schedule:
  name: plateau
  warmup: 0st
  every: 30ep
  milestones: []
  gamma: 0.5
  period_factor: 1.0
  min_factor: 0.0
  patience: 2
"""
"""Sections of a `config.yaml` as it was: every option, those too that the named thing does not take."""

NOW: dict[str, dict[str, Any]] = {
    "loss": {"label_smoothing": 0.1},
    "optim": {"alpha": 0.9, "eps": 1e-6, "momentum": 0.8},
    "schedule": {"gamma": 0.5, "patience": 2, "min_factor": 0.0},
}


def args(run: Any) -> dict[str, Any]:
    return {section: getattr(run, section).args for section in NOW}


def test_what_raycls_printed_is_read_without_a_word(tmp_path: Path) -> None:
    others = {key: value for key, value in to_dict(Run()).items() if key not in (*NOW, "task")}
    text = render(others) + PRINTED
    (tmp_path / "config.yaml").write_text(text)
    for found in (load_text(text), load(tmp_path / "config.yaml")):
        assert args(found.run) == NOW
        assert (found.run.task.name, found.notes) == ("classification", ())


def test_a_file_is_read_with_a_note_and_its_lines(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("optim:\n  name: sgd\n  momentum: 0.8\nschedule: {name: step, gamma: 0.3}\n")
    found = load(file, ["schedule.every=2ep", "loss.label_smoothing=0.1"])
    assert found.run.optim.args == {"momentum": 0.8, "nesterov": False}
    assert found.run.schedule.args == {"gamma": 0.3, "every": "2ep"}
    assert found.run.loss.args == {"label_smoothing": 0.1}
    assert found.origins["optim.args.momentum"] == "mine.yaml:3"
    assert found.origins["schedule.args.every"] == "command line"
    (note,) = found.notes
    for old in ("optim.momentum", "schedule.gamma", "schedule.every", "loss.label_smoothing"):
        assert f"{MOVED[old]} for {old}" in note
    assert load(file, ["schedule={name: step, args: {gamma: 0.3, every: 2ep}}"]).run.schedule == found.run.schedule


def test_what_is_wrong_is_told_at_the_new_path_and_the_old_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "optim:\n  momentum: 1.5\n  betas: [0.9, 0.99]\nschedule: {args: {gamma: 0.3}, gamma: 0.4, name: step}\n"
    )
    with pytest.raises(ConfigProblemsError) as caught:
        load(file)
    assert [(problem.place.line, problem.path) for problem in caught.value.problems] == [
        (2, "optim.args.momentum"),
        (3, "optim.args"),
        (4, "schedule.gamma"),
    ]


def test_a_space_and_its_trials_have_the_new_paths() -> None:
    space = (
        "search:\n  space:\n    optim: {momentum: {when: {optim.nesterov: true}, values: [0.8, 0.9]}}\n"
        "    optim.nesterov: [true, false]\n    loss.label_smoothing: [0, 0.1]\n"
    )
    run = load_text(space).run
    assert set(space_of(run).paths) == {"optim.args.momentum", "optim.args.nesterov", "loss.args.label_smoothing"}
    trial = apply(run, {"optim.nesterov": True, "optim.momentum": 0.8, "loss.label_smoothing": 0.1})  # of an old ledger
    assert trial.optim.args == {"momentum": 0.8, "nesterov": True}
    assert trial.loss.args == {"label_smoothing": 0.1}
