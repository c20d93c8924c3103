from __future__ import annotations

import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from raycls.errors import CheckpointError, ConfigError
from raycls.run.storage.store import Store


def test_what_is_written_is_read(store: Store) -> None:
    store.write_bytes("a/b/c.bin", b"\x00\xff")
    assert store.read_bytes("a/b/c.bin") == b"\x00\xff"
    assert store.exists("a/b/c.bin") and store.exists("a/b") and store.is_folder("a")
    assert not store.exists("a/x") and not store.is_folder("a/b/c.bin")
    store.write_bytes("a/b/c.bin", b"new")
    assert store.read_bytes("a/b/c.bin") == b"new"
    assert store.find_bytes("a/none") is None


def test_list_is_sorted_and_leaves_no_temporary_file(store: Store) -> None:
    for name in ("f/2", "f/10", "f/1/deep", "g"):
        store.write_bytes(name, b"")
    assert store.list("f") == ["1", "10", "2"]
    assert store.list() == ["f", "g"]
    assert store.list("missing") == []


def test_delete(store: Store) -> None:
    for name in ("f/1", "f/2/3", "g"):
        store.write_bytes(name, b"x")
    store.delete("f/1")
    store.delete("f/none")
    assert store.list("f") == ["2"]
    store.delete_tree("f")
    store.delete_tree("g")
    store.delete_tree("none")
    assert store.list() == []


def test_move_folder_and_file(store: Store) -> None:
    store.write_bytes("f/1", b"one")
    store.write_bytes("f/d/2", b"two")
    store.move("f", "h/g")
    assert store.read_bytes("h/g/1") == b"one" and store.read_bytes("h/g/d/2") == b"two"
    assert not store.exists("f/1")
    store.move("h/g/1", "h/one")
    assert store.read_bytes("h/one") == b"one"
    store.write_bytes("h/two", b"")
    with pytest.raises(CheckpointError, match="could not be moved"):
        store.move("h/one", "h/two")


def test_append_survives_a_torn_line(store: Store) -> None:
    store.append_line("log", "one", sync=True)
    store.write_bytes("torn", b"complete\nhalf a li")
    store.append_lines("torn", ["next", "last"], sync=True)
    assert store.read_lines("torn") == ["complete", "half a li", "next", "last", ""]
    assert store.read_bytes("log") == b"one\n"


def test_appended_lines_reach_the_store_with_flush(store: Store, tmp_path: Path) -> None:
    store.append_line("log", "one")
    store.append_line("log", "two")
    assert store.read_lines("log") == ["one", "two", ""]
    store.flush()
    again = store.sub("x").sibling("log")  # knows nothing of the lines held in memory
    assert again.read_bytes("") == b"one\ntwo\n"


def test_a_line_end_inside_a_line_is_refused(store: Store) -> None:
    with pytest.raises(ValueError, match="line end"):
        store.append_line("log", "one\ntwo")


def test_sub_sibling_and_rename(store: Store) -> None:
    store.write_bytes("f/1", b"one")
    assert store.sub("f").read_bytes("1") == b"one"
    assert store.sub("f").describe("1") == store.describe("f/1")
    renamed = store.rename("other")
    assert renamed.read_bytes("f/1") == b"one"
    assert not store.exists("f/1")
    assert renamed.sibling("run").describe() == store.describe()


def test_place_is_the_folder_around_and_the_name_there(tmp_path: Path) -> None:
    assert Store(tmp_path / "what?" / "pets").place == (str(tmp_path / "what?"), "pets")
    assert Store("/pets").place == ("/", "pets")


def test_upload(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"abc" * 1000)
    store.upload_file(tmp_path / "source", "deep/copy")
    assert store.read_bytes("deep/copy") == b"abc" * 1000
    assert store.list("deep") == ["copy"]


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x"])
def test_names_stay_inside(store: Store, name: str) -> None:
    with pytest.raises(ValueError, match="no name inside"):
        store.read_bytes(name)


def test_a_missing_file_is_named(store: Store) -> None:
    with pytest.raises(CheckpointError) as caught:
        store.read_bytes("dir/none")
    assert "bucket/run/dir/none" in str(caught.value.where)
    assert caught.value.fix


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    store.write_bytes("f", b"old")
    real = os.write

    def full(descriptor: int, data: bytes) -> int:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(28, "No space left on device")
        return real(descriptor, data)

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(CheckpointError, match="No space left") as caught:
        store.write_bytes("f", b"new")
    monkeypatch.undo()
    assert "free some space" in str(caught.value.fix)
    assert store.read_bytes("f") == b"old"
    assert store.list() == ["f"]


@pytest.mark.faults
def test_an_append_that_does_not_fit_is_taken_back(tmp_path: Path, in_child: Callable[..., int]) -> None:
    store = Store(tmp_path)
    store.append_line("log", "kept")

    def child() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
        with pytest.raises(CheckpointError, match="ulimit"):
            store.append_line("log", "x" * 10_000)
        store.append_line("log", "later")

    assert in_child(child) == 0
    assert store.read_bytes("log") == b"kept\nlater\n"


def test_a_file_where_a_folder_belongs(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("I am a file")
    with pytest.raises(CheckpointError) as caught:
        Store(tmp_path).write_bytes("checkpoints/a/b", b"")
    assert "move it away" in str(caught.value.fix)


def test_uri_opens_the_same_store_from_another_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = Store("runs/x")
    store.write_bytes("f", b"here")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert Store(store.uri).read_bytes("f") == b"here"
    assert Store(f"file://{tmp_path}/runs/x").read_bytes("f") == b"here"
    assert store.local_path("f") == tmp_path / "runs/x/f"


def test_an_unknown_scheme_is_a_problem_in_the_config() -> None:
    with pytest.raises(ConfigError) as caught:
        Store("nosuch://bucket/run")
    assert caught.value.where == "run.storage" and "s3://" in str(caught.value.valid)


@pytest.mark.parametrize(
    "uri",
    [
        "s3://AKIA:hush@bucket/runs",
        "s3://hush@bucket",
        "abfs://:hush@account.blob.core.windows.net/runs",
        "abfs://runs@account.dfs.core.windows.net/x?sig=hush",
        "s3://AKIA:hu/hush@bucket/runs",
    ],
)
def test_credentials_in_an_address_are_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Store(uri)
    assert caught.value.where == "run.storage"
    assert "***" in str(caught.value) and "hush" not in str(caught.value)


def test_opening_creates_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path / "none")
    assert not store.exists() and store.list() == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("flushed", [False, True])
def test_a_file_is_read_from_a_byte_on(flushed: bool, store: Store) -> None:
    store.append_lines("a/lines", ["one", "two"], sync=flushed)
    assert store.read_bytes("a/lines", start=4) == b"two\n"
    assert store.read_bytes("a/lines", start=8) == store.read_bytes("a/lines", start=99) == b""
    assert store.find_bytes("a/none", start=4) is None
