"""A name in a config -> a callable; and its arguments checked before anything is built.

A name is a built-in, an entry point of the group `raycls.plugins`, or `package.module:attribute` for code
under the working directory. The last form runs what a text file names, so it is narrow on purpose: the
module's file is found under the working directory before anything is imported, it may not be installed
code, and what is named must be defined in code under the working directory too, not merely imported
there. A config found on the internet can then name your own functions, but not `os:system`.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import sysconfig
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    ModuleSpec,
    SourceFileLoader,
)
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

from raycls.config.suggest import suggest
from raycls.errors import ConfigError, TrainError

__all__ = ["GROUP", "bind", "no_exit", "resolve", "suggest"]

GROUP = "raycls.plugins"
"""The entry-point group of packages that bring plug-ins."""

_WORD = r"[A-Za-z_][A-Za-z0-9_]*"
_FORM = re.compile(rf"({_WORD}(?:\.{_WORD})*):({_WORD}(?:\.{_WORD})*)")
_KINDS = ((ExtensionFileLoader, EXTENSION_SUFFIXES), (SourceFileLoader, SOURCE_SUFFIXES))  # in Python's order
_FORM_WORDS = "package.module:attribute, for code under the working directory"


def resolve(
    kind: str, name: str, builtins: Mapping[str, Callable[..., Any] | str], *, root: Path | None = None
) -> Callable[..., Any]:
    """The callable that `name` stands for; `kind` (`model`, `source`) is for messages.

    A built-in may be the text `package.module:attribute`, which is imported when it is asked for. `root`
    is the working directory: by default `$RAYCLS_WORKDIR`, else the current one. It is put at the end of
    `sys.path`, so that a plug-in can import the files beside it. Raises ConfigError.
    """
    builtin = builtins.get(name)
    if isinstance(builtin, str):
        module, _, attribute = builtin.partition(":")
        return getattr(importlib.import_module(module), attribute)
    if builtin is not None:
        return builtin
    entry = _entry_point(kind, name)
    if entry is not None:
        return entry
    if not any(mark in name for mark in ":/\\"):
        raise _unknown(kind, name, builtins)
    match = _FORM.fullmatch(name)
    if match is None:
        valid = f"a built-in name, an entry point, or {_FORM_WORDS}"
        raise ConfigError(f"{name!r} is no name of a {kind}", found=name, valid=valid)
    return _Local(kind, name, _root(root)).load(match[1], match[2])


def bind(function: Callable[..., Any], args: Mapping[str, Any], *, given: Sequence[str] = (), where: str) -> None:
    """Check that `function` can be called with `args` and with `given`, all by keyword, without calling it.

    `given` are the names that raycls passes itself; `where` is the dotted path of `args` in the config.
    A callable that does not tell its signature passes. Raises ConfigError that names every argument that
    is unknown, missing, or raycls's own.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some callables written in C have none
        return
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)
    named = {
        parameter.name: parameter
        for parameter in parameters
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    }
    choices = [key for key in named if key not in given]
    problems: list[str] = []
    hints: list[str] = []
    for key in args:
        if key in given:
            problems.append(f"{key} is set by raycls")
            hints.append(f"leave {where}.{key} out")
        elif key not in named and not takes_any:
            problems.append(f"there is no argument {key}")
            near = suggest(key, choices)
            hints += [] if near is None else [f"did you mean {where}.{near}?"]
            if near is None and where.endswith(".args"):
                hints.append(f"take {key} out; on the command line {where}={{}} drops what a file sets")
    problems += [
        f"the argument {parameter.name} is missing"
        for parameter in parameters
        if parameter.default is parameter.empty and not _met(parameter, args, given)
    ]
    if not takes_any:
        problems += [f"it must take the argument {key}, which raycls passes" for key in given if key not in named]
    if problems:
        valid = ", ".join(_shown(named[key]) for key in choices) or "no arguments"
        raise ConfigError(
            f"{where}: these arguments do not fit {_title(function)}: {'; '.join(problems)}",
            where=where,
            found=", ".join(args) or "no arguments",
            valid=valid + (", and any other" if takes_any else ""),
            fix="; ".join(hints) or None,
        )


@contextmanager
def no_exit() -> Generator[None]:
    """Where code of a user runs: a call of `sys.exit` there is a TrainError, and not the end of the command.

    Its exit code would be taken for that of raycls, 0 for a run that is done.
    """
    try:
        yield
    except SystemExit as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        raise TrainError(
            "a plug-in called sys.exit, which would end the command as if raycls had",
            found=f"sys.exit({error.code!r}), raised in {last.filename}:{last.lineno}",
            fix="raise an exception there that says what is wrong",
        ) from error


def _met(parameter: inspect.Parameter, args: Mapping[str, Any], given: Sequence[str]) -> bool:
    if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
        return True
    return parameter.kind is not parameter.POSITIONAL_ONLY and (parameter.name in args or parameter.name in given)


def _shown(parameter: inspect.Parameter) -> str:
    if parameter.default is parameter.empty:
        return parameter.name
    text = repr(parameter.default)
    return f"{parameter.name}={text}" if len(text) <= 30 else parameter.name


def _title(function: Callable[..., Any]) -> str:
    return getattr(function, "__qualname__", type(function).__qualname__)


def _entry_point(kind: str, name: str) -> Callable[..., Any] | None:
    found = {entry.value: entry for entry in metadata.entry_points(group=GROUP, name=name)}
    if not found:
        return None
    if len(found) > 1:
        what = f"several installed packages bring the {kind} {name!r}"
        raise ConfigError(what, found=", ".join(sorted(found)), fix="uninstall all but one of them")
    entry = next(iter(found.values()))
    try:
        loaded = entry.load()
    except (Exception, SystemExit) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"the {kind} {name!r} ({entry.value}) cannot be imported: {reason}") from error
    if not callable(loaded):
        raise ConfigError(f"the {kind} {name!r} ({entry.value}) is not callable", found=type(loaded).__name__)
    return loaded


def _unknown(kind: str, name: str, builtins: Mapping[str, object]) -> ConfigError:
    entries = sorted(entry.name for entry in metadata.entry_points(group=GROUP))
    near = suggest(name, [*builtins, *entries])
    return ConfigError(
        f"there is no {kind} {name!r}",
        found=name,
        valid=", ".join([*builtins, *entries, _FORM_WORDS]),
        fix=None if near is None else f"did you mean {near}?",
    )


def _root(root: Path | None) -> Path:
    return Path(os.path.realpath(root or os.environ.get("RAYCLS_WORKDIR") or os.getcwd()))


class _Local:
    """`package.module:attribute` under `root`, step by step, refusing at the first that is not as it must be."""

    def __init__(self, kind: str, name: str, root: Path) -> None:
        self._kind, self._name, self._root = kind, name, root

    def load(self, module: str, attribute: str) -> Callable[..., Any]:
        words = [*module.split("."), *attribute.split(".")]
        if any(word.startswith("__") for word in words):
            raise self._refused("names that begin with two underscores are Python's own")
        if words[0] == "raycls":
            raise self._refused("the modules of raycls are no plug-ins")
        specs = self._locate(module)
        if str(self._root) not in sys.path:
            sys.path.append(str(self._root))  # at the end: a file here must not hide an installed module
        importlib.invalidate_caches()
        imported: ModuleType | None = None
        for spec in specs:
            imported = self._import(spec)
        return self._attribute(imported, attribute)

    def _locate(self, module: str) -> list[ModuleSpec]:
        """The specs of the module and of the packages around it, from files under the root; imports nothing."""
        specs: list[ModuleSpec] = []
        parts = module.split(".")
        folder: str | None = str(self._root)
        for depth in range(1, len(parts) + 1):
            spec = None if folder is None else FileFinder(folder, *_KINDS).find_spec(".".join(parts[:depth]))
            if spec is None or (spec.origin is None and depth == len(parts)):
                raise self._not_there(parts, folder)
            self._inside(spec)
            specs.append(spec)
            folder = next(iter(spec.submodule_search_locations or []), None)
        return specs

    def _not_there(self, parts: list[str], folder: str | None) -> ConfigError:
        if parts[0] in sys.stdlib_module_names:
            return self._refused(f"{parts[0]} is a module of Python, not a file under {self._root}")
        if parts[-1] == "py":
            fix = f"leave the .py out: {'.'.join(parts[:-1])}:{self._name.partition(':')[2]}"
            return self._refused("a module is named without its suffix", fix=fix)
        near = None if folder is None else suggest(parts[-1], sorted(path.stem for path in Path(folder).glob("*.py")))
        path = self._root.joinpath(*parts)
        fix = "write the module, or start raycls in the folder that holds it"
        return self._refused(f"there is no {path}.py", fix=fix if near is None else f"did you mean the file {near}.py?")

    def _inside(self, spec: ModuleSpec) -> None:
        files = [spec.origin] if spec.origin is not None else list(spec.submodule_search_locations or [])
        for file in files:
            if not self._is_local(file):
                raise self._refused(f"{os.path.realpath(file)} is installed code, or not under {self._root}")

    def _is_local(self, file: str) -> bool:
        """Whether the file, links followed, is under the root and no installed package or part of Python."""
        path = Path(os.path.realpath(file))
        if not path.is_relative_to(self._root):
            return False
        inner = path.relative_to(self._root)
        if {"site-packages", "dist-packages"} & set(inner.parts):
            return False
        if any((self._root / folder / "pyvenv.cfg").exists() for folder in list(inner.parents)[:-1]):
            return False
        system = {os.path.realpath(folder) for key, folder in sysconfig.get_paths().items() if "lib" in key}
        return not any(path.is_relative_to(folder) for folder in system)

    def _import(self, spec: ModuleSpec) -> ModuleType:
        """Import the module, having seen that Python's search by name leads to the very file of `spec`."""
        before = sys.modules.get(spec.name)
        try:
            found = find_spec(spec.name) if before is None else before.__spec__
        except (ImportError, ValueError, AttributeError) as error:
            raise self._refused(f"{spec.name} cannot be looked up: {error}") from error
        if before is not None and not _same_file(found, spec):
            raise self._refused(
                f"another module named {spec.name} is already imported, from {_source(found)}",
                fix="give your module a name that nothing else has",
            )
        if not _same_file(found, spec):
            raise self._refused(
                f"Python finds another module named {spec.name}, {_source(found)}, before {_source(spec)}",
                fix="give your module a name that nothing else has",
            )
        try:
            return importlib.import_module(spec.name)
        except (Exception, SystemExit) as error:
            raise self._refused(
                f"importing {_source(spec)} failed with {type(error).__name__}: {error}", fix="mend the module"
            ) from error

    def _attribute(self, module: ModuleType | None, attribute: str) -> Callable[..., Any]:
        target: Any = module
        for word in attribute.split("."):
            owner = target
            if not hasattr(owner, word):
                near = suggest(word, [each for each in dir(owner) if not each.startswith("_")])
                fix = None if near is None else f"did you mean {near}?"
                raise self._refused(f"{getattr(owner, '__name__', attribute)} has no {word!r}", fix=fix)
            target = getattr(owner, word)
        home = getattr(target, "__module__", None)
        file = getattr(sys.modules.get(str(home)), "__file__", None)
        if isinstance(target, ModuleType) or file is None or not self._is_local(file):
            raise self._refused(
                f"it is not defined under {self._root} but imported there" + ("" if home is None else f" from {home}"),
                fix="define a function or a class of your own that uses it, and name that",
            )
        if not callable(target):
            raise self._refused(f"it is {type(target).__name__} and cannot be called")
        return target

    def _refused(self, why: str, *, fix: str | None = None) -> ConfigError:
        return ConfigError(
            f"the {self._kind} {self._name!r} is refused: {why}",
            found=self._name,
            valid=_FORM_WORDS,
            fix=fix,
        )


def _source(spec: ModuleSpec | None) -> str:
    if spec is None:
        return "no file"
    return spec.origin or ", ".join(spec.submodule_search_locations or []) or "no file"


def _same_file(found: ModuleSpec | None, wanted: ModuleSpec) -> bool:
    if found is None:
        return False
    if wanted.origin is not None:
        return found.origin is not None and os.path.realpath(found.origin) == os.path.realpath(wanted.origin)
    places = {os.path.realpath(place) for place in found.submodule_search_locations or []}
    return found.origin is None and places == {
        os.path.realpath(place) for place in wanted.submodule_search_locations or []
    }
