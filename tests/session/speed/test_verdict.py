"""What bounds a run, by numbers that are worked out by hand, and that what is proposed can be typed."""

from __future__ import annotations

import itertools
import shlex
from dataclasses import replace
from typing import Any

import pytest

from raycls.config.load import load_text
from raycls.names import name_problems
from raycls.quantities import bound_by
from raycls.session.speed.verdict import Costs, Verdict, judged

COSTS = Costs(fetch=0.001, decode=0.005, augment=0.002, sample=0.008, move=0.0002, step=0.0018, data_wait=0.5)
"""125 images/s of one process, 500 of one worker's steps."""
KEEP, PACK = "data.cache=memory", "--out packed"


def _judged(*options: str, costs: Costs = COSTS, executor: str = "inline", cpus: int = 8, **more: Any) -> Verdict:
    run = load_text("{}", "c.yaml", ("scale.workers=0", *options)).run
    given = {"device": "cpu", "precision": "off", "native_bf16": False, **more}
    return judged(run, costs, executor=executor, cpus=cpus, **given)


def test_the_log_line_has_the_words_of_the_verdict() -> None:
    assert [bound_by(share) for share in (0.0, 0.1049, 0.1051, 1.0)] == ["the step", "the step", "data", "data"]
    assert _judged().by == "data"
    assert _judged(costs=replace(COSTS, data_wait=0.1)).by == "the step"


def test_a_worker_that_decodes_between_its_steps_gets_processes() -> None:
    # 500 images/s of 8 ms each are 4 CPUs, and 7 are idle
    found = _judged()
    assert found.part == "decoding"
    assert found.text == (
        "decoding between the steps: 125 images/s of 1 CPU against 500 that the step alone could take"
    )
    assert found.changes[0].typed == "data.executor=processes data.processes=4"
    assert [(change.command, change.typed) for change in found.changes[1:]] == [("bench", KEEP), ("pack", PACK)]
    assert [change.typed for change in _judged("data.cache=memory").changes[1:]] == [PACK]
    # what is evaluated is an eighth larger than its crops
    assert _judged("data.image_size=300").changes[2].typed == "--out packed --size 343"


@pytest.mark.parametrize(
    ("cpus", "text", "typed"),
    [
        (3, "500 that the step alone could take: 2 more CPUs", "data.executor=processes data.processes=2"),
        (2, "500 that the step alone could take: 3 more CPUs", "data.executor=processes data.processes=1"),
        (1, "500 that the step alone could take: 4 more CPUs", ""),
    ],
)
def test_cpus_that_are_not_there_are_counted(cpus: int, text: str, typed: str) -> None:
    found = _judged(cpus=cpus)
    assert found.text.endswith(text)
    assert [change.typed for change in found.changes] == [*([typed] if typed else []), KEEP, PACK]


def test_processes_that_a_plain_loader_gained_nothing_by_are_not_proposed() -> None:
    assert [change.typed for change in _judged(costs=replace(COSTS, gain=0.9)).changes] == [KEEP, PACK]


def test_a_thread_that_reads_ahead_gets_processes_where_it_is_too_slow() -> None:
    found = _judged(ahead=True)
    assert found.text == "decoding: 125 images/s of 1 CPU against 500 that the step could take"
    assert found.changes[0].typed == "data.executor=processes data.processes=4"
    found = _judged(ahead=True, cpus=2)
    assert found.text == "decoding: 125 images/s of 1 CPU against 500 that the step could take: 3 more CPUs"
    assert [change.typed for change in found.changes] == [KEEP, PACK]


def test_too_few_processes_become_more() -> None:
    found = _judged("data.processes=2", executor="processes")
    assert found.text == "decoding: 250 images/s of 2 CPUs against 500 that the step could take"
    assert found.changes[0].typed == "data.processes=4"
    # as many as there are CPUs for them
    found = _judged("data.processes=2", executor="processes", cpus=3)
    assert found.text == "decoding: 250 images/s of 2 CPUs against 500 that the step could take: 2 more CPUs"
    assert [change.typed for change in found.changes] == [KEEP, PACK]


def test_ray_decodes_on_the_cpus_that_no_worker_uses() -> None:
    found = _judged("scale.workers=2", "scale.threads=2", executor="ray")
    # 4 of 8 CPUs decode; two workers could take 1,000 images/s, for which it takes 8
    assert found.text == "decoding: 500 images/s of 4 CPUs against 1,000 that the step could take: 4 more CPUs"
    assert [change.typed for change in found.changes] == [KEEP, PACK]


def test_of_a_gpu_one_cpu_is_busy_with_the_step() -> None:
    found = _judged("scale.threads=4", device="cuda", executor="ray")
    assert found.text == "decoding: 875 images/s of 7 CPUs against 500 that the step could take"


@pytest.mark.parametrize(
    ("costs", "part", "why"),
    [
        (replace(COSTS, augment=0.02), "augmenting", "operations in augment.train"),
        (replace(COSTS, fetch=0.02), "fetching", "faster disk"),
    ],
)
def test_the_dearest_part_of_a_sample_is_named(costs: Costs, part: str, why: str) -> None:
    found = _judged(costs=costs)
    assert found.part == part and found.text.startswith(part)
    assert why in found.changes[-1].why


def test_a_step_is_made_faster() -> None:
    waits = replace(COSTS, data_wait=0.01, sample=0.001)
    found = _judged("train.memory_format=contiguous", costs=waits, native_bf16=True)
    assert found.text == "computing: 500 images/s, and 1,000 could be made by 1 CPU"
    typed = [change.typed for change in found.changes]
    assert typed == ["scale.threads=8", "train.amp=bf16", "train.memory_format=channels_last", "train.compile=default"]
    assert all("other bits" in change.why for change in found.changes)
    # what is so already, or does not go together, is not proposed
    used = _judged("scale.threads=8", "train.activation_checkpointing=on", costs=waits, precision="bf16")
    assert [change.typed for change in used.changes] == ["train.activation_checkpointing=off"]
    moves = _judged(costs=replace(waits, move=0.01))
    assert moves.part == "moving data to the device"


def test_whatever_is_proposed_is_a_config() -> None:
    """Every change, of every kind of run that is judged here, loads together with what was typed before."""
    before = (
        (),
        ("train.memory_format=contiguous", "scale.threads=3"),
        ("scale.workers=2", "data.executor=processes", "data.processes=1"),
        ("train.batch_norm=sync", "train.micro_batches=1"),
    )
    seen = set[str]()
    for options, executor, cpus, device, waited in itertools.product(
        before, ("inline", "processes", "ray"), (1, 2, 3, 9), ("cpu", "cuda"), (0.0, 0.9)
    ):
        costs = replace(COSTS, data_wait=waited)
        if executor == "processes":
            options = ("data.executor=processes", *options)
        found = _judged(*options, costs=costs, executor=executor, cpus=cpus, device=device, native_bf16=True)
        for change in found.changes:
            words = shlex.split(change.typed) if change.command == "bench" else []
            load_text("{}", "c.yaml", ("scale.workers=0", *options, *words), names=name_problems)
            seen |= {word.partition("=")[0] for word in words}
    assert seen == {
        *("data.executor", "data.processes", "data.cache", "scale.threads"),
        *("train.amp", "train.memory_format", "train.compile"),
    }
