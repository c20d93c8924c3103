"""What is sent of a working directory, against the ZIP file that Ray itself makes of it."""

from __future__ import annotations

import os
from pathlib import Path
from zipfile import ZipFile

import pytest

from raycls.errors import ConfigError
from raycls.jobs import package


@pytest.fixture
def project(tmp_path: Path) -> Path:
    files = {
        "run.yaml": "a: 1\n",
        "nets.py": "x = 1\n",
        "deep/er/sch\u00f6n.txt": "y" * 1000,
        "runs/one/model.safetensors": "w" * 5000,
        "data/a.png": "p" * 300,
        "data/keep.csv": "k" * 30,
        "data/.rayignore": "*.png\n",
        "notes.tmp": "t",
        ".git/config": "[remote]",
        ".venv/lib/x.py": "",
        "deep/__pycache__/x.pyc": "c",
        ".gitignore": "/runs/\n",
        ".rayignore": "*.tmp\n",
    }
    for name, text in files.items():
        (tmp_path / "project" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "project" / name).write_text(text)
    (tmp_path / "project" / "empty").mkdir()
    return tmp_path / "project"


SENT = [".gitignore", ".rayignore", "data/.rayignore", "data/keep.csv", "deep/er/sch\u00f6n.txt", "empty/"]
SENT += ["nets.py", "run.yaml"]


def test_the_list_is_what_ray_sends_and_the_size_is_that_of_its_file(project: Path, tmp_path: Path) -> None:
    from ray._private import ray_constants
    from ray._private.runtime_env.packaging import create_package

    found = package.survey(project)
    assert [name for name, _ in found.files] == SENT
    made = tmp_path / "made.zip"
    excludes = ray_constants.get_runtime_env_default_excludes()
    create_package(str(project), made, include_gitignore=True, excludes=excludes)
    with ZipFile(made) as archive:
        assert {(entry.filename, entry.file_size) for entry in archive.infolist()} == set(found.files)
    assert found.size == made.stat().st_size


def test_one_variable_sends_what_git_ignores(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_RUNTIME_ENV_IGNORE_GITIGNORE", "1")  # Ray's own
    assert ("runs/one/model.safetensors", 5000) in package.survey(project).files


def test_too_large_names_the_largest_files(project: Path) -> None:
    with open(project / "data" / "huge.bin", "wb") as file:
        file.truncate(90 * 2**20)  # a hole: it takes no room
    with open(project / "second.bin", "wb") as file:
        file.truncate(10 * 2**20)
    found = package.survey(project)
    assert found.biggest[:3] == [("data/huge.bin", 90 * 2**20), ("second.bin", 10 * 2**20), (SENT[4], 1000)]
    with pytest.raises(ConfigError) as caught:
        package.check(found)
    assert "data/huge.bin (90.0 MiB), second.bin (10.0 MiB)" in str(caught.value)
    assert "less than 100.0 MiB" in str(caught.value)
    (project / "second.bin").unlink()
    package.check(package.survey(project))


def test_the_limit_is_the_servers(tmp_path: Path) -> None:
    from ray._private.ray_constants import DASHBOARD_CLIENT_MAX_SIZE

    assert package.LIMIT == DASHBOARD_CLIENT_MAX_SIZE
    rest = 2 * len("a") + 76 + 22
    package.check(package.Package(tmp_path, (("a", package.LIMIT - rest - 1),)))
    with pytest.raises(ConfigError):  # a body as large as the limit is refused already
        package.check(package.Package(tmp_path, (("a", package.LIMIT - rest),)))


@pytest.mark.parametrize("name", [".env", "deploy/prod.env", "keys/id_rsa", "x/.aws/credentials", "tls.pem", ".netrc"])
def test_files_that_look_like_credentials_are_not_sent(project: Path, name: str) -> None:
    (project / name).parent.mkdir(parents=True, exist_ok=True)
    (project / name).write_text("canary")
    with pytest.raises(ConfigError) as caught:
        package.check(package.survey(project))
    assert name in str(caught.value)
    assert "canary" not in str(caught.value)
    with open(project / ".rayignore", "a") as file:
        file.write(f"{name}\n")
    package.check(package.survey(project))


@pytest.mark.parametrize("name", ["environment.py", "credentials.md", "pem.txt", "auth_token.py"])
def test_files_with_similar_names_are(project: Path, name: str) -> None:
    (project / name).write_text("")
    package.check(package.survey(project))


def test_a_file_that_cannot_be_read_is_told_before_the_upload(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "nets.py")  # root reads every file
    with pytest.raises(ConfigError, match="cannot be read") as caught:
        package.survey(project)
    assert "nets.py" in str(caught.value)
