"""Between the thread that trains and Tune's calls: order, answers, stops and heartbeats."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from raycls.tune import trial


@pytest.fixture
def talk(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(trial, "_BEAT", 0.02)
    return trial._Talk()


def heard(talk: Any) -> Any:
    """The next record; heartbeats are left out."""
    while not (result := talk.next())["record"]:
        pass
    return json.loads(result["record"])


def side(function: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def test_one_result_at_a_time_and_an_answer_for_each(talk: Any) -> None:
    answers: list[str] = []

    def trains() -> None:
        for number in range(3):
            time.sleep(0.05)  # longer than a heartbeat
            answers.append(talk.report("evaluation", number=number))
        talk.close(state="finished")

    thread = side(trains)
    for number in range(3):
        assert heard(talk) == {"kind": "evaluation", "number": number}
        time.sleep(0.06)
        assert len(answers) == number  # it waits, however many heartbeats there were
    assert heard(talk) == {"kind": "end", "state": "finished"}
    thread.join(5)
    assert answers == ["", "", ""]


def test_a_trial_that_waits_is_stopped_at_once(talk: Any) -> None:
    answers: list[str] = []
    thread = side(lambda: answers.append(talk.report("evaluation", number=1)))
    heard(talk)
    talk.stop()
    thread.join(5)
    assert answers == ["search"]


def test_a_trial_that_trains_is_stopped_where_it_asks_next(talk: Any) -> None:
    asked, going_on = threading.Event(), threading.Event()
    answers: list[str] = []

    def trains() -> None:
        answers.append(talk.report("evaluation", number=1))
        asked.set()
        going_on.wait(5)
        answers.append(talk.report("evaluation", number=2))  # nobody listens any more: it must not wait
        answers.append(talk.report("evaluation", number=3))

    thread = side(trains)
    heard(talk)
    assert talk.next() == {"record": ""}  # the answer to the first, and then a heartbeat
    assert asked.wait(5)
    talk.stop()
    talk.stop()
    going_on.set()
    thread.join(5)
    assert answers == ["", "search", "search"]
