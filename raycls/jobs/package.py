"""The working directory as a job takes it along: which files, how large, and what must not be among them."""

from __future__ import annotations

import fnmatch
import logging
import os
from dataclasses import dataclass
from pathlib import Path

from raycls.config.names.recipes import PREFIX
from raycls.config.paths import expand
from raycls.errors import ConfigError
from raycls.quantities import plural

__all__ = ["LIMIT", "Package", "check", "credentials", "megabytes", "refuse_outside", "survey"]

LIMIT = 100 * 1024 * 1024
"""Bytes of a package from which Ray's dashboard refuses it."""
_SHOWN = 8
_CREDENTIALS = (
    ".env",
    "*.env",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    "id_rsa",
    "id_ecdsa",
    "id_ed25519",
    "*.pem",
    "auth_token",
    ".aws/credentials",
    ".kube/config",
    "application_default_credentials.json",
)
"""Files that usually hold secrets. A package is kept by the cluster, for all who can submit to it."""


@dataclass(frozen=True)
class Package:
    """What is taken along of `folder`."""

    folder: Path
    files: tuple[tuple[str, int], ...]
    """Relative name and size in bytes, sorted by name; an empty folder ends in `/` and has 0 bytes."""

    @property
    def size(self) -> int:
        """Bytes of the ZIP file that Ray makes of it, which is not compressed."""
        names = sum(len(name.encode()) for name, _ in self.files)
        return sum(size for _, size in self.files) + 2 * names + len(self.files) * (30 + 46) + 22

    @property
    def biggest(self) -> list[tuple[str, int]]:
        """The largest files, the largest first."""
        return sorted(self.files, key=lambda file: (-file[1], file[0]))[:_SHOWN]


def survey(folder: Path) -> Package:
    """The files of `folder` that Ray would upload: without those that .gitignore and .rayignore name.

    Ray's own walk is used, so that the list is what is sent. Raises ConfigError where something cannot be read.
    """
    from ray._private import ray_constants
    from ray._private.runtime_env import packaging

    quiet = logging.getLogger("raycls.package")
    quiet.setLevel(logging.CRITICAL)
    files: list[tuple[str, int]] = []

    def note(path: Path) -> None:
        name = path.relative_to(folder).as_posix()
        if path.is_file():
            files.append((name, path.stat().st_size))
            if not os.access(path, os.R_OK):
                raise PermissionError(13, "Permission denied", str(path))
        elif path.is_dir() and next(path.iterdir(), None) is None:
            files.append((f"{name}/", 0))

    folder = folder.absolute()
    ignore = os.environ.get(ray_constants.RAY_RUNTIME_ENV_IGNORE_GITIGNORE, "0") != "1"
    excludes = [packaging._get_excludes(folder, ray_constants.get_runtime_env_default_excludes())]
    try:
        packaging._dir_travel(folder, excludes, note, include_gitignore=ignore, logger=quiet)
    except OSError as error:
        raise ConfigError(
            "the working directory cannot be sent: a file of it cannot be read",
            where=str(error.filename or folder),
            found=error.strerror or str(error),
            fix="make it readable, or name it in .rayignore",
        ) from error
    return Package(folder, tuple(sorted(files)))


def check(package: Package) -> None:
    """Refuse what the server would refuse after the upload, and what looks like a secret. Raises ConfigError."""
    if package.size >= LIMIT:
        raise ConfigError(
            "the working directory is too large to be sent with the job",
            where=str(package.folder),
            found=f"{megabytes(package.size)} in {plural(len(package.files), 'file')}; the largest: "
            + ", ".join(f"{name} ({megabytes(size)})" for name, size in package.biggest),
            valid=f"less than {megabytes(LIMIT)}, the limit of the cluster's dashboard",
            fix="name what the run does not need in .rayignore; data belongs on storage that every node reaches",
        )
    secret = credentials(package)
    if secret:
        raise ConfigError(
            "the working directory holds files that look like credentials: the cluster would keep a copy of them",
            where=str(package.folder),
            found=", ".join(secret),
            fix="name them in .rayignore; what a job needs is set on the nodes, see --secret",
        )


def credentials(package: Package) -> list[str]:
    """Files that look like credentials, the first few of them."""
    return [name for name, _ in package.files if _is_credential(name)][:_SHOWN]


def refuse_outside(config: str) -> None:
    """Refuse a config that is not part of the working directory, by its path in it. Raises ConfigError."""
    if config.startswith(PREFIX):  # the installation of the cluster has it
        return
    path = Path(expand(config))
    if path.is_absolute() or not path.resolve().is_relative_to(Path.cwd().resolve()):
        raise ConfigError(
            "the config is not part of what is sent: this folder is",
            where=config,
            found=f"the folder that is sent is {Path.cwd()}",
            fix="change into the folder of your project, and name the config by its path in it",
        )


def megabytes(size: int) -> str:
    """`size` bytes for a reader, in MiB from a tenth of one on."""
    return f"{size / 2**20:.1f} MiB" if size >= 2**20 / 10 else f"{size / 2**10:.1f} KiB"


def _is_credential(name: str) -> bool:
    return any(fnmatch.fnmatch(f"/{name}", f"*/{pattern}") for pattern in _CREDENTIALS)
