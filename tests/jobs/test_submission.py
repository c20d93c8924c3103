"""Submissions as values: what they hold, what they must never hold, and what their ends mean."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

import pytest
from ray.dashboard.modules.job.pydantic_models import JobDetails

from raycls.errors import ConfigError, LaunchError
from raycls.jobs import submission
from raycls.jobs.submission import Submission, make_submission


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if submission._SECRET_NAME.search(name)]:
        monkeypatch.delenv(name)
    (tmp_path / "a.yaml").write_text("a")


def make(folder: Path, *words: str, **more: object) -> Submission:
    return make_submission("digits", ["train", "a.yaml", *words], folder, **more)  # type: ignore[arg-type]


def test_what_is_sent(tmp_path: Path) -> None:
    made = make(tmp_path, "optim.lr=1e-3 ", variables=["A=b=c"], named=["WANDB_API_KEY"])
    assert made.entrypoint == "raycls train a.yaml 'optim.lr=1e-3 '"
    note = json.loads(made.environment.pop("RAYCLS_SUBMITTED"))
    assert note["secrets"] == ["WANDB_API_KEY"]
    assert made.environment == {"A": "b=c", "RAY_JOB_STOP_WAIT_TIME_S": "120"}
    assert made.name.startswith("digits-")
    assert made.name != make(tmp_path).name
    lines = submission.describe(made, "http://head:8265")
    assert lines[0].split() == ["to", "http://head:8265"]
    assert f"folder     {tmp_path}: 1 file, 0.1 KiB" in lines
    assert lines[-1] == "  1 bytes  a.yaml"


@pytest.mark.parametrize(
    ("variable", "refused"),
    [
        ("AWS_SECRET_ACCESS_KEY=canary", True),
        ("WANDB_API_KEY=canary", True),
        ("MLFLOW_TRACKING_TOKEN=canary", True),
        ("DB_PASSWORD=canary", True),
        ("key=canary", True),
        ("MLFLOW_TRACKING_URI=http://me:canary@host", True),
        ("BROKEN NAME=canary", True),
        ("AWS_SHARED_CREDENTIALS_FILE=/etc/aws", False),
        ("GOOGLE_APPLICATION_CREDENTIALS=/etc/gcp.json", False),
        ("RAYCLS_SUBMITTED=canary", True),
        ("KEYBOARD=us", False),
        ("canary", True),
    ],
)
def test_secrets_do_not_travel_as_variables(tmp_path: Path, variable: str, refused: bool) -> None:
    if not refused:
        name, _, value = variable.partition("=")
        assert make(tmp_path, variables=[variable]).environment[name] == value
        return
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, variables=[variable])
    if variable != "canary":
        assert "canary" not in str(caught.value)


def test_the_value_of_a_secret_is_found_wherever_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "canary-12345")
    monkeypatch.setenv("SHORT_KEY", "train")
    make(tmp_path)
    for more in ({"variables": ["X=is canary-12345"]}, {"named": ["canary-12345"]}):
        with pytest.raises(ConfigError):
            make(tmp_path, **more)
    with pytest.raises(ConfigError, match="must not be sent") as caught:
        make(tmp_path, "model.args={x: canary-12345}")
    assert caught.value.found == "the value of MLFLOW_TRACKING_TOKEN"
    assert caught.value.where == "the command"
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, "model.args={x: canary-12345}", variables=["X=is canary-12345", "Y=1"])
    assert caught.value.where == "the command, --env X"
    monkeypatch.setenv("ODD_TOKEN", "a_canary_that_is_a_name")
    with pytest.raises(ConfigError) as caught:
        make(tmp_path, named=["a_canary_that_is_a_name"])
    assert caught.value.where == "--secret"
    assert "canary" not in str(caught.value)


def test_a_secret_is_named_without_its_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be set on the nodes") as caught:
        make(tmp_path, named=["WANDB_API_KEY=canary"])
    assert "canary" not in str(caught.value)


def ended(state: str, code: int | None = None, message: str | None = None) -> JobDetails:
    return JobDetails(
        type="SUBMISSION", submission_id="j", status=state, entrypoint="e", driver_exit_code=code, message=message
    )


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [
        ("SUCCEEDED", 0, 0),
        ("STOPPED", None, 143),
        ("FAILED", 1, 1),
        ("FAILED", 2, 2),
        ("FAILED", 3, 3),
        ("FAILED", 4, 4),
        ("FAILED", 137, 137),
        ("FAILED", -9, 137),
        ("FAILED", None, 1),
        ("FAILED", 0, 1),
    ],
)
def test_exit_codes(state: str, code: int | None, expected: int) -> None:
    assert submission.exit_code(ended(state, code)) == expected


def test_each_end_has_its_words() -> None:
    assert submission.end_lines(ended("SUCCEEDED", 0)) == ["job j succeeded"]
    assert "same submission resumes" in submission.end_lines(ended("STOPPED"))[0]
    assert submission.end_lines(ended("FAILED", 3)) == ["job j failed with exit code 3"]
    assert "no command raycls" in submission.end_lines(ended("FAILED", 127))[0]
    assert submission.end_lines(ended("FAILED", None, "the node is gone\n")) == ["job j failed: the node is gone"]


class Deaf:
    """A cluster whose job goes on whatever it is asked."""

    address = "http://head:8265"

    def __init__(self) -> None:
        self.client = self
        self.asked: list[str] = []

    def info(self, name: str) -> JobDetails:
        return ended("RUNNING")

    def talking(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def stop_job(self, name: str) -> None:
        self.asked.append(name)


def test_a_job_that_does_not_stop_comes_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(submission, "_STOP_SECONDS", -30)
    cluster = Deaf()
    with pytest.raises(LaunchError, match="job j does not stop") as caught:
        submission.stop(cluster, "j")  # type: ignore[arg-type]
    assert cluster.asked == ["j"]
    assert caught.value.where == cluster.address
    assert str(caught.value.found).startswith("RUNNING")
    assert "raycls stop j asks again" in str(caught.value.fix)
