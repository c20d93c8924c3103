"""One case for each remedy that can be typed: how its error comes about, and what to type. Adding one is an entry."""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image
from pyarrow import parquet

from harness.masks import write_images
from harness.phantom import Geometry, phantom, write_nifti
from harness.tars import write_shard
from raycls.config.load import load
from raycls.config.sections.model import ModelConfig
from raycls.launch import trainer
from raycls.models import zoo
from raycls.run.folder import RunFolder
from raycls.run.model_file import write_model
from raycls.screen.run import Display
from raycls.session.scoring.options import Scoring

__all__ = ["CASES", "ELSEWHERE", "NO_RAY", "UNTYPED", "Case", "make_project"]

_WORD = re.compile(r"""(?<!\S)(?:[^\s'"\\]|'[^']*'|"(?:\\.|[^"\\])*"|\\.)+""")
_OVERRIDE = re.compile(r"[a-z_]+(?:\.\w+)+=.", re.DOTALL)
_FLAG = re.compile(r"--[a-z][a-z-]*(?:=.*)?", re.DOTALL)
Use = Callable[[Path, str, str], str]
"""(the working directory, the command, the printed fix) -> the command to type, after what else the fix asks for."""


def typed(fix: str) -> list[str]:
    """The overrides and options in a remedy, as they stand there, with their quotes."""
    words = [found.rstrip(",;?)").lstrip("(") for found in _WORD.findall(fix)]
    return [word for word in words if any(form.match("".join(shlex.split(word))) for form in (_OVERRIDE, _FLAG))]


def add(index: int | None = None) -> Use:
    """Add what can be typed to the command: all of it, or the one of several ways at `index`.

    An override takes the place of the one for the same path.
    """

    def use(folder: Path, command: str, fix: str) -> str:
        words = typed(fix)
        assert words, f"nothing to be typed in: {fix}"
        new = words if index is None else [words[index]]
        old = [word for word in _WORD.findall(command) if not _path(word) or _path(word) not in map(_path, new)]
        return " ".join([*old, *new])

    return use


def _path(word: str) -> str:
    path, equals, _ = "".join(shlex.split(word)).partition("=")
    return path if equals else ""


def options(*parts: str) -> Use:
    """`parts` as a command, in which {0}, {1} ... are what can be typed in the remedy."""

    def use(folder: Path, command: str, fix: str) -> str:
        return " ".join(parts).format(*typed(fix))

    return use


def instead(old: str, pattern: str = r"(?:did you mean|write) (.*?)\??$") -> Use:
    """Put what the remedy says in the place of `old` in the command."""

    def use(folder: Path, command: str, fix: str) -> str:
        found = re.search(pattern, fix, re.MULTILINE)
        assert found is not None and old in command, fix
        return command.replace(old, found[1])

    return use


def in_file(old: str, pattern: str = r"(?:did you mean|write) (.*?)\??$", file: str = "c.yaml", add: str = "") -> Use:
    """Put what the remedy says in the place of `old` in the config."""

    def use(folder: Path, command: str, fix: str) -> str:
        found = re.search(pattern, fix, re.MULTILINE)
        text = (folder / file).read_text()
        assert found is not None and old in text, fix
        (folder / file).write_text(text.replace(old, found[1] + add))
        return command

    return use


_ADD = add()


@dataclass(frozen=True)
class Case:
    """`command` fails in a project that `make` has changed, with the remedy of `site` whose words hold `text`.

    What `use` makes of it is typed, and ends with `code` and with `shows` in what is said.
    """

    site: str
    command: str
    make: Callable[[Path], object] = lambda folder: None
    text: str = ""
    use: Use = _ADD
    code: int = 0
    shows: str = ""
    slow: bool = False
    before: Callable[[Path], object] = lambda folder: None
    first: str = ""
    """What is changed, and a command that is run, before `make`."""
    first_code: int = 0


def image(path: Path, level: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), (level, 60, 200 - level)).save(path)


def make_project(folder: Path) -> None:
    """Two classes of ten images each, and a config that trains on them in this process."""
    for index in range(10):
        image(folder / "p" / "a" / f"{index}.png", 10 * index)
        image(folder / "p" / "b" / f"{index}.png", 10 * index + 100)
    (folder / "c.yaml").write_text(
        "data: {source: {path: p}, batch_size: 4, image_size: 8}\n"
        "augment: {train: [], eval: []}\n"
        "model: {name: tiny_cnn, args: {width: 4}}\n"
        "optim: {lr: 0.01}\n"
        "train: {duration: 1ep}\n"
        "scale: {workers: 0}\n"
    )


def make_volumes(folder: Path) -> None:
    """Ten volumes of each of two classes as NIfTI files, a source of arrays without a spacing, and a config."""
    for label, name in enumerate("ab"):
        for index in range(10):
            write_nifti(folder / "v" / name / f"{index}.nii", phantom(index, label, Geometry(size=(4, 6, 6))))
    (folder / "cubes.py").write_text(
        "import numpy as np\nfrom raycls.data.samples import Samples\n\n\n"
        "class Cubes:\n    def read(self, index):\n        return np.full((4, 6, 6), index, np.float32)\n\n\n"
        "def cubes(path):\n"
        "    return Samples(['a', 'b'], [0, 1] * 10, keys=list(map(str, range(20))), reader=Cubes())\n"
    )
    (folder / "v.yaml").write_text(
        "data: {source: {name: nifti, path: v}, batch_size: 4, image_size: 8}\n"
        "task: {name: volume_classification}\n"
        "model: {name: resnet3d, in_channels: 1, args: {depth: 10, width: 2, stem: 3x3x3}}\n"
        "train: {duration: 1ep}\n"
        "scale: {workers: 0}\n"
    )


def embedded(**files: int) -> Callable[[Path], None]:
    """Parquet files of the images of the project, in `q/`; their column is `image` at 0, and `pic` at 1."""

    def write(folder: Path) -> None:
        (folder / "q").mkdir()
        told = {"info": {"features": {"label": {"_type": "ClassLabel", "names": ["a", "b"]}}}}
        images = [(folder / "p" / "ab"[index % 2] / f"{index // 2}.png").read_bytes() for index in range(20)]
        for name, column in files.items():
            labels = [index % 2 for index in range(20)]
            table = pa.table({("image", "pic")[column]: images, "label": labels})
            table = table.replace_schema_metadata({"huggingface": json.dumps(told)})
            parquet.write_table(table, folder / "q" / f"{name}.parquet")

    return write


def tarred(change: Callable[[int, dict[str, Any]], object] = lambda at, sample: None) -> Callable[[Path], None]:
    """A tar shard of the images of the project, in `w/`, each sample as `change` makes it from its number."""

    def write(folder: Path) -> None:
        samples: list[dict[str, Any]] = []
        for at in range(20):
            image = (folder / "p" / "ab"[at % 2] / f"{at // 2}.png").read_bytes()
            samples.append({"__key__": f"{at:02d}", "png": image, "cls": at % 2})
            change(at, samples[-1])
        write_shard(folder / "w/train.tar", samples)

    return write


def listed(file: str, name: str, rows: int = 20, **columns: Callable[[int], str]) -> Callable[[Path], None]:
    """The images of the project beside a table of their names and labels, with more `columns`, in `h/`."""

    def write(folder: Path) -> None:
        (folder / "h").mkdir()
        lines = [",".join([name, "label", *columns])]
        for at in range(20):
            label = "ab"[at % 2]
            shutil.copy(folder / "p" / label / f"{at // 2}.png", folder / "h" / f"{at}.png")
            if at < rows:
                lines.append(",".join([f"{at}.png", label, *(value(at) for value in columns.values())]))
        (folder / "h" / file).write_text("\n".join(lines) + "\n")

    return write


def _hidden(folder: Path) -> None:
    """A test split beside the train split, whose labels are not told."""
    table = parquet.read_table(folder / "q/train.parquet")
    hidden = table.set_column(1, "label", pa.array([-1] * len(table)))
    parquet.write_table(hidden, folder / "q/test.parquet")


def edit(old: str, new: str, file: str = "c.yaml") -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / file).read_text()
        assert old in text
        (folder / file).write_text(text.replace(old, new))

    return change


def put(**files: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(text)

    return write


def _damage(folder: Path, first: int) -> None:
    """Spoil every checkpoint after step `first`, and take `model/` away."""
    shutil.rmtree(folder / "runs/c/model")
    for file in (folder / "runs/c/checkpoints").glob("step-*/model.safetensors"):
        if int(file.parent.name.removeprefix("step-")) > first:
            file.write_bytes(b"x")


def move(*pairs: tuple[str, str]) -> Callable[[Path], None]:
    def rename(folder: Path) -> None:
        for old, new in pairs:
            (folder / new).parent.mkdir(parents=True, exist_ok=True)
            (folder / old).rename(folder / new)

    return rename


def _teacher(seed: int) -> Callable[[Path], object]:
    """A run `t` that can teach the classes of the project, with random weights."""

    def write(folder: Path) -> None:
        config = ModelConfig(name="tiny_cnn", args={"width": 4})
        write_model(
            RunFolder(folder / "runs/t"),
            zoo.build(config, 2, seed).state_dict(),
            classes=("a", "b"),
            preprocessing={"image_size": 8, "eval": [], "mean": [0.5] * 3, "std": [0.5] * 3},
            config=config.model_dump(mode="json"),
            weights={},
        )

    return write


def tree(*classes: str) -> Callable[[Path], None]:
    """A folder `t` with three images in each of the folders `classes` below it."""

    def write(folder: Path) -> None:
        for number, name in enumerate(classes):
            for index in range(3):
                image(folder / "t" / name / f"{number}{index}.png", 20 * index + number)

    return write


def table(*rows: str) -> Callable[[Path], None]:
    """A manifest `m.csv` of these lines."""

    def write(folder: Path) -> None:
        (folder / "m.csv").write_text("\n".join(rows) + "\n")

    return write


def rows(form: str) -> list[str]:
    return [form.format(label=label, path=f"p/{label}/{index}.png", id="ab".index(label), index=index)
            for label in "ab" for index in range(10)]  # fmt: skip


def _divided(folder: Path) -> None:
    """A table `o.csv` whose cells have several labels."""
    (folder / "o.csv").write_text("path,label\np/a/0.png,a|b\np/b/0.png,b\n")


def annotated(*, two: bool = False, none: bool = False) -> Callable[[Path], None]:
    """A manifest `m.json` of images with annotations; one of them has two, or none."""

    def write(folder: Path) -> None:
        images = [
            {"file_path": f"p/{label}/{index}.png", "annotations": [{"label": label}]}
            for label in "ab"
            for index in range(10)
        ]
        images[0]["annotations"] = [{"label": "a"}, {"label": "b"}] if two else [] if none else [{"label": "a"}]
        (folder / "m.json").write_text(json.dumps({"images": images}))

    return write


def arrays(**more: Any) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        values: dict[str, Any] = {
            "train_images": np.zeros((8, 8, 8, 3), np.uint8), "train_labels": np.arange(8) % 2,
            "val_images": np.zeros((4, 8, 8, 3), np.uint8), "val_labels": np.arange(4) % 2,
        } | more  # fmt: skip
        np.savez(folder / "x.npz", **{key: value for key, value in values.items() if value is not None})

    return write


def remove(*paths: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for path in paths:
            (folder / path).unlink()

    return change


def _spoil_temperature(folder: Path) -> None:
    sha256 = json.loads((folder / "runs/c/model/model.json").read_text())["sha256"]
    text = json.dumps({"format": 1, "temperature": "warm", "sha256": sha256})
    (folder / "runs/c/model/temperature.json").write_text(text)


def _cameras(folder: Path) -> str:
    """A manifest of the images with a column of its own."""
    rows = [f"p/{name}/{index}.png,{name},{index % 2}" for name in "ab" for index in range(10)]
    (folder / "cameras.csv").write_text("path,label,camera\n" + "\n".join(rows) + "\n")
    return "cameras.csv"


def _train_elsewhere(folder: Path) -> None:
    """A run `d` on other images."""
    for index in range(10):
        image(folder / "q" / "a" / f"other-{index}.png", 10 * index)
        image(folder / "q" / "b" / f"other-{index}.png", 10 * index + 100)
    run = load(str(folder / "c.yaml"), ("run.name=d", "data.source.path=q")).run
    trainer.train(run, display=Display(io.StringIO()))


def _lose_predictions(folder: Path) -> None:
    """A run `d` whose evaluation has lost the file of the rows."""
    shutil.copytree(folder / "runs/c", folder / "runs/d")
    for name in ("c", "d"):
        trainer.evaluate(str(folder / "runs" / name), scoring=Scoring(), display=Display(io.StringIO()))
    (folder / "runs/d/predictions/test-best.parquet").unlink()


def both(*changes: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        for each in changes:
            each(folder)

    return change


TRAIN = "raycls train c.yaml"
_VOLUMES = "raycls train v.yaml"
_MASKS = (
    f"{TRAIN} data.source.name=masks data.source.path=cells 'data.source.args.classes=[a, b, c]' "
    "task.name=segmentation task.args.ignore_index=255 model.name=unet 'model.args={width: 2, depth: 1}' "
    "evaluate.metric=dice"
)
_TAUGHT = f"{TRAIN} task.name=distillation task.args.teacher=runs/t"
PREDICT = "raycls predict c p/a/1.png --out o.csv"
PACK = "raycls pack c.yaml --out k"
SHARDS = f"{TRAIN} data.source.name=webdataset data.source.path=w"
PARQUET = f"{TRAIN} data.source.name=parquet data.source.path=q"
MANIFEST = f"{TRAIN} data.source.name=manifest data.source.path=m.csv data.source.args.root=."
ARRAYS = f"{TRAIN} data.source.name=arrays data.source.path=x.npz"
TREE = f"{TRAIN} data.source.path=t"
SEVERAL = f"{MANIFEST} data.source.args.multilabel=true task.name=multilabel evaluate.metric=map"
CONFIG = "raycls config c.yaml"
JSON = f"{TRAIN} data.source.name=manifest data.source.path=m.json"
SEARCH = "raycls search c.yaml"
SPACE = "'search.space.optim.lr=[0.1, 0.2]'"
NO_RAY = "no Ray in this test"
NO_TEST = "data.split='{train: 0.8, val: 0.2, test: 0.0}'"
_NARROW = """
from torch import nn

def net(num_classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4), nn.Linear(4, num_classes))
"""
_LOCKED = """
import threading
from torch import nn

class net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer, self.lock = nn.Linear(192, num_classes), threading.Lock()

    def forward(self, images):
        return self.layer(images.flatten(1))
"""

_COUNTS = """
from torch import nn

class Counts(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.calls = nn.Conv2d(3, 4, 3), 0

    def forward(self, values):
        self.calls += 1
        return (self.conv(values) * self.calls).sigmoid().sigmoid()

def net(num_classes):
    return nn.Sequential(Counts(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, num_classes))
"""

_FIXED = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, num_classes)

    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3)) * torch.ones(4))
"""

CASES: tuple[Case, ...] = (
    # the command line and the config
    Case("cli/commands/starts.py:init", "raycls init p --out c.yaml", use=add(1)),
    Case(
        "config/names/arguments.py:bind_signature",
        f"{CONFIG} model.args.widht=8",
        use=instead("model.args.widht", r"mean (\S+?)\?"),
    ),
    Case(
        "config/names/arguments.py:bind_signature",
        f"{CONFIG} model.args.zzz=8",
        use=lambda folder, command, fix: f"{command} {typed(fix)[0]}",
    ),
    Case("config/check.py:_unknown", f"{CONFIG} optim.lrr=0.1", text="did you", use=instead("optim.lrr")),
    Case(
        "config/check.py:_unknown",
        CONFIG,
        edit("optim: {lr: 0.01}", "optim.lr: 0.01"),
        "nested",
        lambda folder, command, fix: in_file("optim.lr: 0.01", r"file: (.*)$")(
            folder, command, fix.replace("...", "0.01")
        ),
    ),
    Case("config/names/values.py:value_problem", f"""{CONFIG} optim.lr='"0.1"'"""),
    Case("config/names/values.py:value_problem", f"{CONFIG} data.batch_size=4.0"),
    Case("config/names/values.py:value_problem", f"{CONFIG} data.formats=png"),
    Case(
        "config/sections/run.py:_cache",
        f"{CONFIG} data.cache=memory 'augment.train=[{{random_resized_crop: {{resampling: fast}}}}]'",
        use=add(0),
    ),
    Case("config/names/planes.py:check_planes", f"{CONFIG} data.bit_depth=16", use=add()),
    Case("config/names/planes.py:check_planes", f"{CONFIG} data.bit_depth=16", use=add(2)),
    Case("config/names/planes.py:check_planes", f"{CONFIG} data.channels=1", use=add(0)),
    Case(
        "config/names/planes.py:check_planes",
        f"{CONFIG} data.channels=1 model.in_channels=1 'augment.train=[hsv]'",
        use=add(0),
    ),
    Case("config/sections/run.py:_sync", f"{CONFIG} train.batch_norm=sync train.micro_batches=2", use=add(0)),
    Case("config/sections/run.py:_sync", f"{CONFIG} train.batch_norm=sync train.micro_batches=2", use=add(1)),
    Case(
        "config/names/values.py:value_problem",
        f"{CONFIG} 'augment.train=[resize, 5]'",
        use=lambda folder, command, fix: f"{CONFIG} model.args={{}}",
    ),
    Case("config/names/values.py:value_problem", f"{CONFIG} train.duration=1", use=add(0)),
    Case("config/names/values.py:value_problem", f"{CONFIG} train.duration=1", use=add(1)),
    Case("config/names/values.py:value_problem", f"{CONFIG} optim.clip_norm=false"),
    Case("config/names/values.py:_written", CONFIG, edit("lr: 0.01", 'lr: "0.01"'), "write", in_file('"0.01"')),
    Case(
        "config/names/values.py:_written",
        CONFIG,
        edit("duration: 1ep", "duration: 1"),
        "write",
        lambda folder, command, fix: in_file("duration: 1}")(folder, command, f"write duration: {fix.split()[1]}}}"),
    ),
    Case(
        "config/load.py:_text",
        "raycls config 'my conf.yaml'",
        move(("c.yaml", "my confs.yaml")),
        use=instead("'my conf.yaml'"),
    ),
    Case(
        "config/overrides.py:read_override",
        "raycls config c.yaml optim.lr",
        text="example",
        use=instead("optim.lr", "example (.*)"),
    ),
    Case(
        "config/overrides.py:read_override",
        f"{CONFIG} data.source.name=manifest 'data.source.args.root=a: b'",
        text="for a string",
    ),
    Case(
        "config/space/check.py:_path_problem",
        f"{CONFIG} 'search.space.optim.lrr=[0.1, 0.2]'",
        text="did you",
        use=instead("optim.lrr"),
    ),
    Case(
        "config/space/check.py:_value_problems",
        f"{CONFIG} 'search.space.data.batch_size=uniform(2, 8)'",
        text="write",
        use=instead("uniform(2, 8)"),
    ),
    Case(
        "plugins.py:_not_there",
        f"{CONFIG} model.name=mynets.py:net",
        put(mynets__py="def net(num_classes): ...\n"),
        "leave the .py out",
        instead("mynets.py:net", "out: (.*)$"),
    ),
    Case(
        "cli/init.py:write",
        "raycls init p --out c.yaml/x",
        use=lambda folder, command, fix: f"raycls init p {typed(fix)[0]} FILE",
    ),
    Case(
        "cli/init.py:_source",
        "raycls init p optim.lr=0.5",
        use=lambda folder, command, fix: f"{TRAIN} optim.lr=0.5",
    ),
    # folders
    Case("data/sources/folder.py:_error", TRAIN, put(**{"p/a/some notes__txt": "x", "p/b/-x__md": "y"})),
    Case(
        "data/sources/folder.py:_error",
        TRAIN,
        lambda folder: [(folder / f"p/a/{index:030}.txt").touch() for index in range(40)],
    ),
    Case("cli/init.py:_open", "raycls init p", put(**{"p/a/it's $1 [x]__txt": "x"})),
    Case("data/ignore.py:as_options", "raycls init p", put(**{"p/a/-notes__txt": "x"})),
    Case(
        "data/sources/layout.py:_given",
        f"{TREE} data.source.args.splits='{{u: train, v: test}}'",
        tree("u/a", "u/b", "v/a", "v/b", "w/a", "w/b"),
    ),
    Case(
        "data/sources/layout.py:refuse_mixed", TREE, tree("train/a", "train/b", "test/a", "test/b", "un labelled"), "{}"
    ),
    Case(
        "data/sources/layout.py:refuse_mixed",
        TREE,
        tree("train/a", "train/b", "test/a", "test/b", "more/a", "more/b"),
        "such as",
        use=add(1),
    ),
    Case("data/sources/layout.py:refuse_wrapper", TREE, tree("in it/a", "in it/b")),
    Case(
        "data/sources/layout.py:unknown",
        TREE,
        tree("u u/a", "u u/b", "v/a", "v/b", "w/c"),
        "which is which",
        use=lambda folder, command, fix: f"{command} {' '.join(typed(fix)[:2])}",
    ),
    Case("data/sources/layout.py:unknown", TREE, tree("a/train", "a/test", "b/train", "b/test"), "pool them"),
    Case(
        "data/sources/layout.py:refuse_two_of_one",
        TREE,
        tree("train/a", "train/b", "test/a", "test/b", "testing/a", "testing/b"),
        use=add(0),
    ),
    Case(
        "data/sources/layout.py:refuse_two_of_one",
        TREE,
        tree("train/a", "train/b", "test/a", "test/b", "testing/a", "testing/b"),
        use=add(1),
    ),
    Case("data/sources/layout.py:refuse_no_classes", TREE, tree("train", "test"), "if these", use=add()),
    Case(
        "data/sources/layout.py:refuse_no_classes",
        TREE,
        tree("train/a", "train/b", "test"),
        "without a label",
        use=add(0),
    ),
    Case(
        "data/sources/layout.py:refuse_repeated",
        TREE,
        tree("a", "b", "test/a", "test/b"),
        use=add(0),
    ),
    Case(
        "data/sources/folder.py:directories",
        TREE,
        both(tree("train/a", "train/b", "test/a", "test/b"), lambda folder: (folder / "t" / "val").mkdir()),
    ),
    Case(
        "data/sources/layout.py:_deeper",
        TREE,
        tree("train/train/a", "train/train/b", "test/test/a", "test/test/b"),
        use=add(0),
    ),
    Case("data/sources/layout.py:unknown", TREE, tree(*(f"u{n}/{k}" for n in range(7) for k in "ab")), "name each"),
    Case("data/ignore.py:leaving_out", TRAIN, put(**{"p/a/notes__txt": "x"}), "them out"),
    Case(
        "data/ignore.py:leaving_out",
        TRAIN,
        lambda folder: [(folder / f"p/a/{index:030}.txt").touch() for index in range(40)],
        "these",
    ),
    # tables and arrays
    Case("data/sources/arrays.py:_parts", ARRAYS, arrays(extra=np.zeros(3)), "save them"),
    Case("data/sources/arrays.py:_parts", ARRAYS, arrays(test_images=np.zeros((2, 8, 8, 3), np.uint8)), "{}"),
    Case(
        "data/sources/arrays.py:_leave_out",
        ARRAYS,
        arrays(images=np.zeros((2, 8, 8, 3), np.uint8), labels=np.arange(2)),
    ),
    Case(
        "data/sources/listing/columns.py:_find",
        MANIFEST,
        table("path,label,class", *rows("{path},{label},{label}")),
        "which",
    ),
    Case(
        "data/sources/listing/columns.py:missing", MANIFEST, table("where,what,class name", *rows("{path},x,{label}"))
    ),
    Case(
        "data/sources/listing/labels.py:_refuse_without_id",
        MANIFEST,
        table("path,label,class_id", *rows("{path},{label},{id}")[:-3], *rows("{path},c,")[-3:]),
    ),
    Case(
        "data/sources/listing/labels.py:_class_id",
        MANIFEST,
        table("path,label,class_id", *rows("{path},{label},x{id}")),
    ),
    Case(
        "data/sources/listing/labels.py:_names", MANIFEST, table("path,label,class_id", *rows("{path},{label},{index}"))
    ),
    Case("data/sources/listing/labels.py:_refuse_two_classes", JSON, annotated(two=True)),
    Case("data/sources/listing/manifest.py:_refuse_unlabelled", JSON, annotated(none=True)),
    Case("data/sources/listing/manifest.py:leave_out", JSON, annotated(none=True)),
    Case(
        "data/sources/listing/paths.py:_remedy",
        f"{MANIFEST}/p/a",
        table("path,label", *rows("{path},{label}")),
        "another folder",
    ),
    Case(
        "data/sources/listing/paths.py:_remedy",
        MANIFEST,
        table("path,label", *rows("/data of me/{path},{label}")),
        "not the same here:",
    ),
    Case(
        "data/sources/listing/paths.py:_anywhere",
        MANIFEST,
        both(table("path,label", *rows("C:\\new\\{path},{label}")), move(("p", "q/w/p"))),
        "such as",
        lambda folder, command, fix: f"{command} {typed(fix)[0]} data.source.args.root=q/w/p",
    ),
    Case(
        "data/sources/listing/manifest.py:_splits",
        MANIFEST,
        table("path,label,split", *rows("{path},{label},train")[:-1], "p/b/9.png,b,"),
    ),
    Case(
        "data/sources/listing/manifest.py:_meanings",
        MANIFEST,
        table("path,label,split", *rows("{path},{label},fit")[2:], *rows("{path},{label},look")[:2]),
        "say what",
        use=add(0),
    ),
    Case(
        "data/sources/listing/manifest.py:_meanings",
        MANIFEST,
        table("path,label,split", *rows("{path},{label},fit")[2:], *rows("{path},{label},look")[:2]),
        "say what",
        use=add(1),
    ),
    # images
    Case("data/images/decoding/decode.py:_refuse", TRAIN, put(**{"p/a/0__png": "x"}), use=add(0)),
    Case(
        "data/making/bad.py:or_skip",
        TRAIN,
        put(**{"p/a/0__png": "x"}),
        use=lambda folder, command, fix: f"{command} {typed(fix)[-1]} data.max_bad_fraction=0.5",
    ),
    Case("session/recovery/bad_images.py:too_many", f"{TRAIN} data.on_bad_image=skip", put(**{"p/a/0__png": "x"})),
    Case(
        "data/images/decoding/decode.py:_refuse",
        TRAIN,
        put(**{"p/a/0__png": "x"}),
        use=lambda folder, command, fix: re.findall("raycls init .* --check", fix)[0].replace("CONFIG", "c.yaml"),
        code=3,
        shows="p/a/0.png",
    ),
    Case(
        "cli/image_check.py:_remedy",
        "raycls init p --check",
        put(**{"p/a/0__png": "x"}),
        use=lambda folder, command, fix: f"{TRAIN} {typed(fix)[0]}",
    ),
    # runs
    Case("session/prepare.py:evaluated_split", f"{TRAIN} evaluate.split=test {NO_TEST}"),
    Case("session/prepare.py:_check_same", f"{TRAIN} optim.lr=0.02", first=TRAIN),
    Case(
        "session/prepare.py:_resumed_plan",
        f"{TRAIN} scale.workers=2",
        first=TRAIN,
        use=lambda folder, command, fix: f"{TRAIN} {typed(fix)[0]} train.micro_batches=4",
    ),
    Case(
        "session/prepare.py:_refuse_search",
        TRAIN,
        lambda folder: [(folder / "runs/c").mkdir(parents=True), (folder / "runs/c/trials.jsonl").touch()],
    ),
    Case(
        "session/data/resumed.py:_refuse_lost",
        TRAIN,
        both(move(("p/a", "q/a"), ("p/b", "q/b")), tree("x", "y"), move(("t/x", "p/a"), ("t/y", "p/b"))),
        first=TRAIN,
    ),
    Case(
        "session/data/resumed.py:_refuse_relabelled",
        MANIFEST,
        edit("p/a/1.png,a", "p/a/1.png,b", "m.csv"),
        before=table("path,label", *rows("{path},{label}")),
        first=MANIFEST,
    ),
    Case(
        "session/data/resumed.py:_weights",
        f"{MANIFEST} data.weight=confidence",
        edit("p/a/1.png,a,1", "p/a/1.png,a,3", "m.csv"),
        before=table("path,label,confidence", *rows("{path},{label},1")),
        first=f"{MANIFEST} data.weight=confidence",
    ),
    Case(
        "session/data/resumed.py:_other",
        ARRAYS,
        arrays(train_labels=1 - np.arange(8) % 2),
        before=arrays(),
        first=ARRAYS,
    ),
    Case("session/setup.py:refuse_missing_gpu", f"{TRAIN} scale.device=cuda"),
    Case(
        "session/scoring/opened.py:overridden",
        "raycls eval c optim.lr=3",
        first=TRAIN,
        use=lambda folder, command, fix: f"raycls eval c {typed(fix)[0]} test",
    ),
    Case(
        "session/scoring/opened.py:_refuse",
        "raycls eval c --positive a",
        text="add --threshold",
        first=TRAIN,
        use=lambda folder, command, fix: f"{command} {fix.removeprefix('add ')}",
    ),
    Case(
        "session/scoring/opened.py:_refuse_fitted",
        "raycls eval c --threshold max-f1 --split val",
        text="not fitted on",
        first=TRAIN,
        use=lambda folder, command, fix: f"raycls eval c --threshold max-f1 {typed(fix)[0]} test",
    ),
    Case(
        "session/scoring/opened.py:_refuse",
        "raycls eval c --weights step-4 --calibrate",
        text="leave out --weights",
        first=f"{TRAIN} train.duration=2ep checkpoint.every=1ep checkpoint.keep=9 evaluate.keep=last",
        use=lambda folder, command, fix: command.replace(f" {typed(fix)[1]}", ""),
    ),
    Case(
        "session/scoring/opened.py:_refuse",
        "raycls eval c --tta flips --calibrate",
        text="leave out --tta",
        first=TRAIN,
        use=lambda folder, command, fix: command.replace(f" {typed(fix)[0]} flips", ""),
    ),
    Case(
        "session/predictions/predict.py:_work",
        "raycls predict c p/a/1.png --calibrated",
        before=table("path,label", *rows("{path},{label}")),
        first=SEVERAL,
        use=lambda folder, command, fix: "raycls predict c p/a/1.png",
    ),
    Case(
        "session/scoring/several.py:refuse",
        "raycls eval c --calibrate",
        before=table("path,label", *rows("{path},{label}")),
        first=SEVERAL,
        use=lambda folder, command, fix: "raycls eval c",
    ),
    Case(
        "session/trained/thresholds.py:_stored",
        "raycls predict c p/a/1.png --thresholds stored",
        before=table("path,label", *rows("{path},{label}")),
        first=SEVERAL,
        use=lambda folder, command, fix: fix.partition(": ")[2],
        shows="split val",
    ),
    Case(
        "session/trained/temperature.py:fitted_temperature",
        "raycls eval c --calibrated",
        first=TRAIN,
        use=lambda folder, command, fix: command.replace(typed(fix)[1], typed(fix)[0]),
    ),
    Case(
        "session/scoring/scored.py:_calibrated",
        "raycls eval c --calibrate",
        first=f"{TRAIN} train.duration=40ep optim.lr=0.1",
        use=lambda folder, command, fix: command.replace(f" {typed(fix)[0]}", ""),
    ),
    Case(
        "session/trained/temperature.py:temperature_of",
        "raycls eval c --calibrated",
        _spoil_temperature,
        first=TRAIN,
        use=lambda folder, command, fix: f"raycls eval c {typed(fix)[0]}",
    ),
    Case(
        "data/source.py:_columns",
        "raycls eval c --by camera",
        first=TRAIN,
        use=lambda folder, command, fix: f"{command} {typed(fix)[0]} {_cameras(folder)}",
        shows="camera",
    ),
    Case(
        "cli/commands/reports.py:_compare",
        "raycls report c d",
        _lose_predictions,
        first=TRAIN,
        use=lambda folder, command, fix: fix.removeprefix("evaluate it: "),
        shows="predictions/test-best.parquet",
    ),
    Case(
        "report/compare.py:pair",
        "raycls report c d",
        _train_elsewhere,
        first=TRAIN,
        use=lambda folder, command, fix: f"raycls eval d {typed(fix)[0]} p",
    ),
    Case(
        "session/data/scored.py:_no_split",
        "raycls eval c --split test",
        first=f"{TRAIN} {NO_TEST}",
        use=lambda folder, command, fix: f"raycls eval c {typed(fix)[0]} val",
    ),
    Case(
        "session/data/scored.py:_rows",
        "raycls eval c --data t --split val",
        tree("train/a", "train/b", "test/a", "test/b"),
        "choose",
        first=TRAIN,
        use=lambda folder, command, fix: f"raycls eval c --data t {typed(fix)[0]} test",
    ),
    Case(
        "session/data/scored.py:_rows",
        "raycls eval c --data t --split val",
        tree("a", "b"),
        "leave",
        first=TRAIN,
        use=lambda folder, command, fix: "raycls eval c --data t",
    ),
    Case(
        "session/data/scored.py:_leave_out",
        "raycls eval c --data t",
        tree("a", "b", "z"),
        first=TRAIN,
        use=lambda folder, command, fix: f"{command} {typed(fix)[0]} leave-out",
    ),
    Case(
        "session/data/scored.py:_leave_out",
        "raycls eval c --data o.csv",
        _divided,
        before=table("path,label", *rows("{path},{label}")),
        first=SEVERAL,
        use=lambda folder, command, fix: f"{command} {typed(fix)[0]}",
    ),
    Case(
        "run/kept.py:_not_there",
        "raycls eval c --weights step-99",
        text="choose",
        first=TRAIN,
        use=lambda folder, command, fix: f"raycls eval c {typed(fix)[0]} last",
    ),
    Case(
        "run/kept.py:load",
        "raycls eval c --weights last",
        lambda folder: _damage(folder, first=2),
        "another",
        first=f"{TRAIN} train.duration=4st checkpoint.every=2st checkpoint.keep=2",
        use=lambda folder, command, fix: f"raycls eval c {fix.partition(', ')[2]}",
    ),
    Case(
        "run/kept.py:load",
        "raycls eval c --weights last",
        lambda folder: _damage(folder, first=0),
        "train anew",
        first=f"{TRAIN} train.duration=4st checkpoint.every=2st checkpoint.keep=2",
        use=lambda folder, command, fix: f"{TRAIN} {typed(fix)[0]}",
    ),
    Case(
        "run/ledgers/sample_ledger.py:check",
        "raycls ledger c",
        first=TRAIN,
        use=lambda folder, command, fix: f"{TRAIN} --new {typed(fix)[0]}",
    ),
    Case(
        "run/folder.py:refuse_own_weights",
        f"{TRAIN} --new model.weights=runs/c/model/model.safetensors",
        first=TRAIN,
        shows="c-finetuned",
    ),
    Case(
        "export/pruning/structured.py:_cannot",
        "raycls prune c --structured --time-limit 1",
        text="{}; or prune",
        first=TRAIN,
        use=lambda folder, command, fix: command.replace("--time-limit 1", f"{typed(fix)[0]} 300"),
        slow=True,
    ),
    Case(
        "export/pruning/structured.py:_cannot",
        "raycls prune c --structured",
        text="prune single weights",
        before=put(fixed__py=_FIXED),
        first=f"{TRAIN} model.name=fixed:Net model.args={{}}",
        use=lambda folder, command, fix: command.replace(typed(fix)[0], ""),
        slow=True,
    ),
    Case(
        "export/pruning/folder.py:check",
        "raycls prune c",
        lambda folder: (folder / "runs/c-pruned/mine").mkdir(parents=True),
        first=TRAIN,
        use=options("raycls prune c {0} runs/other"),
        slow=True,
    ),
    Case(
        "export/pruning/folder.py:place_of",
        "raycls prune c --out runs/-c",
        first=TRAIN,
        use=options("raycls prune c {0} runs/other"),
        slow=True,
    ),
    Case("config/names/recipes.py:file_of", "raycls config recipe:digit", use=instead("recipe:digit")),
    Case(
        "tasks/build.py:check_labels",
        f"{MANIFEST} data.source.args.multilabel=true",
        table("path,label", *rows("{path},{label}")),
        text="set task.name",
    ),
    Case(
        "tasks/build.py:check_labels",
        f"{MANIFEST} task.name=multilabel evaluate.metric=map",
        table("path,label", *rows("{path},{label}")),
        text="multilabel=true",
    ),
    Case("run/folder.py:read_json", TRAIN, put(**{"runs/c/plan__json": "{"}), "put the file back", first=TRAIN),
    Case(
        "run/model_file.py:read_model",
        "raycls eval c",
        lambda folder: (folder / "runs/c/model/model.safetensors").write_bytes(b"x"),
        "delete",
        first=TRAIN,
        use=lambda folder, command, fix: "rm -r runs/c/model && raycls train c.yaml",
    ),
    Case("train/recovery/non_finite.py:not_finite", f"{TRAIN} optim.lr=1e30", use=add()),
    Case("tasks/metrics.py:check_metrics", f"{TRAIN} evaluate.metric=top5"),
    Case("models/weights/find.py:locate", f"{TRAIN} run.name=second model.weights=c", first=TRAIN),
    Case("models/weights/find.py:_folder", f"{TRAIN} run.name=second model.weights=runs/c/model", first=TRAIN),
    Case(
        "models/teaching/teacher.py:_folder",
        f"{TRAIN} run.name=second task.name=distillation task.args.teacher=c",
        first=TRAIN,
    ),
    Case(
        "session/consistency.py:check_outside",
        _TAUGHT,
        before=_teacher(0),
        first=_TAUGHT,
        make=_teacher(1),
        use=lambda folder, command, fix: f"{command} --new",
    ),
    Case("session/consistency.py:fitted", f"{TRAIN} task.name=moco train.reduction=fast"),
    Case("session/consistency.py:fitted", f"{TRAIN} task.name=simclr data.batch_size=1 train.micro_batches=1"),
    Case("session/recovery/memory.py:check_divisible", f"{TRAIN} task.name=simclr train.on_out_of_memory=split"),
    Case("tasks/contrastive/moco.py:__init__", f"{TRAIN} task.name=moco task.args.queue=1"),
    Case(
        "train/forward/recompute.py:_differs",
        f"{TRAIN} model.name=counts:net train.activation_checkpointing=on",
        put(counts__py=_COUNTS),
    ),
    Case(
        "train/forward/batch_norm.py:refuse_without_norms",
        f"{TRAIN} model.name=locked:net train.batch_norm=sync",
        put(locked__py=_LOCKED),
    ),
    Case("models/zoo.py:_no_copy", f"{TRAIN} model.name=locked:net optim.ema=0.5", put(locked__py=_LOCKED)),
    Case(
        "data/sources/digits.py:digits",
        f"{TRAIN} data.source.name=digits data.source.path=d train.duration=1st data.batch_size=64",
        lambda folder: image(folder / "d/0/0.png") or (folder / "d/0/notes").touch(),
        use=lambda folder, command, fix: f"{fix.partition(': ')[2]} && {command}",
        slow=True,
    ),
    Case(
        "cli/image_check.py:look",
        "raycls init c.yaml --check '--ignore=*/0.png'",
        use=options("raycls init c.yaml --check {0}"),
    ),
    Case(
        "session/data/scored.py:_unrecorded",
        "raycls eval c",
        both(remove("runs/c/splits.parquet"), lambda folder: image(folder / "p/a/new.png")),
        first=TRAIN,
        use=lambda folder, command, fix: fix.partition(": ")[2].replace("RUN", "c").replace("PATH", "p"),
    ),
    Case(
        "session/data/record.py:unpack",
        "raycls train c.yaml",
        both(lambda folder: (folder / "runs/c/splits.parquet").write_bytes(b"x"), remove("p/a/0.png")),
        first=TRAIN,
    ),
    Case(
        "run/kept.py:_not_there",
        "raycls eval c",
        lambda folder: [(folder / "runs/c").mkdir(parents=True), put(**{"runs/c/config__yaml": "{}"})(folder)],
        "to resume it",
        use=options(TRAIN),
    ),
    *(
        Case(
            "run/kept.py:_not_there",
            command,
            lambda folder: shutil.rmtree(folder / "runs/c/model"),
            "--weights",
            first=TRAIN,
            use=lambda folder, command, fix: f"{command} {fix.partition('or ')[2]}",
            shows=shows,
        )
        for command, shows in (
            ("raycls eval c", "best, step"),
            (PREDICT, "1 image predicted"),
            ("raycls report c", "wrote"),
        )
    ),
    Case(
        "run/kept.py:_not_there",
        "raycls eval c",
        lambda folder: shutil.rmtree(folder / "runs/c/model"),
        "to resume it; or",
        first=TRAIN,
        use=options(TRAIN),
    ),
    Case(
        "run/model_file.py:read_model",
        "raycls eval c",
        remove("runs/c/model/model.json"),
        "let the run",
        first=TRAIN,
        use=options(TRAIN),
    ),
    Case(
        "session/prepare.py:_check_forward",
        f"{TRAIN} model.name=narrow:net",
        move(*((f"p/a/{index}.png", f"kept/{index}.png") for index in (0, 1, 2, 3, 5))),
        "put the images back",
        before=put(narrow__py=_NARROW),
        first=f"{TRAIN} model.name=narrow:net",
        use=lambda folder, command, fix: f"mv kept/*.png p/a/ && {command}",
    ),
    Case(
        "session/data/resumed.py:resumed",
        TREE,
        both(move(("t/val", "gone")), tree("val/a/new", "val/b/new")),
        before=tree("train/a", "train/b", "val/a", "val/b"),
        first=TREE,
    ),
    Case("session/length/longer.py:check_longer", f"{TRAIN} train.duration=1st", first=TRAIN),
    Case(
        "session/length/longer.py:_from_weights",
        f"{TRAIN} schedule.name=cosine train.duration=2ep",
        text="start anew",
        first=f"{TRAIN} schedule.name=cosine",
        use=add(0),
    ),
    Case(
        "session/length/longer.py:_from_weights",
        f"{TRAIN} schedule.name=cosine train.duration=2ep",
        text="start another",
        first=f"{TRAIN} schedule.name=cosine",
        use=lambda folder, command, fix: fix.partition(": ")[2],
    ),
    Case(
        "session/length/longer.py:_from_weights",
        f"{TRAIN} schedule.name=cosine train.duration=2ep",
        lambda folder: [(folder / "runs/c" / name).unlink() for name in ("model/model.safetensors", "result.json")],
        "let it end first",
        first=f"{TRAIN} schedule.name=cosine",
        use=add(0),
    ),
    Case(
        "session/length/longer.py:_from_weights",
        f"{TRAIN} schedule.name=cosine train.duration=2ep",
        lambda folder: [(folder / "runs/c" / name).unlink() for name in ("model/model.safetensors", "result.json")],
        "let it end first",
        first=f"{TRAIN} schedule.name=cosine",
        use=add(1),
    ),
    Case(
        "session/data/unfit.py:first_samples",
        f"{TRAIN} train.duration=2ep augment.progressive='{{0%: 8, 1ep: 9}}' "
        "augment.train='[center_crop: {size: 8}]'",
    ),
    Case("models/finetune.py:finetuned", f"{TRAIN} finetune.freeze=all"),
    Case(
        "train/rates/shapes.py:one_cycle", f"{TRAIN} schedule.name=one_cycle schedule.args.peak=2st schedule.warmup=1st"
    ),
    Case("session/length/limits.py:check_acting", f"{TRAIN} schedule.warmup=4st optim.ema=0.999 optim.ema_warmup=off"),
    Case(
        "session/data/scored.py:scored",
        "raycls eval c",
        both(move(("p/a", "q/a"), ("p/b", "q/b")), tree("a", "b"), move(("t/a", "p/a"), ("t/b", "p/b"))),
        first=TRAIN,
        use=lambda folder, command, fix: fix.partition("; ")[2].partition(" evaluates")[0],
    ),
    Case(
        "data/sources/listing/paths.py:find_files",
        MANIFEST,
        both(table("path,label", *rows("{path},{label}")), remove("p/a/3.png")),
        use=add(-1),
    ),
    Case(
        "data/sources/listing/tables.py:read_text",
        MANIFEST,
        lambda folder: (
            (folder / "m.csv").write_text(
                "\n".join(["path,label", *rows("{path},{label}"), "p/\xe4.png,a"]), encoding="cp1252"
            )
            and image(folder / "p/\xe4.png")
        ),
    ),
    # searches: they get as far as Ray, which is not there
    Case("tune/plan.py:open_search", SEARCH, edit("workers: 0", "workers: 1"), code=1, shows=NO_RAY),
    Case(
        "tune/plan.py:_check_splits",
        f"{SEARCH} {SPACE} search.confirm.seeds=2 evaluate.split=test",
        edit("workers: 0", "workers: 1"),
        "evaluate on val",
        code=1,
        shows=NO_RAY,
    ),
    Case(
        "tune/plan.py:_check_splits",
        f"{SEARCH} {SPACE} search.confirm.seeds=2 {NO_TEST}",
        edit("workers: 0", "workers: 1"),
        "a part for test",
        code=1,
        shows=NO_RAY,
    ),
    Case(
        "tune/plan.py:_check_same",
        f"{SEARCH} {SPACE} scale.workers=1",
        text="set the run aside",
        first=TRAIN,
        code=1,
        shows=NO_RAY,
    ),
    Case(
        "tune/plan.py:_check_same",
        f"{SEARCH} {SPACE} optim.args.momentum=0.5",
        lambda folder: (folder / "runs/c/trials.jsonl").touch(),
        "undo",
        before=edit("workers: 0", "workers: 1"),
        first=f"{SEARCH} {SPACE}",
        first_code=1,
        code=1,
        shows=NO_RAY,
    ),
    Case("cluster/connection.py:_started", f"{TRAIN} scale.workers=1", use=add()),
    # artefacts
    Case(
        "cli/commands/export.py:_check_words",
        "raycls export c --to pt2 --precision fp16",
        text="ONNX",
        use=options("raycls export c --precision fp16 {0}"),
        first=TRAIN,
    ),
    Case(
        "cli/commands/export.py:_check_words",
        "raycls export c --to onnx --calibration-images 4",
        text="leave",
        use=options("raycls export c --to onnx"),
        first=TRAIN,
    ),
    Case(
        "export/average.py:_images",
        "raycls average c",
        lambda folder: shutil.move(folder / "p", folder / "moved"),
        first=f"{TRAIN} train.duration=2ep checkpoint.every=1ep checkpoint.keep=2",
    ),
    Case(
        "export/preprocessing.py:_steps",
        "raycls export c --to onnx",
        use=add(),
        first=f"{TRAIN} augment.eval=[horizontal_flip]",
    ),
    Case(
        "export/preprocessing.py:preprocessing_of",
        "raycls export c --to onnx",
        use=add(),
        first=f"{TRAIN} data.channels=1 model.in_channels=1 data.bit_depth=16",
    ),
    # probes
    Case(
        "session/prepare.py:_refuse_other_kind",
        "raycls train runs/c-probe/config.yaml",
        first="raycls probe c.yaml --weight-decay=1e-2",
        shows="c-probe.old-1",
    ),
    Case(
        "session/probing/probe.py:_check_splits",
        "raycls probe c.yaml 'data.split={train: 0.8, val: 0.0, test: 0.2}' evaluate.split=test",
        use=lambda folder, command, fix: f"{command} {typed(fix)[0]}",
    ),
    Case(
        "session/probing/probe.py:_with_weights",
        "raycls probe c.yaml model.weights=runs/t",
        _teacher(1),
        before=_teacher(0),
        first="raycls probe c.yaml model.weights=runs/t",
        shows="c-probe.old-1",
    ),
    # packed data
    Case(
        "data/sources/packed/layout.py:damaged",
        f"{TRAIN} data.source.name=packed data.source.path=k",
        lambda folder: (folder / "k/shard-00000.arrow").unlink(),
        use=lambda folder, command, fix: PACK,
        first=PACK,
        shows="1 shard made",
    ),
    Case("session/packing/pack.py:_refuse_planes", f"{PACK} data.channels=1 model.in_channels=1", use=add()),
    Case(
        "session/packing/pack.py:_packed",
        PACK,
        lambda folder: (folder / "k").mkdir() or (folder / "k/shard-00000.arrow").write_text("x"),
        use=add(1),
    ),
    Case(
        "session/packing/pack.py:_make_folder",
        PACK,
        lambda folder: (folder / "k").mkdir() or (folder / "k/mine.txt").write_text("x"),
        use=lambda folder, command, fix: command.replace(" k", " other"),
    ),
    Case("data/sources/packed/parquet.py:_column", PARQUET, embedded(train=1)),
    Case("data/sources/packed/named.py:by_split", PARQUET, embedded(x=0, y=0), use=add(0)),
    Case("data/sources/packed/named.py:by_split", PARQUET, embedded(x=0, y=0), use=add(1)),
    Case(
        "data/sources/packed/parquet.py:leaving",
        f"{PARQUET} data.source.args.columns.image=image",
        lambda folder: (embedded(train=0)(folder), _hidden(folder)),
    ),
    Case(
        "data/sources/packed/webdataset.py:samples",
        SHARDS,
        tarred(lambda at, sample: sample.update({"PNG": sample["png"]}) if at == 9 else None),
    ),
    Case(
        "data/sources/packed/webdataset.py:decide",
        SHARDS,
        tarred(lambda at, sample: sample.update(json={"kind": sample.pop("cls")})),
    ),
    Case(
        "data/sources/packed/webdataset.py:_leaving_out",
        SHARDS,
        tarred(lambda at, sample: sample.pop("png") if at == 7 else None),
    ),
    Case(
        "data/sources/packed/webdataset.py:_image",
        SHARDS,
        tarred(lambda at, sample: sample.update(jpg=sample["png"])),
        text="say which",
        use=add(0),
    ),
    Case(
        "data/sources/packed/webdataset.py:_label",
        SHARDS,
        tarred(lambda at, sample: sample.pop("cls") if at == 9 else None),
    ),
    Case(
        "data/sources/listing/hf_folder.py:hf_folder",
        f"{TRAIN} data.source.name=hf_folder",
        text="a folder of class folders",
    ),
    Case(
        "data/sources/listing/hf_folder.py:hf_folder",
        f"{TRAIN} data.source.name=hf_folder data.source.path=h",
        listed("metadata.csv", "file_name", 19),
        text="add them",
    ),
    Case(
        "data/splits/grouped.py:refuse_shared",
        f"{TRAIN} data.source.name=manifest data.source.path=h/m.csv data.group=who",
        listed("m.csv", "path", who=lambda at: str(at // 2 % 9), split=lambda at: "train" if at < 14 else "test"),
        use=add(0),
    ),
    Case(
        "data/splits/grouped.py:refuse_shared",
        f"{TRAIN} data.source.name=manifest data.source.path=h/m.csv data.group=who",
        listed("m.csv", "path", who=lambda at: str(at // 2 % 9), split=lambda at: "train" if at < 14 else "test"),
        use=add(1),
    ),
    Case(
        "data/splits/grouped.py:dealt",
        f"{TRAIN} data.source.name=manifest data.source.path=h/m.csv data.group=who",
        listed("m.csv", "path", who=lambda at: str(at // 2 % 2)),
    ),
    Case("session/data/labelled.py:_shuffled", f"{TRAIN} data.shuffle=none data.repeats=2"),
    # predictions
    Case("session/predictions/predict.py:_refuse_there", PREDICT, put(o__csv=""), use=add(1), first=TRAIN),
    Case(
        "session/trained/temperature.py:fitted_temperature",
        f"{PREDICT} --calibrated",
        use=lambda folder, command, fix: command.replace(" --calibrated", ""),
        first=TRAIN,
    ),
    Case(
        "session/predictions/parts.py:explaining",
        "raycls predict c p/a/1.png --out c.yaml/o.csv",
        use=lambda folder, command, fix: command.replace("c.yaml/", ""),
        first=TRAIN,
    ),
    Case("session/setup.py:refuse_missing_gpu", f"{PREDICT} scale.device=cuda", first=TRAIN),
    Case(
        "session/computing/parted.py:check_job",
        PREDICT,
        lambda folder: (folder / "o.csv.parts").mkdir() or (folder / "o.csv.parts/job.json").write_text('{"top": 1}'),
        use=add(1),
        first=TRAIN,
    ),
    # masks
    *(
        Case(
            "session/scoring/opened.py:_refuse_crf",
            command,
            before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2, "test": 2}),
            first=f"{_MASKS} train.duration=3ep evaluate.keep=last",
            text=text,
            use=use,
        )
        for command, text, use in (
            ("raycls eval c --crf --split val", "--split test", lambda *_: "raycls eval c --crf --split test"),
            ("raycls eval c --crf --weights step-2", "leave out --weights", lambda *_: "raycls eval c --crf"),
        )
    ),
    Case(
        "session/scoring/opened.py:_refuse_crf",
        "raycls eval c --crf",
        text="leave --crf out",
        first=TRAIN,
        use=lambda folder, command, fix: "raycls eval c",
    ),
    Case(
        "session/trained/refined.py:_checked",
        "raycls predict c cells/test/images --masks m --crf",
        lambda folder: (folder / "runs/c/model/crf.json").write_text(
            json.dumps({"sha256": json.loads((folder / "runs/c/model/model.json").read_text())["sha256"]})
        ),
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2, "test": 2}),
        first=_MASKS,
        use=lambda folder, command, fix: "rm runs/c/model/crf.json && raycls eval c --crf",
    ),
    Case(
        "session/trained/refined.py:kept_crf",
        "raycls predict c cells/test/images --masks m --crf",
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2, "test": 2}),
        first=_MASKS,
        use=lambda folder, command, fix: "raycls eval c --crf",
    ),
    Case(
        "export/formats/network.py:refuse_unfit",
        "raycls export c --to onnx --preprocess inside",
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2}),
        first=_MASKS,
        text="--preprocess=outside",
        use=lambda folder, command, fix: "raycls export c --to onnx --preprocess=outside",
        slow=True,
    ),
    Case(
        "export/formats/network.py:refuse_unfit",
        "raycls export c --to onnx --precision int8",
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2}),
        first=_MASKS,
        text="--precision=fp32",
        use=lambda folder, command, fix: "raycls export c --to onnx --precision=fp32",
        slow=True,
    ),
    Case(
        "export/place.py:inside_of",
        "raycls export c --to triton --repository models",
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2}),
        first=_MASKS,
        use=lambda folder, command, fix: "raycls export c --to=onnx",
        slow=True,
    ),
    Case(
        "session/predictions/predict.py:_masks",
        "raycls predict c cells/val/images",
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2}),
        first=_MASKS,
        use=add(0),
    ),
    Case(
        "session/predictions/masks.py:refuse_there",
        "raycls predict c cells/val/images --masks DIR",
        lambda folder: ((folder / "DIR").mkdir(), (folder / "DIR/0.png").touch()),
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2}),
        first=_MASKS,
        use=lambda folder, command, fix: f"{command} --force",
    ),
    Case(
        "session/scoring/cases.py:refuse_masks",
        "raycls eval c --split val --tta mirror",
        before=lambda folder: write_images(folder / "cells", {"train": 4, "val": 2}),
        first=_MASKS,
        use=lambda folder, command, fix: "raycls eval c --split val",
    ),
    # volumes
    Case("tasks/volumes.py:refuse_unfit", f"{_VOLUMES} model.in_channels=3", make_volumes),
    Case(
        "data/sources/volumes/walk.py:_splits",
        _VOLUMES,
        lambda folder: (make_volumes(folder), (folder / "v/b").rename(folder / "v/test")),
    ),
    Case(
        "data/volumes/reading.py:_at_spacing",
        f"{_VOLUMES} data.source.name=cubes:cubes 'data.spacing=[1, 1, 1]'",
        make_volumes,
    ),
)

_CLUSTER = "it needs a cluster, its nodes or a dashboard"
_INSTALLS = "it installs software"
_SERVES = "it starts a server, which does not end by itself"
UNTYPED: dict[str, str] = {
    "cli/commands/clusters.py": _CLUSTER,
    "cli/commands/jobs.py": _CLUSTER,
    "cluster/files/": _CLUSTER,
    "doctor/": _CLUSTER,
    "jobs/": _CLUSTER,
    "run/folder.py:refuse_lost": "it needs a job and its copy of the working directory",
    "tune/room.py": _CLUSTER,
    "launch/group.py": _CLUSTER,
    "launch/placing/fit.py": _CLUSTER,
    "launch/node_checks.py": _CLUSTER,
    "tune/play.py": "it needs a search on Ray",
    "data/sources/digits.py:_load": _INSTALLS,
    "export/pruning/structured.py:check_extra": _INSTALLS,
    "export/extra.py:check_extra": _INSTALLS,
    "data/volumes/": _INSTALLS,
    "models/networks/timm_models.py:builder": _INSTALLS,
    "models/networks/timm_models.py:no_download": "it says where weights can be had",
    "export/formats/onnx_file.py:serialised": "it needs a network of more than 2 GiB",
    "run/trackers/trackers.py:check_trackers": _INSTALLS,
    "search/tpe.py:__init__": _INSTALLS,
    "cli/commands/serve.py:serve": _INSTALLS,
    "serve/local.py": _SERVES,
    "serve/replicas.py": _SERVES,
    "serve/server.py": _SERVES,
    "run/trackers/wandb.py": "it sends a run to a server",
    "models/weights/find.py:fetch": "it downloads weights",
    "train/precision.py": "it needs a GPU",
    "session/training.py:_begin": "a hint about speed on a CPU of another kind",
    "data/making/sample.py:unexpected": "it says how a fault in a plug-in is looked for",
    "run/checkpoint_files.py:manifest": "it needs a checkpoint of a later version",
    "session/predictions/compute.py:_refuse_other_weights": "it needs a run that trains at the same time",
    "session/packing/work.py:remedy": "it needs an image that ends its process",
    "session/computing/parted.py:held": "it needs two commands at the same time",
}
"""The beginnings of the sites of remedies that cannot be typed in a test, and why."""
ELSEWHERE: dict[str, str] = {
    "session/recovery/memory.py:fix": "session/recovery/test_memory.py",
    "session/recovery/memory.py:_check_alone": "session/recovery/test_memory.py",
    "train/recovery/memory.py:_told": "session/recovery/test_memory.py",
    "session/data/network.py:_fix": "cli/commands/test_model.py",
    "data/images/decoding/kept.py:share_of": "data/images/decoding/test_kept.py",
    "data/images/decoding/decode.py:_not_supported": "data/images/decoding/test_unsupported.py",
    "data/sources/packed/files.py:open_arrow": "data/sources/remote/test_stored.py",
    "report/live.py": "report/test_live.py",
    "report/folds.py": "report/test_folds.py",
    "session/consistency.py:_check_sync": "session/test_forward.py",
    "train/forward/compiled.py:_failed": "session/test_forward.py",
    "serve/token.py": "serve/test_token.py",
    "cli/commands/export.py:_check_triton": "export/triton/test_command.py",
    "export/triton/repository.py": "export/triton/test_repository.py",
}
"""The beginnings of the sites of remedies that another test types, and its file."""
