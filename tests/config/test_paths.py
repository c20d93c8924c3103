"""`~` at the beginning of every path that a user writes is the home folder; `./~` is a file of that name."""

from __future__ import annotations

import os
import pwd
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from raycls.cli import app
from raycls.cli.run_argument import run_folder
from raycls.cluster.files import read
from raycls.config.load import load, load_text
from raycls.config.paths import expand
from raycls.data.ignore import read_patterns
from raycls.data.source import open_dataset
from raycls.data.sources.listing.manifest import manifest
from raycls.errors import ConfigError
from raycls.models.weights.find import locate
from raycls.run.storage.store import Store
from raycls.session.scoring.other import source_of


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "home"
    for label in ("a", "b"):
        for index in range(8):
            file = folder / "photos" / label / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8, 8), (index, 9, 9)).save(file)
    monkeypatch.setenv("HOME", str(folder))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


def test_what_a_tilde_is(home: Path) -> None:
    user = pwd.getpwuid(os.getuid())
    assert expand("~") == str(home)
    assert expand("~/a b") == f"{home}/a b"
    assert expand(f"~{user.pw_name}/x") == f"{user.pw_dir.rstrip('/')}/x"
    for plain in ("./~", "a/~", "s3://bucket/~", "", "a~b", "/x"):
        assert expand(plain) == plain


def test_no_such_user(home: Path) -> None:
    with pytest.raises(ConfigError, match="no home folder ~nobody-of-that-name") as caught:
        expand("~nobody-of-that-name/x", where="data.source.path")
    assert caught.value.where == "data.source.path"
    Path("~draft").touch()
    assert expand("~draft") == "~draft"


def _manifest(home: Path) -> None:
    Path("m.csv").write_text("path,label\na/0.png,a\nb/0.png,b\n")
    assert manifest("m.csv", root="~/photos").reader.read(0) == (home / "photos/a/0.png").read_bytes()


def _data(home: Path) -> None:
    assert open_dataset(load_text("", "c", ["data.source.path=~/photos"]).run.data).classes == ("a", "b")
    assert source_of("~/photos").path == "~/photos"


def _weights(home: Path) -> None:
    (home / "w.pth").touch()
    assert locate("~/w.pth", None) == home / "w.pth"


def _storage(home: Path) -> None:
    assert Store("~/runs").local_path("x") == home / "runs" / "x"


def _config(home: Path) -> None:
    (home / "base.yaml").write_text("data: {batch_size: 7}\n")
    (home / "c.yaml").write_text("extends: base.yaml\n")
    Path("d.yaml").write_text("extends: ~/base.yaml\n")
    assert load("~/c.yaml").run.data.batch_size == 7
    assert load("d.yaml").run.data.batch_size == 7


def _ignored(home: Path) -> None:
    (home / "list.txt").write_text("*.txt\n")
    assert read_patterns("~/list.txt") == ("*.txt",)


def _cluster(home: Path) -> None:
    (home / "cluster.yaml").write_text("apiVersion: v1\n")
    with pytest.raises(ConfigError, match="Kubernetes"):
        read.read("~/cluster.yaml")


def _commands(home: Path) -> None:
    words = ["init", "~/photos", "--out", "~/new.yaml", "data.source.args.ignore=[/none]"]
    assert CliRunner().invoke(app.app, words).exit_code == 0
    assert load(home / "new.yaml").run.data.source.path == "~/photos"
    (home / "run").mkdir()
    (home / "run" / "config.yaml").touch()
    assert run_folder("~/run") == str(home / "run")


@pytest.mark.parametrize(
    "place",
    [_manifest, _data, _weights, _storage, _config, _ignored, _cluster, _commands],
    ids=lambda place: place.__name__,
)
def test_every_path_takes_it(home: Path, place: Callable[[Path], None]) -> None:
    place(home)
    assert not Path("~").exists()


def test_a_folder_that_is_named_so(home: Path) -> None:
    (Path("~") / "c").mkdir(parents=True)
    (home / "photos").rename(Path("~") / "photos")
    assert open_dataset(load_text("", "c", ["data.source.path=./~/photos"]).run.data).classes == ("a", "b")
