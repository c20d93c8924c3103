"""A real tritonserver with a model repository, and a client of it, in an environment of their own."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.processes import Command, start

__all__ = ["Installed", "Triton", "install", "running"]

_HERE = Path(__file__).parent
# numpy: pytriton's. tritonclient has the protocol buffer of config.pbtxt; it and the rest of raycls's packages do not
# agree on versions.
_PACKAGES = ("nvidia-pytriton==0.7.0", "numpy==1.26.4", "onnxruntime==1.32.0", "tritonclient[http,grpc]==2.73.0")


@dataclass(frozen=True)
class Installed:
    """An environment with tritonserver 2.51, its python backend and tritonclient."""

    folder: Path

    @property
    def python(self) -> str:
        return str(self.folder / "bin" / "python")

    @property
    def packages(self) -> Path:
        return self.folder / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}" / "site-packages"

    def say(self, *words: str) -> Any:
        """What the client prints for `words`."""
        done = subprocess.run(
            [self.python, str(_HERE / "triton_client.py"), *words], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])


def install(folder: Path) -> Installed:
    """Make the environment in `folder`, from the package registry."""
    installed = Installed(folder)
    for words in (["venv", "--python", sys.executable, str(folder)], ["pip", "install", "--python", installed.python]):
        # --no-config: the versions that this project pins are not for it
        more = _PACKAGES if words[0] == "pip" else ()
        subprocess.run(["uv", "--no-config", "-q", *words, *more], check=True)
    return installed


@dataclass
class Triton:
    """A server that polls its repository."""

    installed: Installed
    command: Command
    repository: Path
    port: int

    def say(self, model: str, *words: str) -> Any:
        return self.installed.say(f"127.0.0.1:{self.port}", model, *words)

    def ask(self, model: str, images: list[np.ndarray], folder: Path, command: str = "ask") -> Any:
        file = folder / "images.npz"
        np.savez(file, *images)
        return self.say(model, command, str(file))

    def until_ready(self, model: str, version: int) -> None:
        address = f"http://127.0.0.1:{self.port}/v2/models/{model}/versions/{version}/ready"
        self.command.until(lambda: _answers(address) or "failed to load" in self.command.stderr)
        assert _answers(address), self.command.said()


@contextmanager
def running(installed: Installed, folder: Path) -> Iterator[Triton]:
    """tritonserver with an empty repository, which it looks at every second."""
    binaries = installed.packages / "pytriton" / "tritonserver"
    backends, repository = folder / "backends", folder / "models"
    shutil.copytree(binaries / "backends" / "python", backends / "python")
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copy(binaries / "python_backend_stubs" / version / "triton_python_backend_stub", backends / "python")
    (backends / "onnxruntime").mkdir()
    shutil.copy(_HERE / "triton_backend.py", backends / "onnxruntime" / "model.py")
    repository.mkdir()
    # The stub is linked with libpython: that of the interpreter comes first.
    libraries = [sysconfig.get_config_var("LIBDIR"), str(installed.packages / "nvidia_pytriton.libs")]
    path = f"{installed.folder / 'bin'}:{os.environ['PATH']}"  # by it the interpreter in the stub finds its packages
    environment = {"LD_LIBRARY_PATH": ":".join(libraries), "PATH": path}
    port = _free_port()
    words = [str(binaries / "bin" / "tritonserver"), f"--model-repository={repository}"]
    words += [f"--backend-directory={backends}", "--http-address=127.0.0.1", f"--http-port={port}"]
    words += ["--allow-grpc=false", "--allow-metrics=false", "--model-control-mode=poll", "--repository-poll-secs=1"]
    with start(words, folder, name="triton", env=environment) as command:
        command.until(lambda: _answers(f"http://127.0.0.1:{port}/v2/health/ready"))
        yield Triton(installed, command, repository, port)
        command.process.terminate()
        command.wait(60)
        command.assert_gone(10)


def _answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(address, timeout=5) as reply:
            return reply.status == 200
    except (urllib.error.URLError, OSError):
        return False


def _free_port() -> int:
    with socket.socket() as opened:
        opened.bind(("127.0.0.1", 0))
        return opened.getsockname()[1]
