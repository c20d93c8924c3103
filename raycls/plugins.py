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
from collections.abc import Callable, Generator, Iterable, Mapping
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

from raycls.config.names.arguments import bind, bind_signature
from raycls.config.names.builders import as_annotated
from raycls.config.names.definitions import Definition, ours, read
from raycls.config.names.suggest import suggest
from raycls.errors import ConfigError, RayclsError, TrainError
from raycls.workdir import workdir

__all__ = ["GROUP", "bind", "bind_signature", "build", "builder", "find", "no_exit", "resolve", "suggest"]

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
    is the working directory: by default `workdir`. It is put at the end of
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
    return _Local(kind, name, _root(root)).load(*_formed(kind, name))


def find(
    kind: str, name: str, builtins: Mapping[str, object], *, root: Path | None = None
) -> tuple[str, inspect.Signature] | None:
    """What `resolve` would find, looked for without importing anything: a title and a signature, for `bind_signature`.

    None where only running the code would tell how it is called. Raises ConfigError as far as the text of the files
    says that `resolve` will.
    """
    if name in builtins:
        value = builtins[name]
        if not isinstance(value, str):
            return None
        attribute = value.partition(":")[2]
        definition = ours(value)
    elif any(mark in name for mark in ":/\\"):
        module, attribute = _formed(kind, name)
        definition = _Local(kind, name, _root(root)).definition(module, attribute)
    elif metadata.entry_points(group=GROUP, name=name):
        return None
    else:
        raise _unknown(kind, name, builtins)
    if definition is None or definition.signature is None or not definition.certain:
        return None
    return attribute, definition.signature


def builder(
    kind: str,
    name: str,
    args: Mapping[str, Any],
    builtins: Mapping[str, Callable[..., Any] | str],
    *,
    given: Iterable[str],
    at: tuple[str, str],
) -> Callable[..., Any]:
    """What `name` stands for, where it can be called with `given` and `args`; nothing is. `at` is where the config has
    the name and `args`. Raises ConfigError."""
    try:
        function = resolve(kind, name, builtins)
    except ConfigError as error:
        error.where = error.where or at[0]
        raise
    bind(function, args, given=tuple(given), where=at[1])
    return function


def build(
    kind: str,
    name: str,
    args: Mapping[str, Any],
    builtins: Mapping[str, Callable[..., Any] | str],
    *,
    given: Mapping[str, Any],
    where: str,
    returns: type = object,
) -> Any:
    """What the builder that `name` stands for makes of `given` and of `args`, each as its annotation has it.

    `where` is the section of both in the config. Raises ConfigError where name or arguments do not fit, the builder
    fails, or what it returns is no `returns`.
    """
    function = builder(kind, name, args, builtins, given=given, at=(f"{where}.name", f"{where}.args"))
    values = as_annotated(function, args, f"{where}.args")
    try:
        made = function(**given, **values)
    except RayclsError:
        raise
    except (Exception, SystemExit) as error:  # whatever a plug-in raises
        raise ConfigError(
            f"the {kind} {name} cannot be built",
            where=f"{where}.name",
            found=f"{type(error).__name__}: {error}",
            fix=f"correct it, or its arguments ({where}.args)",
        ) from error
    if not isinstance(made, returns):
        found, valid = f"{name} returned {type(made).__name__}", f"a {returns.__module__}.{returns.__qualname__}"
        raise ConfigError(f"this is no {kind}", where=f"{where}.name", found=found, valid=valid)
    return made


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


def _formed(kind: str, name: str) -> tuple[str, str]:
    """Module and attribute of a name that is neither built in nor an entry point."""
    match = _FORM.fullmatch(name)
    if match is None:
        valid = f"a built-in name, an entry point, or {_FORM_WORDS}"
        raise ConfigError(f"{name!r} is no name of a {kind}", found=name, valid=valid)
    return match[1], match[2]


def _root(root: Path | None) -> Path:
    return Path(os.path.realpath(root or workdir()))


class _Local:
    """`package.module:attribute` under `root`, step by step, refusing at the first that is not as it must be."""

    def __init__(self, kind: str, name: str, root: Path) -> None:
        self._kind, self._name, self._root = kind, name, root

    def load(self, module: str, attribute: str) -> Callable[..., Any]:
        specs = self._checked(module, attribute)
        if str(self._root) not in sys.path:
            sys.path.append(str(self._root))  # at the end: a file here must not hide an installed module
        importlib.invalidate_caches()
        imported: ModuleType | None = None
        for spec in specs:
            imported = self._import(spec)
        return self._attribute(imported, attribute)

    def definition(self, module: str, attribute: str) -> Definition | None:
        """What the file says of the attribute; None where it is made while the file runs, or not said here."""
        specs = self._checked(module, attribute)
        first, _, rest = attribute.partition(".")
        file = specs[-1].origin or ""
        try:
            found = read(file) if file.endswith(".py") else None
        except SyntaxError as error:
            raise self._refused(f"{file} is no Python: {error}", fix="mend the module") from error
        if found is None or found.dynamic:
            return None
        if first not in found.names:
            raise self._without(module, first, found.names)
        definition = found.names[first]
        if definition.kind == "import" and definition.level == 0:
            self._imported_from_here(definition.module)
        if not rest:
            return definition
        return found.classes[first].names.get(rest) if first in found.classes else None

    def _imported_from_here(self, module: str) -> None:
        """Refuse what a file imports from elsewhere, where that is certain: then it is defined there."""
        folder, top = self._root, module.partition(".")[0]
        if top in sys.stdlib_module_names or not ((folder / top).is_dir() or (folder / f"{top}.py").is_file()):
            raise self._foreign(module)

    def _checked(self, module: str, attribute: str) -> list[ModuleSpec]:
        words = [*module.split("."), *attribute.split(".")]
        if any(word.startswith("__") for word in words):
            raise self._refused("names that begin with two underscores are Python's own")
        if words[0] == "raycls":
            raise self._refused("the modules of raycls are no plug-ins")
        return self._locate(module)

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
                raise self._without(getattr(owner, "__name__", attribute), word, dir(owner))
            target = getattr(owner, word)
        if not callable(target) and not isinstance(target, ModuleType):
            raise self._refused(f"it is {type(target).__name__} and cannot be called")
        home = getattr(target, "__module__", None)
        file = getattr(sys.modules.get(str(home)), "__file__", None)
        if isinstance(target, ModuleType) or file is None or not self._is_local(file):
            raise self._foreign(home)
        return target

    def _without(self, owner: str, word: str, names: Iterable[str]) -> ConfigError:
        near = suggest(word, [each for each in names if not each.startswith("_")])
        return self._refused(f"{owner} has no {word!r}", fix=None if near is None else f"did you mean {near}?")

    def _foreign(self, home: str | None) -> ConfigError:
        return self._refused(
            f"it is not defined under {self._root} but imported there" + ("" if home is None else f" from {home}"),
            fix="define a function or a class of your own that uses it, and name that",
        )

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
