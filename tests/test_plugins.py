from __future__ import annotations

import functools
import os
import re
import sys
import types
from collections.abc import Callable, Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from raycls.errors import ConfigError, TrainError
from raycls.plugins import bind, no_exit, resolve

BUILTINS: Mapping[str, Callable[..., Any] | str] = {
    "twice": lambda x: 2 * x,
    "suggest": "raycls.config.names.suggest:suggest",
}


@pytest.fixture(autouse=True)
def _same_interpreter(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Modules that a test imported, and what was put on the path, are gone after it."""
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    path, modules = list(sys.path), set(sys.modules)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def write(root: Path, name: str, text: str) -> Path:
    file = root / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def refused(name: str, root: Path, *, words: str) -> ConfigError:
    """The error for `name`, after making sure that it says why and that nothing of it was imported."""
    before = set(sys.modules)
    with pytest.raises(ConfigError) as caught:
        resolve("model", name, BUILTINS, root=root)
    assert words in str(caught.value)
    assert caught.value.exit_code == 2
    assert name.split(":")[0] not in set(sys.modules) - before
    return caught.value


def test_builtins_are_callables_or_texts_that_are_imported_when_asked_for() -> None:
    assert resolve("model", "twice", BUILTINS)(3) == 6
    assert resolve("model", "suggest", BUILTINS)("lrr", ["lr"]) == "lr"


def test_an_unknown_name_lists_what_there_is_and_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        resolve("model", "twise", BUILTINS)
    assert caught.value.what == "there is no model 'twise'"
    assert str(caught.value.valid).startswith("twice, suggest, ")
    assert caught.value.fix == "did you mean twice?"


def test_code_under_the_root_is_found_with_what_lies_beside_it(tmp_path: Path) -> None:
    write(tmp_path, "near_a.py", "FACTOR = 3\n")
    write(
        tmp_path,
        "plug_a.py",
        "import near_a\n\nclass Net:\n    @staticmethod\n    def make(x):\n        return near_a.FACTOR * x\n",
    )
    assert resolve("model", "plug_a:Net", {}, root=tmp_path).__name__ == "Net"
    assert resolve("model", "plug_a:Net.make", {}, root=tmp_path)(2) == 6
    assert resolve("model", "plug_a:Net", {}, root=tmp_path) is sys.modules["plug_a"].Net


def test_packages_with_and_without_init(tmp_path: Path) -> None:
    write(tmp_path, "pack_b/__init__.py", "")
    write(tmp_path, "pack_b/inner/net.py", "def f():\n    return 1\n")
    write(tmp_path, "pack_c/__init__.py", "def g():\n    return 2\n")
    write(tmp_path, "bare_d/net.py", "def h():\n    return 3\n")
    assert resolve("model", "pack_b.inner.net:f", {}, root=tmp_path)() == 1
    assert resolve("model", "pack_c:g", {}, root=tmp_path)() == 2
    assert resolve("model", "bare_d.net:h", {}, root=tmp_path)() == 3


def test_the_root_is_the_work_directory_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "one/plug_e.py", "def f():\n    return 1\n")
    write(tmp_path, "two/plug_f.py", "def f():\n    return 2\n")
    monkeypatch.chdir(tmp_path / "one")
    assert resolve("model", "plug_e:f", {})() == 1
    monkeypatch.setenv("RAYCLS_WORKDIR", str(tmp_path / "two"))
    assert resolve("model", "plug_f:f", {})() == 2
    with pytest.raises(ConfigError, match="there is no"):
        resolve("model", "plug_missing:f", {})


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("os:system", "module of Python"),
        ("os.path:join", "module of Python"),
        ("subprocess:run", "module of Python"),
        ("builtins:eval", "module of Python"),
        ("shutil:rmtree", "module of Python"),
        ("yaml:load", "there is no"),
        ("pydantic.main:BaseModel", "there is no"),
        ("raycls.run.storage.store:Store", "no plug-ins"),
        ("..evil:f", "is no name"),
        (".evil:f", "is no name"),
        ("/etc/evil:f", "is no name"),
        ("/etc/evil.py", "is no name"),
        ("evil/x:f", "is no name"),
        ("evil\\x", "is no name"),
        ("evil:f()", "is no name"),
        ("evil:", "is no name"),
        (":f", "is no name"),
        ("evil:f:g", "is no name"),
        ("evil:f\n", "is no name"),
        ("evil :f", "is no name"),
        ("evil:__import__", "two underscores"),
        ("evil:f.__globals__", "two underscores"),
        ("__main__:f", "two underscores"),
    ],
)
def test_names_that_a_config_may_not_use(tmp_path: Path, name: str, words: str) -> None:
    refused(name, tmp_path, words=words)


def test_a_file_that_is_refused_is_never_run(tmp_path: Path) -> None:
    root = tmp_path / "work"
    trap = "import pathlib\npathlib.Path(__file__).with_suffix('.ran').touch()\n\ndef f():\n    pass\n"
    outside = write(tmp_path, "outside/trap_g.py", trap)
    write(root, "lib/python3/site-packages/trap_h.py", trap)
    write(root, "env_i/pyvenv.cfg", "home = /usr/bin\n")
    write(root, "env_i/trap_i.py", trap)
    (root / "trap_g.py").symlink_to(outside)
    (root / "linked").symlink_to(outside.parent)
    refused("trap_g:f", root, words="not under")
    refused("linked.trap_g:f", root, words="not under")
    refused("env_i.trap_i:f", root, words="installed code")
    refused("lib.python3.trap_h:f", root, words="there is no")
    (root / "lib" / "python3" / "site_packages").symlink_to(root / "lib" / "python3" / "site-packages")
    refused("lib.python3.site_packages.trap_h:f", root, words="installed code")
    assert list(tmp_path.rglob("*.ran")) == []


def test_a_link_inside_the_root_is_fine(tmp_path: Path) -> None:
    (tmp_path / "plug_j.py").symlink_to(write(tmp_path, "real/net.py", "def f():\n    return 1\n"))
    assert resolve("model", "plug_j:f", {}, root=tmp_path)() == 1


@pytest.mark.parametrize("name", ["run", "os.system", "system", "joined", "Mine.system", "load", "os"])
def test_what_a_module_only_imported_is_not_its_own(tmp_path: Path, name: str) -> None:
    text = (
        "import functools, os\nfrom os import system\nfrom subprocess import run\nfrom yaml import load\n"
        "joined = functools.partial(os.system, 'true')\n\nclass Mine:\n    system = staticmethod(os.system)\n"
    )
    write(tmp_path, "plug_k.py", text)
    with pytest.raises(ConfigError, match="not defined under"):
        resolve("model", f"plug_k:{name}", {}, root=tmp_path)


def test_wrapped_functions_and_instances_of_own_classes_are_its_own(tmp_path: Path) -> None:
    text = (
        "import functools\n\n@functools.cache\ndef cached():\n    return 1\n\n"
        "class Maker:\n    def __call__(self):\n        return 2\n\nmaker = Maker()\nnumber = 3\n"
    )
    write(tmp_path, "plug_l.py", text)
    assert resolve("model", "plug_l:cached", {}, root=tmp_path)() == 1
    assert resolve("model", "plug_l:maker", {}, root=tmp_path)() == 2
    with pytest.raises(ConfigError):
        resolve("model", "plug_l:number", {}, root=tmp_path)


def test_another_module_of_that_name_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "plug_m.py", "def f():\n    return 1\n")
    other = types.ModuleType("plug_m")
    monkeypatch.setitem(sys.modules, "plug_m", other)
    refused("plug_m:f", tmp_path, words="already imported")
    monkeypatch.delitem(sys.modules, "plug_m")
    write(tmp_path, "first/plug_m.py", "def f():\n    return 2\n")
    monkeypatch.syspath_prepend(tmp_path / "first")
    refused("plug_m:f", tmp_path, words="Python finds another module")
    write(tmp_path, "pytest/net.py", "def f():\n    pass\n")
    refused("pytest.net:f", tmp_path, words="already imported")


def test_a_name_with_the_suffix_of_a_file(tmp_path: Path) -> None:
    write(tmp_path, "plug_n.py", "def f():\n    pass\n")
    assert refused("plug_n.py:f", tmp_path, words="without its suffix").fix == "leave the .py out: plug_n:f"
    assert refused("plug_m:f", tmp_path, words="there is no").fix == "did you mean the file plug_n.py?"


def test_what_is_missing_or_broken_in_a_module_is_told(tmp_path: Path) -> None:
    write(tmp_path, "plug_o.py", "def network():\n    pass\n")
    write(tmp_path, "plug_p.py", "import no_such_module_q\n")
    write(tmp_path, "plug_r.py", "raise SystemExit(3)\n")
    write(tmp_path, "plug_s.py", "def (\n")
    write(tmp_path, "plug_t.py", "f = 3\n")
    with pytest.raises(ConfigError) as caught:
        resolve("model", "plug_o:netwrok", {}, root=tmp_path)
    assert caught.value.fix == "did you mean network?"
    for name, words in (
        ("plug_p", "no_such_module_q"),
        ("plug_r", "SystemExit"),
        ("plug_s", "SyntaxError"),
        ("plug_t", "int and cannot"),
    ):
        with pytest.raises(ConfigError, match=words):
            resolve("model", f"{name}:f", {}, root=tmp_path)


def test_the_root_goes_to_the_end_of_the_path(tmp_path: Path) -> None:
    write(tmp_path, "plug_t.py", "def f():\n    pass\n")
    resolve("model", "plug_t:f", {}, root=tmp_path)
    assert sys.path[-1] == os.path.realpath(tmp_path)


def entry(name: str, value: str) -> metadata.EntryPoint:
    return metadata.EntryPoint(name, value, "raycls.plugins")


def test_entry_points_of_installed_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = metadata.EntryPoints(
        [
            entry("near", "raycls.config.names.suggest:suggest"),
            entry("broken", "no_such_module_u:f"),
            entry("number", "raycls.errors:EXIT_DATA"),
            entry("double", "a:f"),
            entry("double", "b:f"),
            metadata.EntryPoint("foreign", "os:system", "another.group"),
        ]
    )
    monkeypatch.setattr(metadata, "entry_points", lambda **which: installed.select(**which))
    assert resolve("model", "near", BUILTINS)("lrr", ["lr"]) == "lr"
    for name, words in (
        ("broken", "no_such_module_u"),
        ("number", "not callable"),
        ("double", "several installed packages"),
        ("foreign", "there is no model"),
        ("doubl", "did you mean double"),
    ):
        with pytest.raises(ConfigError, match=words):
            resolve("model", name, BUILTINS)


def source(path: str, depth: int, *, width: int = 32, **_ignored: int) -> None:
    """A signature that takes any further argument."""


def strict(path: str, depth: int, *, width: int = 32) -> None:
    """A signature that takes no other argument."""


def test_arguments_that_fit() -> None:
    bind(strict, {"depth": 1}, given=["path"], where="model.args")
    bind(strict, {"depth": 1, "width": 2}, given=["path"], where="model.args")
    bind(source, {"depth": 1, "anything": 2}, given=["path", "more"], where="model.args")
    bind(functools.partial(strict, depth=3), {}, given=["path"], where="model.args")
    bind(iter, {"no": "signature"}, where="model.args")


@pytest.mark.parametrize(
    ("args", "given", "words", "fix"),
    [
        ({"depth": 1, "widht": 2}, ["path"], "there is no argument widht", "did you mean model.args.width?"),
        ({"depth": 1, "widht": 2, "widh": 3}, ["path"], "there is no argument widh", "did you mean model.args.width?"),
        (
            {"depth": 1, "groups": 2},
            ["path"],
            "there is no argument groups",
            "take groups out; on the command line model.args={} drops what a file sets",
        ),
        ({}, ["path"], "the argument depth is missing", None),
        ({"depth": 1, "path": "x"}, ["path"], "path is set by raycls", "leave model.args.path out"),
        ({"depth": 1}, ["path", "num_classes"], "it must take the argument num_classes", None),
    ],
)
def test_arguments_that_do_not_fit(args: dict[str, Any], given: list[str], words: str, fix: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        bind(strict, args, given=given, where="model.args")
    assert words in caught.value.what
    assert caught.value.valid == "depth, width=32"
    assert (caught.value.where, caught.value.fix) == ("model.args", fix)


def test_all_wrong_arguments_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        bind(strict, {"a": 1, "path": 2}, given=["path"], where="model.args")
    for words in ("no argument a", "path is set by raycls", "depth is missing"):
        assert words in caught.value.what


def test_arguments_by_position_only_cannot_be_given() -> None:
    def by_position(x: int, /) -> None: ...

    with pytest.raises(ConfigError, match="there is no argument x"):
        bind(by_position, {"x": 1}, where="model.args")


def test_a_class_is_bound_by_its_constructor() -> None:
    class Net:
        def __init__(self, num_classes: int, width: int) -> None: ...

    bind(Net, {"width": 3}, given=["num_classes"], where="model.args")
    with pytest.raises(ConfigError, match=r"fit .*Net: there is no argument depth; the argument width is missing"):
        bind(Net, {"depth": 3}, given=["num_classes"], where="model.args")


def test_code_of_a_user_cannot_end_the_command() -> None:
    with pytest.raises(TrainError, match=r"called sys\.exit") as caught, no_exit():
        sys.exit(0)
    assert re.search(r"sys\.exit\(0\), raised in .*test_plugins\.py:\d+", caught.value.found or "")
    with pytest.raises(ValueError, match="as it is"), no_exit():
        raise ValueError("as it is")
