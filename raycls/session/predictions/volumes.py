"""Volumes that are to be predicted: NIfTI files and series of DICOM files, as one list with one reader."""

from __future__ import annotations

import glob
import os
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from raycls.config.paths import expand
from raycls.config.sections.data import DataConfig
from raycls.data.samples import Files, Keys
from raycls.data.source import open_pool
from raycls.data.sources.listing.manifest import SUFFIXES as MANIFESTS
from raycls.data.sources.listing.unlabelled import listed_paths
from raycls.data.sources.volumes.dicom import series_of
from raycls.data.sources.volumes.walk import Walk, local
from raycls.data.volumes.nifti import SUFFIXES, directions_of
from raycls.data.volumes.readers import Volumes
from raycls.errors import ConfigError, DataError
from raycls.quantities import plural
from raycls.session.predictions.inputs import Inputs
from raycls.session.scoring.other import source_of

__all__ = ["Given", "list_volumes"]

_VALID = f"a volume ({' '.join(SUFFIXES)}), a folder of them or of DICOM files, a glob in quotes, a manifest " + (
    f"({' '.join(MANIFESTS)}), or a config file (.yaml) with data.source"
)
Kind = Literal["dicom", "nifti"]


@dataclass(frozen=True)
class Given:
    """The reader of volumes of which some may have no header that can be read."""

    volumes: Volumes
    wrong: dict[int, DataError]
    """Why one cannot be read, by its position."""

    decodes = True

    @property
    def kind(self) -> Kind:
        return self.volumes.kind

    @property
    def directions(self) -> np.ndarray:
        return self.volumes.directions

    @property
    def files(self) -> Files:
        return self.volumes.files

    def read(self, index: int) -> np.ndarray:
        if index in self.wrong:
            raise self.wrong[index]
        return self.volumes.read(index)

    def spacing(self, index: int) -> tuple[float, ...]:
        if index in self.wrong:
            raise self.wrong[index]
        return self.volumes.spacing(index)

    def paths(self, index: int) -> list[str]:
        return self.volumes.paths(index)

    def locate(self, index: int) -> str:
        return self.volumes.locate(index)

    def sizes(self) -> np.ndarray:
        return self.volumes.sizes()


def list_volumes(given: Sequence[str], say: Callable[[str], None]) -> Inputs:
    """The volumes that the words `given` name, each once, in the order of the words, those of a folder by their paths.

    A word is a NIfTI file, a folder (searched to any depth for NIfTI files, and where it has none for series of DICOM
    files), a glob, a manifest of such files and folders, or a config with `data.source`. A file that is no volume is
    told when it is predicted. ConfigError for a word that names nothing, DataError where the words name both formats.
    """
    found = _Found(say)
    for word in given:
        found.add(word)
    return found.inputs(given)


@dataclass
class _Found:
    say: Callable[[str], None]
    keys: list[str] = field(default_factory=list[str])
    paths: list[tuple[str, ...]] = field(default_factory=list[tuple[str, ...]])
    """Absolute ones of each volume."""
    directions: list[np.ndarray] = field(default_factory=list[np.ndarray])
    wrong: dict[int, DataError] = field(default_factory=dict[int, DataError])
    kinds: set[Kind] = field(default_factory=set[Kind])
    seen: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])

    def add(self, word: str) -> None:
        path = expand(local(word.removeprefix("file://")), where="INPUT")
        suffix = os.path.splitext(path)[1].lower()
        if os.path.isfile(path) and suffix in MANIFESTS:
            for written, place in listed_paths(path):
                self._at(written, local(place))
        elif os.path.isfile(path) and suffix in (".yaml", ".yml"):
            self._add_source(path)
        elif os.path.exists(path):
            self._at(path, path)
        elif places := sorted(glob.iglob(path, recursive=True)):
            for place in places:
                self._at(place, place)
        else:
            raise ConfigError("an input is not there", where=f"INPUT {word}", found="nothing there", valid=_VALID)

    def inputs(self, given: Sequence[str]) -> Inputs:
        if not self.keys:
            raise DataError("there is no volume to predict", where=", ".join(given), found="no file", valid=_VALID)
        if len(self.kinds) > 1:
            raise DataError(
                "some of the volumes are NIfTI files and others DICOM series",
                where=", ".join(given),
                fix="predict them by two commands",
            )
        volumes = Volumes.of(
            self.kinds.pop(), "/", [[each[1:] for each in paths] for paths in self.paths], np.stack(self.directions)
        )
        return Inputs(Keys(self.keys), Given(volumes, self.wrong))

    def _at(self, name: str, place: str) -> None:
        """What a file or folder has, called `name` or by its path below it."""
        place = os.path.abspath(place)
        if not os.path.isdir(place):
            self._add_nifti(name, place)
            return
        root, folder = os.path.split(place)
        files = Walk(root, (), None).files(folder)
        volumes = [file for file in files if file.lower().endswith(SUFFIXES)]
        for file in volumes:
            self._add_nifti(name.rstrip("/") + file[len(folder) :], os.path.join(root, file))
        if volumes and len(volumes) < len(files):
            self.say(f"left out of {name}: {plural(len(files) - len(volumes), 'file')} that are not NIfTI")
        if not volumes:
            self._add_series(name, root, folder, files)

    def _add_nifti(self, name: str, place: str) -> None:
        try:
            directions = directions_of(place)
        except DataError as error:
            self.wrong[len(self.keys)] = error
            directions = np.eye(3)
        self._take("nifti", name, (place,), directions)

    def _add_series(self, name: str, root: str, folder: str, files: Sequence[str]) -> None:
        samples, notes = series_of(root, files)
        for note in notes:
            self.say(note)
        below = [os.path.commonpath(list(map(os.path.dirname, each.paths))) for each in samples]
        many = Counter(below)
        for sample, place in zip(samples, below, strict=True):
            shown = name.rstrip("/") + place[len(folder) :]
            key = shown if many[place] == 1 else f"{shown}/{sample.key}"
            self._take("dicom", key, tuple(os.path.join(root, each) for each in sample.paths), sample.directions)

    def _add_source(self, path: str) -> None:
        pool = open_pool(DataConfig(source=source_of(path)), least_classes=1)
        reader: Any = pool.reader
        if not isinstance(reader, Volumes):
            raise DataError(
                "a source gives no volumes", where=path, found=type(reader).__name__, valid="dicom, nifti, masks"
            )
        for note in pool.notes:
            self.say(note)
        for index, key in enumerate(pool.keys):
            self._take(reader.kind, key, tuple(map(os.path.abspath, reader.paths(index))), reader.directions[index])

    def _take(self, kind: Kind, name: str, paths: tuple[str, ...], directions: np.ndarray) -> None:
        if paths in self.seen:
            return
        self.seen.add(paths)
        self.kinds.add(kind)
        self.keys.append(name)
        self.paths.append(paths)
        self.directions.append(directions)
