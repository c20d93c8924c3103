"""The campaign, short: every fault once, at a random moment; those that differ most where the slow tests run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from harness import networks
from harness.runs import Site

from faults import campaign
from faults.campaign import Bed

OFTEN = ("notice",)
FAULTS = [
    pytest.param(fault, marks=pytest.mark.slow if fault in OFTEN else pytest.mark.nightly) for fault in campaign.FAULTS
]

pytestmark = [pytest.mark.ray, pytest.mark.faults]


@pytest.fixture(scope="module")
def made(site: Site) -> Iterator[Bed]:
    with ExitStack() as stack:
        yield campaign.bed(stack, site)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", FAULTS)
def test_every_fault_ends_with_the_same_bits(made: Bed, fault: str) -> None:
    if fault == "cut" and networks.missing():
        pytest.skip(networks.missing())
    found = campaign.play(made, fault, f"struck-by-{fault}", elastic=campaign.FAULTS.index(fault) % 2 == 0)
    print(found)
    assert not found.wrong, "\n".join(found.wrong)
    if fault == "notice":
        assert found.repeated <= 1
