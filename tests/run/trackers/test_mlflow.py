"""What an MLflow server is told, over HTTP and through MLflow's own client, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from harness.mlflow_stand_in import StandIn, standing_in

from raycls.run.trackers.delivery import RefusedError
from raycls.run.trackers.mlflow import Mlflow
from raycls.run.trackers.trackers import ENVIRONMENT

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    with standing_in() as told:
        yield told


def _tracker(server: StandIn, **settings: Any) -> Mlflow:
    base = {"id": "abc", "name": "pets", "group": "", "dashboard": "", "parameters": {"optim.lr": 0.1}}
    return Mlflow({**base, "track": {"uri": server.uri, "experiment": "animals"}, **settings})


def _line(step: int, loss: float, time: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"kind": "train", "step": step, "time": time or float(step), "loss": loss, **more}


def test_a_run_from_its_first_line_to_its_end(server: StandIn) -> None:
    parameters = {"optim.lr": 0.1, "model.name": "tiny_cnn", "augment.eval": [], "optim.clip_norm": "off"}
    tracker = _tracker(server, parameters=parameters, dashboard="http://head:8265/#/jobs/one")
    assert tracker.open() == {"url": f"{server.uri}/#/experiments/1/runs/run1"}
    tracker.send([_line(1, 0.5, 7.25), _line(2, NAN), {"kind": "evaluate", "split": "val", "step": 2, "time": 9.0}])
    tracker.send([{"kind": "evaluate", "split": "val", "step": 2, "time": 9.0, "top1": 0.75, "best": True}])
    tracker.end("FINISHED", {"state": "done", "best": {"value": 0.75}, "final": None})
    run = server.only_run()
    assert (server.experiments, run["name"], run["status"]) == ({"animals": "1"}, "pets", "FINISHED")
    assert run["params"] == {
        "optim.lr": "0.1",
        "model.name": "tiny_cnn",
        "augment.eval": "[]",
        "optim.clip_norm": "off",
    }
    assert run["metrics"][0] == {"key": "train/loss", "value": 0.5, "timestamp": 7250, "step": 1}
    assert [metric["key"] for metric in run["metrics"]] == ["train/loss", "train/loss", "val/top1"]
    assert run["tags"] == {
        "raycls.run": "abc",
        "raycls.ray_job": "http://head:8265/#/jobs/one",
        "raycls.state": "done",
        "raycls.best.value": "0.75",
    }


def test_a_later_start_goes_on_with_the_same_run(server: StandIn) -> None:
    """It brings what is lacking; a step that was done again with the same outcome is there once."""
    first = _tracker(server)
    first.open()
    first.send([_line(1, 0.5), _line(2, 0.25), _line(4, 0.125)])
    second = _tracker(server, parameters={"optim.lr": 0.1, "scale.workers": 2})
    second.open()
    second.send([_line(1, 0.5), _line(2, 0.25), _line(3, 0.75)])
    second.send([_line(4, 0.125, 60.0), _line(5, 1.0)])
    second.end("KILLED", {})
    third = _tracker(server, parameters={"optim.lr": 0.1, "scale.workers": 3})
    third.open()
    third.send([_line(5, 2.0, 70.0)])  # done again, and with another outcome
    assert len(server.runs) == 1
    assert server.points("train/loss") == [(1, 0.5), (2, 0.25), (4, 0.125), (3, 0.75), (5, 1.0), (5, 2.0)]
    run = server.only_run()
    assert run["params"] == {"optim.lr": "0.1", "scale.workers": "2"}
    assert run["tags"]["changed.scale.workers"] == "3"
    assert run["status"] == "RUNNING"


def test_a_start_from_before_the_first_evaluation_does_not_bring_it_twice(server: StandIn) -> None:
    evaluation = {"kind": "evaluate", "split": "val", "step": 4, "time": 9.0, "top1": 0.75}
    first = _tracker(server)
    first.open()
    first.send([_line(3, 0.5), _line(4, 0.25), evaluation])
    second = _tracker(server)
    second.open()
    second.send([_line(3, 0.5)])
    second.send([_line(4, 0.25, 60.0)])
    second.send([{**evaluation, "time": 70.0}])
    assert server.points("train/loss") == [(3, 0.5), (4, 0.25)]
    assert server.points("val/top1") == [(4, 0.75)]


def test_lines_whose_answer_was_lost_are_there_once(server: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = _tracker(server)
    tracker.open()
    tracker.send([_line(1, 0.5)])
    arrived = tracker._client.log_batch

    def lost(*given: Any, **named: Any) -> None:
        arrived(*given, **named)
        raise ConnectionError("cut after it had arrived")

    with monkeypatch.context() as cut, pytest.raises(ConnectionError):
        cut.setattr(tracker._client, "log_batch", lost)
        tracker.send([_line(2, 0.25)])
    tracker.send([_line(2, 0.25), _line(3, 0.125)])
    assert server.points("train/loss") == [(1, 0.5), (2, 0.25), (3, 0.125)]


def test_names_that_mlflow_does_not_know_are_changed(server: StandIn) -> None:
    tracker = _tracker(server, parameters={"model.args.größe (px)": 3, "data.source.args.x": "y" * 9000})
    tracker.open()
    tracker.send([_line(1, 0.5, **{"f1 (macro)": INF})])
    run = server.only_run()
    assert run["params"] == {"model.args.gr__e _px_": "3", "data.source.args.x": "y" * 500}
    assert [metric["key"] for metric in run["metrics"]] == ["train/loss", "train/f1 _macro_"]


def test_what_the_server_refuses_is_not_tried_for_ever(server: StandIn) -> None:
    tracker = _tracker(server)
    tracker.open()
    with pytest.raises(RefusedError, match="refused"):
        tracker.send([_line(1, 0.5, refused=1.0)])


def test_many_points_and_parameters_go_in_parts(server: StandIn) -> None:
    """A server takes at most 1,000 points and 100 parameters at once."""
    tracker = _tracker(server, parameters={f"data.source.args.a{index}": index for index in range(250)})
    tracker.open()
    assert len(server.only_run()["params"]) == 250
    assert server.asked.count("runs/log-batch") == 3
    tracker.send([_line(step, 0.5) for step in range(1, 1202)])
    assert [step for step, _ in server.points("train/loss")] == list(range(1, 1202))
    assert server.asked.count("runs/log-batch") == 6


def test_trials_lie_under_one_heading(server: StandIn) -> None:
    """Four trials begin at once: whoever made a heading too many deletes it."""
    _tracker(server).open()  # the experiment is there
    group = {"group": "hunt", "group_id": "42"}
    trials = [_tracker(server, id=f"t{number}", name=f"hunt/{number}", **group) for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda trial: trial.open(), trials))
    runs = {key: run for key, run in server.runs.items() if key not in server.deleted}
    (heading,) = [key for key, run in runs.items() if run["tags"].get("raycls.search_id") == "42"]
    assert (runs[heading]["name"], runs[heading]["status"]) == ("hunt", "FINISHED")
    parents = [run["tags"].get("mlflow.parentRunId") for run in runs.values() if "/" in run["name"]]
    assert parents == [heading] * 4
