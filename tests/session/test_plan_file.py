"""`plan.json`: what a first start decides stays, whatever a later one brings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from raycls.run.folder import RunFolder
from raycls.session.plan_file import read_plan, write_plan
from raycls.train.plan import Plan

_PLAN = Plan(0, 100, 4, 10, 2, 10, 30, 5, 10, 20, 10, 10, 0.0, 0.0, "exact", "cpu", "bf16")
_OTHER = replace(_PLAN, log_every=1, reduction="fast", device="cuda", precision="off")


@pytest.mark.parametrize(
    ("now", "kept"),
    [
        (_OTHER, _PLAN),
        (replace(_OTHER, total_steps=60), replace(_PLAN, log_every=1, total_steps=60)),
        (replace(_OTHER, left_out=(2,)), replace(_PLAN, left_out=(2,))),
    ],
)
def test_a_later_start_changes_length_and_samples(now: Plan, kept: Plan, tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    assert read_plan(folder) is None
    write_plan(folder, _PLAN, None)
    assert read_plan(folder) == _PLAN
    write_plan(folder, now, read_plan(folder))
    assert read_plan(folder) == kept
    write_plan(folder, replace(now, left_out=()), kept)  # what was left out once stays so
    assert read_plan(folder) == kept


def test_a_plan_of_an_earlier_version_is_read_and_gains_nothing(tmp_path: Path) -> None:
    folder = RunFolder(str(tmp_path))
    written = {name: value for name, value in _PLAN.to_dict().items() if name not in ("device", "precision")}
    folder.write_json(RunFolder.PLAN, written)
    first = read_plan(folder)
    assert first == replace(_PLAN, device="", precision="")
    write_plan(folder, replace(_PLAN, total_steps=60), first)
    assert json.loads((tmp_path / "plan.json").read_text()) == {**written, "total_steps": 60}
