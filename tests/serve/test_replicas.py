"""`raycls serve` on Ray Serve: many requests at once, replicas that die, an end that loses nothing."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest
from harness.clusters import state
from harness.object_store import S3
from harness.processes import titled
from harness.runs import Foreign
from harness.served import Half, Server, percentiles, start
from PIL import Image

from raycls.cluster.connection import running_cluster
from raycls.errors import LaunchError
from raycls.serve.metrics import Metrics
from raycls.serve.predictor import Served
from raycls.serve.replicas import deployed
from raycls.session.trained.trained import open_trained

pytestmark = [pytest.mark.ray, pytest.mark.nightly, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def server(trained: Path, s3_server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two replicas on a private Ray, of a run folder on an object store."""
    s3_server.empty()
    s3_server.upload(trained / "runs" / "shapes", "runs/shapes")
    words = ("--replicas", "2", "--max-pixels", "6000000", "--max-batch", "16")
    with start(tmp_path_factory.mktemp("serve"), s3_server.uri("runs/shapes"), *words) as command:
        yield Server(command, 300)


def _images(trained: Path, count: int) -> list[bytes]:
    files = sorted((trained / "photos").rglob("*.*"))
    return [files[place % len(files)].read_bytes() for place in range(count)]


def _replicas(server: Server) -> list[psutil.Process]:
    return titled(server.command.processes(), "ServeReplica")


def test_of_200_requests_at_once_none_is_lost(server: Server, trained: Path) -> None:
    images = _images(trained, 200)
    responses, seconds = asyncio.run(server.ask(images))
    print("200 concurrent requests, milliseconds:", json.dumps(percentiles(seconds)))
    assert [response.status_code for response in responses] == [200] * 200
    first: dict[bytes, str] = {}
    for data, response in zip(images, responses, strict=True):
        body = response.json()
        assert first.setdefault(data, body["class"]) == body["class"]
        assert body["model"]["run"] == "s3://bucket/runs/shapes"
    counts = asyncio.run(server.counts())
    assert counts["raycls_serve_batch_size_sum"] == 200
    assert counts["raycls_serve_batch_size_count"] < 200


def test_what_is_refused_leaves_the_server_alive(server: Server, trained: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (2500, 2500)).save(file, "PNG")

    async def ask() -> list[int]:
        async with server.client() as client:
            large = client.post("/predict", content=b"\0" * 100_000_000)
            text = client.post("/predict", content=b"a text")
            wide = client.post("/predict", content=file.getvalue())
            nobody = client.post("/predict", content=b"x", headers={"authorization": "Bearer wrong"})
            good = [client.post("/predict", content=data) for data in _images(trained, 5)]
            return [response.status_code for response in await asyncio.gather(large, text, wide, nobody, *good)]

    assert asyncio.run(ask()) == [413, 422, 422, 401, 200, 200, 200, 200, 200]
    assert len(_replicas(server)) == 2


@pytest.mark.faults
def test_a_replica_that_is_killed_under_load_loses_no_request(server: Server) -> None:
    file = io.BytesIO()
    Image.effect_noise((2400, 2400), 60).convert("RGB").save(file, "JPEG")  # takes long enough to be killed over
    victim = _replicas(server)[0]

    async def ask() -> list[int]:
        async with server.client() as client:
            asked = [asyncio.create_task(client.post("/predict", content=file.getvalue())) for _ in range(60)]
            while sum(task.done() for task in asked) < 10:
                await asyncio.sleep(0.005)
            victim.kill()
            return [response.status_code for response in await asyncio.gather(*asked)]

    assert asyncio.run(ask()) == [200] * 60
    assert asyncio.run(server.counts())["raycls_serve_retries_total"] > 0
    server.command.until(lambda: len(_replicas(server)) == 2)  # another one is started


def test_the_end_answers_what_was_accepted_and_leaves_nothing(server: Server, trained: Path) -> None:
    async def end() -> list[bytes]:
        halves = [Half(server, data) for data in _images(trained, 50)]
        for half in halves:
            await half.send()
        while (await server.counts())["raycls_serve_in_flight"] < 50:
            await asyncio.sleep(0.02)
        server.command.process.send_signal(signal.SIGINT)
        return [await half.rest() for half in halves]

    answers = asyncio.run(end())
    assert [answer.split(b"\r\n")[0] for answer in answers] == [b"HTTP/1.1 200 OK"] * 50
    assert server.command.wait(90) == 130
    server.command.assert_gone(10)
    assert server.command.leftovers() == []
    with socket.socket() as opened:
        assert opened.connect_ex(("127.0.0.1", server.port)) != 0
    assert "Traceback" not in server.command.said()


def test_on_a_cluster_it_opens_no_port_of_ray_and_a_front_that_is_killed_leaves_no_replica(
    foreign: Foreign, trained: Path, tmp_path: Path
) -> None:
    run = str(trained / "runs" / "shapes")
    with start(tmp_path, run, "--replicas", "2", env=foreign.environment) as command:
        server = Server(command, 300)
        assert "2 replicas on " in command.stderr
        assert len(_on(foreign)) == 2
        listening = {
            connection.laddr.port
            for process in foreign.head.processes()
            for connection in process.net_connections("tcp")
            if connection.status == psutil.CONN_LISTEN
        }
        assert 8000 not in listening  # where Ray Serve answers everybody by default
        responses, _ = asyncio.run(server.ask(_images(trained, 10)))
        assert [response.status_code for response in responses] == [200] * 10
        assert state(foreign.environment)["available"]["CPU"] == 1.0  # a CPU for each is set aside
        command.kill()
        foreign.head.until(lambda: not _on(foreign), 60)
    assert state(foreign.environment)["available"]["CPU"] == 3.0


def test_replicas_that_cannot_read_the_run_folder_say_so(
    foreign: Foreign, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in foreign.environment.items():
        monkeypatch.setenv(name, value)
    run = shutil.copytree(trained / "runs" / "shapes", tmp_path / "shapes")
    served = Served(open_trained(str(run)), "cpu", 1, 8, 10**6, str(tmp_path))
    shutil.rmtree(run)
    with running_cluster() as cluster, pytest.raises(LaunchError) as refused, ExitStack() as stack:
        stack.enter_context(deployed(served, cluster, app="unreadable", replicas=1, wait=300, metrics=Metrics()))
    file = run / "model" / "model.safetensors"
    assert refused.value.found == f"this run has no finished model, where: {file}, found: no such file"
    assert _on(foreign) == []


def _on(cluster: Foreign) -> list[psutil.Process]:
    return titled(cluster.head.processes(), "ServeReplica")
