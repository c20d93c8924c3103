"""The network interface over which workers talk to each other."""

from __future__ import annotations

import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

import ray
from ray.train import torch as ray_torch
from ray.train.torch.config import _TorchBackend

__all__ = ["TorchConfig", "interface_of", "talk_as_ray_does"]

_VARIABLE = "GLOO_SOCKET_IFNAME"
_SIOCGIFADDR = 0x8915
"""The request for an interface's IPv4 address, see netdevice(7)."""


def talk_as_ray_does() -> None:
    """Let gloo use the interface of this node's address in Ray, unless the variable names another one.

    By itself gloo looks the host's name up, which many machines resolve to loopback: no other node finds them there.
    """
    if _VARIABLE not in os.environ and (name := interface_of(ray.util.get_node_ip_address())):
        os.environ[_VARIABLE] = name


def interface_of(address: str) -> str:
    """The name of the interface with this IPv4 address; empty where there is none, and where it is not Linux."""
    if not sys.platform.startswith("linux"):
        return ""
    import fcntl

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                answer = fcntl.ioctl(asking.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
            except OSError:  # it has no address
                continue
            if socket.inet_ntoa(answer[20:24]) == address:
                return name
    return ""


class _Backend(_TorchBackend):
    def on_start(self, worker_group: Any, backend_config: ray_torch.TorchConfig) -> None:
        worker_group.execute(talk_as_ray_does)
        super().on_start(worker_group, backend_config)


@dataclass
class TorchConfig(ray_torch.TorchConfig):
    """Ray Train's own, whose workers find each other wherever Ray's nodes do."""

    @property
    def backend_cls(self) -> type[_Backend]:
        return _Backend
