"""A model repository of Triton: each export is one more version, which appears when it is complete.

REPOSITORY/NAME/config.pbtxt    labels.txt    1/model.onnx    1/model.onnx.json    2/...
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from raycls.errors import ConfigError
from raycls.export.triton.config import LABELS, MODEL, Serving, config_text, contract

__all__ = ["CONFIG", "add", "model_folder"]

CONFIG = "config.pbtxt"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
_INCOMING = ".incoming-"
"""How the name of a folder begins that is not complete."""


def model_folder(repository: str, wanted: str | None, run: str) -> Path:
    """Where the model is in the local folder `repository`: called `wanted`, or as the run. ConfigError where Triton
    could not call it so."""
    if "://" in repository:
        raise ConfigError(
            "a model repository is a local folder",
            where="--repository",
            found=repository,
            valid="a folder; on an object store no version appears at once",
            fix="export to a folder, and copy it",
        )
    name = run if wanted is None else wanted
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            "this cannot be the name of a model in a repository",
            where="--model-name" if wanted is not None else "run.name",
            found=name,
            valid="letters, digits, _ . and -",
            fix="give it another name: --model-name=NAME",
        )
    return Path(repository) / name


def add(model: Path, file: Path, report: Path, facts: Mapping[str, Any], serving: Serving) -> Path:
    """Put the exported `file` and its `report` into the folder `model` as the next version; returns its folder.

    A server that looks at the repository at any moment sees the version whole or not at all. `config.pbtxt` is written
    anew with `serving`. ConfigError where the model that is there has other classes or another input: its clients
    would be answered with something else.
    """
    classes = _labels(facts["classes"])
    _check_kept(model, facts)
    model.parent.mkdir(parents=True, exist_ok=True)
    texts = {CONFIG: config_text(model.name, facts, serving), LABELS: classes}
    files = {MODEL: file, f"{MODEL}.json": report}
    while True:
        try:
            return _next(model, files, texts) if model.is_dir() else _first(model, files, texts)
        except FileExistsError:
            continue  # another export made it in this moment


def _first(model: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> Path:
    """The whole model appears at once. It is made beside the repository: a server that polls would complain of a folder
    in it that is no model yet. Where that cannot be moved in one step, as from outside of a mount, inside."""
    for place in (model.parent.resolve().parent, model.parent):
        try:
            with _staging(place) as staging:
                _fill(staging / "model" / "1", files)
                for name, text in texts.items():
                    (staging / "model" / name).write_text(text, encoding="utf-8")
                _move(staging / "model", model)
            return model / "1"
        except OSError as error:
            if place == model.parent or error.errno not in (errno.EXDEV, errno.EACCES, errno.EPERM, errno.EROFS):
                raise
    raise FileNotFoundError(model)


def _next(model: Path, files: Mapping[str, Path], texts: Mapping[str, str]) -> Path:
    """One more version appears; a server pays no attention to folders of a model that are no numbers."""
    with _staging(model) as staging:
        _fill(staging / "version", files)
        for name, text in texts.items():
            (staging / name).write_text(text, encoding="utf-8")
            os.replace(staging / name, model / name)
        numbers = [int(entry.name) for entry in model.iterdir() if entry.name.isdecimal()]
        target = model / str(max(numbers, default=0) + 1)
        _move(staging / "version", target)
    return target


@contextmanager
def _staging(place: Path) -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=place))
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _fill(folder: Path, files: Mapping[str, Path]) -> None:
    folder.mkdir(parents=True)
    for name, source in files.items():
        shutil.copyfile(source, folder / name)
        with open(folder / name, "rb") as copied:
            os.fsync(copied.fileno())


def _move(source: Path, target: Path) -> None:
    """Rename; FileExistsError where `target` is there, empty or not."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(target) from error
        raise


def _check_kept(model: Path, facts: Mapping[str, Any]) -> None:
    """ConfigError where the model is there and was not written by raycls, or has another contract."""
    if not model.is_dir():
        return
    config, labels = model / CONFIG, model / LABELS
    try:
        old, classes = config.read_text(encoding="utf-8"), labels.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            "the repository has a model of this name that is not one of raycls",
            where=str(model),
            found=f"{Path(error.filename).name}: {error.strerror}",
            fix="give this one another name: --model-name=NAME",
        ) from error
    new = config_text(model.name, facts, Serving())
    kept = [_block(text, field) for text in (old, new) for field in contract(facts)]
    if kept[:2] != kept[2:] or classes != _labels(facts["classes"]):
        what = "classes" if classes != _labels(facts["classes"]) else "input or output"
        raise ConfigError(
            "the model in the repository promises its clients something else",
            where=str(labels if what == "classes" else config),
            found=f"other {what} than this run",
            valid="versions of one model have the same input and the same classes",
            fix="give this one another name: --model-name=NAME",
        )


def _block(text: str, field: str) -> str:
    """The lines of `field` in a file that raycls wrote."""
    found = re.search(rf"^{field} \{{\n.*?^\}}$", text, re.DOTALL | re.MULTILINE)
    return "" if found is None else found[0]


def _labels(classes: Sequence[str]) -> str:
    """One class a line. ConfigError where a name has more than one."""
    broken = [name for name in classes if "\n" in name or "\r" in name]
    if broken:
        raise ConfigError("the name of a class has several lines, and a file of labels one for each", found=broken[0])
    return "".join(f"{name}\n" for name in classes)
