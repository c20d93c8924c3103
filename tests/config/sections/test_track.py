"""The section `track`: off by default, and no secret ever in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from raycls.config.load import ConfigProblemsError, difference, load, load_text
from raycls.config.sections.run import Run


def _problem(tmp_path: Path, text: str) -> str:
    file = tmp_path / "one.yaml"
    file.write_text(text)
    with pytest.raises(ConfigProblemsError) as caught:
        load(file)
    assert len(caught.value.problems) == 1
    return str(caught.value)


def test_both_trackers_are_off_by_default() -> None:
    assert (Run().track.mlflow.uri, Run().track.wandb.mode) == ("off", "off")


def test_what_is_written_is_read() -> None:
    track = load_text("track: {mlflow: {uri: 'https://host:5000/ml'}, wandb: {mode: online, entity: us}}").run.track
    assert (track.mlflow.uri, track.mlflow.experiment) == ("https://host:5000/ml", "raycls")
    assert (track.wandb.mode, track.wandb.project, track.wandb.entity) == ("online", "raycls", "us")


@pytest.mark.parametrize(
    "uri",
    ["http://anna:swordfish@host:5000", "https://swordfish@host", "http://host:5000/?token=swordfish"],
)
def test_an_address_with_credentials_is_a_problem_at_its_line(uri: str, tmp_path: Path) -> None:
    said = _problem(tmp_path, f"track:\n  mlflow:\n    uri: {uri}\n")
    assert "one.yaml:3" in said
    assert "track.mlflow.uri" in said
    assert "MLFLOW_TRACKING_TOKEN" in said
    assert "swordfish" not in said


@pytest.mark.parametrize("uri", ["localhost:5000", "sqlite:///mlflow.db", "mlruns", "http://", "databricks", "'no'"])
def test_only_a_server_can_be_named(uri: str, tmp_path: Path) -> None:
    said = _problem(tmp_path, f"track:\n  mlflow: {{uri: {uri}}}\n")
    assert "one.yaml:2" in said
    assert "begins with http:// or https://" in said


def test_an_option_of_a_tracker_that_is_off_is_written_for_nothing(tmp_path: Path) -> None:
    assert "beside track.mlflow.uri: 'off'" in _problem(tmp_path, "track: {mlflow: {experiment: pets}}")
    assert "beside track.wandb.mode: 'off'" in _problem(tmp_path, "track: {wandb: {project: pets}}")
    assert "did you mean online?" in _problem(tmp_path, "track: {wandb: {mode: onlin}}")
    assert "did you mean track.wandb.entity?" in _problem(tmp_path, "track: {wandb: {mode: online, entitty: us}}")


def test_a_resumed_run_may_be_told_elsewhere() -> None:
    other = load_text("track: {mlflow: {uri: 'http://host:5000'}, wandb: {mode: offline}}", "run.yaml").run
    changed = [item for item in difference(Run(), other) if item.path.startswith("track.")]
    assert [(item.path, item.harmless) for item in changed] == [
        ("track.mlflow.uri", True),
        ("track.wandb.mode", True),
    ]
