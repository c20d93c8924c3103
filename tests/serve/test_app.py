"""The HTTP front without Ray: who may ask, what is refused before it is read or decoded, and what is counted."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from raycls.data.samples import Files, Keys
from raycls.serve.answer import Answer
from raycls.serve.app import UnavailableError, make_app
from raycls.serve.intake import Limits
from raycls.serve.metrics import Metrics
from raycls.serve.predictor import Predictor, Served
from raycls.session.trained.answers import answers
from raycls.session.trained.trained import Network, open_trained

_TOKEN = "a-token-of-this-test"
_LIMITS = Limits(max_bytes=20_000, held_bytes=60_000, seconds=20.0)


class _Said:
    """A backend that says what a test wants, and notes what it was given."""

    def __init__(self, *answers: Answer | Exception, ready: bool = True) -> None:
        self.answers, self.given, self.is_ready = list(answers), [], ready
        self.go = asyncio.Event()
        self.go.set()

    async def predict(self, data: bytes, top: int) -> Answer:
        self.given.append((data, top))
        await self.go.wait()
        said = self.answers.pop(0)
        if isinstance(said, Exception):
            raise said
        return said

    async def ready(self) -> bool:
        return self.is_ready


class _Front:
    def __init__(self, backend: Any, *, token: str | None = _TOKEN, limits: Limits = _LIMITS) -> None:
        self.said: list[str] = []
        app = make_app(backend, token=token, limits=limits, metrics=Metrics(), say=self.said.append)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        self.client = httpx.AsyncClient(transport=transport, base_url="http://raycls")
        self.headers = {"authorization": f"Bearer {_TOKEN}"}

    async def post(self, path: str = "/predict", **options: Any) -> httpx.Response:
        return await self.client.post(path, headers={**self.headers, **options.pop("headers", {})}, **options)

    async def counts(self) -> dict[str, float]:
        """Samples by name, with the status behind it where there is one."""
        text = (await self.client.get("/metrics", headers=self.headers)).text
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {
            f"{sample.name}{sample.labels.get('status', sample.labels.get('le', ''))}": sample.value
            for sample in samples
        }


@pytest.fixture(scope="module")
def served(trained: Path) -> Served:
    return Served(
        open_trained(str(trained / "runs" / "shapes")), "cpu", 1, max_batch=8, max_pixels=90_000, workdir=str(trained)
    )


@pytest.fixture(scope="module")
def predictor(served: Served) -> Iterator[Any]:
    made = Predictor(served)

    class Here:
        predict = staticmethod(made.predict)

        async def ready(self) -> bool:
            return True

    yield Here()
    made.close()


def test_answers_are_those_of_the_network_alone(trained: Path, served: Served, predictor: Any) -> None:
    files = sorted((trained / "photos").rglob("*.*"))[::9]
    keys, run = Keys([str(file) for file in files]), served.trained
    split, arrays = run.split(keys, Files("/", keys)), run.arrays()
    samples = [run.sample(arrays, split, row) for row in range(len(files))]
    logits = Network(run, torch.device("cpu")).rows_of(samples)["logits"]
    expected = answers(logits, 2)

    async def ask() -> tuple[list[httpx.Response], dict[str, float]]:
        front = _Front(predictor)
        asked = [
            front.post("/predict?top=2", content=file.read_bytes())
            if place % 2
            else front.post("/predict?top=2", files={"image": (file.name, file.read_bytes())})
            for place, file in enumerate(files)
        ]
        return list(await asyncio.gather(*asked)), await front.counts()

    found, counts = asyncio.run(ask())
    assert len(files) > 10
    for row, response in enumerate(found):
        body = response.json()
        assert response.status_code == 200
        assert [entry["class"] for entry in body["top"]] == [run.classes[place] for place in expected.classes[row]]
        assert [entry["probability"] for entry in body["top"]] == pytest.approx(expected.top[row].tolist(), abs=1e-6)
        assert {key: body[key] for key in ("class", "probability")} == body["top"][0]
        assert body["model"] == run.provenance
    assert counts["raycls_serve_requests_total200"] == counts["raycls_serve_batch_size_sum"] == len(files)
    assert counts["raycls_serve_batch_size_count"] < len(files)  # some were computed together


def _encoded(height: int, width: int, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.full((height, width, 3), 90, np.uint8)).save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "error", "found"),
    [
        (b"a text, and no image at all", "not an image", "this is text"),
        (b"", "not an image", "an empty file"),
        (_encoded(400, 400), "larger than allowed", "400 x 400"),
        (_encoded(40, 40, "JPEG")[:-60], "damaged", "ends too early"),
    ],
)
def test_what_is_no_image_is_its_own_4xx(predictor: Any, data: bytes, error: str, found: str) -> None:
    async def ask() -> list[httpx.Response]:
        front, good = _Front(predictor), _encoded(30, 40)
        return list(await asyncio.gather(*(front.post(content=one) for one in (good, data, good, good))))

    responses = asyncio.run(ask())
    assert [response.status_code for response in responses] == [200, 422, 200, 200]
    refused = responses[1].json()
    assert error in refused["error"] and found in refused["found"] and refused["valid"]
    # another size of batch, another order of the sums
    assert responses[0].json()["probability"] == pytest.approx(responses[2].json()["probability"], abs=1e-6)


@pytest.mark.parametrize("header", [None, "", "Bearer", f"Basic {_TOKEN}", f"Bearer {_TOKEN}x", "Bearer ä"])
def test_without_the_token_nothing_is_answered(header: str | None) -> None:
    async def ask() -> None:
        backend = _Said()
        front = _Front(backend)
        headers = {} if header is None else {"authorization": header.encode("latin-1")}
        for method, path in (("POST", "/predict"), ("GET", "/metrics")):
            response = await front.client.request(method, path, headers=headers, content=b"x")
            assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
        assert backend.given == []
        assert (await front.client.get("/healthz")).status_code == 200  # open: a balancer has no token
        assert (await front.counts())["raycls_serve_requests_total401"] == 1

    asyncio.run(ask())


def test_without_a_token_everybody_may_ask() -> None:
    async def ask() -> None:
        front = _Front(_Said(Answer(200, {"class": "a"})), token=None)
        assert (await front.client.post("/predict", content=b"x")).json() == {"class": "a"}

    asyncio.run(ask())


async def _chunks(count: int, size: int, sent: list[int]) -> AsyncIterator[bytes]:
    for _ in range(count):
        sent.append(size)
        yield b"x" * size


def test_a_body_above_the_limit_is_refused_by_its_header_and_while_it_is_read() -> None:
    async def ask() -> None:
        backend, sent = _Said(Answer(200, {})), []
        front = _Front(backend)
        told = await front.post(content=_chunks(3, 10_000, sent), headers={"content-length": "20001"})
        assert (told.status_code, sent) == (413, [])  # not a byte was read
        assert told.json()["found"] == "20,001 bytes" and told.json()["valid"] == "at most 20,000 bytes"
        untold = await front.post(content=_chunks(100, 1_000, sent))
        assert (untold.status_code, len(sent)) == (413, 21)
        form = await front.post(files={"image": ("x", b"x" * 20_001)})
        assert form.status_code == 413 and form.json()["found"] == "20,001 bytes"
        assert backend.given == []
        whole = await front.post(content=_chunks(20, 1_000, sent))
        assert (whole.status_code, len(backend.given[0][0])) == (200, 20_000)

    asyncio.run(ask())


def test_no_more_is_held_than_allowed_and_it_is_let_go() -> None:
    async def ask() -> None:
        backend = _Said(*[Answer(200, {})] * 7)
        backend.go.clear()
        front = _Front(backend)
        held = [asyncio.create_task(front.post(content=b"x" * 20_000)) for _ in range(3)]
        while len(backend.given) < 3:
            await asyncio.sleep(0)
        more = await front.post(content=b"y")
        assert (more.status_code, more.headers["retry-after"]) == (503, "1")
        backend.go.set()
        assert {(await task).status_code for task in held} == {200}
        again = [await front.post(content=b"x" * 20_000) for _ in range(4)]  # more than is held, one after another
        assert {response.status_code for response in again} == {200}
        assert (await front.counts())["raycls_serve_in_flight"] == 0

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({"files": {"picture": ("x", b"x")}}, "a form with the fields: picture"),
        ({"data": {"image": "text"}, "files": {"other": ("x", b"x")}}, "a form that cannot be read"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, "a form without a boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=y"}}, "a form"),
    ],
)
def test_a_form_without_the_image_is_400(options: dict[str, Any], found: str) -> None:
    async def ask() -> None:
        response = await _Front(_Said()).post(**options)
        assert response.status_code == 400
        assert response.json()["found"].startswith(found) and "field 'image'" in response.json()["valid"]

    asyncio.run(ask())


def test_top_is_a_number_of_classes() -> None:
    async def ask() -> None:
        backend = _Said(Answer(200, {}), Answer(200, {}))
        front = _Front(backend)
        for text in ("0", "-1", "many", "1.5", "", "²"):
            assert (await front.post("/predict", params={"top": text}, content=b"x")).status_code == 400, text
        for query, found in (("tpo=3", "tpo"), ("top=3&a=1", "a"), ("top=3&top=4", "top more than once")):
            response = await front.post(f"/predict?{query}", content=b"x")
            assert (response.status_code, response.json()["found"]) == (400, found)
        await front.post("/predict?top=3", content=b"x")
        await front.post("/predict", content=b"x")
        assert backend.given == [(b"x", 3), (b"x", 5)]

    asyncio.run(ask())


def test_a_backend_that_fails_is_5xx_and_its_owner_is_told_once() -> None:
    async def ask() -> None:
        fault = RuntimeError("secrets of the house\nand more")
        front = _Front(_Said(fault, fault, UnavailableError(), Answer(200, {"class": "a"})))
        found = [await front.post(content=b"x") for _ in range(4)]
        assert [response.status_code for response in found] == [500, 500, 503, 200]
        assert found[0].json() == {"error": "the server failed"}
        assert front.said == ["error: RuntimeError: secrets of the house"]

    asyncio.run(ask())


def test_what_takes_too_long_is_504() -> None:
    async def ask() -> None:
        backend = _Said()
        backend.go.clear()
        front = _Front(backend, limits=Limits(20_000, 60_000, seconds=0.05))
        assert (await front.post(content=b"x")).status_code == 504
        assert (await front.counts())["raycls_serve_in_flight"] == 0

    asyncio.run(ask())


def test_it_is_healthy_when_the_weights_are_there_and_other_ways_are_refused() -> None:
    async def ask() -> None:
        backend = _Said(ready=False)
        front = _Front(backend)
        assert (await front.client.get("/healthz")).status_code == 503
        backend.is_ready = True
        assert (await front.client.get("/healthz")).json() == {"ready": True}
        assert (await front.client.get("/predict", headers=front.headers)).status_code == 405
        assert (await front.post("/other", content=b"x")).status_code == 404

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("method", "path", "status", "allowed", "body"),
    [
        (
            "GET",
            "/prediction",
            404,
            None,
            {
                "error": "there is no such path",
                "found": "/prediction",
                "valid": "POST /predict, GET /healthz, GET /metrics",
            },
        ),
        ("GET", "/predict", 405, {"POST"}, {"error": "/predict takes no GET", "valid": "POST /predict"}),
        ("DELETE", "/healthz", 405, {"GET", "HEAD"}, {"error": "/healthz takes no DELETE", "valid": "GET /healthz"}),
        ("POST", "/metrics", 405, {"GET", "HEAD"}, {"error": "/metrics takes no POST", "valid": "GET /metrics"}),
    ],
)
def test_what_has_no_route_is_told_as_json(
    method: str, path: str, status: int, allowed: set[str] | None, body: dict[str, str]
) -> None:
    async def ask() -> httpx.Response:
        return await _Front(_Said()).client.request(method, path)

    answer = asyncio.run(ask())
    assert (answer.status_code, answer.json()) == (status, body)
    assert answer.headers["content-type"] == "application/json"
    allow = answer.headers.get("allow")
    assert (None if allow is None else set(allow.split(", "))) == allowed
