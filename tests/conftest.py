"""What the tests on a real Ray share: one cluster that they join, one data set, one run to compare with."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.object_store import S3
    from harness.runs import Foreign, Site


def pytest_configure() -> None:
    """Let commands under test have their Ctrl-C: a shell starts what runs in the background with SIGINT ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _nothing_stays(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What a run in this process leaves: where its plug-ins came from, and the modules that they are."""
    path, modules = list(sys.path), set(sys.modules)
    os.environ.pop("RAYCLS_WORKDIR", None)  # a fixture of a wider scope may have left it
    yield
    sys.path[:] = path
    own = f"{tmp_path_factory.getbasetemp()}{os.sep}"
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(own):
            del sys.modules[name]
    os.environ.pop("RAYCLS_WORKDIR", None)
    if "multiprocessing.forkserver" in sys.modules:
        from harness.forking import keep_or_stop

        keep_or_stop()


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """99 images to train on and 21 to evaluate. In batches of 32 the last one has 3, fewer than four micro-batches."""
    from harness.jobs import write_arrays  # here, because most tests need no torch

    return write_arrays(tmp_path_factory.mktemp("data") / "data.npz", train=99, val=21)


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A working directory with a config, its 1,003 training images, and a finished run without Ray."""
    from harness.sites import make_site  # here, because most tests need no torch

    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with image files of three classes in `photos/` and a finished run, `runs/shapes`. To be
    read: who writes copies it."""
    from harness.trained import make_trained

    return make_trained(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def foreign() -> Iterator[Foreign]:
    """A cluster that all tests which join one share."""
    from harness.clusters import standing

    with standing(3) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3]:
    """A bucket over HTTP that all tests share."""
    from harness.object_store import serving

    with serving() as server:
        yield server


@pytest.fixture
def s3(s3_server: S3) -> Iterator[S3]:
    """The bucket, empty, behind a proxy that does as it should until it is told not to."""
    os.environ.update(s3_server.environment)  # whoever put the environment back since may not have known of it
    s3_server.proxy.stop()
    s3_server.proxy.start()
    s3_server.empty()
    yield s3_server
    s3_server.proxy.reset()
