"""`raycls demo`, as a newcomer types it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness.pages import ANY, blocks, differs, steps
from harness.processes import raycls

pytestmark = pytest.mark.ray


COMPLETE = [
    "config.yaml",
    "env.json",
    "plan.json",
    "attempts.jsonl",
    "history.jsonl",
    "history.csv",
    "curves.svg",
    "best.json",
    "result.json",
    "model/model.safetensors",
    "model/model.json",
]


@pytest.mark.slow
def test_demo_from_nothing(tmp_path: Path) -> None:
    with raycls(tmp_path, "demo", env={"RAY_ADDRESS": ""}) as command:
        assert command.wait(280) == 0, command.said()
        command.assert_gone(5)
        assert not command.leftovers()
    accuracy = re.search(r"test accuracy (0\.\d+|1\.0+) on 180 images", command.stdout)
    assert accuracy, command.stdout
    assert float(accuracy[1]) >= 0.97
    (folder,) = {Path(line.split(None, 2)[2]) for line in command.stdout.splitlines() if line.startswith("run folder")}
    for name in COMPLETE:
        assert (folder / name).stat().st_size > 0, name
    assert len(list((folder / "checkpoints").glob("step-*/manifest.json"))) >= 1
    assert not command.stderr
    assert len(command.stdout.splitlines()) < 40
    readme = Path(__file__).parents[2] / "README.md"
    typed = [step for block in blocks(readme) if block.language == "console" for step in steps(block)]
    (demo,) = [step for step in typed if step.words[-2:] == ("raycls", "demo")]
    shown = tuple(re.sub(r"/\S+|\d+\.\d+|\d+(?= s$)", ANY, line) for line in demo.shown)  # places and measurements
    assert differs(shown, command.stdout) == ""
