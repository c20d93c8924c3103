from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

from raycls.config.load import ConfigProblemsError, Problem, from_dict, load, load_text, show
from raycls.errors import ConfigError


def write(folder: Path, text: str, name: str = "digits.yaml") -> Path:
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def problems(file: Path | str, *overrides: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigProblemsError) as caught:
        load(file, overrides)
    return caught.value.problems


TWENTY = """\
run: {seed: -1}
modell: {name: resnet18}
optim:
  lrr: 0.1
  lr: "0.1"
  weight_decay_on: al
  weight_decay_on: all
  args: {momentum: 1.5}
data:
  workers: 4
  batch_size: 64.0
  split: {train: 0.5}
loss: 3
schedule:
  warmup: 5
  name: multistep
augment:
  mean: [1, 2]
  train: [resize, 5]
train:
  micro_batches: !!python/name:os.system 4
  duration: 2h
1: 2
"""
TWENTY_FOUND = [
    (1, "run.seed", "out of range"),
    (2, "modell", "no such section"),
    (4, "optim.lrr", "no such option"),
    (5, "optim.lr", "type"),
    (6, "optim.weight_decay_on", "not one of the choices"),
    (7, "optim.weight_decay_on", "written twice, in lines 6 and 7"),
    (8, "optim.args.momentum", "out of range"),
    (10, "data.workers", "no such option"),
    (11, "data.batch_size", "type"),
    (12, "data.split", "must be 1"),
    (13, "loss", "a section, not a value"),
    (15, "schedule.warmup", "type"),
    (16, "schedule.name", "needs schedule.args.milestones"),
    (18, "augment.mean", "wrong number of values"),
    (19, "augment.train[1]", "type"),
    (21, "train.micro_batches", "tags"),
    (22, "train.duration", "in epochs or steps"),
    (23, "", "a key must be"),
]


def test_all_problems_of_a_file_come_at_once_each_with_its_place(tmp_path: Path) -> None:
    file = write(tmp_path, TWENTY)
    found = problems(file, "optim.lrr=3", "train.amp=fp32", "nonsense")
    in_file = [m for m in found if m.place.line is not None]
    assert [(m.place.line, m.path) for m in in_file] == [(line, path) for line, path, _ in TWENTY_FOUND]
    for problem, (_, _, words) in zip(in_file, TWENTY_FOUND, strict=True):
        assert words in problem.what
        assert problem.where == f"{file}:{problem.place.line}"
    rest = {m.path for m in found if m.where == "command line"}
    assert rest == {"optim.lrr", "train.amp", ""}
    assert len(found) == len(TWENTY_FOUND) + 3


def test_the_error_is_a_config_error_and_survives_pickling(tmp_path: Path) -> None:
    file = write(tmp_path, TWENTY)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert caught.value.exit_code == 2
    back = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(back, ConfigProblemsError)
    assert len(back.problems) == len(TWENTY_FOUND)
    assert str(back) == str(caught.value)
    for line, path, _ in TWENTY_FOUND:
        assert f"{file}:{line}  {path}" in str(back)


def test_no_message_speaks_pydantic(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(write(tmp_path, TWENTY))
    for word in ("pydantic", "Input should", "Value error", "input_type", "function-before", "constrained"):
        assert word not in str(caught.value)


def test_later_layers_win_and_every_value_knows_its_origin(tmp_path: Path) -> None:
    write(
        tmp_path, "optim:\n  lr: 0.5\n  args: {momentum: 0.8}\nmodel:\n  args: {width: 8, dropout: 0.5}\n", "base.yaml"
    )
    file = write(tmp_path, "extends: base.yaml\noptim:\n  lr: 1e-1\nmodel:\n  args:\n    width: 16\n")
    loaded = load(file, ["train.duration=3ep", "train.duration=5ep", "model.args.depth=2"])
    run, origins = loaded.run, loaded.origins
    assert (run.optim.lr, run.optim.args) == (0.1, {"momentum": 0.8, "nesterov": False})
    assert run.model.args == {"width": 16, "dropout": 0.5, "depth": 2}
    assert str(run.train.duration) == "5ep"
    assert origins["optim.lr"] == "digits.yaml:3"
    assert origins["optim.args.momentum"] == "base.yaml:3"
    assert origins["optim.args.nesterov"] == "default"
    assert origins["model.args.width"] == "digits.yaml:6"
    assert origins["model.args.dropout"] == "base.yaml:5"
    assert origins["model.args.depth"] == "command line"
    assert origins["train.duration"] == "command line"


def test_lists_are_replaced_and_an_empty_mapping_drops_what_was_inherited(tmp_path: Path) -> None:
    write(tmp_path, "augment: {train: [resize, rotation]}\nmodel: {args: {width: 8}}\n", "base.yaml")
    file = write(tmp_path, "extends: base.yaml\naugment: {train: [horizontal_flip]}\nmodel: {args: {}}\ndata: {}\n")
    loaded = load(file)
    assert loaded.run.augment.train == ("horizontal_flip",)
    assert loaded.run.model.args == {}
    assert loaded.origins["model.args"] == "digits.yaml:3"
    assert load(file, ["augment.train=[]"]).run.augment.train == ()
    assert load(file, ["model.args={width: 3}", "model.args.width=4"]).run.model.args == {"width": 4}


def test_files_of_one_name_in_two_folders_are_told_apart(tmp_path: Path) -> None:
    write(tmp_path, "optim: {lr: 0.5}\n", "base/digits.yaml")
    file = write(tmp_path, "extends: base/digits.yaml\nrun: {seed: 3}\n")
    origins = load(file).origins
    assert origins["optim.lr"].endswith("base/digits.yaml:1")
    assert origins["run.seed"] == f"{file}:2"


def test_extends_goes_one_level(tmp_path: Path) -> None:
    write(tmp_path, "run: {seed: 1}\n", "first.yaml")
    write(tmp_path, "# shared\nextends: first.yaml\noptim: {lrr: 1}\n", "base.yaml")
    file = write(tmp_path, "extends: base.yaml\nmodel: {nam: x}\n")
    found = problems(file)
    assert [(m.where, m.path) for m in found] == [
        (f"{file}:2", "model.nam"),
        (f"{tmp_path / 'base.yaml'}:2", "extends"),
        (f"{tmp_path / 'base.yaml'}:3", "optim.lrr"),
    ]
    itself = write(tmp_path, "extends: self.yaml\n", "self.yaml")
    assert "cannot extend another" in problems(itself)[0].what


def test_a_file_to_extend_that_is_not_there_does_not_hide_the_rest(tmp_path: Path) -> None:
    file = write(tmp_path, "extends: bsae.yaml\noptim:\n  lr: -1\nscale: {workers: 0}\ndata: {executor: ray}\n")
    write(tmp_path, "", "base.yaml")
    found = problems(file)
    assert [(m.place.line, m.path) for m in found] == [(1, "extends"), (3, "optim.lr")]
    assert found[0].fix == f"did you mean {tmp_path / 'base.yaml'}?"
    assert problems(write(tmp_path, "extends: [a]\n"))[0].path == "extends"


def test_the_run_is_named_after_its_file(tmp_path: Path) -> None:
    assert load(write(tmp_path, "")).run == from_dict({"run": {"name": "digits"}})
    assert load(write(tmp_path, "", "my first run.yaml")).run.run.name == "my-first-run"
    assert load(write(tmp_path, "", "ä.yaml")).run.run.name == "run"
    assert load(write(tmp_path, "run: {name: x}\n")).run.run.name == "x"
    assert load(write(tmp_path, "run:\n"), ["run.name=y"]).run.run.name == "y"
    assert load(write(tmp_path, "")).origins["run.name"] == "default"


def test_a_problem_in_an_override_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    file = write(tmp_path, "data: {executor: ray}\n")
    (problem,) = problems(file, "scale.workers=0")
    assert "data.executor: ray, scale.workers: 0" in str(problem.found)
    (problem,) = problems(file, "optim.lr=-1")
    assert (problem.where, problem.path) == ("command line", "optim.lr")


def test_an_override_mends_a_value_of_the_file(tmp_path: Path) -> None:
    assert load(write(tmp_path, "optim: {lr: oops}\n"), ["optim.lr=0.2"]).run.optim.lr == 0.2


@pytest.mark.parametrize(
    ("data", "line", "words"),
    [
        (b"run:\n  name: \xff\n", 2, "not UTF-8"),
        (b"run:\n\tname: x\n", 2, "tab"),
        (b"x" * 300_000, None, "256 KiB"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, data: bytes, line: int | None, words: str) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(data)
    (problem,) = problems(file)
    assert problem.place.line == line
    assert words in problem.what


def test_files_that_are_not_there(tmp_path: Path) -> None:
    write(tmp_path, "")
    assert problems(tmp_path / "digit.yaml")[0].fix == f"did you mean {tmp_path / 'digits.yaml'}?"
    assert "Is a directory" in problems(tmp_path)[0].what
    assert "cannot be read" in problems("a\0b")[0].what


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(b"\xef\xbb\xbfrun: {seed: 3}\n")
    assert load(file).run.run.seed == 3


def test_bad_syntax_does_not_hide_problems_of_the_command_line(tmp_path: Path) -> None:
    found = problems(write(tmp_path, "optim: [\n"), "optim.lr=-1")
    assert [m.path for m in found] == ["", "optim.lr"]


def test_text_that_is_no_file_can_be_overridden_but_not_extend() -> None:
    assert load_text("optim: {lr: 1}\n", overrides=["optim.lr=2"]).run.optim.lr == 2
    with pytest.raises(ConfigError, match="cannot extend"):
        load_text("extends: a.yaml\n")


def test_show_says_where_each_value_was_set(tmp_path: Path) -> None:
    lines = show(load(write(tmp_path, "optim:\n  lr: 1e-3\n"), ["scale.workers=2"])).splitlines()
    assert any(line.split() == ["lr:", "0.001", "#", "digits.yaml:2"] for line in lines)
    assert any(line.split() == ["workers:", "2", "#", "command", "line"] for line in lines)
    assert any(line.split() == ["name:", "digits", "#", "default"] for line in lines)
    assert all("#" in line or line.rstrip().endswith(":") for line in lines)


def test_what_show_prints_loads_to_the_same(tmp_path: Path) -> None:
    loaded = load(write(tmp_path, "model: {args: {a: 'no', b: [1, x]}}\n"))
    assert load_text(show(loaded)).run == loaded.run


def test_loading_needs_no_heavy_import() -> None:
    code = (
        "import sys, raycls.config.load, raycls.plugins, raycls.errors\n"
        "print(sorted({'torch', 'ray', 'numpy', 'matplotlib', 'PIL', 'pyarrow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
