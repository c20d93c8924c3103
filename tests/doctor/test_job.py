"""The doctor as a job: which cluster it goes to, what it hands over and to whom, and what comes back."""

from __future__ import annotations

import io
import json
import shlex
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest
from harness.dashboards import FakeDashboard, outward

from raycls.cli import app
from raycls.doctor import doctor
from raycls.doctor.arguments import Given, read
from raycls.doctor.cluster_rows import Row
from raycls.doctor.display import to_json
from raycls.doctor.job import dashboard_of, examine_there
from raycls.doctor.node_actors import Examiners
from raycls.errors import ConfigError, LaunchError
from raycls.jobs import note

ROWS = [Row("nodes", "ok", "1 node"), Row("clocks", "wrong", "a day late", "set them")]
LOG = f"a warning\n{to_json(ROWS)}\n"


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_AUTH_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    made = tmp_path / "project"
    made.mkdir()
    (made / "pets.yaml").write_text("data: {source: {name: digits}}\n")
    monkeypatch.chdir(made)
    return made


def there(
    server: FakeDashboard, given: Given | None = None, *, insecure: bool = False, in_all: float = 30
) -> list[Row]:
    return examine_there(
        server.address, given or Given(), seconds=7.0, insecure=insecure, say=lambda text: None, in_all=in_all
    )


def test_which_dashboard(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dashboard_of(None) is None
    assert dashboard_of("head:6379") is None
    assert dashboard_of("https://head/") == "https://head"
    monkeypatch.setenv("RAY_ADDRESS", "http://one:8265")
    assert dashboard_of(None) == "http://one:8265"
    assert dashboard_of("head:6379") is None
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://two:8265")
    assert dashboard_of(None) == "http://two:8265"  # as for raycls submit
    assert dashboard_of("http://three:8265") == "http://three:8265"
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # as in a job: it must look at this cluster, not send another job
    assert dashboard_of(None) is None
    monkeypatch.setenv("RAY_ADDRESS", "")
    assert dashboard_of(None) == "http://two:8265"
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "two:6379")
    with pytest.raises(ConfigError) as caught:
        dashboard_of(None)
    assert caught.value.fix == "did you mean http://two:8265?"
    with pytest.raises(ConfigError, match="must not hold credentials"):
        dashboard_of("http://me:canary@head:8265")


def test_rows_come_back_and_the_folder_goes_along() -> None:
    with FakeDashboard(log=LOG, breaks=(5,), state="FAILED", code=1) as server:
        assert there(server, read(("pets.yaml", "optim.lr=0.1"))) == ROWS
    (sent,) = server.submitted
    words = ["raycls", "doctor", "--json", "pets.yaml", "optim.lr=0.1", "--timeout", "7.0"]
    assert shlex.split(sent["entrypoint"]) == words
    assert note.VARIABLE in sent["runtime_env"]["env_vars"]
    (package,) = server.packages
    assert zipfile.ZipFile(io.BytesIO(package)).namelist() == ["pets.yaml"]
    assert server.stopped == []


def test_without_a_config_nothing_of_the_folder_is_sent(folder: Path) -> None:
    (folder / ".env").write_text("canary")
    with FakeDashboard(log=LOG) as server:
        assert there(server) == ROWS
    assert "working_dir" not in server.submitted[0]["runtime_env"]
    assert server.packages == []


@pytest.mark.parametrize("name", [".env", "key.pem", "deep/.netrc"])
def test_credentials_are_not_sent(folder: Path, name: str) -> None:
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_text("canary")
    with FakeDashboard(log=LOG) as server:
        with pytest.raises(ConfigError, match="look like credentials"):
            there(server, read(("pets.yaml",)))
        assert server.seen == []
        (folder / ".rayignore").write_text(name)
        assert there(server, read(("pets.yaml",))) == ROWS
    assert b"canary" not in server.packages[0]


def test_too_much_and_what_lies_elsewhere_is_not_sent(folder: Path) -> None:
    (folder.parent / "other.yaml").write_text("")
    with FakeDashboard(log=LOG) as server:
        for config in ("../other.yaml", str(folder / "pets.yaml")):
            with pytest.raises(ConfigError, match="not part of what is sent"):
                there(server, read((config,)))
        with (folder / "big.bin").open("wb") as big:
            big.truncate(101 << 20)
        with pytest.raises(ConfigError, match="too large"):
            there(server, read(("pets.yaml",)))
        assert server.seen == []


def test_secrets_in_the_words_are_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-12345")
    with FakeDashboard(log=LOG) as server:
        with pytest.raises(ConfigError, match="must not be sent"):
            there(server, Given(("run.name=canary-12345",)))
        assert server.seen == []


def test_a_server_that_wants_no_token_gets_none_and_one_that_does_gets_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-mine")
    with FakeDashboard(log=LOG) as server:
        assert there(server) == ROWS
        assert {given for _, given in server.seen} == {""}
    with FakeDashboard(log=LOG, token="canary-mine") as server:
        assert there(server) == ROWS
        assert [given for _, given in server.seen[:2]] == ["", "Bearer canary-mine"]
    with FakeDashboard(log=LOG, token="canary-other") as server:
        with pytest.raises(ConfigError, match="refuses the token"):
            there(server)
        assert {path for path, _ in server.seen} == {"/api/version"}


def test_an_open_cluster_elsewhere_is_refused_unless_one_insists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "canary-mine")
    with FakeDashboard(log=LOG, host=outward()) as server:
        with pytest.raises(ConfigError, match="answers without a token"):
            there(server, read(("pets.yaml",)))
        assert (server.submitted, server.packages) == ([], [])
        assert there(server, read(("pets.yaml",)), insecure=True) == ROWS
        assert {given for _, given in server.seen} == {""}


def test_rays_variables_do_not_lead_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    with FakeDashboard(log=LOG) as other, FakeDashboard(log=LOG) as server:
        monkeypatch.setenv("RAY_ADDRESS", other.address)
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", other.address)
        assert there(server, read(("pets.yaml",))) == ROWS
        assert len(server.submitted) == 1
        assert other.seen == []


def test_a_job_that_ends_without_rows() -> None:
    with (
        FakeDashboard(log="one\ntwo\nsh: raycls: not found\n", state="FAILED", code=127) as server,
        pytest.raises(LaunchError, match="did not come to an end") as caught,
    ):
        there(server)
    assert "has no command raycls" in str(caught.value.found)
    assert "sh: raycls: not found" in str(caught.value.found)
    assert f"raycls logs {server.submitted[0]['submission_id']}" in str(caught.value.fix)


def test_a_job_that_does_not_end_is_stopped() -> None:
    with FakeDashboard(log=LOG, breaks=[3] * 50) as server:
        with pytest.raises(LaunchError, match="still under way after 2 s"):
            there(server, in_all=2)
        assert server.stopped == [server.submitted[0]["submission_id"]]
    end = time.monotonic() + 20
    while any(thread.name == "raycls-within" for thread in threading.enumerate()):
        assert time.monotonic() < end  # nobody follows its log any more
        time.sleep(0.1)


def test_nobody_there() -> None:
    with pytest.raises(LaunchError, match="cannot be reached"):
        examine_there("http://127.0.0.1:1", Given(), seconds=5, insecure=True, say=print)


def test_the_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def call(*words: str) -> object:
        monkeypatch.setattr(sys, "argv", ["raycls", "doctor", *words])
        with pytest.raises(SystemExit) as leaving:
            app.main()
        return leaving.value.code

    with FakeDashboard(log=LOG, state="FAILED", code=1, host=outward()) as server:
        monkeypatch.setenv("RAY_API_SERVER_ADDRESS", server.address)
        assert call("--json") == 2
        assert "--insecure-cluster" in capsys.readouterr().err
        assert call("--json", "--insecure-cluster", "pets.yaml") == 1
        printed = capsys.readouterr()
    assert json.loads(printed.out)["raycls_doctor"]["rows"] == [row.to_dict() for row in ROWS]
    assert "sending 1 files" in printed.err


def test_a_job_refuses_a_relative_storage_as_submit_does(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(note.VARIABLE, note.note([], same=False))
    row = doctor._storage(doctor.Asked(storage="runs"), Examiners([], 5.0))
    assert row.verdict == "wrong"
    assert "would be lost" in row.found
    assert row.fix == "give run.storage=/a/shared/folder/runs"
    monkeypatch.delenv(note.VARIABLE)  # of `ray job submit`
    copy = folder / "runtime_resources" / "working_dir_files" / "package"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    row = doctor._storage(doctor.Asked(storage="runs"), Examiners([], 5.0))
    assert (row.verdict, "the run would be lost" in row.found) == ("wrong", True)
    assert list(copy.iterdir()) == []
