"""What ranks agree on: errors, stopping, saving, sums."""

from __future__ import annotations

import pytest
import torch
from harness.ranks import run_ranks

from raycls.errors import CheckpointError, DataError, RayclsError, TrainError
from raycls.train import ranks as module
from raycls.train.ranks import ABORTED, Agreement, Interrupted, Ranks
from raycls.train.reasons import Reason


class _Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> _Clock:
    clock = _Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def _ranks(clock: _Clock, **options: object) -> Ranks:
    return Ranks(**options, _began=clock.now, _saved=clock.now)  # type: ignore[arg-type]


def test_goes_on() -> None:
    assert Ranks().agree() == Agreement(Reason.NONE, save=False)


@pytest.mark.parametrize("reason", [Reason.SIGINT, Reason.SIGTERM])
def test_stops_on_request(reason: Reason) -> None:
    assert Ranks(stop_requested=lambda: reason).agree().stop == reason


def test_budget_counts_earlier_starts(clock: _Clock) -> None:
    ranks = _ranks(clock, budget_seconds=60.0, elapsed_before=50.0)
    assert ranks.agree().stop == ""
    clock.now += 9
    assert (ranks.agree().stop, ranks.elapsed) == ("", 59.0)
    clock.now += 1
    assert ranks.agree().stop == "budget"


def test_a_request_comes_before_the_budget(clock: _Clock) -> None:
    ranks = _ranks(clock, budget_seconds=1.0, stop_requested=lambda: Reason.SIGTERM)
    clock.now += 5
    assert ranks.agree().stop == "sigterm"


@pytest.mark.parametrize("reason", [Reason.SIGINT, Reason.SIGTERM])
def test_an_evaluation_is_left_for_a_signal(reason: Reason) -> None:
    with pytest.raises(Interrupted, match=reason):
        Ranks(stop_requested=lambda: reason).go_on()


@pytest.mark.parametrize("reason", [Reason.NONE, Reason.RESIZE, Reason.SEARCH])
def test_an_evaluation_is_done_before_anything_else(reason: Reason) -> None:
    Ranks(stop_requested=lambda: reason).go_on()


def test_an_evaluation_is_left_for_a_notice_but_not_for_the_budget(clock: _Clock) -> None:
    ranks = _ranks(clock, budget_seconds=1.0, preempted=lambda: clock.now > 105, _looked=clock.now)
    clock.now += 4
    ranks.go_on()
    clock.now += 4
    with pytest.raises(Interrupted, match="preempted"):
        ranks.go_on()


def test_a_checkpoint_that_is_due_waits_for_the_end_of_an_evaluation(clock: _Clock) -> None:
    ranks = _ranks(clock, save_seconds=10.0)
    clock.now += 11
    ranks.go_on()
    assert ranks.agree().save


def test_saves_by_time(clock: _Clock) -> None:
    ranks = _ranks(clock, save_seconds=10.0)
    saved = []
    for _ in range(25):
        clock.now += 1
        saved.append(ranks.agree().save)
    assert [index + 1 for index, save in enumerate(saved) if save] == [10, 20]


def test_an_error_is_raised() -> None:
    with pytest.raises(DataError, match="no picture"):
        Ranks().agree(DataError("no picture"))
    with pytest.raises(CheckpointError, match="disk full"):
        Ranks(pending_error=lambda: CheckpointError("disk full")).agree()
    with pytest.raises(DataError, match="no picture"):
        Ranks().check(DataError("no picture"))
    Ranks().check()
    with pytest.raises(DataError, match="no picture"):
        Ranks().go_on(DataError("no picture"))


def agreements(rank: int, world: int) -> list[object]:
    """What three ranks find out together; rank 1 has the errors."""
    ranks = Ranks(rank, world, stop_requested=lambda: Reason.SIGINT if rank else Reason.NONE)
    found: list[object] = [ranks.agree().stop]  # only rank 0 is asked
    for call in (ranks.agree, ranks.check):
        try:
            call(DataError("mine") if rank == 1 else None)
            found.append(None)
        except RayclsError as error:
            found.append((type(error), error.what))
    ranks.stop_requested = lambda: Reason.NONE if rank else Reason.SIGTERM
    ranks.save_seconds = 0.0 if rank else 1e-9
    agreed = ranks.agree()
    found.append((agreed.stop, agreed.save))
    found.append(ranks.sum(torch.tensor([rank + 1, 10 * rank])).tolist())
    return found


def test_ranks_agree() -> None:
    results = run_ranks(3, agreements)
    for rank, result in enumerate(results):
        error = (DataError, "mine") if rank == 1 else (TrainError, ABORTED)
        assert result == ["", error, error, ("sigterm", True), [6, 30]]


def test_alone_a_sum_is_what_it_was() -> None:
    assert Ranks().sum(torch.tensor([3.0])).tolist() == [3.0]
