"""The same bits on Ray as without it, whoever started that Ray; and nothing of a run stays there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack

import pytest
from harness.processes import Command, titled
from harness.runs import Foreign, Site

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def joined(site: Site, foreign: Foreign) -> str:
    """A run of three workers on somebody else's cluster."""
    words = ("train", "small.yaml", "scale.workers=3", "data.executor=ray", "run.name=joined")
    with site.raycls(*words, env=foreign.environment) as command:
        assert command.wait(200) == 0, command.said()
    return "joined"


def test_three_workers_on_a_cluster_that_is_joined(site: Site, foreign: Foreign, joined: str) -> None:
    site.assert_same(joined)
    assert site.attempts(joined)[0]["workers"] == 3
    foreign.assert_idle()
    assert resources(foreign) == {"placement groups": [], "CPU": [3.0, 3.0]}


@pytest.mark.nightly
def test_evaluation_of_1003_rows_is_the_same_on_any_number_of_workers(
    site: Site, foreign: Foreign, joined: str
) -> None:
    words = ("eval", f"runs/{joined}", "--split", "train", "--json", "data.executor=auto")
    commands = [
        site.raycls(*words, f"scale.workers={workers}", name=f"eval-{workers}", env=foreign.environment)
        for workers in (0, 1, 3)
    ]
    ended(commands)
    texts = [command.stdout for command in commands]
    assert texts[0] == texts[1] == texts[2]
    summary = json.loads(texts[0])
    assert summary["count"] == 1003
    assert sum(map(sum, summary["confusion"])) == 1003
    foreign.assert_idle()


@pytest.mark.nightly
def test_executors_on_ray_at_the_same_time(site: Site, foreign: Foreign) -> None:
    names = {"inline-2": ("inline", 2), "processes-2": ("processes", 2), "ray-1": ("ray", 1)}
    commands = []
    for name, (executor, workers) in names.items():
        words = ("train", "small.yaml", f"data.executor={executor}", f"scale.workers={workers}", f"run.name={name}")
        commands.append(site.raycls(*words, name=name, env=foreign.environment))
    ended(commands)
    for name in names:
        site.assert_same(name)
    foreign.assert_idle()


def ended(commands: list[Command]) -> None:
    """Wait for commands that run side by side, each to its good end."""
    with ExitStack() as stack:
        for command in commands:
            stack.enter_context(command)
        for command in commands:
            assert command.wait(200) == 0, command.said()


@pytest.mark.nightly
def test_private_ray_beside_another_one(site: Site, foreign: Foreign) -> None:
    """Two workers on a Ray of the run's own: the other one is not touched, the home folder neither, few lines."""
    home = site.folder / "home"
    home.mkdir()
    words = ("train", "small.yaml", "scale.workers=2", "run.name=private")
    with site.raycls(*words, env={"HOME": str(home), "RAY_TMPDIR": ""}) as command:
        command.until(lambda: bool(titled(command.processes(), "ray::RayTrainWorker")))
        theirs = titled(foreign.head.processes(), "ray::RayTrainWorker")
        assert command.wait(200) == 0, command.said()
        command.assert_gone(5)
        assert not theirs
    site.assert_same("private")
    assert not (home / ".ray").exists()
    assert not command.leftovers()
    assert not command.stderr
    lines = command.stdout.splitlines()
    assert "executor inline (one node, whose CPUs the workers use)" in command.stdout
    assert len(lines) < 40
    noise = [line for line in lines if "ray." in line or "Warning" in line or "(pid=" in line or "INFO" in line]
    assert not noise
    for epoch in range(1, 6):
        assert any(line.startswith(f"epoch {epoch}/5 ") for line in lines)


def resources(foreign: Foreign) -> dict[str, object]:
    """What the cluster says of itself to a driver that joins it."""
    code = (
        "import json, ray\n"
        "ray.init(logging_level='ERROR', log_to_driver=False)\n"
        "groups = [g['state'] for g in ray.util.placement_group_table().values() if g['state'] != 'REMOVED']\n"
        "cpus = [ray.cluster_resources().get('CPU'), ray.available_resources().get('CPU')]\n"
        "print(json.dumps({'placement groups': groups, 'CPU': cpus}))\n"
    )
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        env={**os.environ, **foreign.environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout.splitlines()[-1])
