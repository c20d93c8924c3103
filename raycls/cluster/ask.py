"""Questions to nodes, each answered by a process there within a deadline: a frozen node is a fact, not a wait."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from raycls.errors import one_line

__all__ = ["Unanswered", "ask"]

_FETCHING = 10.0
"""Seconds in which an answer that is there has to arrive."""


@dataclass(frozen=True)
class Unanswered:
    """Takes the place of a node's answer."""

    why: str
    raised: str = ""
    """What the function raised there, in one line; empty where it was no error of its own."""


def ask(questions: Mapping[str, Sequence[Any]], seconds: float, **options: Any) -> dict[str, Any]:
    """What each node answers, by its id: the value of its question, or `Unanswered`.

    A question is a function and its arguments; all are asked at the same time, and what runs after `seconds` is ended.
    `options` are those of a task of Ray. It takes no CPU: a busy node answers too.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    tasks: dict[str, Any] = {}
    done: set[Any] = set()
    try:
        for node, (function, *arguments) in questions.items():
            place: Any = NodeAffinitySchedulingStrategy(node, soft=False)
            remote: Any = ray.remote(num_cpus=0, max_retries=0, scheduling_strategy=place, **options)
            tasks[node] = remote(function).remote(*arguments)
        if tasks:
            done.update(ray.wait(list(tasks.values()), num_returns=len(tasks), timeout=seconds)[0])
    finally:
        for task in tasks.values():
            if task not in done:
                ray.cancel(task, force=True)
    late = Unanswered(f"does not answer within {seconds:g} s")
    return {node: _answer(task) if task in done else late for node, task in tasks.items()}


def _answer(task: Any) -> Any:
    import ray
    from ray.exceptions import RayError, RayTaskError

    try:
        return ray.get(task, timeout=_FETCHING)
    except RayTaskError as error:
        cause = error.cause or error
        return Unanswered(f"failed: {type(cause).__name__}: {one_line(cause)}", one_line(cause))
    except RayError as error:
        return Unanswered(f"was lost, or its process was: {type(error).__name__}")
