"""The HTTP front: `POST /predict`, `/healthz` and `/metrics`. It knows neither Ray nor the network behind it."""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Callable
from typing import Any, Protocol

from starlette.applications import Starlette
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from raycls.errors import kind_and_line
from raycls.serve.answer import Answer, refused
from raycls.serve.intake import Intake, Limits, RefusedError
from raycls.serve.metrics import CONTENT_TYPE_LATEST, Metrics

__all__ = ["Backend", "UnavailableError", "make_app"]

_TOP = 5
_ROUTES = {"/predict": "POST", "/healthz": "GET", "/metrics": "GET"}


class UnavailableError(Exception):
    """No replica can answer now."""


class Backend(Protocol):
    """Who answers."""

    async def predict(self, data: bytes, top: int) -> Answer:
        """The answer to an encoded image; UnavailableError where nobody can give one now."""
        ...

    async def ready(self) -> bool:
        """Whether somebody has the weights."""
        ...


def make_app(
    backend: Backend, *, token: str | None, limits: Limits, metrics: Metrics, say: Callable[[str], None]
) -> ASGIApp:
    """The application. `token` is what `Authorization: Bearer` has to give, None where everybody may ask; `say` is told
    of errors of the server."""
    front = _Front(backend, token, limits, metrics, say)
    routes = [Route(path, getattr(front, path[1:]), methods=[method]) for path, method in _ROUTES.items()]
    return _Measured(Starlette(routes=routes, exception_handlers={HTTPException: _unrouted}), metrics)


class _Front:
    def __init__(
        self, backend: Backend, token: str | None, limits: Limits, metrics: Metrics, say: Callable[[str], None]
    ) -> None:
        self._backend, self._limits, self._metrics, self._say = backend, limits, metrics, say
        self._token = None if token is None else token.encode()
        self._intake = Intake(limits)
        self._told: set[str] = set()

    async def predict(self, request: Request) -> Response:
        try:
            self._admit(request)
            async with asyncio.timeout(self._limits.seconds):
                answer = await self._answer(request)
        except RefusedError as refusal:
            answer = refusal.answer
        except TimeoutError:
            answer = refused(504, "there was no answer in time", valid=f"{self._limits.seconds:g} s")
        except UnavailableError:
            answer = refused(503, "no replica can answer now", headers={"retry-after": "1"})
        except ClientDisconnect:
            answer = refused(499, "the client went away")
        except Exception as error:  # noqa: BLE001 - whatever it is, the server lives and its owner is told
            answer = refused(500, "the server failed")
            self._tell(kind_and_line(error))
        return _json(answer)

    async def healthz(self, request: Request) -> Response:
        ready = await self._backend.ready()
        return _json(Answer(200, {"ready": True}) if ready else Answer(503, {"ready": False}))

    async def metrics(self, request: Request) -> Response:
        try:
            self._admit(request)
        except RefusedError as refusal:
            return _json(refusal.answer)
        return Response(self._metrics.text(), media_type=CONTENT_TYPE_LATEST)

    def _admit(self, request: Request) -> None:
        if self._token is None:
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("latin-1"), self._token):
            headers = {"www-authenticate": "Bearer"}
            raise RefusedError(refused(401, "the token is missing or wrong", headers=headers))

    async def _answer(self, request: Request) -> Answer:
        top = _top(request.query_params)
        data = await self._intake.image(request)
        try:
            answer = await self._backend.predict(data, top)
        finally:
            self._intake.release(data)
        if answer.batch:
            self._metrics.batches.observe(answer.batch)
        return answer

    def _tell(self, line: str) -> None:
        if line not in self._told and len(self._told) < 100:  # each kind once, not once per request
            self._told.add(line)
            self._say(f"error: {line}")


class _Measured:
    """Counts what is asked of /predict, whatever becomes of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self._app(scope, receive, send)
            return
        began, status = time.perf_counter(), "500"

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        with self._metrics.in_flight.track_inprogress():
            try:
                await self._app(scope, receive, sent)
            finally:
                self._metrics.requests.labels(status).inc()
                self._metrics.seconds.observe(time.perf_counter() - began)


async def _unrouted(request: Request, error: Any) -> Response:
    """For a path that is none, or a method that it does not take: an HTTPException."""
    path, method = request.url.path, _ROUTES.get(request.url.path)
    what = f"{path[:200]} takes no {request.method[:20]}" if method else "there is no such path"
    valid = f"{method} {path}" if method else ", ".join(f"{each} {name}" for name, each in _ROUTES.items())
    headers = dict(error.headers or {})
    return _json(refused(error.status_code, what, headers=headers, found=None if method else path[:200], valid=valid))


def _top(given: QueryParams) -> int:
    others = given.keys() - {"top"}
    if others or len(given.multi_items()) > 1:
        found = sorted(others)[0][:40] if others else "top more than once"
        raise RefusedError(refused(400, "there is no such parameter", found=found, valid="top, once"))
    text = given.get("top")
    if text is None:
        return _TOP
    if not (text.isascii() and text.isdecimal() and int(text[:9]) > 0):
        raise RefusedError(refused(400, "top is no number of classes", found=text[:40], valid="an integer from 1"))
    return int(text[:9])


def _json(answer: Answer) -> Response:
    body: Any = answer.body
    return JSONResponse(body, status_code=answer.status, headers=answer.headers)
