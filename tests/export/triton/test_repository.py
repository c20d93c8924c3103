"""A model repository: versions that are whole or not there, and a contract that stays. No Triton."""

from __future__ import annotations

import errno
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from raycls.errors import ConfigError
from raycls.export.triton.config import Serving, config_text
from raycls.export.triton.repository import add, model_folder


def _facts(classes: tuple[str, ...] = ("cat", "dog"), size: Any = "any", layout: str = "NHWC") -> dict[str, Any]:
    return {"classes": list(classes), "preprocessing": {"input": {"layout": layout, "size": size}}}


@pytest.fixture
def exported(tmp_path: Path) -> tuple[Path, Path]:
    file, report = tmp_path / "scratch.onnx", tmp_path / "scratch.json"
    file.write_bytes(os.urandom(300_000))
    report.write_text('{"passed": true}')
    return file, report


def _tree(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_the_first_export_is_a_whole_model_and_the_next_one_a_version(
    exported: tuple[Path, Path], tmp_path: Path
) -> None:
    repository = tmp_path / "models" / "here"
    assert add(repository / "pets", *exported, _facts(), Serving()) == repository / "pets" / "1"
    before = {path: path.stat().st_ino for path in (repository / "pets" / "1").iterdir()}
    assert add(repository / "pets", *exported, _facts(), Serving(max_batch=4)) == repository / "pets" / "2"
    assert _tree(repository) == [
        "pets",
        *("pets/1", "pets/1/model.onnx", "pets/1/model.onnx.json"),
        *("pets/2", "pets/2/model.onnx", "pets/2/model.onnx.json"),
        *("pets/config.pbtxt", "pets/labels.txt"),
    ]
    assert (repository / "pets" / "2" / "model.onnx").read_bytes() == exported[0].read_bytes()
    assert {path: path.stat().st_ino for path in before} == before  # the first version was not touched
    assert (repository / "pets" / "labels.txt").read_text() == "cat\ndog\n"
    assert "max_batch_size: 4" in (repository / "pets" / "config.pbtxt").read_text()
    assert stat.S_IMODE((repository / "pets").stat().st_mode) & 0o055 == 0o055  # the server is another user
    assert _tree(tmp_path / "models") == ["here", *(f"here/{name}" for name in _tree(repository))]


def test_a_number_that_was_skipped_is_not_taken_again(exported: tuple[Path, Path], tmp_path: Path) -> None:
    add(tmp_path / "models" / "pets", *exported, _facts(), Serving())
    (tmp_path / "models" / "pets" / "1").rename(tmp_path / "models" / "pets" / "7")
    assert add(tmp_path / "models" / "pets", *exported, _facts(), Serving()).name == "8"


def test_exports_at_the_same_time_are_versions_of_their_own(exported: tuple[Path, Path], tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        futures = [pool.submit(add, tmp_path / "models" / "pets", *exported, _facts(), Serving()) for _ in range(24)]
        found = sorted(int(future.result().name) for future in futures)
    assert found == list(range(1, 25))


@pytest.mark.faults
def test_who_looks_at_any_moment_sees_whole_versions(exported: tuple[Path, Path], tmp_path: Path) -> None:
    """A server that polls: whatever model and version it finds has all of its files, with all of their bytes."""
    repository, ended, seen = tmp_path / "models", threading.Event(), set()
    repository.mkdir()
    size = exported[0].stat().st_size

    def look() -> None:
        while not ended.is_set():
            for model in repository.iterdir():
                versions = [entry for entry in model.iterdir() if entry.name.isdecimal()]
                assert model.name == "pets" and versions and (model / "config.pbtxt").read_text().endswith("}\n")
                for version in versions:
                    assert (version / "model.onnx").stat().st_size == size
                    seen.add(version.name)

    with ThreadPoolExecutor(1) as pool:
        looking = pool.submit(look)
        for _ in range(40):
            add(repository / "pets", *exported, _facts(), Serving())
        while "40" not in seen and not looking.done():
            pass
        ended.set()
        looking.result()
    assert "40" in seen


@pytest.mark.faults
def test_a_disk_that_fails_leaves_no_version_and_nothing_else(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models"

    def full(number: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for known in ([], ["pets", "pets/1", "pets/1/model.onnx", "pets/1/model.onnx.json"]):
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(os, "fsync", full)
            add(repository / "pets", *exported, _facts(), Serving())
        assert _tree(repository)[: len(known) or None] == known
        assert sorted(entry.name for entry in tmp_path.iterdir()) == ["models", "scratch.json", "scratch.onnx"]
        add(repository / "pets", *exported, _facts(), Serving())
    assert not [name for name in _tree(repository) if "incoming" in name]


def test_where_nothing_can_be_moved_from_outside_it_is_made_inside(
    exported: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models"
    repository.mkdir()
    rename = Path.rename

    def mounted(self: Path, target: Path) -> Path:
        if repository not in self.parents:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", mounted)
    assert add(repository / "pets", *exported, _facts(), Serving()) == repository / "pets" / "1"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["models", "scratch.json", "scratch.onnx"]
    assert [entry.name for entry in repository.iterdir()] == ["pets"]


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (_facts(("cat", "wolf")), "other classes"),
        (_facts(("dog", "cat")), "other classes"),
        (_facts(("cat", "dog", "cow")), "other classes"),
        (_facts(size=[24, 24]), "other input or output"),
        (_facts(size=[24, 24], layout="NCHW"), "other input or output"),
    ],
)
def test_another_contract_is_refused_and_nothing_changes(
    exported: tuple[Path, Path], tmp_path: Path, other: dict[str, Any], found: str
) -> None:
    repository = tmp_path / "models"
    add(repository / "pets", *exported, _facts(), Serving())
    before = {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()}
    with pytest.raises(ConfigError) as refused:
        add(repository / "pets", *exported, other, Serving())
    assert str(refused.value.found).startswith(found)
    assert {path: path.read_bytes() for path in repository.rglob("*") if path.is_file()} == before
    assert add(repository / "pets2", *exported, other, Serving()).name == "1"


def test_a_model_of_somebody_else_is_left_alone(exported: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "models" / "pets").mkdir(parents=True)
    with pytest.raises(ConfigError) as refused:
        add(tmp_path / "models" / "pets", *exported, _facts(), Serving())
    assert refused.value.where == str(tmp_path / "models" / "pets")
    assert _tree(tmp_path / "models") == ["pets"]


def test_an_object_store_is_refused() -> None:
    with pytest.raises(ConfigError) as refused:
        model_folder("s3://bucket/models", None, "pets")
    assert refused.value.found == "s3://bucket/models"


def test_a_class_of_two_lines_is_refused(exported: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        add(tmp_path / "models" / "pets", *exported, _facts(("cat\ndog", "cow")), Serving())
    assert not (tmp_path / "models").exists()


def test_names_are_those_that_triton_takes() -> None:
    assert model_folder("models", None, "pets-2.1_a") == Path("models/pets-2.1_a")
    assert model_folder("models", "other", "a run") == Path("models/other")
    for wanted, run, where in ((None, "a run", "run.name"), ("../pets", "pets", "--model-name"), (".", "pets", "--m")):
        with pytest.raises(ConfigError) as refused:
            model_folder("models", wanted, run)
        assert str(refused.value.where).startswith(where)


def test_a_config_says_what_is_asked_for() -> None:
    plain = config_text("pets", _facts(), Serving())
    assert "KIND_AUTO" in plain and "tensorrt" not in plain and "dims: [ -1, -1, 3 ]" in plain
    asked = Serving(max_batch=1, queue_microseconds=0, instances=3, device="gpu", tensorrt="fp16")
    text = config_text("pets", _facts(size=[24, 32], layout="NCHW"), asked)
    assert "count: 3" in text and "KIND_GPU" in text and 'value: "FP16"' in text
    assert "dims: [ 3, 24, 32 ]" in text and text.count("model_warmup {") == 1
