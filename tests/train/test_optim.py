"""Early stopping, against hand-made tables."""

from __future__ import annotations

import json

from raycls.config.sections.train import EarlyStopConfig
from raycls.train.optim import EarlyStop


def test_early_stop_counts_evaluations_in_a_row() -> None:
    stop = EarlyStop.of(EarlyStopConfig(patience=2), "max")
    assert [stop.update(value) for value in (0.5, 0.4, 0.6, 0.6, 0.1)] == [False, False, False, False, True]
    stop = EarlyStop.of(EarlyStopConfig(patience=2), "min")
    assert [stop.update(value) for value in (0.5, 0.4, 0.6, 0.4, 0.1)] == [False, False, False, True, False]


def test_early_stop_counts_only_changes_of_min_delta() -> None:
    stop = EarlyStop.of(EarlyStopConfig(patience=3, min_delta=0.25), "max")
    assert [stop.update(value) for value in (0.25, 0.375, 0.5, 0.5, 0.625)] == [False] * 5
    assert stop.best == 0.5
    assert stop.bad == 2
    assert stop.update(float("inf"))


def test_early_stop_off_never_stops_and_its_state_is_json() -> None:
    stop = EarlyStop.of(EarlyStopConfig(), "max")
    assert not any(stop.update(0.1) for _ in range(50))
    other = EarlyStop.of(EarlyStopConfig(patience=50), "max")
    other.load_state_dict(json.loads(json.dumps(stop.state_dict())))
    assert (other.best, other.bad) == (0.1, 49)
    assert other.update(0.1)
