"""Did you mean: the known word nearest to a misspelt one."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["suggest"]


def suggest(word: str, choices: Iterable[str]) -> str | None:
    """The one of `choices` that `word` most likely meant, or None where none is near.

    Case and the difference between `-`, `_` and a space do not count. A beginning that only one of the
    choices has is near too (`cos` for `cosine`, where there is no `cosine_restarts`).
    """
    plain: dict[str, str] = {}
    for choice in choices:
        plain.setdefault(_plain(choice), choice)
    wanted = _plain(word)
    if wanted in plain:
        return plain[wanted]
    near = get_close_matches(wanted, plain, n=1, cutoff=0.6)
    if near:
        return plain[near[0]]
    longer = [choice for choice in plain if len(wanted) >= 2 and choice.startswith(wanted)]
    return plain[longer[0]] if len(longer) == 1 else None


def _plain(word: str) -> str:
    return word.lower().replace("-", "_").replace(" ", "_")
