"""The network in this process: the backend without Ray."""

from __future__ import annotations

from types import TracebackType
from typing import Self

import torch

from raycls.errors import LaunchError
from raycls.serve.answer import Answer
from raycls.serve.predictor import Predictor, Served

__all__ = ["Local"]


class Local:
    """One predictor. A context manager."""

    def __init__(self, served: Served) -> None:
        self._predictor = Predictor(served)

    @staticmethod
    def device(wanted: str) -> str:
        """`cpu` or `cuda`, for `auto` too; LaunchError where there is none."""
        there = torch.cuda.is_available()
        if wanted == "cuda" and not there:
            raise LaunchError("there is no GPU that torch can use", where="--device cuda", fix="--device cpu")
        return "cuda" if wanted != "cpu" and there else "cpu"

    async def predict(self, data: bytes, top: int) -> Answer:
        return await self._predictor.predict(data, top)

    async def ready(self) -> bool:
        return True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._predictor.close()
