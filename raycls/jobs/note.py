"""What a job checks first on the cluster: that it is the run that was submitted, with what it needs.

`raycls submit` sends a note in the job's environment: versions, and the names of secrets. Never a secret itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from raycls.errors import ConfigError, LaunchError
from raycls.run.versions import differences, installed

__all__ = ["VARIABLE", "check", "is_job", "is_kept", "missing_secrets", "note", "refuse_relative"]

VARIABLE = "RAYCLS_SUBMITTED"


def note(secrets: Sequence[str]) -> str:
    """The note of a submission from this machine: JSON for `VARIABLE`."""
    return json.dumps({"versions": installed(), "secrets": list(secrets)}, sort_keys=True)


def check(say: Callable[[str], None]) -> None:
    """Compare this machine with the note of the submission; nothing where the process was not submitted.

    `say` gets a warning of other versions. Raises LaunchError for a secret that is not set here.
    """
    noted = _noted(os.environ)
    missing = missing_secrets(os.environ)
    if missing:
        raise LaunchError(
            "the job needs secrets that are not set on the node of its driver",
            where=os.uname().nodename,
            found=f"not in the environment: {', '.join(missing)}",
            fix="start Ray on the nodes with these variables set (env of the pods, ~/.bashrc, or a file that "
            "is sourced before `ray start`); they are never sent with the job",
        )
    changed = differences(noted.get("versions", {}), installed())
    if changed:
        told = f"where the job was submitted other versions are installed: {', '.join(changed)}"
        say(f"warning: {told}; the bits of the run may differ")


def is_job() -> bool:
    """Whether this process was submitted from another machine, by raycls."""
    return VARIABLE in os.environ


def missing_secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets that the submission named and that `environment` does not have."""
    return [name for name in _noted(environment).get("secrets", []) if not environment.get(name)]


def refuse_relative(place: str, where: str) -> None:
    """Refuse a relative folder for a job: it would lie in the job's copy of the working directory, see `refuse_lost`.

    `where` says where `place` was given: `RUN` for a run folder, anything else for run.storage. Raises ConfigError.
    """
    if is_kept(place):
        return
    option = f"run.storage=/a/shared/folder/{place}" if where != "RUN" else f"/a/shared/folder/{place}"
    raise ConfigError(
        "a relative folder would be lost on a cluster: it would lie in the job's copy of this folder",
        where=where,
        found=place,
        valid="an absolute folder that every node reaches, or a URI such as s3://bucket/runs",
        fix=f"give {option}",
    )


def is_kept(place: str) -> bool:
    """Whether a place for runs does not depend on the working directory of who names it."""
    return "://" in place or place.startswith(("/", "~"))


def _noted(environment: Mapping[str, str]) -> dict[str, Any]:
    text = environment.get(VARIABLE)
    if not text:
        return {}
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
