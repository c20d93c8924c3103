"""README.md and docs/: commands run and print what is shown, configs load, options and files that are named exist."""

from __future__ import annotations

import ast
import os
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import typer
from harness.depths import write_bands, write_deep
from harness.masks import write_volumes
from harness.mlflow_stand_in import standing_in
from harness.object_store import S3
from harness.pages import Step, blocks, differs, make_data, steps, type_in, working_directory
from harness.phantom import write_data
from pydantic import BaseModel

from raycls.cli import app
from raycls.config.load import load, load_text
from raycls.config.sections.run import Run
from raycls.config.space.check import space_of

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", *sorted(f"docs/{file.name}" for file in (ROOT / "docs").glob("*.md"))]
ALL = [*PAGES, "cluster/README.md", "configs/README.md", "CONTRIBUTING.md", "findings/README.md"]

_NOT_RUN = {
    "README.md": {"uv": "tests/e2e/test_demo.py", "pip": ".ci/run"},
    "docs/clusters.md": {"": "tests/e2e/test_onprem.py"},
    "docs/serve.md": {"": "tests/serve/test_server.py"},
    "docs/trackers.md": {"pip": "pyproject.toml"},
}
"""Pages and the first words of commands that are not run here, as they need a Ray, a cluster or a network; and the file
that runs their like. An empty word stands for all."""

_QUICK = ("scale.workers=0", "train.duration=2ep", "schedule.warmup=1st")
_WITH_CONFIG_OF_INIT = (
    "README.md",
    "docs/evaluation.md",
    "docs/object-stores.md",
    "docs/pack.md",
    "docs/predict.md",
    "docs/report.md",
    "docs/export.md",
    "docs/triton.md",
    "docs/prune.md",
    "docs/bench.md",
    "docs/run-folder.md",
    "docs/scores.md",
)
_ADDED = {
    **{(page, "train"): _QUICK for page in (*_WITH_CONFIG_OF_INIT, "docs/trackers.md")},
    ("docs/splits.md", "train"): ("scale.workers=0", "train.duration=1ep"),
    ("docs/search.md", "search"): ("search.trials=3", "train.duration=2ep", "schedule.warmup=1st"),
}
"""What is added to commands of these pages: the config of `raycls init` is for 60 epochs on a Ray of its own."""

_SECTIONS = "|".join(Run.model_fields)


def _not_run(page: str, step: Step) -> bool:
    return any(step.words[0].startswith(word) for word in _NOT_RUN.get(page, {}))


def _steps(page: str) -> list[Step]:
    return [step for block in blocks(ROOT / page) if block.language == "console" for step in steps(block)]


_SLOW = {
    "docs/search.md": [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(900)],
    "docs/prune.md": [pytest.mark.nightly],
    "docs/bench.md": [pytest.mark.nightly],
}
"""Pages whose commands start a Ray, or measure."""

_RUN = [
    pytest.param(page, marks=_SLOW.get(page, [])) for page in PAGES if _steps(page) and "" not in _NOT_RUN.get(page, {})
]


@pytest.mark.parametrize("page", _RUN)
def test_commands_of_a_page_do_what_it_shows(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    make_data(tmp_path)
    if page == "docs/medical.md":
        write_data(tmp_path / "scans", 10, "dicom")
    if page == "docs/segmentation.md":
        write_volumes(tmp_path / "marked", {"train": 4, "val": 2, "test": 2})
    if page == "docs/channels.md":
        write_deep(tmp_path / "xray")
        write_bands(tmp_path)
    ran = 0
    with working_directory(tmp_path), _servers(page, request) as places:
        for block in blocks(ROOT / page):
            if block.name is not None:
                (tmp_path / block.name).write_text(block.text)
        for step in _steps(page):
            if _not_run(page, step):
                continue
            words = (*(_replaced(word, places) for word in step.words), *_ADDED.get((page, step.words[1]), ()))
            code, seen = type_in(words, apart=page == "docs/search.md")
            refused = any(line.startswith("raycls: ") for line in step.shown)
            typed = " ".join(step.words)
            assert (typed, code) == (typed, 2 if refused else 0), seen
            assert (typed, differs(step.shown, seen)) == (typed, "")
            ran += 1
    assert ran > 0


@contextmanager
def _servers(page: str, request: pytest.FixtureRequest) -> Iterator[dict[str, str]]:
    """What a page takes for granted on a network, on this machine; its addresses by those of the page."""
    if page == "docs/object-stores.md":
        s3: S3 = request.getfixturevalue("s3")
        address = f"127.0.0.1:{s3.proxy.port}"
        s3.upload(Path("photos"), "photos")
        os.environ["AWS_ENDPOINT_URL_S3"] = f"http://{address}"  # the address without an endpoint is AWS otherwise
        yield {"host:9000": address, "/local/cache": str(Path.cwd() / "cache")}
    elif page == "docs/trackers.md":
        with standing_in() as server:
            yield {"http://host:5000": server.uri}
            assert server.only_run()["status"] == "FINISHED"
    else:
        yield {}


def _replaced(word: str, places: dict[str, str]) -> str:
    for shown, used in places.items():
        word = word.replace(shown, used)
    return word


def test_what_is_not_run_is_run_elsewhere() -> None:
    for page, words in _NOT_RUN.items():
        for word, file in words.items():
            assert (ROOT / file).is_file()
            assert any(step.words[0].startswith(word) for step in _steps(page)), f"{page}: {word}"


@pytest.mark.parametrize("page", PAGES)
def test_configs_of_a_page_are_valid(page: str, tmp_path: Path) -> None:
    files = [block for block in blocks(ROOT / page) if block.language == "yaml"]
    (tmp_path / "pets.yaml").write_text("data: {source: {name: folder, path: photos}}\n")  # where the page has none
    for block in files:
        (tmp_path / (block.name or "unnamed.yaml")).write_text(block.text)
        run = load(tmp_path / block.name).run if block.name else load_text(block.text).run
        if run.search.space:
            assert space_of(run).paths
    assert page != "README.md" or len(files) == 1


@pytest.mark.parametrize("page", ALL)
def test_commands_have_words_that_the_command_line_takes(page: str) -> None:
    for step in _steps(page):
        if "raycls" in step.words and not any(line.startswith("raycls: ") for line in step.shown[:1]):
            _take(list(step.words[step.words.index("raycls") + 1 :]), page)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_commands_in_the_header_of_a_config_have_words_that_the_command_line_takes(file: Path) -> None:
    commands = re.findall(r"^# (?:Command:|        )  raycls (.+)$", file.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        _take(shlex.split(command), file.name)


def _take(words: list[str], page: str) -> None:
    """Raises a usage or a config error where the command line would refuse the words after `raycls`."""
    given = _given(words)
    if words[0] == "submit":
        given = _given(given["words"])
    for word in (*(given.get("overrides") or ()), *(given.get("words") or ())):
        if "=" in word:
            load_text("", page, [word])


def _given(words: list[str]) -> dict[str, Any]:
    """What the command line makes of the words after `raycls`. Raises a usage error."""
    command: Any = typer.main.get_command(app.app)
    context = None
    while hasattr(command, "commands"):
        context = command.make_context(command.name, [], parent=context, resilient_parsing=True)
        _, command, words = command.resolve_command(context, words)
    return command.make_context(command.name, list(words), parent=context).params


@pytest.mark.parametrize("page", ALL)
def test_options_that_a_text_names_are_there(page: str) -> None:
    text = re.sub(r"```.*?```", "", (ROOT / page).read_text(), flags=re.DOTALL)
    for path, value in re.findall(rf"`'?((?:{_SECTIONS})\.[a-z_.]+)(?:(?:=|: )([^`]+?))?'?`", text):
        if value:
            load_text("", page, [f"{path}={value}", *["data.source.path=x"] * (path != "data.source")])
        else:
            assert _is_option(path), f"{page}: {path}"


def _is_option(path: str) -> bool:
    kind: Any = Run
    for word in path.split("."):
        if word in ("args", "py", "json", "safetensors"):  # arguments belong to a name; the others are files
            return True
        if not (isinstance(kind, type) and issubclass(kind, BaseModel)) or word not in kind.model_fields:
            return False
        kind = kind.model_fields[word].annotation
    return True


@pytest.mark.parametrize("page", [*ALL, "SECURITY.md", "CHANGELOG.md"])
def test_links_lead_to_files(page: str) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", (ROOT / page).read_text()):
        assert (ROOT / page).parent.joinpath(target).exists(), target


def test_the_readme_is_short_begins_with_two_commands_and_maps_every_page() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 150
    assert any("pip install uv && uv run raycls demo" in line for line in lines[:25])
    assert any("pip install uv && uv run pytest" in line for line in lines[:25])
    assert all(f"({page})" in "\n".join(lines) for page in PAGES[1:])


def test_the_readme_lists_every_command() -> None:
    text = (ROOT / "README.md").read_text()
    commands = set(typer.main.get_command(app.app).commands)  # type: ignore[attr-defined]
    assert commands == {name for name in commands if re.search(rf"`(?:raycls )?{name}\b", text)}


@pytest.mark.parametrize("page", PAGES[1:])
def test_a_page_is_about_one_screen(page: str) -> None:
    assert len((ROOT / page).read_text().splitlines()) <= 100


_ROWS = [
    (file, name)
    for file, names in re.findall(
        r"^\| .+\? \| `(\S+\.py)` \| (.+) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE
    )
    for name in re.findall(r"`(\S+)`", names)
]


def test_contributing_has_an_answer_to_twelve_questions_and_more() -> None:
    assert len({file for file, _ in _ROWS}) >= 12


@pytest.mark.parametrize(("file", "name"), _ROWS)
def test_the_file_that_answers_a_question_defines_what_the_answer_names(file: str, name: str) -> None:
    names = _defined(ast.parse((ROOT / file).read_text()), name.split("."))
    assert names, f"{file} does not define {name}"


def _defined(tree: ast.AST, path: list[str]) -> bool:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == path[0]:
            return len(path) == 1 or _defined(node, path[1:])
    return False


def test_contributing_lists_every_room() -> None:
    listed = re.findall(r"^\| `(\w+)/` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(file.parent.name for file in (ROOT / "raycls").glob("*/__init__.py"))


def test_the_three_commands_of_contributing_are_what_ci_runs() -> None:
    run = (ROOT / ".ci" / "run").read_text()
    commands = [" ".join(step.words) for step in _steps("CONTRIBUTING.md")]
    assert len(commands) == 4  # format and lint are two of one line
    assert all(command in run for command in commands)


def test_findings_lists_each_script_with_its_library() -> None:
    listed = dict(
        re.findall(r"^\| `(\S+\.sh)` \| (.+?) \|", (ROOT / "findings" / "README.md").read_text(), re.MULTILINE)
    )
    scripts = {file.name: file.read_text() for file in (ROOT / "findings").glob("*.sh")}
    assert listed.keys() == scripts.keys()
    for name, library in listed.items():
        assert scripts[name].splitlines()[1].startswith(f"# {library}")
    (step,) = _steps("findings/README.md")
    assert step.words[0] == "bash"
    assert (ROOT / step.words[1]).is_file()
