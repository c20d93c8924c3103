"""Names and their arguments in a config are looked up at once, all of them, and without importing anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from raycls.config.load import ConfigProblemsError, Problem, load
from raycls.config.names import builtin
from raycls.data import source
from raycls.data.images import operations
from raycls.models import zoo
from raycls.names import name_problems
from raycls.plugins import resolve

NETS = """
import os
import sys as system
from torch import nn
from torch.nn import ReLU
from shades import invert
from .near import other

raise SystemExit("a config is looked at without running this")

def net(num_classes, width=8): ...
def plain(): ...

@decorated
def changed(anything): ...

class Net(nn.Module):
    def __init__(self, num_classes: int, *, width: int, depth=2) -> None: ...
    def helper(self): ...

class Inherited(Net): ...

class Both(Task):
    def __init__(self, setting, seconds=2): ...

class Task:
    def __init__(self, setting, scale: float = 1.0) -> None: ...

if system:
    def conditional(num_classes): ...
else:
    made = net
"""


def problems(folder: Path, text: str, *overrides: str) -> list[Problem]:
    (folder / "c.yaml").write_text(text)
    try:
        load(folder / "c.yaml", overrides, names=name_problems)
    except ConfigProblemsError as error:
        return list(error.problems)
    return []


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    (tmp_path / "nets.py").write_text(NETS)
    (tmp_path / "shades.py").write_text("def invert(share=0.5): ...\n")
    (tmp_path / "more.py").write_text("from shades import *\n")
    (tmp_path / "broken.py").write_text("def net(:\n")
    (tmp_path / "pack").mkdir()
    (tmp_path / "pack" / "nets.py").write_text("def net(num_classes): ...\n")
    return tmp_path


@pytest.mark.parametrize(
    ("text", "path", "line", "words"),
    [
        ("data:\n  source:\n    name: foldr", "data.source.name", 3, ["no source 'foldr'", "did you mean folder?"]),
        ("model: {name: os:system}", "model.name", 1, ["module of Python", "working directory"]),
        ("model: {name: resnett18}", "model.name", 1, ["no model", "did you mean resnet18?"]),
        ("model: {name: fcn_resnet50}", "model.name", 1, ["no model 'fcn_resnet50'"]),
        ("model: {name: /etc/passwd}", "model.name", 1, ["no name of a model"]),
        ("model: {name: raycls.cli.app:main}", "model.name", 1, ["no plug-ins"]),
        ("model: {name: 'nowhere:net'}", "model.name", 1, ["nowhere.py"]),
        ("model: {name: 'net:net'}", "model.name", 1, ["net.py", "did you mean the file nets.py?"]),
        ("model: {name: 'broken:net'}", "model.name", 1, ["broken.py is no Python", "line 1", "mend the module"]),
        (
            "model: {weights: IMAGENET1K_V9}",
            "model.weights",
            1,
            ["resnet18 has no weights", "did you mean IMAGENET1K_V1?"],
        ),
        ("model: {weights: ResNet50_Weights.DEFAULT}", "model.weights", 1, ["resnet18 has no weights", "DEFAULT"]),
        (
            "model: {name: tiny_cnn, weights: DEFAULT}",
            "model.weights",
            1,
            ["tiny_cnn has no weights", ".safetensors or .pth"],
        ),
        ("model: {name: 'nets:nett'}", "model.name", 1, ["nets has no 'nett'", "did you mean net?"]),
        ("model: {name: 'nets:ReLU'}", "model.name", 1, ["imported there from torch.nn"]),
        ("model: {name: 'nets:system.exit'}", "model.name", 1, ["imported there from sys"]),
        ("model: {name: 'nets:net', args: {widht: 3}}", "model.args", 1, ["no argument widht", "model.args.width"]),
        ("model: {name: 'nets:net', args: {num_classes: 3}}", "model.args", 1, ["set by raycls"]),
        ("model: {name: 'nets:Net'}", "model.args", 1, ["argument width is missing"]),
        ("task: {args: {smooth: 1}}", "task.args", 1, ["classification", "no argument smooth"]),
        ("task: {name: 'nets:Task', args: {scael: 1}}", "task.args", 1, ["no argument scael", "task.args.scale"]),
        ("task: {name: 'nets:Task', args: {scale: big}}", "task.args.scale", 1, ["a number"]),
        ("evaluate: {metric: top7}", "evaluate.metric", 1, ["no metric 'top7'", "found: evaluate.metric: top7"]),
        ("model: {name: 'nets:plain'}", "model.args", 1, ["must take the argument num_classes"]),
        ("model:\n  name: tiny_cnn\n  args:\n    widht: 3", "model.args", 4, ["no argument widht"]),
        ("model: {name: resnet18, args: {width: 3}}", "model.args", 1, ["resnet18", "no argument width"]),
        ("task: {name: 'nets:Both', args: {secnds: 3}}", "task.args", 1, ["no argument secnds", "task.args.seconds"]),
        ("task: {name: 'nets:Both', args: {setting: 3}}", "task.args", 1, ["set by raycls"]),
        ("task: {args: {seconds: 3}}", "task.args", 1, ["classification", "no argument seconds"]),
        ("data: {source: {name: folder, args: {ingore: x}}}", "data.source.args", 1, ["no argument ingore"]),
        ("augment: {train: [horizontal_flop]}", "augment.train[0]", 1, ["did you mean horizontal_flip?"]),
        (
            "augment:\n  eval:\n    - resize\n    - {rotation: {}}",
            "augment.eval[1].rotation",
            4,
            ["degrees is missing"],
        ),
        ("augment: {train: [{resize: {image_size: 3}}]}", "augment.train[0].resize", 1, ["set by raycls"]),
        ("augment: {train: ['shades:inverted']}", "augment.train[0]", 1, ["has no 'inverted'"]),
        ("search:\n  space:\n    model.name: [vgg11, vgg12]", "search.space.model.name[1]", 3, ["no model 'vgg12'"]),
        (
            "search: {space: {augment.train: {when: {optim.name: sgd}, values: [[resize], [rezise]]}, "
            "optim.name: [sgd, adamw]}}",
            "search.space.augment.train.values[1][0]",
            1,
            ["no augmentation 'rezise'"],
        ),
    ],
)
def test_a_wrong_name_or_argument_is_told_at_its_place(
    here: Path, text: str, path: str, line: int, words: list[str]
) -> None:
    (problem,) = problems(here, text)
    assert (problem.path, problem.place.line) == (path, line)
    assert all(word in str(problem) for word in words), str(problem)


@pytest.mark.parametrize(
    "text",
    [
        "model: {name: 'nets:net', args: {width: 3}}",
        "model: {name: 'nets:Net', args: {width: 3}}",
        "model: {name: 'nets:conditional'}",
        "model: {name: 'nets:made'}",
        "model: {name: 'nets:changed', args: {what: ever}}",
        "model: {name: 'nets:Inherited', args: {width: 3}}",
        "model: {name: 'nets:other'}",
        "model: {name: 'pack.nets:net'}",
        "model: {name: 'more:anything'}",  # only running it would tell
        "model: {name: resnet18, args: {zero_init_residual: true}}",
        "model: {name: resnet50, weights: IMAGENET1K_V2}",
        "model: {name: resnet50, weights: ResNet50_Weights.DEFAULT}",
        "model: {name: tiny_cnn, weights: nowhere.pth}",
        "model: {weights: IMAGENET1K_V2}\nsearch: {space: {model.name: [resnet50, resnet101]}}",
        "model: {name: vit_b_16, args: {image_size: 64}}",
        "augment: {train: ['nets:invert', {'shades:invert': {share: 0.1}}, {rotation: {degrees: 3}}]}",
        "model: {name: 'nets:Net'}\nsearch: {space: {model.args.width: [1, 2]}}",
        "task: {name: 'nets:Both', args: {seconds: 3}}",
        "",
    ],
)
def test_what_may_be_right_is_left_to_the_start(here: Path, text: str) -> None:
    assert problems(here, text) == []


def test_all_of_them_come_at_once_beside_other_problems(here: Path) -> None:
    text = (
        "model: {name: vgg12}\noptim: {name: sgdd}\nschedule: {name: cosin}\naugment: {train: [flip]}\ndata: {bach: 1}"
    )
    found = problems(here, text, "data.source.name=foldr")
    assert [(problem.path, problem.where.rpartition("/")[2]) for problem in found] == [
        ("model.name", "c.yaml:1"),
        ("optim.name", "c.yaml:2"),
        ("schedule.name", "c.yaml:3"),
        ("augment.train[0]", "c.yaml:4"),
        ("data.bach", "c.yaml:5"),
        ("data.source.name", "command line"),
    ]


def test_a_name_of_the_wrong_kind_is_told_once(here: Path) -> None:
    found = problems(
        here, "model: {name: [a], args: [b]}\naugment: {train: [[resize]], eval: flip}\nsearch: {space: 3}"
    )
    assert sorted(problem.path for problem in found) == [
        "augment.eval",
        "augment.train[0]",
        "model.args",
        "model.name",
        "search.space",
    ]


@pytest.mark.parametrize(
    "text", ["model: {name: resnet18}\naugment: {train: [resize]}", "model: {name: 'nets:net'}", "model: {name: x}"]
)
def test_neither_torch_nor_ray_nor_the_plug_in_is_imported(here: Path, text: str) -> None:
    (here / "c.yaml").write_text(f"{text}\ndata: {{source: {{name: manifest, args: {{root: x}}}}}}")
    code = (
        "import sys, typer; from raycls.cli.app import app\n"
        "try: typer.main.get_command(app)(['config', 'c.yaml'])\n"
        "except BaseException: pass\n"
        "slow = {'torch', 'torchvision', 'ray', 'numpy', 'nets', 'raycls.data.images.operations'}\n"
        "print('modules', sorted(slow & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("modules []\n"), done.stdout + done.stderr


def test_the_tables_name_what_is_there() -> None:
    for kind, table in (("source", builtin.SOURCES), ("augmentation", builtin.OPERATIONS), ("model", builtin.MODELS)):
        for name in table:
            assert callable(resolve(kind, name, table))
    assert source.SOURCES is builtin.SOURCES
    assert operations.OPERATIONS is builtin.OPERATIONS
    assert set(builtin.MODELS) <= set(zoo.MODELS)
