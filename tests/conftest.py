"""What the tests on a real Ray share: one cluster that they join, one data set, one run to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from harness.runs import Foreign, Site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A working directory with a config, its 1,003 training images, and a finished run without Ray."""
    from harness.sites import make_site  # here, because most tests need no torch

    return make_site(tmp_path_factory.mktemp("site"))


@pytest.fixture(scope="session")
def foreign() -> Iterator[Foreign]:
    """A cluster that all tests which join one share."""
    from harness.clusters import standing

    with standing(3) as cluster:
        yield cluster
