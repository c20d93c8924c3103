"""Which network interface the workers use."""

from __future__ import annotations

import os

import psutil
import pytest
import ray

from raycls.launch.gloo import interface_of, talk_as_ray_does


def test_interfaces_are_found_by_their_address() -> None:
    """psutil is the oracle."""
    found = {
        address.address: name
        for name, addresses in psutil.net_if_addrs().items()
        for address in reversed(addresses)
        if address.family.name == "AF_INET"
    }
    assert found["127.0.0.1"] == "lo"
    assert {address: interface_of(address) for address in found} == found
    assert interface_of("203.0.113.7") == "" and interface_of("::1") == ""


@pytest.mark.parametrize(("before", "after"), [(None, "lo"), ("eth7", "eth7")])
def test_what_the_user_names_is_left_alone(monkeypatch: pytest.MonkeyPatch, before: str | None, after: str) -> None:
    monkeypatch.setattr(ray.util, "get_node_ip_address", lambda: "127.0.0.1")
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", before or "")
    if before is None:
        monkeypatch.delenv("GLOO_SOCKET_IFNAME")
    talk_as_ray_does()
    assert os.environ["GLOO_SOCKET_IFNAME"] == after
