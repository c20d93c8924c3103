"""Names as they read: what a split may be called, which class names are one, and the order of the classes."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from raycls.errors import DataError

__all__ = ["SPLIT_WORDS", "arrange", "in_order", "integers", "same_form", "shared_splits", "split_of", "words_of"]

SPLIT_WORDS: Mapping[str, tuple[str, ...]] = {
    "train": ("train", "training", "trn"),
    "val": ("val", "valid", "validation", "validate", "dev", "devel", "development", "eval", "evaluation", "evaluate"),
    "test": ("test", "testing", "tst", "holdout"),
}
"""What data sets call their splits. Case does not count, nor do the words of `_AFFIXES` around them."""

_AFFIXES = frozenset(
    ("set", "sets", "data", "dataset", "datasets", "split", "subset", "part", "folder", "dir", "file", "files", "image")
)
_AFFIXES |= {"images", "img", "imgs", "photo", "photos", "picture", "pictures", "pics", "sample", "samples"}
_SPLIT_OF = {word: split for split, words in SPLIT_WORDS.items() for word in words}
_GLUED = re.compile("(.+?)(dataset|data|set|split|images|imgs|files)")
_INTEGER = re.compile("[+-]?[0-9]{1,300}")
_INTEGRAL = re.compile(r"([+-]?[0-9]{1,300})(?:\.0*)?")


def split_of(name: str) -> str | None:
    """The split that a name stands for: `Training`, `test_set`, `valImages`, `hold-out`; None where it is none."""
    for words in (words_of(name), words_of(name, camel=False)):
        if (split := _split_of_words(words)) is not None:
            return split
    return None


def shared_splits(names: Sequence[str]) -> dict[str, str] | None:
    """The split of each name, where what all of them share is left out (`seg_train`, `seg_test`) and so are numbers
    (`train2017`, `val2017`). None where one of them stands for none; for folders that are known to be splits."""
    lists = [[word for word in words_of(name) if not word.isdigit()] for name in names]
    for side in (0, -1):
        while all(len(words) > 1 for words in lists) and len({words[side] for words in lists}) == 1:
            for words in lists:
                del words[side]
    found = {name: _split_of_words(words) for name, words in zip(names, lists, strict=True)}
    known = {name: split for name, split in found.items() if split is not None}
    return known if len(known) == len(names) else None


def words_of(name: str, *, camel: bool = True) -> list[str]:
    """The words of a name in small letters, as marks, digits and (`camel`) capitals divide it."""
    pattern = r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_]+|\d+" if camel else r"[^\W\d_]+|\d+"
    return [word.casefold() for word in re.findall(pattern, unicodedata.normalize("NFC", name))]


def _split_of_words(words: Sequence[str]) -> str | None:
    kept = [word for word in words if word not in _AFFIXES]
    if not kept:
        return None
    joined = "".join(kept)  # hold-out
    glued = _GLUED.fullmatch(joined)
    return _SPLIT_OF.get(joined) or (_SPLIT_OF.get(glued[1]) if glued else None)


def same_form(name: str) -> str:
    """A class name in the one form in which texts that read the same are equal: NFC, without spaces around it."""
    return unicodedata.normalize("NFC", name).strip()


def integers(labels: Sequence[str]) -> dict[str, str]:
    """Each label's new name, where all labels are integers and some are written as floats: `3.0` is `3`.

    A program that held a column with gaps as floats writes them so. Empty where the labels stay as they are.
    """
    found = {label: _INTEGRAL.fullmatch(label) for label in labels}
    if all(found.values()) and any("." in label for label in found):
        return {label: match[1] for label, match in found.items() if match is not None}
    return {}


def in_order(names: Iterable[str]) -> list[str]:
    """Names sorted: by value and then as text where all are integers, else as texts (by code point)."""
    names = list(names)
    if all(_INTEGER.fullmatch(name) for name in names):
        by_value: Callable[[str], tuple[int, str]] = lambda name: (int(name), name)  # noqa: E731 - typed for sorted
        return sorted(names, key=by_value)
    return sorted(names)


def arrange(
    names: Sequence[str], labels: np.ndarray, *, ordered: bool
) -> tuple[tuple[str, ...], np.ndarray, tuple[str, ...]]:
    """The classes in their order, the labels `[N] int64` that follow it, and lines that say which names became one.

    `labels` are positions in `names`. The order is that of `names` where it is declared (`ordered`), else that of
    `in_order`. DataError where a declared order holds a name twice.
    """
    spellings: dict[str, list[str]] = {}
    for name in names:
        spellings.setdefault(same_form(name), []).append(name)
    merged = {name: given for name, given in spellings.items() if len(given) > 1}
    if ordered and merged:
        name, given = next(iter(merged.items()))
        raise DataError(
            "the data declares the order of its classes, and two of them read the same",
            found=f"{name}, written {' and '.join(map(ascii, given[:4]))}",
            valid="one position for each class",
        )
    classes = tuple(spellings) if ordered else tuple(in_order(spellings))
    position = {name: index for index, name in enumerate(classes)}
    moved = np.array([position[same_form(name)] for name in names], dtype=np.int64)
    notes = tuple(
        f"data: {name} is one class, written {' and '.join(map(ascii, given[:4]))}" for name, given in merged.items()
    )
    return classes, moved[labels], notes
