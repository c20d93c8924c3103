"""Every remedy that raycls prints and that can be typed is typed, by a shell, as it was printed; and it helps."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import ray
from harness.remedies import Remedy, catalogue
from harness.remedy_cases import CASES, ELSEWHERE, NO_RAY, UNTYPED, Case, make_project

from raycls.cli import app
from raycls.session.recording.recorder import Recorder

Command = Callable[[str], tuple[int, str]]
_PARAMETERS = [pytest.param(case, marks=pytest.mark.nightly) if case.slow else case for case in CASES]
_WHOLE = ("data/sources/folder.py:_error", "data/sources/layout.py:refuse_wrapper", "tasks/metrics.py:check_metrics")
"""Sites whose cases are run by the installed command too."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    make_project(folder)
    return folder


@pytest.fixture
def here(project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "my project"
    shutil.copytree(project, folder)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    return folder


@pytest.fixture
def shell(here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Types a line: bash makes the words, and they are run in this process. The exit code and what was said."""
    monkeypatch.setattr(Recorder, "_draw", lambda recorder: None)  # most of the time of a run as small as these
    monkeypatch.setattr(ray, "init", _no_ray)

    def run(line: str) -> tuple[int, str]:
        *before, last = line.split(" && ")
        for command in before:
            subprocess.run(["bash", "-c", command], check=True, cwd=here)
        parsed = subprocess.run(["bash", "-c", f"printf '%s\\0' {last}"], capture_output=True, check=True, cwd=here)
        monkeypatch.setattr(sys, "argv", parsed.stdout.decode().split("\0")[:-1])
        with pytest.raises(SystemExit) as leaving:
            app.main()
        captured = capsys.readouterr()
        assert isinstance(leaving.value.code, int)
        return leaving.value.code, captured.out + captured.err

    return run


def _no_ray(*words: object, **more: object) -> None:
    raise RuntimeError(NO_RAY)


@pytest.mark.parametrize("case", _PARAMETERS, ids=lambda case: f"{case.site} {case.command}"[:90])
def test_a_remedy_helps_when_it_is_typed(case: Case, here: Path, shell: Command) -> None:
    case.before(here)
    if case.first:
        code, said = shell(case.first)
        assert code == case.first_code, said
    case.make(here)
    code, said = shell(case.command)
    assert code not in (0, 130), said
    fix = said.rpartition("fix:")[2].strip() if "fix:" in said else said.splitlines()[-1]
    remedies = _of(case)
    assert any(remedy.matches(fix) for remedy in remedies), f"{fix}\nis none of {[each.text for each in remedies]}"
    line = case.use(here, case.command, fix)
    code, said = shell(line)
    assert (code, case.shows in said) == (case.code, True), f"{fix}\n$ {line}\n{said}"


@pytest.mark.nightly
@pytest.mark.parametrize("case", [case for case in CASES if case.site in _WHOLE], ids=lambda case: case.command[:60])
def test_a_remedy_helps_in_a_shell_of_its_own(case: Case, here: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def run(line: str) -> tuple[int, str]:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=here,
            env={**os.environ, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    case.make(here)
    code, said = run(case.command)
    assert code not in (0, 130), said
    code, said = run(case.use(here, case.command, said.rpartition("fix:")[2].strip()))
    assert code == 0, said


def _of(case: Case) -> list[Remedy]:
    return [remedy for remedy in catalogue() if remedy.site == case.site and case.text in remedy.text]


def test_every_remedy_that_can_be_typed_has_a_case() -> None:
    tried = {remedy for case in CASES for remedy in _of(case)}
    missing = [
        f"{remedy.site}: {remedy.text}"
        for remedy in catalogue()
        if remedy.typed and remedy not in tried and not _known(remedy)
    ]
    assert not missing, "add a case for each of these in tests/harness/remedy_cases.py:\n" + "\n".join(missing)


def _known(remedy: Remedy) -> bool:
    return any(remedy.site.startswith(start) for start in (*UNTYPED, *ELSEWHERE))
