"""An evaluation that is sooner done than Ray would start stays in the process that asks for it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from harness.jobs import make_job, write_arrays
from harness.jobs import train as train_job

from raycls.launch import trainer
from raycls.launch.starting import short
from raycls.run.folder import RunFolder
from raycls.screen.run import Display
from raycls.session.scoring.options import Scoring


class StartedError(Exception):
    """A Ray would have been started."""


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """A run of which the config asks for two workers; it was trained by one."""
    monkeypatch.chdir(tmp_path)
    for name in ("RAY_ADDRESS", "RAY_JOB_SUBMISSION_ID"):
        monkeypatch.delenv(name, raising=False)
    job = make_job(
        tmp_path / "runs" / "run", write_arrays(tmp_path / "data.npz", train=40, val=12), "train.duration=2ep"
    )
    train_job(job)
    folder = RunFolder(job.folder)
    config = (tmp_path / "runs" / "run" / RunFolder.CONFIG).read_text()
    assert "workers: 0" in config
    folder.store.write_bytes(RunFolder.CONFIG, config.replace("workers: 0", "workers: 2").encode())

    def started() -> Any:
        raise StartedError

    monkeypatch.setattr(trainer, "running_cluster", started)
    monkeypatch.setattr(trainer, "warm_workers", lambda: pytest.fail("nothing starts"))
    return folder


def evaluated(folder: RunFolder, *overrides: str, **more: Any) -> tuple[dict[str, Any], str]:
    screen = io.StringIO()
    summary = trainer.evaluate(folder.uri, split="val", overrides=overrides, display=Display(screen), **more)
    return summary, screen.getvalue()


def test_it_stays_here_and_says_the_same(trained: RunFolder) -> None:
    summary, said = evaluated(trained, scoring=Scoring())
    files = {path.name: path.read_bytes() for path in Path("runs/run/predictions").iterdir()}
    assert "evaluating 12 images of split val in this process: sooner than Ray would start" in said
    asked, _ = evaluated(trained, "scale.workers=0", scoring=Scoring())
    assert asked == summary
    assert {path.name: path.read_bytes() for path in Path("runs/run/predictions").iterdir()} == files


@pytest.mark.parametrize("override", ["scale.workers=2", "scale.workers=[1, 2]", "data.executor=ray", "scale.wait=1m"])
def test_who_computes_is_as_it_was_asked_for(
    trained: RunFolder, override: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "warm_workers", lambda: None)
    with pytest.raises(StartedError):
        evaluated(trained, override)


def test_a_ray_that_is_there_is_joined(trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "warm_workers", lambda: None)
    monkeypatch.setattr(short, "joined_address", lambda: "192.0.2.1:6379")
    with pytest.raises(StartedError):
        evaluated(trained)


def written(folder: RunFolder, name: str, **changes: Any) -> None:
    """Change what lines of a file say that have the fields that change."""
    lines = [json.loads(line) for line in folder.store.read_bytes(name).splitlines()]
    assert any(changes.keys() <= line.keys() for line in lines)
    lines = [{**line, **changes} if changes.keys() <= line.keys() else line for line in lines]
    folder.store.write_bytes(name, b"".join(json.dumps(line).encode() + b"\n" for line in lines))


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        (RunFolder.HISTORY, {"images_per_second": 2.3}),  # 12 images take 5.2 s
        (RunFolder.ATTEMPTS, {"device": "cuda"}),  # the rate is that of another device
    ],
)
def test_what_takes_longer_or_is_not_known_has_its_workers(
    trained: RunFolder, file: str, changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "warm_workers", lambda: None)
    written(trained, file, **changes)
    with pytest.raises(StartedError):
        evaluated(trained)


def test_the_time_is_that_of_one_process(trained: RunFolder) -> None:
    written(trained, RunFolder.HISTORY, images_per_second=100.0)
    written(trained, RunFolder.ATTEMPTS, workers=4)
    assert short.seconds_in_one_process(trained, 50, "cpu") == 2.0
    trained.store.write_bytes(RunFolder.HISTORY, b"{}\n")
    assert short.seconds_in_one_process(trained, 50, "cpu") is None


def test_several_views_of_an_image_count(trained: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "warm_workers", lambda: None)
    written(trained, RunFolder.HISTORY, images_per_second=10.0)  # 12 images 1.2 s, in 8 views each 9.6 s
    evaluated(trained, scoring=Scoring())
    with pytest.raises(StartedError):
        evaluated(trained, scoring=Scoring(tta="turns"))
