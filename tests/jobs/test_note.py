"""What a job checks of itself on the cluster."""

from __future__ import annotations

import json

import pytest

from raycls.errors import ConfigError, LaunchError
from raycls.jobs import note
from raycls.run.folder import refuse_lost
from raycls.run.versions import installed


def test_nothing_is_checked_outside_a_submission(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(note.VARIABLE, raising=False)
    said: list[str] = []
    note.check(said.append)
    assert not said


def test_the_note_holds_names_and_versions_and_no_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary")
    text = note.note(["WANDB_API_KEY"])
    assert json.loads(text) == {"versions": installed(), "secrets": ["WANDB_API_KEY"]}


def test_other_versions_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    told = {"versions": {**installed(), "torch": "1.0.0"}, "secrets": []}
    monkeypatch.setenv(note.VARIABLE, json.dumps(told))
    said: list[str] = []
    note.check(said.append)
    (line,) = said
    assert f"torch 1.0.0 (here {installed()['torch']})" in line


def test_a_secret_that_is_not_set_ends_the_job_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(note.VARIABLE, note.note(["ONE_KEY", "TWO_KEY"]))
    monkeypatch.setenv("ONE_KEY", "canary")
    monkeypatch.delenv("TWO_KEY", raising=False)
    with pytest.raises(LaunchError) as caught:
        note.check(lambda text: None)
    assert "TWO_KEY" in str(caught.value)
    assert "ONE_KEY" not in str(caught.value)
    assert "canary" not in str(caught.value)


def test_a_run_folder_in_the_copy_of_a_job_is_refused() -> None:
    copy = "/tmp/ray/session_1/runtime_resources/working_dir_files/_ray_pkg_1a2b"
    for storage in (f"{copy}/runs/digits", copy):
        with pytest.raises(ConfigError, match=r"run\.storage"):
            refuse_lost(storage)
    for storage in ("/mnt/shared/runs/digits", "s3://bucket/runs/digits", "/tmp/ray/session_1/runs"):
        refuse_lost(storage)
