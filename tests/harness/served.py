"""A server under test, and clients that a server cannot tell from many."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from harness.processes import Command, raycls

__all__ = ["Half", "Server", "percentiles", "start"]


class Server:
    """`raycls serve` on loopback."""

    def __init__(self, command: Command, seconds: float) -> None:
        self.command = command
        command.until(lambda: "try " in command.stderr, seconds)
        self.address = self._line("address")
        self.token = self._line("token")
        self.headers = {"authorization": f"Bearer {self.token}"}

    @property
    def port(self) -> int:
        return int(self.address.rsplit(":", 1)[1])

    def _line(self, name: str) -> str:
        found = re.search(rf"^{name} +(\S+)$", self.command.stderr, re.MULTILINE)
        assert found, self.command.said()
        return found[1]

    def client(self) -> httpx.AsyncClient:
        limits = httpx.Limits(max_connections=None)
        return httpx.AsyncClient(base_url=self.address, headers=self.headers, timeout=120, limits=limits)

    async def counts(self) -> dict[str, float]:
        """What /metrics says, by name and status."""
        async with self.client() as client:
            text = (await client.get("/metrics")).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {f"{sample.name}{sample.labels.get('status', '')}": sample.value for sample in samples}

    async def ask(self, images: Sequence[bytes]) -> tuple[list[httpx.Response], list[float]]:
        """One request per image, all at once; the answers, and the seconds until each."""
        async with self.client() as client:

            async def one(data: bytes) -> tuple[httpx.Response, float]:
                began = time.perf_counter()
                response = await client.post("/predict", content=data)
                return response, time.perf_counter() - began

            found = await asyncio.gather(*(one(data) for data in images))
        return [response for response, _ in found], [seconds for _, seconds in found]


class Half:
    """A request of which the server has the headers and half of the body."""

    def __init__(self, server: Server, data: bytes) -> None:
        self._server, self._data, self._half = server, data, len(data) // 2

    async def send(self) -> None:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._server.port)
        lines = ["POST /predict HTTP/1.1", "Host: raycls", f"Content-Length: {len(self._data)}"]
        lines += [f"Authorization: Bearer {self._server.token}", "", ""]
        self._writer.write("\r\n".join(lines).encode() + self._data[: self._half])
        await self._writer.drain()

    async def rest(self) -> bytes:
        """Send the rest; the status line of the answer and all that follows, until the connection is closed."""
        self._writer.write(self._data[self._half :])
        await self._writer.drain()
        answer = await asyncio.wait_for(self._reader.read(), 60)
        self._writer.close()
        return answer


def start(folder: Path, run: str, *words: str, env: dict[str, str] | None = None) -> Command:
    """Start `raycls serve RUN` on a free port."""
    return raycls(folder, "serve", run, "--port", "0", *words, name="serve", env=env)


def percentiles(seconds: Sequence[float]) -> dict[str, Any]:
    """p50, p90, p99 and the longest, in milliseconds: the smallest value that so many are not above."""
    ordered = sorted(seconds)
    ranks = {"p50": 50, "p90": 90, "p99": 99, "max": 100}
    return {name: round(1000 * ordered[-(-len(ordered) * rank // 100) - 1], 1) for name, rank in ranks.items()}
