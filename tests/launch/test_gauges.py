"""What Ray is told of a run: gauges that Prometheus can read, and the page of a job."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from harness.runs import Foreign, Site

from raycls.screen.run_text import header_lines

pytestmark = pytest.mark.ray


def test_the_page_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    from raycls.launch import gauges

    monkeypatch.setattr(gauges, "get_dashboard_url", lambda: "127.0.0.1:8265")
    monkeypatch.delenv(gauges._JOB, raising=False)
    assert gauges.job_page() == ""  # not started by a submitted job
    for other in ("{}", "no json", "[]", '{"metadata": null}'):
        monkeypatch.setenv(gauges._JOB, other)
        assert gauges.job_page() == ""
    monkeypatch.setenv(gauges._JOB, '{"metadata": {"job_submission_id": "raysubmit_x"}}')
    assert gauges.job_page() == "http://127.0.0.1:8265/#/jobs/raysubmit_x"
    monkeypatch.setattr(gauges, "get_dashboard_url", lambda: "")
    assert gauges.job_page() == ""  # a Ray without a dashboard


def test_the_header_links_it() -> None:
    info: dict[str, Any] = {"folder": "runs/a", "dashboard": "http://127.0.0.1:8265/#/jobs/raysubmit_x"}
    assert header_lines(info) == ["run        runs/a", "Ray job    http://127.0.0.1:8265/#/jobs/raysubmit_x"]
    assert header_lines({**info, "dashboard": ""}) == ["run        runs/a"]


_READ = """
import json, sys, ray
ray.init("auto", logging_level="ERROR", log_to_driver=False)
print(json.dumps([f"{node['NodeManagerAddress']}:{node['MetricsExportPort']}" for node in ray.nodes()]))
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_gauges_are_read_where_ray_exports_its_metrics(site: Site, foreign: Foreign) -> None:
    """While a run goes on, its newest numbers stand beside Ray's own."""
    import json
    import os
    import subprocess
    import sys

    environment = {**os.environ, **foreign.environment}
    done = subprocess.run(
        [sys.executable, "-c", _READ], env=environment, capture_output=True, text=True, timeout=120, check=True
    )
    (address,) = json.loads(done.stdout.splitlines()[-1])
    names = {"ray_raycls_train_loss", "ray_raycls_train_lr", "ray_raycls_step", "ray_raycls_epoch"}
    site.slow(True)
    try:
        words = ("train", "small.yaml", "run.name=gauged", "scale.workers=1")
        with site.raycls(*words, env=foreign.environment) as command:
            found: list[str] = []

            def shown() -> bool:
                found[:] = [line for line in _gauges(address) if 'run="gauged"' in line]
                time.sleep(0.5)
                return names <= {line.split("{")[0] for line in found}

            command.until(shown, 400)
            site.slow(False)
            assert command.wait(200) == 0, command.said()
    finally:
        site.slow(False)


def _gauges(address: str) -> list[str]:
    try:
        text = urllib.request.urlopen(f"http://{address}/metrics", timeout=5).read().decode()
    except (TimeoutError, urllib.error.URLError, OSError):
        return []
    return [line for line in text.splitlines() if line.startswith("ray_raycls_")]
