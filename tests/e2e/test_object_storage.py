"""Runs whose folder is on S3: killed, cut off from it for a while and for good, on Ray, and searches."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness.object_store import KEY, S3, SECRET
from harness.processes import Command, start, titled
from harness.runs import Site
from harness.searches import SEARCH

from raycls.run.folder import RunFolder
from raycls.run.ledgers import sample_ledger as ledgers

pytestmark = [pytest.mark.ray, pytest.mark.faults, pytest.mark.nightly, pytest.mark.timeout(1500)]

IMPATIENT = "from raycls.run.storage import retry; retry.DEADLINE = 3.0; from raycls.cli.app import main; main()"


def train(site: Site, s3: S3, name: str, *options: str, name_of_output: str = "raycls") -> Command:
    """`raycls train` of the run `name` in the bucket."""
    words = ("train", "small.yaml", f"run.name={name}", f"run.storage={s3.uri('runs')}", *options)
    return site.raycls(*words, name=name_of_output, env=s3.environment)


def step(s3: S3, name: str) -> int:
    """The newest step with a complete checkpoint in the bucket."""
    names = s3.client.list_objects_v2(Bucket="bucket", Prefix=f"runs/{name}/checkpoints/").get("Contents", ())
    steps = [int(item["Key"].split("/")[3][5:]) for item in names if item["Key"].endswith("/manifest.json")]
    return max(steps, default=0)


def assert_same(site: Site, s3: S3, name: str) -> None:
    """The weights are those of the run that nobody touched, the ledger is exact, and no credential was written."""
    weights = s3.read(f"runs/{name}/model/model.safetensors")
    assert weights == (site.run("reference") / "model" / "model.safetensors").read_bytes()
    report = ledgers.check(RunFolder(s3.uri(f"runs/{name}")))
    assert report.ok, report.problems
    secrets = (KEY.encode(), SECRET.encode())
    assert not [key for key, data in s3.objects("runs/").items() if any(secret in data for secret in secrets)]


def in_the_middle_of_a_checkpoint(s3: S3, act: Callable[[], object]) -> threading.Event:
    """Have `act` be called while a file of a checkpoint is sent, whose request is cut; then the event is set."""
    happened = threading.Event()

    def fault(number: int, method: str, path: str) -> str | None:
        if method != "PUT" or "/checkpoints/" not in path or not path.endswith("model.safetensors"):
            return "refuse" if happened.is_set() and s3.proxy.fault is fault else None
        if not happened.is_set():
            happened.set()
            threading.Thread(target=act).start()
        return "half"

    s3.proxy.fault = fault
    return happened


def away(s3: S3, seconds: float) -> Callable[[], None]:
    def act() -> None:
        s3.proxy.stop()
        s3.proxy.reset()
        time.sleep(seconds)
        s3.proxy.start()

    return act


def test_away_for_five_seconds_then_killed_then_finished(site: Site, s3: S3) -> None:
    site.slow(True)
    with train(site, s3, "killed", "scale.workers=0") as command:
        command.until(lambda: step(s3, "killed") >= 7)
        happened = in_the_middle_of_a_checkpoint(s3, away(s3, 5.0))
        command.until(happened.is_set)
        reached = step(s3, "killed")
        command.until(lambda: step(s3, "killed") >= reached + 14)
        assert "does not answer" in command.stdout and "answers again" in command.stdout
        assert command.stdout.count("does not answer") == 1
        command.kill()
        said = command.said()
    site.slow(False)
    with train(site, s3, "killed", "scale.workers=0", name_of_output="again") as command:
        assert command.wait(300) == 0, command.said()
        said += command.said()
        assert "warning" not in command.said()
    attempts = RunFolder(s3.uri("runs/killed")).attempts()
    assert [attempt.step for attempt in attempts] == [0, attempts[1].step] and attempts[1].step >= reached + 14
    assert_same(site, s3, "killed")
    assert KEY not in said and SECRET not in said
    with site.raycls("ledger", s3.uri("runs/killed"), env=s3.environment) as command:
        assert command.wait(150) == 0, command.said()
        assert command.stdout.startswith("exact: 80 steps, 5 whole epochs of 1003 samples")
    scores = []
    for run in (s3.uri("runs/killed"), "reference"):
        words = ("eval", run, "--split", "val", "--json", "scale.workers=0")
        with site.raycls(*words, env=s3.environment) as command:
            assert command.wait(150) == 0, command.said()
            scores.append(json.loads(command.stdout))
    assert scores[0] == scores[1]


def test_away_for_good_ends_the_run_in_time_and_the_same_command_goes_on(site: Site, s3: S3) -> None:
    site.slow(True)
    storage = f"run.storage={s3.uri('runs')}"
    words = [sys.executable, "-c", IMPATIENT, "train", "small.yaml", "run.name=cut", storage, "scale.workers=0"]
    with start(words, site.folder, env={**s3.environment, "RAY_ADDRESS": ""}) as command:
        command.until(lambda: step(s3, "cut") >= 7)
        happened = in_the_middle_of_a_checkpoint(s3, s3.proxy.stop)
        command.until(happened.is_set)
        reached, began = step(s3, "cut"), time.monotonic()
        assert command.wait(150) == 1, command.said()
        print(f"ended {time.monotonic() - began:.1f} s after the storage went away, with a deadline of 3 s")
        assert "could not be written" in command.stderr and "where: s3://bucket/runs/cut/" in command.stderr
        assert f"127.0.0.1 port {s3.proxy.port}" in command.stderr or f"127.0.0.1:{s3.proxy.port}" in command.stderr
        assert "rerun the command" in command.stderr and "Traceback" not in command.said()
        assert not list(Path("/tmp").glob(f"raycls-{command.process.pid}-*"))
    with start(words, site.folder, env={**s3.environment, "RAY_ADDRESS": ""}) as command:
        assert command.wait(150) == 1, command.said()  # still away: told before anything starts
        assert "the storage does not answer" in command.stderr
    s3.proxy.reset()
    s3.proxy.start()
    site.slow(False)
    with train(site, s3, "cut", "scale.workers=0") as command:
        assert command.wait(300) == 0, command.said()
    assert RunFolder(s3.uri("runs/cut")).attempts()[-1].step == reached
    assert_same(site, s3, "cut")


def test_two_workers_on_ray_away_for_five_seconds_and_killed(site: Site, s3: S3) -> None:
    site.slow(True)
    with train(site, s3, "ray", "scale.workers=2") as command:
        command.until(lambda: step(s3, "ray") >= 7, 400)
        happened = in_the_middle_of_a_checkpoint(s3, away(s3, 5.0))
        command.until(happened.is_set)
        reached = step(s3, "ray")
        command.until(lambda: step(s3, "ray") >= reached + 14, 300)
        titled(command.processes(), "ray::RayTrainWorker")[0].kill()
        command.until(lambda: len(RunFolder(s3.uri("runs/ray")).attempts()) == 2, 300)
        assert "does not answer" in command.stdout
        command.kill_all()
    site.slow(False)
    with train(site, s3, "ray", "scale.workers=2") as command:
        assert command.wait(400) == 0, command.said()
    assert len(RunFolder(s3.uri("runs/ray")).attempts()) == 3
    assert_same(site, s3, "ray")
    of_ray = {name.partition("/")[0] for name in s3.objects("runs/ray/") if name.startswith("ray-")}
    assert len(of_ray) <= 1  # Ray Train's own, of the driver that was killed


def test_a_search_is_killed_and_goes_on(site: Site, s3: S3) -> None:
    (site.folder / "search.yaml").write_text(SEARCH)
    words = ("search", "search.yaml", "search.trials=3", f"run.storage={s3.uri('runs')}")

    def lines(kind: str) -> list[dict[str, Any]]:
        found = [json.loads(line) for line in (s3.read("runs/search/trials.jsonl") or b"").splitlines()]
        return [line for line in found if line["kind"] == kind]

    with site.raycls(*words, env=s3.environment) as command:
        command.until(lambda: len(lines("result")) >= 2, 300)
        command.kill_all()
    with site.raycls(*words, env=s3.environment) as command:
        assert command.wait(400) == 0, command.said()
        assert "s3://bucket/runs/search/best.yaml" in command.stdout
    assert len(lines("start")) == 2
    assert {line["trial"] for line in lines("end")} == {"0001", "0002", "0003"}
    results = [(line["trial"], line["step"]) for line in lines("result")]
    assert len(results) == len(set(results))
    assert s3.read("runs/search/best.yaml") and s3.read("runs/search/trials.csv")
