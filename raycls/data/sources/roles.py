"""What each array of an `.npz` is, by its name: images or labels, and of which split."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from raycls.data.names import split_of, words_of

__all__ = ["CLASSES", "Role", "role_of", "roles_of"]

CLASSES = frozenset(("classes", "class_names", "classnames", "label_names", "target_names"))
"""Names of the array that lists the classes, in small letters."""
_KINDS = {
    **dict.fromkeys(("images", "image", "imgs", "img", "x", "data", "pixels", "inputs"), "images"),
    **dict.fromkeys(("labels", "label", "y", "targets", "target"), "labels"),
}


class Role(NamedTuple):
    """What an array holds."""

    kind: str
    """`images` or `labels`."""
    split: str | None
    """`train`, `val`, `test`, or None where the name says nothing."""


def role_of(name: str) -> Role | None:
    """The role that the name of an array stands for: `valid_images`, `images_valid`, `x_train`, `yTest`, `labels`."""
    for words in (words_of(name), words_of(name, camel=False), _glued(name)):
        for position in (0, len(words) - 1):
            kind = _KINDS.get(words[position]) if words else None
            if kind is None:
                continue
            rest = "_".join(words[:position] + words[position + 1 :])
            split = split_of(rest) if rest else None
            if split is not None or not rest:
                return Role(kind, split)
    return None


def roles_of(names: Iterable[str]) -> dict[Role, list[str]]:
    """The names of the arrays of each role; more than one where their meaning is not plain."""
    found: dict[Role, list[str]] = {}
    for name in names:
        if (role := role_of(name)) is not None:
            found.setdefault(role, []).append(name)
    return found


def _glued(name: str) -> list[str]:
    """`xtrain` and `Ytest` as two words."""
    word = name.casefold()
    return [word[0], word[1:]] if word[:1] in ("x", "y") and len(word) > 1 else []
