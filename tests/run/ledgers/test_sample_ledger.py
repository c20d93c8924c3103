from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from raycls.errors import CheckpointError
from raycls.run.folder import RunFolder
from raycls.run.ledgers import sample_ledger as module
from raycls.run.ledgers.sample_ledger import LedgerReport, SampleLedger, check
from raycls.run.storage.store import Store
from raycls.screen.run_text import ledger_lines

# 10 samples in batches of 4, 4 and 2; two micro-batches each.
SAMPLES, BATCH, MICROS, PER_EPOCH = 10, 4, 2, 3


def rows(step: int, micro: int) -> list[int]:
    """Sample ids of a micro-batch of the 1-based `step`, by an order of this test's own."""
    epoch, index = divmod(step - 1, PER_EPOCH)
    batch = np.random.default_rng(epoch).permutation(SAMPLES)[index * BATCH : (index + 1) * BATCH]
    return np.array_split(batch, MICROS)[micro].tolist()


def attempt(
    folder: RunFolder, start: int, end: int, *, workers: int = 2, out: tuple[int, ...] = (), skip: bool = True
) -> None:
    """Train the steps after `start` up to `end`; without the samples `out`, if it does `skip` what it says it does."""
    number = folder.begin_attempt(start, workers, **({"left_out": list(out)} if out else {}))
    for rank in range(workers):
        ledger = SampleLedger(folder, number, rank, pixels=False)
        for step in range(start + 1, end + 1):
            for micro in range(rank * MICROS // workers, (rank + 1) * MICROS // workers):
                ids = [index for index in rows(step, micro) if not skip or index not in out]
                ledger.write((step - 1) // PER_EPOCH, step, micro, ids)
        ledger.close()


def prepare(folder: RunFolder, final: int | None) -> None:
    plan = {"samples": SAMPLES, "steps_per_epoch": PER_EPOCH, "batch_size": BATCH, "micro_batches": MICROS, "seed": 0}
    folder.write_json(folder.PLAN, plan)
    if final is not None:
        folder.write_json(folder.RESULT, {"step": final})


def edit(folder: RunFolder, name: str, position: int, *lines: dict[str, object]) -> None:
    path = folder.path(f"ledger/{name}")
    assert path is not None
    kept = path.read_text().splitlines()
    kept[position : position + 1] = [json.dumps(line) for line in lines]
    path.write_text("\n".join(kept) + "\n")


def tear(folder: RunFolder) -> None:
    """Cut into the last line of rank 1's first ledger, as a crash does."""
    path = folder.path("ledger/attempt-0001-rank-1.jsonl")
    assert path is not None
    path.write_bytes(path.read_bytes()[:-9])


def run(folder: RunFolder, final: int = 7) -> LedgerReport:
    report = check(folder)
    assert (report.samples, report.steps) == (SAMPLES, final)
    assert report.ok == (not report.problems)
    return report


def test_a_whole_run_holds(store: Store) -> None:
    folder = RunFolder(store)
    attempt(folder, 0, 7)
    prepare(folder, 7)
    report = run(folder)
    assert report.ok and report.epochs == 2  # and a third one that was cut short
    assert report.attempts == ["attempt 1: 2 workers, 2 ledgers, steps 1 to 7, 14 micro-batches"]


def test_lines_are_as_described(folder: RunFolder) -> None:
    ledger = SampleLedger(folder, 3, 1, pixels=True)
    ledger.write(0, 1, 1, np.array([4, 2]), ["aa", "bb"])  # type: ignore[arg-type]
    assert not folder.store.exists("ledger")
    ledger.flush()
    (text, end) = folder.store.read_lines("ledger/attempt-0003-rank-1.jsonl")
    assert json.loads(text) == {"epoch": 0, "step": 1, "micro": 1, "ids": [4, 2], "sha256": ["aa", "bb"]} and end == ""
    with pytest.raises(ValueError, match="digest"):
        ledger.write(0, 2, 1, [1, 2], ["aa"])


def test_kills_and_other_worlds_hold(folder: RunFolder) -> None:
    attempt(folder, 0, 5)  # killed; its newest checkpoint was that of step 3
    attempt(folder, 3, 6, workers=1)  # that of step 6 was bad, and so were those of 4 and 5
    attempt(folder, 2, 2)  # died before a step
    attempt(folder, 2, 7)
    prepare(folder, 7)
    report = run(folder)
    assert report.ok, report.problems
    assert report.attempts[0] == (
        "attempt 1: 2 workers, 2 ledgers, steps 1 to 2, 4 micro-batches, 6 lines done again later or never used"
    )
    assert report.attempts[1].startswith("attempt 2: 1 workers, 1 ledgers, no steps that count, 0 micro-batches, 6")


def test_the_newest_checkpoint_is_the_end_of_an_unfinished_run(folder: RunFolder) -> None:
    attempt(folder, 0, 7)
    prepare(folder, None)
    folder.store.write_bytes("checkpoints/step-00000006/manifest.json", b"{}")
    assert run(folder, final=6).ok


def test_a_torn_line_after_the_newest_checkpoint_is_no_problem(folder: RunFolder) -> None:
    attempt(folder, 0, 4)
    tear(folder)
    attempt(folder, 3, 7)
    prepare(folder, 7)
    assert run(folder).ok


def test_a_torn_line_before_it_is_a_loss(folder: RunFolder) -> None:
    attempt(folder, 0, 4)
    tear(folder)
    attempt(folder, 4, 7)
    prepare(folder, 7)
    assert any("step 4 has 2 samples in 1 lines, it needs 4" in text for text in run(folder).problems)


def test_a_missing_step(folder: RunFolder) -> None:
    attempt(folder, 0, 4)
    attempt(folder, 5, 7)
    prepare(folder, 7)
    missing = sorted(rows(5, 0) + rows(5, 1))
    names = ", ".join(map(str, missing))
    assert run(folder).problems == ["step 5 is missing", f"epoch 1: 4 samples were not trained: {names}"]


def test_the_last_steps_are_missing(folder: RunFolder) -> None:
    attempt(folder, 0, 5)
    prepare(folder, 7)
    problems = run(folder).problems
    assert problems[:1] == ["step 6 is missing"] and "step 7 is missing" in problems


def test_a_sample_twice_and_one_never(folder: RunFolder) -> None:
    attempt(folder, 0, 3)
    prepare(folder, 3)
    first, other = rows(1, 0), rows(2, 0)
    edit(folder, "attempt-0001-rank-0.jsonl", 0, {"epoch": 0, "step": 1, "micro": 0, "ids": [first[0], other[1]]})
    assert run(folder, final=3).problems == [
        f"epoch 0: 1 samples were trained more than once: {other[1]}",
        f"epoch 0: 1 samples were not trained: {first[1]}",
    ]


def test_a_sample_twice_in_an_epoch_cut_short(folder: RunFolder) -> None:
    attempt(folder, 0, 2)
    prepare(folder, 2)
    line = {"epoch": 0, "step": 2, "micro": 0, "ids": [rows(1, 0)[0], rows(2, 0)[1]]}
    edit(folder, "attempt-0001-rank-0.jsonl", 1, line)
    assert run(folder, final=2).problems == [f"epoch 0: 1 samples were trained more than once: {rows(1, 0)[0]}"]


def test_a_micro_batch_on_two_ranks(folder: RunFolder) -> None:
    attempt(folder, 0, 3)
    prepare(folder, 3)
    same = {"epoch": 0, "step": 2, "micro": 0, "ids": rows(2, 0)}
    edit(folder, "attempt-0001-rank-1.jsonl", 1, same, {"epoch": 0, "step": 2, "micro": 1, "ids": rows(2, 1)})
    problems = run(folder, final=3).problems
    assert problems[0] == "micro-batch 0 of step 2 was trained twice"
    assert problems[1] == "step 2 has 6 samples in 3 lines, it needs 4"
    assert problems[2].startswith("epoch 0: 2 samples were trained more than once")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({"epoch": 1, "step": 1, "micro": 0}, "step 1 says epoch 1, it belongs to 0"),
        ({"epoch": 0, "step": 1, "micro": 2}, "step 1 has a micro-batch 2, the plan has 0 to 1"),
    ],
)
def test_a_line_in_the_wrong_place(folder: RunFolder, line: dict[str, object], said: str) -> None:
    attempt(folder, 0, 3)
    prepare(folder, 3)
    edit(folder, "attempt-0001-rank-0.jsonl", 0, {**line, "ids": rows(1, 0)})
    assert run(folder, final=3).problems == [said]


def test_samples_that_do_not_exist(folder: RunFolder) -> None:
    attempt(folder, 0, 2)
    prepare(folder, 2)
    edit(folder, "attempt-0001-rank-0.jsonl", 0, {"epoch": 0, "step": 1, "micro": 0, "ids": [-1, SAMPLES]})
    assert run(folder, final=2).problems == ["step 1 has samples that do not exist: -1, 10"]


def test_lines_out_of_order(folder: RunFolder) -> None:
    attempt(folder, 0, 3, workers=1)
    prepare(folder, 3)
    edit(folder, "attempt-0001-rank-0.jsonl", 6, {})  # appends nothing that counts
    late = {"epoch": 0, "step": 1, "micro": 0, "ids": rows(1, 0)}
    edit(folder, "attempt-0001-rank-0.jsonl", 6, late)
    assert run(folder, final=3).problems == ["step 1 comes again after step 3"]


def test_an_attempt_nobody_knows(folder: RunFolder) -> None:
    attempt(folder, 0, 3)
    prepare(folder, 3)
    SampleLedger(folder, 9, 0, pixels=False).write(0, 1, 0, [1])
    folder.store.write_bytes("ledger/attempt-0009-rank-0.jsonl", b"")
    assert "attempt 9" in run(folder, final=3).problems[0]


def test_many_problems_are_cut_short(folder: RunFolder) -> None:
    attempt(folder, 0, 1)
    prepare(folder, 300)
    problems = run(folder, final=300).problems
    assert len(problems) == 21 and problems[-1].startswith("and ")


def test_no_ledger_is_an_error(folder: RunFolder) -> None:
    prepare(folder, 3)
    with pytest.raises(CheckpointError, match="no ledger") as caught:
        check(folder)
    assert "train.ledger" in str(caught.value.fix)


def _repeated(folder: RunFolder, cycles: list[list[int]]) -> LedgerReport:
    """Of 10 samples, twice each in two epochs; the ids of each epoch of three steps."""
    plan = {"samples": SAMPLES, "steps_per_epoch": PER_EPOCH, "batch_size": BATCH, "micro_batches": 1, "repeats": 2}
    folder.write_json(folder.PLAN, plan)
    ledger = SampleLedger(folder, folder.begin_attempt(0, 1), 0, pixels=False)
    for epoch, ids in enumerate(cycles):
        for index in range(PER_EPOCH):
            ledger.write(epoch, epoch * PER_EPOCH + index + 1, 0, ids[index * BATCH : (index + 1) * BATCH])
    ledger.close()
    folder.write_json(folder.RESULT, {"step": PER_EPOCH * len(cycles)})
    return check(folder)


def test_with_repeats_each_sample_comes_so_many_times_in_so_many_epochs(folder: RunFolder) -> None:
    first, second = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    report = _repeated(folder, [first, second, second])
    assert report.ok and report.repeats == 2
    assert "each sample exactly 2 times in 2 epochs" in ledger_lines(report)[0]


def test_with_repeats_a_sample_too_often_or_too_rarely_is_named(folder: RunFolder) -> None:
    report = _repeated(folder, [[0, 0, 1, 1, 2, 2, 3, 3, 4, 4], [5, 5, 6, 6, 7, 7, 8, 8, 9, 0]])
    assert report.problems == [
        "epoch 1: 1 samples came more than 2 times: 0",
        "epoch 1: 1 samples were trained less than 2 times in 2 epochs: 9",
    ]


def test_a_run_that_has_nothing_yet(folder: RunFolder) -> None:
    attempt(folder, 0, 2)
    prepare(folder, None)
    assert not run(folder, final=0).ok


def test_long_ledgers_are_written_in_between_and_in_parts(
    store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "_BUFFER", 100)
    monkeypatch.setattr(module, "_ROLL", 200)
    folder = RunFolder(store)
    attempt(folder, 0, 7)
    prepare(folder, 7)
    assert run(folder).ok
    parts = len(store.list("ledger"))
    assert parts == 2 if store.is_local else parts > 2


def test_samples_that_were_left_out_are_named(folder: RunFolder) -> None:
    one, two = rows(5, 0)[0], rows(6, 1)[0]
    attempt(folder, 0, 5)
    attempt(folder, 4, 7, out=(one,))
    attempt(folder, 5, 7, out=tuple(sorted((one, two))))
    prepare(folder, 7)
    report = run(folder)
    assert report.ok
    assert report.left_out == {4: [one], 5: [two]}


def test_a_sample_that_is_trained_after_it_was_left_out(folder: RunFolder) -> None:
    attempt(folder, 0, 4)
    attempt(folder, 4, 7, out=(rows(5, 0)[0],), skip=False)
    prepare(folder, 7)
    assert any("samples that were left out" in problem for problem in run(folder).problems)


def test_one_that_was_left_out_excuses_no_other(folder: RunFolder) -> None:
    attempt(folder, 0, 4)
    attempt(folder, 4, 7, out=(rows(5, 0)[0],))
    prepare(folder, 7)
    path = folder.path("ledger/attempt-0002-rank-1.jsonl")
    assert path is not None
    lost = rows(5, 1)[0]
    path.write_text(
        path.read_text().replace(
            json.dumps(rows(5, 1)).replace(" ", ""), json.dumps(rows(5, 1)[1:]).replace(" ", ""), 1
        )
    )
    assert f"epoch 1: 1 samples were not trained: {lost}" in run(folder).problems


# A balanced sampler by hand: six samples of classes 0, 0, 0, 0, 1, 1 in batches of 4 and 2: three draws of each class
# an epoch. Class 1 has drawn 3 after one epoch (2 + 1) and 6 after two (3 + 3), class 0 draws 3 and 6 (2 + 2 + 1 + 1).
_OF = np.array([0, 0, 0, 0, 1, 1])
_DRAWN = [[0, 4, 5, 1], [4, 2], [3, 5, 0, 4], [5, 1]]


def _balanced(folder: RunFolder, steps: list[list[int]], out: tuple[int, ...] = ()) -> LedgerReport:
    plan = {"samples": 6, "steps_per_epoch": 2, "batch_size": 4, "micro_batches": 1, "seed": 0, "sampler": "balanced"}
    folder.write_json(folder.PLAN, plan)
    ledger = SampleLedger(folder, folder.begin_attempt(0, 1, left_out=list(out)), 0, pixels=False)
    for step, ids in enumerate(steps):
        ledger.write(step // 2, step + 1, 0, ids)
    ledger.close()
    folder.write_json(folder.RESULT, {"step": len(steps)})
    return check(folder, lambda: _OF)


@pytest.mark.parametrize("steps", [_DRAWN, _DRAWN[:3], _DRAWN[:2]])
def test_a_balanced_ledger_is_exact(steps: list[list[int]], tmp_path: Path) -> None:
    report = _balanced(RunFolder(tmp_path), steps)
    assert report.ok, report.problems
    assert (report.classes, report.epochs) == (2, len(steps) // 2)


def test_a_balanced_ledger_without_a_sample_that_is_gone(tmp_path: Path) -> None:
    without = [[index for index in ids if index != 4] for ids in _DRAWN]
    assert _balanced(RunFolder(tmp_path / "told"), without, out=(4,)).ok
    assert not _balanced(RunFolder(tmp_path / "not"), without).ok


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ([[0, 4, 5, 1], [0, 2], [3, 5, 0, 4], [5, 1]], "epoch 0: 4 samples of class 0 were drawn, it needs 3"),
        ([[0, 4, 5, 1], [4, 0], [3, 5, 0, 4], [5, 1]], "epoch 0: 1 samples did not come in the turn of their class: 0"),
        ([[0, 4, 4, 1], [4, 2], [3, 5, 0, 4], [5, 1]], "epoch 0: 2 samples did not come in the turn of their class: 4"),
        ([[0, 4, 5, 1], [4, 2], [0, 5, 2, 4], [5, 1]], "epoch 1: 1 samples did not come in the turn of their class: 3"),
        ([[0, 4, 5, 1], [4], [3, 5, 0, 4], [5, 1]], "step 2 has 1 samples in 1 lines, it needs 2"),
    ],
)  # fmt: skip
def test_a_balanced_ledger_says_what_is_wrong(changed: list[list[int]], problem: str, tmp_path: Path) -> None:
    assert any(line.startswith(problem) for line in _balanced(RunFolder(tmp_path), changed).problems)


def test_a_balanced_ledger_without_labels_is_not_called_exact(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert _balanced(folder, _DRAWN).ok
    assert "cannot be checked" in check(folder).problems[0]
