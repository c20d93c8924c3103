"""Which folders of a data set are splits, and which are classes: by their names, and by what they hold.

Folders that hold the same sub-folders and no images of their own look like splits whatever they are called; where
their names do not say which, the user does. Nothing is guessed: splits taken for classes train without a word.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol
from unicodedata import normalize

from raycls.config.write import override
from raycls.data.ignore import leaving_out, pattern_of
from raycls.data.names import shared_splits, split_of
from raycls.errors import DataError
from raycls.quantities import first_names

__all__ = ["NO_SPLITS", "Peek", "split_folders", "told"]

NO_SPLITS = "none"
"""The value of `data.source.args.splits` that says: the folders are classes, whatever they look like."""
_OPTION = "data.source.args.splits"
_SPLITS = "train, val, test"
_SHOWN = 6
_OR_CLASSES = f" or, if they are classes, {_OPTION}={NO_SPLITS}"
_VALID = f"train, val and test, under any usual name (training, dev, holdout ...), or any folders and {_OPTION}"


@dataclass(frozen=True)
class Peek:
    """What a folder holds directly."""

    folders: tuple[str, ...]
    """Names of its sub-folders, sorted."""
    images: bool
    """Whether any image lies in it beside them."""


class Look(Protocol):
    """Tells what the folder at a relative path holds; unless `whole`, its folders as far as the first image."""

    def __call__(self, relative: str, *, whole: bool = False) -> Peek: ...


def split_folders(
    path: str,
    names: Sequence[str],
    look: Look,
    splits: Mapping[str, str] | str | None = None,
    ignored: Sequence[str] = (),
) -> dict[str, str] | None:
    """The split of each folder below `path` that is one, or None where the folders `names` in it are classes.

    `look` tells what the folder at a relative path holds. `splits` is what the user says: a mapping from folders to
    splits, `NO_SPLITS`, or None; `ignored` are the patterns that are left out already. DataError where the folders
    look like splits and their names do not say which.
    """
    if isinstance(splits, str):
        if splits == NO_SPLITS:
            return None
        raise DataError(
            "splits must be a mapping or none", where=_OPTION, found=splits, valid="{FOLDER: train}, or none"
        )
    if splits is not None:
        return _given(path, names, look, splits, ignored)
    found = {name: split for name in names if (split := split_of(name)) is not None}
    top = _Top(path, {name: look(name, whole=name in found) for name in names}, found, look, ignored)
    if len(found) < len(names):
        top.refuse_mixed()
        alike = _alike(top.peeks)
        if not alike:
            top.refuse_repeated()
            top.refuse_wrapper()
            top.refuse_wrappers()
            return None
        shared = shared_splits(names) if len(alike) == len(names) else None
        if shared is None:
            raise top.unknown(alike)
        top = replace(top, found=shared)
    top.refuse_two_of_one()
    top.refuse_no_classes()
    top.refuse_deeper()
    return dict(top.found)


def told(splits: Mapping[str, str] | None) -> tuple[str, ...]:
    """A line that says how folders were taken for splits, where their names are others."""
    if splits is None or all(name == split for name, split in splits.items()):
        return ()
    return (f"data: {', '.join(f'{name} is read as {split}' for name, split in splits.items() if name != split)}",)


def _alike(peeks: Mapping[str, Peek]) -> list[str]:
    """The folders that hold no images and at least one sub-folder of a name that another one of them holds too.

    None of them where they are less than half of all: among many classes, a few may be divided in the same way.
    """
    bare = {
        name: {normalize("NFC", child) for child in peek.folders} for name, peek in peeks.items() if not peek.images
    }
    holders = Counter(child for children in bare.values() for child in children)
    alike = [name for name, children in bare.items() if any(holders[child] > 1 for child in children)]
    return alike if 2 * len(alike) >= len(peeks) else []


def _given(
    path: str, names: Sequence[str], look: Look, splits: Mapping[str, str], ignored: Sequence[str]
) -> dict[str, str]:
    """The folders that the user named; every folder must be one of them, lie in one, or lead to nothing but them."""
    wanted: dict[str, str] = {}
    for name, word in splits.items():
        split = split_of(word) if isinstance(word, str) else None
        if split is None:
            raise DataError("unknown split", where=f"{_OPTION}.{name}", found=str(word), valid=_SPLITS)
        wanted[normalize("NFC", name.strip("/"))] = split
    found: dict[str, str] = {}
    left: list[str] = []
    pending = list(names)
    for relative in pending:  # which grows
        form = normalize("NFC", relative)
        if form in wanted:
            found[relative] = wanted.pop(form)
        elif any(other.startswith(f"{form}/") for other in wanted):
            peek = look(relative, whole=True)
            if peek.images:
                raise DataError(
                    "there are images above the class folders",
                    where=os.path.join(path, relative),
                    valid="folders of classes within each folder that is a split",
                    fix="move the images into the folder of their class",
                )
            pending += [f"{relative}/{name}" for name in peek.folders]
        else:
            left.append(relative)
    if wanted or left:
        words = [f"no such folder: {', '.join(wanted)}"] if wanted else []
        words += [f"without a split: {first_names(left)}"] if left else []
        remedy = f", or {leaving_out(left, (), ignored)}" if left else ""
        raise DataError(
            "the given splits do not fit the folders",
            where=path,
            found="; ".join(words),
            valid=f"the folders {first_names(names)}, each with one of {_SPLITS}",
            fix=f"give each folder a split in {_OPTION}{remedy}",
        )
    return found


@dataclass(frozen=True)
class _Top:
    """The folders directly in the data folder, and how they are refused."""

    path: str
    peeks: Mapping[str, Peek]
    found: Mapping[str, str]
    """The splits that their names say."""
    look: Look
    ignored: Sequence[str]

    def refuse_mixed(self) -> None:
        """Split folders beside a folder that holds something else, such as images without labels."""
        whole = {self.found[name] for name in self.found if not self.peeks[name].images}
        if len(whole) < 2 or "train" not in whole:
            return
        others = [name for name in self.peeks if name not in self.found]
        remedy = leaving_out(others, (), self.ignored)
        if len(_alike(self.peeks)) == len(self.peeks):
            remedy += f" or give each a split, such as {override(_OPTION, self._example(self.peeks))}"
        raise DataError(
            "the data folder mixes split folders with other folders",
            where=self.path,
            found=f"{', '.join(self.found)} beside {first_names(others)}",
            valid="either only splits (train, val, test) or only classes",
            fix=f"move the others away, or {remedy}{_OR_CLASSES}",
        )

    def refuse_repeated(self) -> None:
        """Classes beside a folder that holds folders of the same names: `cat`, `dog` and `test/cat`, `test/dog`."""
        names = {normalize("NFC", name) for name in self.peeks}
        for name, peek in self.peeks.items():
            same = {normalize("NFC", child) for child in peek.folders} & (names - {normalize("NFC", name)})
            if peek.images or not same or not (name in self.found or len(same) == len(peek.folders)):
                continue
            raise DataError(
                "a folder holds folders with the same names as those beside it",
                where=self.path,
                found=f"{first_names(sorted(same))} in {name}, and beside it",
                valid="either only splits (train, val, test) or only classes",
                fix=f"move the others into a folder train, or {leaving_out([name], (), self.ignored)}"
                f" or, if {name} is a class, {_OPTION}={NO_SPLITS}",
            )

    def refuse_wrapper(self) -> None:
        """One folder that holds folders only: the data is what it holds."""
        inner, peek = "", self.look("")
        while len(peek.folders) == 1 and not peek.images:
            inner = os.path.join(inner, peek.folders[0])
            peek = self.look(inner)
        if inner and not peek.images and peek.folders:
            raise DataError(
                "the data folder holds a single folder, and the classes are further down",
                where=self.path,
                found=f"{inner}, which holds {first_names(peek.folders)}",
                valid="the folder that holds the class folders, or train/, val/ and test/",
                fix=override("data.source.path", os.path.join(self.path, inner)),
            )

    def refuse_wrappers(self) -> None:
        """Folders that each hold one folder alone, and the same folders within: `seg_train/seg_train/cat`."""
        inner: dict[str, Peek] = {}
        owner: dict[str, str] = {}
        for name, peek in self.peeks.items():
            at = name
            while len(peek.folders) == 1 and not peek.images:
                at = f"{at}/{peek.folders[0]}"
                peek = self.look(at)
            inner[at], owner[at] = peek, name
        if len(_alike(inner)) == len(self.peeks):
            splits = shared_splits(list(self.peeks)) or self._example(self.peeks)
            raise self._deeper({at: splits[name] for at, name in owner.items()})

    def unknown(self, alike: Sequence[str]) -> DataError:
        """The folders `alike` look like splits, and their names do not say which."""
        others = [name for name in self.peeks if name not in alike]
        peeks = {name: self.peeks[name] for name in alike}
        inside = sorted({name for peek in peeks.values() for name in peek.folders})
        found = f"{first_names(alike)}, which hold {first_names(inside)}"
        if all(split_of(name) for name in inside):
            return DataError(
                "each class folder holds splits of its own",
                where=self.path,
                found=found,
                valid="train/, val/ and test/ with one folder per class each",
                fix="move the images so that the splits are the upper folders, or list them in a manifest with a "
                f"column split, or pool them and have raycls cut the splits with {_OPTION}={NO_SPLITS}",
            )
        if len(peeks) > _SHOWN:
            remedy = f"name each split in {_OPTION}{_OR_CLASSES}"
        else:
            patterns = [*self.ignored, *map(pattern_of, others)]
            leave_out = f" {override('data.source.args.ignore', patterns)}" if others else ""
            remedy = f"say which is which, such as {override(_OPTION, self._example(peeks))}{leave_out}{_OR_CLASSES}"
        return DataError(
            "folders that hold the same subfolders look like splits, but their names do not say which",
            where=self.path,
            found=found,
            valid=_VALID,
            fix=remedy,
        )

    def refuse_two_of_one(self) -> None:
        first: dict[str, str] = {}
        twice = [name for name, split in self.found.items() if first.setdefault(split, name) != name]
        if twice:
            raise DataError(
                "two folders stand for one split",
                where=self.path,
                found=", ".join(f"{name} ({split})" for name, split in self.found.items()),
                valid="one folder for each of train, val and test",
                fix=f"say that they belong together with {override(_OPTION, self.found)} "
                f"or {leaving_out(twice, (), self.ignored)}{_OR_CLASSES}",
            )

    def refuse_no_classes(self) -> None:
        flat = [name for name in self.found if self.peeks[name].images and not self.peeks[name].folders]
        if not flat:
            return
        remedy = f"if these folders are classes, say so with {_OPTION}={NO_SPLITS}"
        if "train" in [self.found[name] for name in self.found if name not in flat]:
            remedy = f"images without a label cannot be used: {leaving_out(flat, (), self.ignored)} or, {remedy}"
        raise DataError(
            "a split folder holds no class folders",
            where=os.path.join(self.path, flat[0]),
            found=f"images directly in {first_names(flat)}",
            valid="a class folder",
            fix=remedy,
        )

    def refuse_deeper(self) -> None:
        """Split folders that hold one more level of split folders: `train/train/cat`, or `training_data/test/cat`."""
        inner = {f"{name}/{child}": child for name, peek in self.peeks.items() for child in peek.folders}
        named = {at: split for at, child in inner.items() if (split := split_of(child)) is not None}
        alone = len(self.found) > 1 and all(len(peek.folders) == 1 for peek in self.peeks.values())
        if not inner or not (alone or len(named) == len(inner)):
            return
        deeper = [self.look(at) for at in inner]
        if all(peek.folders and not peek.images for peek in deeper):
            raise self._deeper({at: self.found[at.split("/")[0]] for at in inner} if len(self.found) > 1 else named)

    def _deeper(self, splits: Mapping[str, str]) -> DataError:
        return DataError(
            "the split folders hold one more level of folders above the classes",
            where=self.path,
            found=first_names(list(splits)),
            valid="one folder per class directly in each split",
            fix=f"name the folders that hold the classes: {override(_OPTION, splits)}{_OR_CLASSES}",
        )

    def _example(self, peeks: Mapping[str, Peek]) -> dict[str, str]:
        """A split for each folder: what its name says, else train for the largest and what is left for the others."""
        example = {name: self.found[name] for name in peeks if name in self.found}
        free = [split for split in ("train", "test", "val") if split not in example.values()]
        for name in sorted(peeks, key=lambda name: -len(peeks[name].folders)):
            if name not in example:
                example[name] = free.pop(0) if free else "train"
        return {name: example[name] for name in peeks}
