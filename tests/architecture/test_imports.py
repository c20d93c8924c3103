"""The house rules, read from the source: who imports whom, how long things are, and what never occurs."""

from __future__ import annotations

import ast
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2] / "raycls"
_FILES = sorted(_ROOT.rglob("*.py"))

_LOW = {"progress", "quantities", "workdir", "errors"}
_MAY_IMPORT = {
    "errors": set(),
    "progress": set(),
    "quantities": set(),
    "workdir": set(),
    "config": {"errors", "quantities"},
    "plugins": {"config", *_LOW},
    "names": {"plugins", "config", *_LOW},
    "allocator": set(),
    "randomness": set(),
    "run": {"config", *_LOW},
    "models": {"run", "randomness", "plugins", "config", *_LOW},
    "cluster": {"config", *_LOW},
    "data": {"run", "randomness", "plugins", "config", *_LOW},
    "search": {"run", "config", *_LOW},
    "jobs": {"cluster", "run", "config", *_LOW},
    "tasks": {"data", "models", "plugins", "config", *_LOW},
    "screen": {"search", "run", "config", *_LOW},
    "train": {"randomness", "tasks", "data", "models", "plugins", "config", *_LOW},
    "report": {"search", "tasks", "run", "config", *_LOW},
    "session": {"report", "train", "tasks", "data", "models", "run", "allocator", "randomness", "plugins", "config"}
    | _LOW,
    "export": {"session", "train", "tasks", "data", "models", "run", "randomness", "config", *_LOW},
    "launch": {"session", "train", "run", "screen", "jobs", "cluster", "config", *_LOW},
    "tune": {"launch", "session", "report", "train", "tasks", "data", "models", "screen", "search"}
    | {"run", "jobs", "cluster", "config", *_LOW},
    "doctor": {"tune", "launch", "session", "train", "data", "screen", "run", "jobs", "cluster", "names"}
    | {"config", *_LOW},
    "serve": {"launch", "session", "data", "cluster", "config", *_LOW},
    "cli": {"serve", "export", "doctor", "tune", "launch", "session", "report", "data", "screen", "run", "jobs"}
    | {"cluster", "names", "plugins", "config", *_LOW},
    "__main__": {"cli"},
    "__init__": set(),
}
"""Rooms of the package, and the rooms that each may import besides itself and the version in `raycls`."""

_MAY_USE_RAY = {
    "ray.data": {"data", "cluster", "launch"},
    "ray.train": {"launch"},
    "ray.tune": {"tune"},
    "ray.job_submission": {"jobs"},
    "ray.serve": {"serve"},
    "ray": {"launch", "tune", "jobs", "cluster", "doctor", "data", "serve"},
}
"""Packages of Ray and the rooms that may import them: the first entry that fits. In `data` it is `stream.py` alone; in
`launch` Ray Data is for `predictions/` alone, whose pool of networks no stream of samples can be: training and
evaluation decode through `stream.py`. In `serve` it is `replicas.py` alone: what answers a request is the same class in
this process and in a replica."""

_MOST_FILES, _MOST_LINES_OF_A_FOLDER = 12, 1800
_MOST_LINES, _MOST_LINES_OF_A_FUNCTION, _MOST_LINES_OF_THE_LOOP = 400, 60, 80


def _unit(file: Path) -> str:
    parts = file.relative_to(_ROOT).parts
    return parts[0].removesuffix(".py")


def _module(file: Path) -> str:
    parts = ["raycls", *file.relative_to(_ROOT).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


_MODULES = {_module(file): file for file in _FILES}


def _imports(file: Path, *, typing: bool = True, inside: bool = True) -> Iterator[tuple[int, str]]:
    """`(line, module)` of every import; without those under `TYPE_CHECKING`, or without those inside functions."""
    yield from _walk(ast.parse(file.read_text()), typing, inside)


def _walk(node: ast.AST, typing: bool, inside: bool) -> Iterator[tuple[int, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from ((child.lineno, alias.name) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            base = child.module or ""
            # `from package import module` names the module, `from module import name` the module it is from
            names = {f"{base}.{alias.name}" if f"{base}.{alias.name}" in _MODULES else base for alias in child.names}
            yield from ((child.lineno, name) for name in sorted(names))
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            if typing:
                yield from _walk(child, typing, inside)
            yield from (item for branch in child.orelse for item in _walk(branch, typing, inside))
        elif inside or not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from _walk(child, typing, inside)


def _where(file: Path, line: int) -> str:
    return f"{file.relative_to(_ROOT.parent)}:{line}"


def test_units_import_one_way() -> None:
    wrong = []
    for file in _FILES:
        for line, name in _imports(file):
            words = name.split(".")
            if words[0] == "raycls" and len(words) > 1 and words[1] not in _MAY_IMPORT[_unit(file)] | {_unit(file)}:
                wrong.append(f"{_where(file, line)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_every_unit_is_in_the_table() -> None:
    assert {_unit(file) for file in _FILES} == _MAY_IMPORT.keys()


def test_the_table_has_no_cycle() -> None:
    order = list(_MAY_IMPORT)
    for unit, others in _MAY_IMPORT.items():
        assert all(order.index(other) < order.index(unit) for other in others), unit


def test_modules_have_no_cycles() -> None:
    """Not even through imports inside functions."""
    edges = {
        module: {name for _, name in _imports(file, typing=False) if name in _MODULES and name != module}
        for module, file in _MODULES.items()
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join([*path[path.index(module) :], module])
        if module not in done:
            for other in sorted(edges[module]):
                visit(other, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def _outside(file: Path, package: str, **options: bool) -> list[str]:
    found = _imports(file, **options)
    return [f"{_where(file, line)} imports {name}" for line, name in found if f"{name}.".startswith(f"{package}.")]


_LIGHT = {*_LOW, "config", "plugins", "names", "search", "cli", "__init__"}


@pytest.mark.parametrize("package", ["torch", "torchvision", "ray", "matplotlib", "tensorboardX"])
def test_light_units_import_nothing_heavy(package: str) -> None:
    light = [file for file in _FILES if _unit(file) in _LIGHT]
    wrong = [text for file in light for text in _outside(file, package)]
    assert not wrong, "\n".join(wrong)


def test_ray_is_imported_where_it_may_be() -> None:
    wrong = []
    for file in _FILES:
        for line, name in _imports(file):
            rooms = next(
                (rooms for package, rooms in _MAY_USE_RAY.items() if f"{name}.".startswith(f"{package}.")), None
            )
            if rooms is not None and _unit(file) not in rooms:
                wrong.append(f"{_where(file, line)} imports {name}")
    stream = _ROOT / "data" / "stream.py"
    wrong += [text for file in _FILES if _unit(file) == "data" and file != stream for text in _outside(file, "ray")]
    wrong += _outside(stream, "ray", inside=False)
    launch, predictions = _ROOT / "launch", _ROOT / "launch" / "predictions"
    wrong += [
        text for file in launch.rglob("*.py") if file.parent != predictions for text in _outside(file, "ray.data")
    ]
    replicas = _ROOT / "serve" / "replicas.py"
    wrong += [text for file in _FILES if _unit(file) == "serve" and file != replicas for text in _outside(file, "ray")]
    assert not wrong, "\n".join(wrong)


def test_folders_are_small() -> None:
    wrong = []
    for folder in sorted({file.parent for file in _FILES}):
        files = [file for file in folder.glob("*.py") if file.name != "__init__.py"]
        lines = sum(len(file.read_text().splitlines()) for file in files)
        if len(files) > _MOST_FILES or lines > _MOST_LINES_OF_A_FOLDER:
            wrong.append(f"{folder.relative_to(_ROOT.parent)} has {len(files)} files and {lines} lines")
    assert not wrong, "\n".join(wrong)


def test_tests_mirror_the_package() -> None:
    """Folders of tests are those of the package, or one of those that test all of it."""
    tests, of_all = _ROOT.parent / "tests", {"architecture", "benchmarks", "e2e", "faults", "harness"}
    folders = {file.parent.relative_to(tests) for file in tests.rglob("*.py") if file.parent != tests}
    wrong = [folder for folder in folders if folder.parts[0] not in of_all and not (_ROOT / folder).is_dir()]
    assert not wrong, wrong


@pytest.mark.parametrize("package", ["optuna", "sklearn", "scipy", "mlflow", "wandb"])
def test_what_an_extra_installs_is_imported_where_it_is_used(package: str) -> None:
    wrong = [text for file in _FILES for text in _outside(file, package, typing=False, inside=False)]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("package", ["starlette", "uvicorn", "python_multipart", "prometheus_client"])
def test_what_serving_installs_is_imported_in_its_room(package: str) -> None:
    wrong = [text for file in _FILES if _unit(file) != "serve" for text in _outside(file, package)]
    assert not wrong, "\n".join(wrong)


def test_order_is_pure_arithmetic() -> None:
    found = {name.split(".")[0] for _, name in _imports(_ROOT / "data" / "order.py")}
    assert found <= {"__future__", "dataclasses", "functools", "numpy"}


def test_few_rooms_know_the_whole_config() -> None:
    wrong = [
        _where(file, node.lineno)
        for file in _FILES
        if _unit(file) not in ("session", "launch", "tune", "doctor", "cli", "config")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.ImportFrom)
        and node.module == "raycls.config.sections.run"
        and "Run" in [alias.name for alias in node.names]
    ]
    assert not wrong, wrong


def test_the_loop_knows_neither_ray_nor_the_config() -> None:
    names = {name for _, name in _imports(_ROOT / "train" / "loop.py")}
    assert not [name for name in names if name.startswith(("ray.", "raycls.config", "raycls.run")) or name == "ray"]


def test_files_and_functions_are_short() -> None:
    wrong = []
    for file in _FILES:
        text = file.read_text()
        if len(text.splitlines()) > _MOST_LINES:
            wrong.append(f"{_where(file, 1)} has {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                loop = file == _ROOT / "train" / "loop.py" and node.name == "train"
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > (_MOST_LINES_OF_THE_LOOP if loop else _MOST_LINES_OF_A_FUNCTION):
                    wrong.append(f"{_where(file, node.lineno)} {node.name} has {length} lines")
    assert not wrong, "\n".join(wrong)


def test_nothing_is_named_after_nothing() -> None:
    assert not [file for file in _FILES if file.stem in ("utils", "util", "common", "helpers", "misc")]


def test_no_assert_in_the_package() -> None:
    """User input is never checked by `assert`, which `python -O` takes away."""
    wrong = [
        _where(file, node.lineno)
        for file in _FILES
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Assert)
    ]
    assert not wrong, wrong


_UNPICKLER = _ROOT / "data" / "sources" / "cifar.py"
"""Reads files that others pickled, with an unpickler that admits only what those files hold."""


def test_nothing_unpickles() -> None:
    wrong = []
    for file in _FILES:
        for line, name in _imports(file):
            heads = ("pickle", "cloudpickle", "dill", "joblib", "shelve", "marshal")
            if name.split(".")[0] in heads and file != _UNPICKLER:
                wrong.append(f"{_where(file, line)} imports {name}")
        for call in _calls(file):
            name = ast.unparse(call.func)
            given = {keyword.arg: keyword.value for keyword in call.keywords}
            if name in ("pickle.load", "pickle.loads", "eval", "exec", "os.system", "os.popen"):
                wrong.append(f"{_where(file, call.lineno)} calls {name}")
            if name == "torch.load" and not _is(given.get("weights_only"), True):
                wrong.append(f"{_where(file, call.lineno)} calls torch.load without weights_only=True")
            if name in ("np.load", "numpy.load") and not _is(given.get("allow_pickle"), False):
                wrong.append(f"{_where(file, call.lineno)} calls {name} without allow_pickle=False")
    assert not wrong, "\n".join(wrong)


def test_forbidden_arguments_do_not_occur() -> None:
    """`weights_only=False`, `allow_pickle=True` and `shell=True`, whatever is called."""
    forbidden = {"weights_only": False, "allow_pickle": True, "shell": True}
    wrong = []
    for file in _FILES:
        wrong += [
            f"{_where(file, call.lineno)} {keyword.arg}={ast.unparse(keyword.value)}"
            for call in _calls(file)
            for keyword in call.keywords
            if keyword.arg in forbidden and not _is(keyword.value, not forbidden[keyword.arg])
        ]
    assert not wrong, "\n".join(wrong)


def _calls(file: Path) -> Iterator[ast.Call]:
    return (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Call))


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


_CONFIG = "run: {seed: 3}\ndata: {source: {name: folder, path: photos}}\n"


@pytest.mark.parametrize("words", [["--help"], ["config", "one.yaml"], ["config", "schema"], ["train", "--help"]])
def test_light_commands_import_nothing_heavy(words: list[str], tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(_CONFIG)
    code = (
        f"import sys; sys.argv = ['raycls', *{words!r}]\n"
        "from raycls.cli.app import main\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\nelse:\n    code = 0\n"
        "heavy = {'torch', 'torchvision', 'ray', 'matplotlib', 'pyarrow', 'pandas', 'scipy', 'sklearn'}\n"
        "print('code', code, 'heavy', sorted(heavy & sys.modules.keys()))\n"
    )
    began = time.monotonic()
    found = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines()[-1] == "code 0 heavy []", found.stdout + found.stderr
    assert len(found.stdout.splitlines()) > 3
    assert time.monotonic() - began < 20  # under a second on a quiet machine; a measure of it is no test


def test_the_package_itself_is_light() -> None:
    code = (
        "import sys, raycls; print(sorted(name for name in sys.modules if name in ('torch', 'ray', 'numpy', 'yaml')))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
