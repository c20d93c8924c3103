"""Jobs of a cluster: a submission as a value that can be shown before it is sent, and what became of it."""

from __future__ import annotations

import os
import re
import secrets
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ray.dashboard.modules.job.pydantic_models import JobDetails

from raycls.config.uri_secrets import has_secret
from raycls.config.write import word
from raycls.errors import EXIT_DONE, EXIT_FAILED, ConfigError, LaunchError
from raycls.jobs import note, package
from raycls.jobs.dashboard import Dashboard
from raycls.jobs.package import Package, megabytes
from raycls.quantities import plural
from raycls.run.versions import differences, installed

__all__ = [
    "Submission",
    "describe",
    "end_lines",
    "exit_code",
    "make_submission",
    "send",
    "sending",
    "stop",
    "table",
    "warn_of_other_ray",
]

STOPPED = 143
"""Exit code for a job that was stopped: as if the command itself had got the SIGTERM that the job gets."""
_NOT_FOUND = 127
_STOP_SECONDS = 120
"""How long a job that is stopped may take for its last step and checkpoint, before Ray kills it."""
_SECRET_NAME = re.compile(r"(SECRET|TOKEN|PASSWORD|PASSWD|CREDENTIAL|(^|_)KEY(_|$)|APIKEY)", re.IGNORECASE)
_PLACE_NAME = re.compile(r"_(FILE|PATH|DIR)$|^GOOGLE_APPLICATION_CREDENTIALS$", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_LEAST = 8
"""Characters from which a value is looked for: shorter ones are in every text."""


@dataclass(frozen=True)
class Submission:
    """All that is sent to a cluster."""

    name: str
    """The job's id, unique."""
    entrypoint: str
    package: Package
    environment: dict[str, str]
    """Variables of the job and of its workers, readable by all who reach the cluster: no secrets."""


def make_submission(
    run: str,
    words: Sequence[str],
    folder: Path,
    *,
    variables: Sequence[str] = (),
    named: Sequence[str] = (),
) -> Submission:
    """The submission of `raycls WORDS` in `folder`, checked.

    `variables` are `NAME=VALUE` texts, `named` the names of secrets that the nodes must have.
    Raises ConfigError for a package that is too large, and for secrets in anything that would be sent.
    """
    environment = {
        note.VARIABLE: note.note([_checked_name(name, "--secret") for name in named]),
        "RAY_JOB_STOP_WAIT_TIME_S": str(_STOP_SECONDS),
    }
    for text in variables:
        name, equals, value = text.partition("=")
        if not equals:
            raise ConfigError("a variable has no value", where="--env", found=text, valid="NAME=VALUE")
        _refuse_secret_variable(_checked_name(name, "--env"), value)
        environment[name] = value
    entrypoint = shlex.join(["raycls", *words])
    places = {"--secret" if name == note.VARIABLE else f"--env {name}": environment[name] for name in environment}
    _refuse_secret_values({"the command": entrypoint, **places})
    packed = package.survey(folder)
    package.check(packed)
    return Submission(f"{run}-{secrets.token_hex(4)}", entrypoint, packed, environment)


def describe(submission: Submission, address: str) -> list[str]:
    """What would be sent, for a reader: address, command, variables, every file with its size."""
    packed = submission.package
    lines = [
        f"to         {address}",
        f"command    {submission.entrypoint}",
        *(f"variable   {name}={value}" for name, value in submission.environment.items()),
        f"folder     {packed.folder}: {_files(packed)}",
    ]
    width = max((len(str(size)) for _, size in packed.files), default=0)
    return [*lines, *(f"  {size:>{width}} bytes  {name}" for name, size in packed.files)]


def sending(submission: Submission) -> str:
    """How much is about to be sent, for a reader."""
    return f"sending {_files(submission.package)}"


def warn_of_other_ray(dashboard: Dashboard, say: Callable[[str], None]) -> None:
    """Tell `say` of another version of Ray on the cluster: it is known before anything is sent."""
    for changed in differences({"ray": dashboard.ray_version}, installed()):
        say(f"warning: the cluster has {changed}")


def send(dashboard: Dashboard, submission: Submission) -> None:
    """Upload the package, unless the cluster has it already, and start the job. Raises LaunchError."""
    with dashboard.talking():
        dashboard.client.submit_job(
            entrypoint=submission.entrypoint,
            submission_id=submission.name,
            runtime_env={"working_dir": str(submission.package.folder), "env_vars": submission.environment},
        )


def stop(dashboard: Dashboard, job: str) -> JobDetails:
    """Ask a job to stop, and wait until it has: it finishes its step and writes a checkpoint first.

    LaunchError where it runs half a minute longer than Ray should let it.
    """
    found = dashboard.info(job)
    if found.status.is_terminal():
        return found
    with dashboard.talking():
        dashboard.client.stop_job(job)
    deadline = _STOP_SECONDS + 30
    end = time.monotonic() + deadline
    while not (found := dashboard.info(job)).status.is_terminal():
        if time.monotonic() >= end:
            raise LaunchError(
                f"job {job} does not stop",
                where=dashboard.address,
                found=f"{found.status.value} {deadline} s after it was asked; Ray should have killed it by then",
                fix=f"raycls logs {word(job)} may say what it waits for; raycls stop {word(job)} asks again; where the "
                "node of its driver does not answer, end that node: the same submission resumes the run",
            )
        time.sleep(0.5)
    return found


def exit_code(found: JobDetails) -> int:
    """0 for SUCCEEDED, `STOPPED` for STOPPED; for FAILED the command's own code, or 1 where it had none."""
    state = found.status.value
    if state == "SUCCEEDED":
        return EXIT_DONE
    if state == "STOPPED":
        return STOPPED
    code = found.driver_exit_code or 0
    return code if 0 < code < 256 else 128 - code if -65 < code < 0 else EXIT_FAILED


def end_lines(found: JobDetails) -> list[str]:
    """How a job ended, and what to do next."""
    state, job = found.status.value, found.submission_id
    if state == "SUCCEEDED":
        return [f"job {job} succeeded"]
    if state == "STOPPED":
        return [f"job {job} was stopped; the same submission resumes the run from its latest checkpoint"]
    if found.driver_exit_code == _NOT_FOUND:
        return [
            f"job {job} failed: the node of its driver has no command raycls",
            "  fix:   install raycls there, and start Ray with its bin folder in PATH",
        ]
    if found.driver_exit_code:
        return [f"job {job} failed with exit code {found.driver_exit_code}"]
    return [f"job {job} failed: {(found.message or 'no reason is known').strip()}"]


def table(jobs: Sequence[JobDetails]) -> list[str]:
    """One line per submitted job, the newest last."""
    known = sorted((one for one in jobs if one.submission_id), key=lambda one: one.start_time or 0)
    width = max((len(one.submission_id or "") for one in known), default=0)
    return [f"{one.submission_id:<{width}}  {one.status.value:<9}  {one.entrypoint}" for one in known]


def _files(package: Package) -> str:
    return f"{plural(len(package.files), 'file')}, {megabytes(package.size)}"


def _checked_name(name: str, option: str) -> str:
    if _VARIABLE.fullmatch(name) and name != note.VARIABLE:
        return name
    raise ConfigError(
        "this is no name of a variable",
        where=option,
        found=name.partition("=")[0],
        fix="--secret takes the name alone: the value must be set on the nodes" if "=" in name else None,
    )


def _refuse_secret_variable(name: str, value: str) -> None:
    if (_SECRET_NAME.search(name) and not _PLACE_NAME.search(name)) or has_secret(value):
        raise ConfigError(
            "a secret must not be sent with a job: the cluster keeps its variables and shows them",
            where="--env",
            found=f"{name}=***",
            fix=f"set {name} where Ray is started on the nodes, and submit with --secret {name}, which checks that",
        )


def _refuse_secret_values(texts: Mapping[str, str]) -> None:
    """Nothing that this environment holds under a secret's name is in what is sent, by where it stands."""
    for name, value in os.environ.items():
        hides = _SECRET_NAME.search(name) and not _PLACE_NAME.search(name) and len(value) >= _LEAST
        places = [place for place, text in texts.items() if hides and value in text]
        if places:
            raise ConfigError(
                "a secret must not be sent with a job: the cluster keeps its command and variables and shows them",
                where=", ".join(places),
                found=f"the value of {name}",
                fix=f"leave it out; set {name} where Ray is started on the nodes, and submit with --secret {name}",
            )
