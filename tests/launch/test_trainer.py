"""Training and evaluation as the command line calls them: what is said, what is refused, how signals end them."""

from __future__ import annotations

import io
import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.jobs import make_job, write_arrays
from harness.jobs import train as train_job
from harness.processes import raycls

from raycls.cluster.connection import Cluster
from raycls.cluster.growth import Growth
from raycls.config.load import load_text
from raycls.config.sections.run import Run
from raycls.errors import ConfigError, DataError, LaunchError
from raycls.launch import gauges, groups, node_checks, stopping, trainer
from raycls.launch.placing import waiting
from raycls.screen.run import Display
from raycls.screen.run_text import STOPPING
from raycls.session.data import record
from raycls.session.messages import Started
from raycls.train.reasons import Reason

_CONFIG = """
run: {name: run}
data: {source: {name: arrays, path: data.npz}, image_size: 12, batch_size: 16}
augment: {train: [horizontal_flip], eval: []}
model: {name: tiny_cnn, args: {width: 8}}
train: {duration: 1ep}
"""


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    write_arrays(tmp_path / "data.npz", train=40, val=8)


def _run(*overrides: str) -> Run:
    return load_text(_CONFIG, "run.yaml", overrides).run


def test_ctrl_c_ends_after_a_checkpoint(tmp_path: Path) -> None:
    """A terminal signals the whole group: the processes that decode get it too."""
    (tmp_path / "run.yaml").write_text(_CONFIG)
    words = ["scale.workers=0", "data.executor=processes", "train.duration=1000000st", "track.log_every=1st"]
    history = tmp_path / "runs" / "run" / "history.jsonl"
    with raycls(tmp_path, "train", "run.yaml", *words) as command:
        command.until(lambda: history.exists() and history.read_text().count("\n") >= 3, 60)
        os.killpg(command.process.pid, signal.SIGINT)
        assert command.wait(30) == 130, command.said()
        assert not command.stderr
        assert command.stdout.count(STOPPING) == 1
        command.assert_gone(5)
    result = json.loads((tmp_path / "runs" / "run" / "result.json").read_text())
    assert (tmp_path / "runs" / "run" / "checkpoints" / f"step-{result['step']:08d}" / "manifest.json").exists()


def test_the_second_signal_gives_the_terminal_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    monkeypatch.setattr(os, "_exit", seen.append)
    with stopping.StopRequest(lambda: seen.append("given back")) as stop:
        signal.raise_signal(signal.SIGTERM)
        assert (stop.asked(), seen) == ("sigterm", [])
        signal.raise_signal(signal.SIGINT)
    assert seen == ["given back", 130]


def test_no_gpu_is_refused_before_anything_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(LaunchError, match="no GPU"):
        trainer.train(_run("scale.workers=0", "scale.device=cuda"), display=Display(io.StringIO()))
    assert not Path("runs").exists()


@pytest.fixture
def trained(tmp_path: Path) -> str:
    folder = tmp_path / "runs" / "trained"
    train_job(make_job(folder, tmp_path / "data.npz", "train.duration=1ep", "data.batch_size=16"))
    return str(folder)


@pytest.mark.parametrize(
    "override",
    [
        "evaluate.batch_size=3",
        "train.amp=bf16",
        "train.reduction=fast",
        "model.args.width=16",
        "run.seed=4",
        "data.split.seed=4",
        "augment.mean=[0, 0, 0]",
    ],
)
def test_an_evaluation_refuses_what_it_would_ignore(trained: str, override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        trainer.evaluate(trained, overrides=[override, "scale.max_failures=1"], display=Display(io.StringIO()))
    assert override.partition("=")[0] in str(caught.value)
    assert "max_failures" not in str(caught.value)
    assert "scale.*, data.executor" in str(caught.value)


def test_an_evaluation_on_other_files_says_what_it_does(trained: str, tmp_path: Path) -> None:
    write_arrays(tmp_path / "other.npz", train=40, val=12, seed=3)
    screen = io.StringIO()
    overrides = [f"data.source.path={tmp_path / 'other.npz'}", "data.executor=processes", "data.processes=1"]
    summary = trainer.evaluate(trained, overrides=overrides, display=Display(screen))
    assert (summary["split"], summary["count"], summary["trained_on"]) == ("all", 52, 0)
    said = screen.getvalue().splitlines()
    assert "other data than the run was trained with" in said[0]
    assert said[-1] == f"evaluating 52 images of {tmp_path / 'other.npz'}"
    summary = trainer.evaluate(trained, split="val", overrides=overrides, display=Display(screen))
    assert (summary["split"], summary["count"]) == ("val", 12)


@pytest.mark.parametrize("large", [False, True])
def test_arrays_that_lost_a_row_are_not_taken_for_the_same(
    trained: str, tmp_path: Path, large: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their keys are positions. Where contents are known, the rows before the lost one are the same."""
    if large:
        monkeypatch.setattr(record, "MOST_SAMPLES", 0)
        train_job(make_job(tmp_path / "runs" / "large", tmp_path / "data.npz", "train.duration=1ep"))
    arrays = dict(np.load("data.npz"))
    for name in ("val_images", "val_labels"):
        arrays[name] = np.delete(arrays[name], 5, axis=0)
    np.savez("data.npz", **arrays)
    run, screen = "runs/large" if large else trained, Display(io.StringIO())
    if large:
        with pytest.raises(DataError, match="nothing of the split val can be scored"):
            trainer.evaluate(run, split="val", display=screen)
        return
    summary = trainer.evaluate(run, split="val", display=screen)
    assert summary["count"] == 5
    assert {what: change["count"] for what, change in summary["split_changes"].items()} == {
        "gone": 1,
        "ignored": 0,
        "changed": 0,
        "relabelled": 2,  # the labels go round: each has moved by one
        "new": 0,
    }


class Asked:
    """The request of a run, as it was made."""

    made: list[str] = []

    def __init__(self, run: Run, device: str) -> None:
        self.text = f"{run.scale.max_workers} on {device}"

    def renew(self) -> None:
        self.made.append(self.text)

    def close(self) -> None:
        self.made.append("closed")


def test_an_evaluation_waits_for_nodes_as_a_training_does(trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A head without CPUs, and a cluster that grows: refused at once where it did not look again."""
    screen, started = io.StringIO(), []
    seen = iter([({"CPU": 0.0},), ({"CPU": 0.0}, {"CPU": 1.0})])
    head = Cluster(False, "", {}, "logs", ({"CPU": 0.0},), Growth(True, {"CPU": 4.0}, ((4, {"CPU": 1.0}),)))
    monkeypatch.setattr(trainer, "running_cluster", lambda: nullcontext(head))
    monkeypatch.setattr(groups, "nodes", lambda: next(seen))
    monkeypatch.setattr(gauges, "job_page", lambda: "")
    monkeypatch.setattr(waiting, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(waiting, "Demand", Asked)
    monkeypatch.setattr(groups, "Demand", lambda run, device: pytest.fail("an evaluation keeps its workers"))
    monkeypatch.setattr(Asked, "made", [])
    monkeypatch.setattr(node_checks.Sight, "check", lambda self: started.append("seen"))

    def run_group(*given: Any, workers: int, logs: str) -> dict[str, Any]:
        started.append(workers)
        return {"count": 8}

    monkeypatch.setattr(groups, "run_group", run_group)
    options = ["scale.workers=[1, 4]", "scale.wait=7m", "data.executor=inline"]
    trainer.evaluate(trained, overrides=options, display=Display(screen))
    said = "waiting up to 7m for nodes with 1 to 4 x (1 CPUs); nodes: 1 x (0 CPUs)"
    assert screen.getvalue().splitlines() == ["starting Ray", said, "evaluating 8 images of split val"]
    assert started == ["seen", 1]  # as many as there is room for
    assert Asked.made == ["4 on cpu", "closed"]


def test_more_than_the_cluster_may_become_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    head = Cluster(False, "", {}, "logs", ({"CPU": 0.0},), Growth(True, {"CPU": 4.0}, ((4, {"CPU": 1.0}),)))
    monkeypatch.setattr(trainer, "running_cluster", lambda: nullcontext(head))
    monkeypatch.setattr(gauges, "job_page", lambda: "")
    monkeypatch.setattr(groups, "nodes", lambda: pytest.fail("it was waited for"))
    run = _run("scale.workers=8", "scale.cpus_per_worker=1", "data.executor=inline")
    with pytest.raises(LaunchError, match="however far that grows") as refused:
        trainer.train(run, display=Display(io.StringIO()))
    assert "at most nodes: 4 x (1 CPUs): room for 4 of 8 workers" in str(refused.value)


@pytest.mark.parametrize(("address", "said"), [("", "starting Ray"), ("10.0.0.1:6379", "joining Ray at 10.0.0.1:6379")])
def test_a_start_on_ray_is_not_silent(monkeypatch: pytest.MonkeyPatch, address: str, said: str) -> None:
    screen = io.StringIO()
    shown: list[str] = []

    @contextmanager
    def running() -> Iterator[Cluster]:
        shown.append(screen.getvalue())
        yield Cluster(True, "local", {"CPU": 2.0}, "logs", ({"CPU": 2.0},))

    def run_group(*_: object, **__: object) -> dict[str, Any]:
        shown.append(screen.getvalue())
        return {"state": "done", "reason": Reason.DONE, "step": 3, "epochs": 1.0, "best": None, "final": None}

    monkeypatch.setattr(groups, "run_group", run_group)
    monkeypatch.setattr(groups, "nodes", lambda: ({"CPU": 2.0},))
    monkeypatch.setattr(trainer, "running_cluster", running)
    monkeypatch.setenv("RAY_ADDRESS", address)
    trainer.train(_run("scale.workers=2"), display=Display(screen))
    assert shown == [f"{said}\n", f"{said}\nplacing 2 workers\n"]


def _header(screen: io.StringIO) -> dict[str, str]:
    """The rows of a header by their names."""
    names = ("run", "data", "model", "workers", "arithmetic", "steps")
    return {line[:11].strip(): line[11:] for line in screen.getvalue().splitlines() if line[:11].strip() in names}


@pytest.mark.parametrize(
    ("cpus", "said"),
    [(2, "executor inline (not read ahead: the steps use every CPU)"), (3, "executor inline, read ahead")],
)
def test_the_header_of_a_run_in_this_process_says_so(
    cpus: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every row against what is there: tiny_cnn of width 8 on 40 images and 8, in batches of 16."""
    monkeypatch.setattr(trainer, "cores", lambda: cpus)
    screen = io.StringIO()
    trainer.train(_run("scale.workers=0", "scale.threads=2", "train.amp=off"), display=Display(screen))
    header = _header(screen)
    assert header.pop("run") == str(tmp_path / "runs" / "run")
    assert header.pop("model").startswith("tiny_cnn, ")
    assert header == {
        "data": "arrays data.npz, 4 classes, 40 train, 8 val",
        "workers": f"in this process, no Ray, 2 threads, cpu, {said}",
        "arithmetic": "precision off, reduction exact, batch 16 in 1 micro-batch",
        "steps": "3, 3 per epoch",
    }


@pytest.mark.parametrize(
    ("workers", "found", "said"),
    [
        ("3", 3, "3 on Ray, 1 thread each, cpu, executor inline (one node, whose CPUs the workers use)"),
        ("[1, 4]", 2, "2 on Ray (1 to 4, as there is room), 1 thread each, cpu, executor ray (other nodes decode too)"),
    ],
)
def test_the_header_of_a_run_on_ray_has_the_workers_that_began(
    workers: str, found: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_group(_function: Any, _job: Any, _run: Any, _asked: Any, post: Any, *_: Any, **__: Any) -> Any:
        post(Started(found, 0, False, 1, "off"))
        return {"state": "done", "reason": Reason.DONE, "step": 3, "epochs": 1.0, "best": None, "final": None}

    there = Cluster(True, "local", {"CPU": 3.0}, "logs", ({"CPU": 3.0},))
    monkeypatch.setattr(trainer, "running_cluster", lambda: nullcontext(there))
    monkeypatch.setattr(gauges, "job_page", lambda: "")
    monkeypatch.setattr(groups, "run_group", run_group)
    monkeypatch.setattr(groups, "nodes", lambda: there.nodes)
    screen = io.StringIO()
    trainer.train(_run(f"scale.workers={workers}", "train.micro_batches=4"), display=Display(screen))
    assert _header(screen)["workers"] == said
