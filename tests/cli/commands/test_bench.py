"""`raycls bench CONFIG` on the command line, beside `raycls bench model RUN`."""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.command_line import Result

Command = Callable[..., Result]
RATE = {"median": 1234.5, "min": 0.25, "max": 12345.0, "n": 5}
FACTS = {
    "name": "pets",
    "device": "cpu",
    "cpus": 8,
    "workers": 2,
    "threads": 1,
    "executor": "ray",
    "executor_why": "other nodes decode too",
    "ahead": False,
    "batch_size": 64,
    "worker_batch_size": 32,
    "precision": "off",
    "rates": {
        **dict.fromkeys(("fetch", "augment", "sample", "transfer", "step", "together", "dataloader"), RATE),
        "decode": None,
    },
    "data_wait": 0.356,
    "dataloader_processes": 8,
    "verdict": {
        "by": "data",
        "part": "decoding",
        "text": "decoding: 125 images/s of 1 CPU against 500",
        "changes": [
            {"typed": "data.executor=processes data.prefetch=4", "why": "4 processes", "command": "bench"},
            {"typed": "--out packed", "why": "less decoding", "command": "pack"},
            {"typed": "", "why": "a disk", "command": "bench"},
        ],
    },
    "note": "of this machine",
}


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[Any, ...]]:
    """What was measured: of which run, and for how long. `pets.yaml` is a config in the working directory."""
    seen: list[tuple[Any, ...]] = []
    stands = types.ModuleType("raycls.launch.speed")

    def speed(run: Any, seconds: float, *, say: Any) -> dict[str, Any]:
        seen.append((run.run.name, run.data.prefetch, seconds))
        return FACTS

    stands.speed = speed  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "raycls.launch.speed", stands)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets.yaml").write_text("run: {name: pets}\n")
    return seen


def test_a_config_is_measured_and_the_figures_are_kept(
    raycls_command: Command, calls: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    found = raycls_command("bench", "--seconds=7", "pets.yaml", "data.prefetch=3", "optim.lr=0.5", "--json", "out.json")
    assert (found.code, calls) == (0, [("pets", 3, 7.0)])
    assert json.loads((tmp_path / "out.json").read_text()) == FACTS
    assert found.out.splitlines() == [
        "pets: batch 64, 2 workers on Ray, 1 thread each, cpu, precision off; 8 CPUs here",
        "",
        "                images/s         min         max",
        "fetch              1,234        0.25      12,345  reading, one process",
        "decode                 -                          the source has pixels",
        "augment            1,234        0.25      12,345  operations and batching, one process",
        "sample             1,234        0.25      12,345  the three above, one process",
        "transfer           1,234        0.25      12,345  to the device, normalised, one worker's 32 images",
        "step               1,234        0.25      12,345  forward, backward, update, one worker's 32 images",
        "together           1,234        0.25      12,345  as it trains: executor ray (other nodes decode too); "
        "data-wait 36%",
        "dataloader         1,234        0.25      12,345  torch's DataLoader, 8 processes: the same files, operations "
        "and steps, one worker's 32 images",
        "",
        "bound by data: decoding: 125 images/s of 1 CPU against 500",
        "note: of this machine",
        "  try  raycls bench pets.yaml optim.lr=0.5 data.executor=processes data.prefetch=4    # 4 processes",
        "  try  raycls pack pets.yaml data.prefetch=3 optim.lr=0.5 --out packed    # less decoding",
        "  try  a disk",
    ]


def test_what_is_wrong_is_said_before_anything_is_measured(
    raycls_command: Command, calls: list[tuple[Any, ...]]
) -> None:
    for words, fragment in (
        (("bench", "none.yaml"), "there is no file none.yaml"),
        (("bench", "pets.yaml", "optim.lrr=1"), "did you mean optim.lr?"),
        (("bench", "pets.yaml", "--json=out.txt"), "a name that ends in .json"),
        (("bench", "pets.yaml", "--seconds=-1"), "--seconds"),
        (("bench", "--seconds=1"), "CONFIG"),
        (("bench", "model", "none"), "there is no run none"),
    ):
        found = raycls_command(*words)
        assert found.code == 2, words
        assert fragment in found.err, words
    assert not calls


def test_both_forms_have_help(raycls_command: Command) -> None:
    assert "Usage: raycls bench CONFIG [OPTIONS] [[PATH=VALUE]...]" in raycls_command("bench", "x.yaml", "--help").out
    assert "raycls bench CONFIG --help" in " ".join(raycls_command("bench", "--help").out.split())
    assert "--no-compile" in raycls_command("bench", "model", "--help").out
