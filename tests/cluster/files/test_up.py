"""What is missing here is told before anything starts; Ray's own commands run with what they need; `down` is exact."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ray import autoscaler

from raycls.cli import app
from raycls.cluster.files import up
from raycls.cluster.files.check import check
from raycls.cluster.files.read import ClusterFile
from raycls.config.errors import ConfigProblemsError
from raycls.errors import ConfigError

CLUSTERS = Path(__file__).parents[3] / "cluster"
LOCAL = """\
cluster_name: pets
provider: {type: local, head_ip: 10.0.0.1, worker_ips: [10.0.0.2, 10.0.0.3]}
auth: {ssh_user: ubuntu, ssh_private_key: key}
file_mounts: {~/.ray/auth_token: ~/.ray/auth_token, ~/code: code}
setup_commands: []
head_start_ray_commands: [RAY_AUTH_MODE=token ray start --head]
worker_start_ray_commands: [RAY_AUTH_MODE=token ray start --address=$RAY_HEAD_IP:6379]
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with a token, and a working directory with what the file LOCAL names."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".ray").mkdir()
    (tmp_path / ".ray" / "auth_token").write_text("0123456789abcdef" * 4)
    (tmp_path / ".ray" / "auth_token").chmod(0o600)
    (tmp_path / "code").mkdir()
    (tmp_path / "key").write_text("a private key")
    (tmp_path / "pets.yaml").write_text(LOCAL)
    return tmp_path


def token_error(home: Path) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        up.ready(check(home / "pets.yaml"))
    return caught.value


def test_with_everything_there_nothing_is_refused(home: Path) -> None:
    up.ready(check("pets.yaml"))


def test_a_token_that_is_not_there(home: Path) -> None:
    (home / ".ray" / "auth_token").unlink()
    error = token_error(home)
    assert error.what == "there is no token for the cluster"
    assert error.fix == "ray get-auth-token --generate >/dev/null && chmod 600 ~/.ray/auth_token"


def test_an_empty_token(home: Path) -> None:
    (home / ".ray" / "auth_token").write_text("\n")
    assert token_error(home).what == "the token is empty"


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604])
def test_a_token_that_others_can_read(home: Path, mode: int) -> None:
    (home / ".ray" / "auth_token").chmod(mode)
    error = token_error(home)
    assert (error.found, error.fix) == (f"mode {mode:04o}", "chmod 600 ~/.ray/auth_token")


def test_files_that_are_not_here_and_blanks_are_told_with_their_lines(home: Path) -> None:
    shutil.rmtree("code")
    os.unlink("key")
    (home / "pets.yaml").write_text(LOCAL.replace("10.0.0.3", "192.0.2.12"))
    with pytest.raises(ConfigProblemsError) as caught:
        up.ready(check("pets.yaml"))
    assert [(each.where, each.path, each.found) for each in caught.value.problems] == [
        ("pets.yaml:2", "provider.worker_ips[1]", "192.0.2.12"),
        ("pets.yaml:3", "auth.ssh_private_key", "key"),
        ("pets.yaml:4", "file_mounts.~/code", "code"),
    ]


@pytest.mark.parametrize(("name", "blanks"), [("aws", 4), ("gcp", 5), ("azure", 5), ("onprem", 3)])
def test_files_of_the_repository_must_be_filled_in_first(
    home: Path, monkeypatch: pytest.MonkeyPatch, name: str, blanks: int
) -> None:
    file = check(CLUSTERS / f"{name}.yaml")
    monkeypatch.chdir(CLUSTERS.parent)
    with pytest.raises(ConfigProblemsError) as caught:
        up.ready(file)
    whats = [problem.what for problem in caught.value.problems]
    assert whats.count("this is still to be filled in") == blanks
    assert set(whats) <= {"this is still to be filled in", "there is no such file here"}  # the SSH key of this home


def test_a_provider_whose_package_is_missing(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (CLUSTERS / "aws.yaml").read_text().replace("FILL_IN", "1234")
    (home / "pets.yaml").write_text(text)
    monkeypatch.chdir(CLUSTERS.parent)
    up.ready(check(home / "pets.yaml"))
    monkeypatch.setattr(up, "_installed", lambda package: False)
    with pytest.raises(ConfigError) as caught:
        up.ready(check(home / "pets.yaml"))
    assert (caught.value.found, caught.value.fix) == ("no boto3", "pip install 'raycls[aws]'")


def test_every_package_that_the_provider_of_azure_imports_is_named(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    imported = {
        name
        for file in Path(autoscaler.__path__[0], "_private", "_azure").glob("*.py")
        for name in re.findall(r"^from (azure\.(?:mgmt\.)?\w+)", file.read_text(), re.M)
    }
    assert len(imported) == 6
    (home / "pets.yaml").write_text((CLUSTERS / "azure.yaml").read_text().replace("FILL_IN", "of-mine"))
    (home / ".ssh").mkdir()
    (home / ".ssh" / "raycls-azure").touch()
    monkeypatch.chdir(CLUSTERS.parent)
    with pytest.raises(ConfigError) as caught:  # none is installed for the tests
        up.ready(check(home / "pets.yaml"))
    names = sorted(name.replace(".", "-") for name in imported)
    assert (caught.value.found, caught.value.fix) == (
        f"no {', '.join(sorted(imported))}",
        f"pip install {' '.join(names)}",
    )
    installed = (CLUSTERS / "azure.yaml").read_text()
    assert all(f"{name}==" in installed for name in names)


class Ray:
    """Stands in for the processes that are started: writes down their words and their environment."""

    def __init__(self) -> None:
        self.calls: list[tuple[list[str], dict[str, str]]] = []
        self.code = 0

    def __call__(self, words: list[str], *, env: dict[str, str], check: bool) -> subprocess.CompletedProcess[str]:
        self.calls.append((words, env))
        return subprocess.CompletedProcess(words, self.code)


@pytest.fixture
def ray(monkeypatch: pytest.MonkeyPatch) -> Ray:
    stand_in = Ray()
    monkeypatch.setattr(up.subprocess, "run", stand_in)
    return stand_in


def test_up_and_down_are_ray_s_own_with_a_token_and_without_telemetry(home: Path, ray: Ray) -> None:
    file = check("pets.yaml")
    assert up.up(file) == up.down(file) == 0
    assert [words[3:] for words, _ in ray.calls] == [
        ["up", "--yes", "pets.yaml"],
        ["exec", "pets.yaml", ray.calls[1][0][5]],
        ["down", "--yes", "pets.yaml"],
    ]
    for words, environment in ray.calls:
        assert words[0] == sys.executable
        assert environment["RAY_AUTH_MODE"] == "token"
        assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
        assert environment["RAY_UP_enable_autoscaler_v2"] == "0"
    stops = ray.calls[1][0][5]
    assert "ubuntu@10.0.0.2 " in stops
    assert "ubuntu@10.0.0.3 " in stops
    assert stops.count("ray stop") == 2


def test_the_exit_code_of_ray_is_that_of_the_command(home: Path, ray: Ray) -> None:
    ray.code = 3
    assert up.up(check("pets.yaml")) == 3


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["raycls", "cluster", *words])
    with pytest.raises(SystemExit) as ended:
        app.main()
    said = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, said.out, said.err


def test_without_yes_and_without_a_terminal_nothing_starts(
    home: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(monkeypatch, capsys, "up", "pets.yaml")
    assert (code, ray.calls) == (2, [])
    assert "at most  3 nodes" in out  # the plan comes before the question
    assert "--yes skips the question" in err
    assert run(monkeypatch, capsys, "down", "pets.yaml")[0] == 2
    assert not ray.calls


@pytest.mark.parametrize(("answer", "starts"), [("y", True), ("n", False)])
def test_the_question_is_asked_on_a_terminal(
    home: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], answer: str, starts: bool
) -> None:
    monkeypatch.setattr("typer.confirm", lambda question: answer == "y")
    monkeypatch.setattr(sys, "stdin", type("Terminal", (), {"isatty": staticmethod(lambda: True)})())
    code, _, _ = run(monkeypatch, capsys, "up", "pets.yaml")
    assert (code, bool(ray.calls)) == ((0, True) if starts else (1, False))


def test_a_failure_of_ray_is_exit_1_and_a_problem_exit_2(
    home: Path, ray: Ray, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ray.code = 127
    assert run(monkeypatch, capsys, "up", "pets.yaml", "--yes")[0] == 1
    (home / "pets.yaml").write_text(LOCAL.replace("head_ip", "haed_ip"))
    code, _, err = run(monkeypatch, capsys, "show", "pets.yaml")
    assert code == 2
    assert "pets.yaml:2" in err
    assert "did you mean head_ip?" in err


NAME = f"raycls-test-{os.getpid()}"
"""Of no other cluster: `down` ends whatever of this machine has the name."""


def here(home: Path) -> ClusterFile:
    text = (CLUSTERS / "local-autoscaling.yaml").read_text()
    assert text.count("cluster_name: raycls-local") == 1
    (home / "here.yaml").write_text(text.replace("cluster_name: raycls-local", f"cluster_name: {NAME}"))
    return check(home / "here.yaml")


def test_down_on_this_machine_ends_what_up_started_and_nothing_else(home: Path) -> None:
    words = [sys.executable, "-c", "import time; time.sleep(600)"]
    theirs = {**os.environ, "RAYCLS_CLUSTER": f"{NAME}-2"}
    ours = {**os.environ, "RAYCLS_CLUSTER": NAME}
    processes = [subprocess.Popen(words, env=environment) for environment in (ours, ours, theirs)]
    try:
        assert up.down(here(home)) == 0
        assert [processes[index].wait(10) for index in (0, 1)] == [-15, -15]
        assert processes[2].poll() is None
    finally:
        for process in processes:
            process.kill()
            process.wait()


def test_up_on_this_machine_runs_the_file_s_own_commands(home: Path, ray: Ray) -> None:
    assert up.up(here(home)) == 0
    (words, environment), (told, _) = ray.calls
    assert told[2] == "RAY_AUTH_MODE=token python -m raycls.cluster.growth $RAYCLS_CLUSTER_FILE"
    assert words[:2] == ["/bin/bash", "-c"]
    assert "RAY_AUTH_MODE=token ray start --head" in words[2]
    expected: dict[str, Any] = {"RAY_FAKE_CLUSTER": "1", "RAYCLS_CLUSTER": NAME, "SPT_NOENV": "1"}
    assert expected.items() <= environment.items()
    assert environment["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
    bootstrap = home / ".raycls" / f"{NAME}.json"
    assert environment["RAYCLS_CLUSTER_FILE"] == str(bootstrap)
    assert json.loads(bootstrap.read_text())["available_node_types"]["worker"]["max_workers"] == 2
    up.down(here(home))
    assert not bootstrap.exists()
