"""Jobs on real clusters with tokens: the run is the local run, its log comes whole, its end has its code, no secret
is written anywhere."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.clusters import joined, standing
from harness.dashboards import outward
from harness.processes import Command, start
from harness.relay import Relay
from harness.runs import Foreign, Site
from harness.sites import PACING

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(900)]

CANARIES = {
    "AWS_SECRET_ACCESS_KEY": "canary-aws-6c1f09d2",
    "WANDB_API_KEY": "canary-wandb-92ab0c4e",
    "MLFLOW_TRACKING_TOKEN": "canary-mlflow-d04e55a1",
}
"""Secrets as they lie about: in the environment of who submits, and of the nodes."""


@pytest.fixture(scope="module")
def board() -> Iterator[Foreign]:
    with standing(3, dashboard=True, env=CANARIES) as cluster:
        yield cluster


CONFIG = """
data:
  source: {name: arrays, path: images.npz}
  batch_size: 64
  image_size: 12
augment:
  train: [{random_crop: {size: 12, padding: 2}}, horizontal_flip, "pacing:paced": {flag: FLAG}]
  eval: []
model: {name: tiny_cnn, args: {width: 8, dropout: 0.1}}
optim: {lr: 0.05, ema: 0.9}
train: {duration: 5ep, micro_batches: 4, reduction: exact, amp: "off", ledger: pixels}
checkpoint: {every: 3st}
track: {log_every: 1st, print_every: 1s}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A working directory with a plug-in and data that go with each job; 20 steps, and the finished run without Ray."""
    from harness.jobs import write_arrays

    folder = tmp_path_factory.mktemp("project")
    write_arrays(folder / "images.npz", train=235, val=67)
    (folder / "pacing.py").write_text(PACING.replace("0.004", "0.03"))
    (folder / "small.yaml").write_text(CONFIG.replace("FLAG", str(folder / "slow")))
    (folder / ".rayignore").write_text("/runs/\n*.out\n*.err\n/slow\n")
    made = Site(folder)
    with made.raycls("train", "small.yaml", "scale.workers=0", "run.name=reference") as command:
        assert command.wait(120) == 0, command.said()
    return made


def submit(site: Site, board: Foreign, *words: str, address: str = "", name: str = "submit") -> Command:
    """`raycls submit` as a user types it who has the token of `board`, and secrets of their own."""
    environment = {"RAY_AUTH_TOKEN": board.environment["RAY_AUTH_TOKEN"], "RAY_AUTH_MODE": "", "RAY_ADDRESS": ""}
    options = ["--address", address or board.dashboard]
    command = [sys.executable, "-m", "raycls", "submit", *options, *words]
    return start(command, site.folder, name=name, env={**CANARIES, **environment})


def words(site: Site, name: str, *more: str) -> list[str]:
    return ["--", "train", "small.yaml", f"run.storage={site.folder / 'runs'}", f"run.name={name}", *more]


def job_of(command: Command) -> str:
    return next(line.split()[1] for line in command.stderr.splitlines() if line.startswith("job "))


def raycls(board: Foreign, site: Site, *command: str, token: str | None = None) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "HOME": str(site.folder),
        "RAY_AUTH_TOKEN": token or board.environment["RAY_AUTH_TOKEN"],
    }
    for variable in ("RAY_ADDRESS", "RAY_AUTH_MODE", *(["RAY_AUTH_TOKEN"] if token == "" else [])):
        environment.pop(variable, None)
    line = [sys.executable, "-m", "raycls", *command, "--address", board.dashboard]
    return subprocess.run(line, cwd=site.folder, env=environment, capture_output=True, text=True, timeout=200)


def whole_log(board: Foreign, job: str) -> str:
    import requests

    headers = {"Authorization": f"Bearer {board.environment['RAY_AUTH_TOKEN']}"}
    return requests.get(f"{board.dashboard}/api/jobs/{job}/logs", headers=headers, timeout=30).json()["logs"]


def test_after_the_head_was_lost_the_same_submission_to_a_new_one_resumes(project: Site) -> None:
    project.slow(True)
    line = words(project, "headless", "scale.workers=1")
    with standing(2, dashboard=True) as first, submit(project, first, *line, name="first") as command:
        command.until(lambda: project.step("headless") > 4, 400)
        first.head.kill_all()
        command.until(lambda: "trying again" in command.stderr, 60)
        command.kill()
    project.slow(False)
    with standing(2, dashboard=True) as second, submit(project, second, *words(project, "headless")) as command:
        assert command.wait(400) == 0, command.said()
    project.assert_same("headless")
    assert len(project.attempts("headless")) == 2


def test_a_storage_that_one_node_does_not_see_is_refused_before_anything_starts(project: Site) -> None:
    if os.geteuid() != 0:
        pytest.skip("a folder can only be hidden from a node by root")
    storage = project.folder / "unshared"
    storage.mkdir()
    options = (f"run.storage={storage}", "run.name=blind", "scale.workers=2")
    hiding = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none "$0" && exec "$@"', str(storage))
    with (
        standing(1) as cluster,
        joined(cluster, 2, inside=hiding),
        project.raycls("train", "small.yaml", *options, env=cluster.environment) as command,
    ):
        assert command.wait(200) == 1, command.said()
    assert "run.storage is not shared" in command.stderr
    assert "nothing there on" in command.stderr
    assert "placing" not in command.stdout
    assert not (storage / "blind" / "attempts.jsonl").exists()


def test_an_open_cluster_elsewhere_is_refused(project: Site) -> None:
    with standing(
        1, dashboard=True, host=outward(), env={"RAY_AUTH_MODE": "disabled", "RAY_AUTH_TOKEN": ""}
    ) as cluster:
        refused = raycls(cluster, project, "status")
        assert (refused.returncode, "answers without a token" in refused.stderr) == (2, True), refused
        line = raycls(cluster, project, "status", "--insecure-cluster")
        assert (line.returncode, line.stdout) == (0, "the cluster has no submitted jobs\n")


def test_the_run_is_the_local_run_and_its_log_comes_whole_through_cuts(project: Site, board: Foreign) -> None:
    project.slow(True)
    line = words(project, "cut", "scale.workers=2")
    with Relay(board.dashboard) as relay, submit(project, board, *line, address=relay.address) as command:
        command.until(lambda: "epoch 1/5" in command.stdout, 400)
        relay.cut()
        command.until(lambda: "epoch 2/5" in command.stdout, 200)
        relay.cut(refuse=True)
        command.until(lambda: "trying again" in command.stderr, 60)
        time.sleep(2)
        relay.heal()
        project.slow(False)
        assert command.wait(300) == 0, command.said()
        assert "answers again" in command.stderr
    assert command.stdout == whole_log(board, job_of(command))
    project.assert_same("cut")


def test_plain_ray_job_submit_does_the_same(project: Site, board: Foreign) -> None:
    environment = {**board.environment, "RAY_ADDRESS": board.dashboard}
    line = [str(Path(sys.executable).with_name("ray")), "job", "submit", "--working-dir", ".", "--", "raycls"]
    with start([*line, *words(project, "plain", "scale.workers=1")[1:]], project.folder, env=environment) as command:
        assert command.wait(400) == 0, command.said()
    project.assert_same("plain")
    with start([*line, "train", "small.yaml", "run.name=lost"], project.folder, env=environment) as command:
        assert command.wait(200) == 1
        assert "the run would be lost" in command.stdout


def test_a_stopped_job_has_a_code_of_its_own_and_the_same_submission_goes_on(project: Site, board: Foreign) -> None:
    project.slow(True)
    with submit(project, board, *words(project, "stopped", "scale.workers=1")) as command:
        command.until(lambda: project.step("stopped") > 4, 400)
        stopped = raycls(board, project, "stop", job_of(command))
        assert (stopped.returncode, "was stopped" in stopped.stdout) == (0, True), stopped
        assert command.wait(60) == 143, command.said()
    project.slow(False)
    stopped_at = project.step("stopped")
    with submit(project, board, *words(project, "stopped", "scale.workers=2")) as command:
        assert command.wait(400) == 0, command.said()
    project.assert_same("stopped")
    assert [attempt["step"] for attempt in project.attempts("stopped")] == [0, stopped_at]  # no step was lost
    listed = raycls(board, project, "status")
    assert listed.stdout.count("STOPPED ") == 1


def test_codes_of_the_command_and_leaving_without_waiting(project: Site, board: Foreign) -> None:
    with submit(project, board, "--", "eval", "/nowhere/at/all") as command:
        assert command.wait(200) == 2, command.said()
        assert "there is no run" in command.stdout
    with submit(project, board, *words(project, "nodata", "data.source.path=gone.npz", "scale.workers=0")) as command:
        assert command.wait(200) == 3, command.said()
    with submit(project, board, "--secret", "NOT_THERE_KEY", *words(project, "secret")) as command:
        assert command.wait(200) == 1, command.said()
        assert "NOT_THERE_KEY" in command.stdout
        assert not project.run("secret").exists()
    with submit(project, board, "--no-wait", "--", "eval", "/nowhere") as command:
        assert command.wait(60) == 0, command.said()
    followed = raycls(board, project, "logs", job_of(command))
    assert followed.returncode == 2
    assert followed.stdout == whole_log(board, job_of(command))


def test_tokens(project: Site, board: Foreign) -> None:
    assert raycls(board, project, "status").returncode == 0
    wrong = raycls(board, project, "status", token="canary-wrong")
    assert (wrong.returncode, "refuses the token" in wrong.stderr) == (2, True)
    none = raycls(board, project, "status", token="")
    assert (none.returncode, "requires a token, and none was found" in none.stderr) == (2, True)
    assert "canary" not in wrong.stderr + none.stderr


_DUMP = """
import ray, sys
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_list
ray.init("auto", logging_level="ERROR", log_to_driver=False)
for space in (None, b"fun", b"session", b"job", b"dashboard", b"tracing", b"cluster", b"usage_stats", b"workflow"):
    for key in _internal_kv_list(b"", namespace=space):
        sys.stdout.buffer.write(key + b" " + (_internal_kv_get(key, namespace=space) or b"") + b"\\n")
"""


def test_no_secret_is_written_anywhere(project: Site, board: Foreign) -> None:
    """After the jobs above: in what Ray keeps in files and in its server, in run folders, and over HTTP."""
    if not project.run("cut").exists():
        with submit(project, board, *words(project, "cut", "scale.workers=1")) as command:
            assert command.wait(400) == 0, command.said()
    token = board.environment["RAY_AUTH_TOKEN"]
    needles = {**CANARIES, "the token": token}
    job = next(line.split()[0] for line in raycls(board, project, "status").stdout.splitlines())
    texts = {"status": raycls(board, project, "status", job).stdout.encode()}
    import requests

    for path in ("/api/jobs/", f"/api/jobs/{job}", f"/api/jobs/{job}/logs", "/api/v0/jobs", "/api/v0/runtime_envs"):
        reply = requests.get(board.dashboard + path, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert reply.status_code == 200, path
        texts[path] = reply.content
    assert b"RAYCLS_SUBMITTED" in texts["/api/jobs/"]  # the runtime environments are there
    # under `uv run pytest` Ray would upload this folder, in which the canaries are written down
    variables = {**os.environ, **board.environment, "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0"}
    dumped = subprocess.run([sys.executable, "-c", _DUMP], env=variables, capture_output=True, timeout=120, check=True)
    assert b"RAYCLS_SUBMITTED" in dumped.stdout
    texts["the server's store"] = dumped.stdout
    files = [path for folder in (board.folder, project.folder) for path in folder.rglob("*") if path.is_file()]
    assert any("working_dir_files" in str(path) or path.name.startswith("job-driver-") for path in files)
    texts |= {str(path): path.read_bytes() for path in files}
    found = [
        (name, place) for place, text in texts.items() for name, value in needles.items() if value.encode() in text
    ]
    assert not found


def test_run_folders_are_their_owners_alone(project: Site, board: Foreign) -> None:
    folder = project.run("reference")
    assert folder.stat().st_mode & 0o777 == 0o700
    stored = [path for path in folder.rglob("*") if path.is_file() and "events" not in path.parts]
    open_files = [str(path) for path in stored if path.stat().st_mode & 0o077 and path.name != "curves.svg"]
    assert stored
    assert not open_files
