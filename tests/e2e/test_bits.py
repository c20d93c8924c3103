"""The same bits on Ray as without it, whoever started that Ray; and nothing of a run stays there."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from harness.processes import titled
from harness.runs import Foreign, Site

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def joined(site: Site, foreign: Foreign) -> str:
    """A run of three workers on somebody else's cluster."""
    words = ("train", "small.yaml", "scale.workers=3", "run.name=joined")
    with site.raycls(*words, env=foreign.environment) as command:
        assert command.wait(200) == 0, command.said()
    return "joined"


def test_three_workers_on_a_cluster_that_is_joined(site: Site, foreign: Foreign, joined: str) -> None:
    site.assert_same(joined)
    assert site.attempts(joined)[0]["workers"] == 3
    foreign.assert_idle()
    assert resources(foreign) == {"placement groups": [], "CPU": [3.0, 3.0]}


def test_evaluation_of_1003_rows_is_the_same_on_any_number_of_workers(
    site: Site, foreign: Foreign, joined: str
) -> None:
    texts = []
    for workers in (0, 1, 3):
        words = ("eval", f"runs/{joined}", "--split", "train", "--json", f"scale.workers={workers}")
        with site.raycls(*words, env=foreign.environment) as command:
            assert command.wait(200) == 0, command.said()
            texts.append(command.stdout)
            assert not command.stderr
    assert texts[0] == texts[1] == texts[2]
    summary = json.loads(texts[0])
    assert summary["count"] == 1003
    assert sum(map(sum, summary["confusion"])) == 1003
    foreign.assert_idle()


@pytest.mark.parametrize(("executor", "workers"), [("inline", 2), ("processes", 2), ("ray", 1)])
def test_other_executors_on_ray(site: Site, foreign: Foreign, executor: str, workers: int) -> None:
    name = f"{executor}-{workers}"
    words = ("train", "small.yaml", f"scale.workers={workers}", f"data.executor={executor}", f"run.name={name}")
    with site.raycls(*words, env=foreign.environment) as command:
        assert command.wait(200) == 0, command.said()
    site.assert_same(name)
    foreign.assert_idle()


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
