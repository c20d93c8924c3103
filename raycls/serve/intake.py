"""From a request to the bytes of its image: never more than the limits, whatever a client says or sends."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from raycls.serve.answer import Answer, refused

__all__ = ["FIELD", "Intake", "Limits", "RefusedError"]

FIELD = "image"
"""The field of a form that holds the image."""

_FORM_BYTES = 4096
"""What a form may add to its image: boundaries and headers."""


class RefusedError(Exception):
    """The request is answered with `answer`, and nothing is computed."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body["error"])
        self.answer = answer


@dataclass(frozen=True)
class Limits:
    """What a client may ask for."""

    max_bytes: int
    """Of one image file."""
    held_bytes: int
    """Of all images that are being answered: what the memory of this process holds at most."""
    seconds: float
    """From the headers of a request to its answer."""


class Intake:
    """Reads images from requests, and counts the bytes that are held."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.held = 0

    async def image(self, request: Request) -> bytes:
        """The bytes of the image in `request`: its body, or the field `image` of a form. RefusedError where there is
        none, or where it is too large: told from the header before a byte is read, and again while reading.

        Whoever calls it calls `release` with the bytes, once the request is answered.
        """
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        form = kind == b"multipart/form-data"
        most = self._limits.max_bytes + (_FORM_BYTES if form else 0)
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > most:
            raise self._too_large(f"{int(length):,} bytes")
        if form and b"boundary" not in options:
            raise _no_image("a form without a boundary")
        body = bytearray()
        try:
            async for chunk in request.stream():
                self.held += len(chunk)
                body += chunk
                if len(body) > most:
                    raise self._too_large(f"more than {most:,} bytes")
                if self.held > self._limits.held_bytes:
                    raise RefusedError(busy())
            data = await self._field(request, bytes(body)) if form else bytes(body)
        except BaseException:
            self.held -= len(body)
            raise
        self.held += len(data) - len(body)
        return data

    def release(self, data: bytes) -> None:
        """`data` is no longer held."""
        self.held -= len(data)

    async def _field(self, request: Request, body: bytes) -> bytes:
        async def stream() -> AsyncGenerator[bytes, None]:
            yield body

        parser = MultiPartParser(request.headers, stream(), max_files=1, max_fields=0)
        parser.spool_max_size = len(body) + 1  # it is in memory already
        try:
            form = await parser.parse()
        except MultiPartException as error:
            raise _no_image(f"a form that cannot be read: {error.message}") from error
        try:
            file = form.get(FIELD)
            if not isinstance(file, UploadFile):
                raise _no_image(f"a form with the fields: {', '.join(form) or 'none'}")
            data = await file.read()
        finally:
            await form.close()
        if len(data) > self._limits.max_bytes:
            raise self._too_large(f"{len(data):,} bytes")
        return data

    def _too_large(self, found: str) -> RefusedError:
        valid = f"at most {self._limits.max_bytes:,} bytes"
        return RefusedError(refused(413, "the image file is larger than allowed", found=found, valid=valid))


def busy() -> Answer:
    """The answer where too much is being answered already."""
    return refused(503, "the server has as many images as it may hold", headers={"retry-after": "1"})


def _no_image(found: str) -> RefusedError:
    valid = f"an image file as the body, or one in the field {FIELD!r} of a multipart form"
    return RefusedError(refused(400, "the request has no image", found=found, valid=valid))
