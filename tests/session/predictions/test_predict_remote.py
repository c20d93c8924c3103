"""Predictions with the run, the images and the file in an object store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.object_store import BUCKET, S3
from pyarrow import parquet

from raycls.errors import CheckpointError, ConfigError
from raycls.session.predictions import predict as predictions
from raycls.session.predictions.predict import Predicted, Request, predict


@pytest.fixture
def stored(trained: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3:
    """What is read of the run, and 16 photos of each class, in the bucket; the working directory has all of it."""
    monkeypatch.chdir(trained)
    run = [path for pattern in ("*.*", "model/*") for path in (trained / "runs/shapes").glob(pattern)]
    for file in (*run, *_photos(trained)):
        s3.client.put_object(Bucket=BUCKET, Key=str(file.relative_to(trained)), Body=file.read_bytes())
    return s3


def _photos(folder: Path) -> list[Path]:
    return [path for kind in sorted((folder / "photos").iterdir()) for path in sorted(kind.iterdir())[:16]]


def _ask(run: str, *inputs: str, **more: Any) -> Predicted:
    return predict(Request(run, inputs, **more), join=lambda *_: pytest.fail("nobody asked for Ray"), say=print)


def _table(file: Path) -> list[dict[str, Any]]:
    return parquet.read_table(file).to_pylist()


def test_run_images_and_file_may_be_in_an_object_store(stored: S3, tmp_path: Path) -> None:
    names = [str(path.relative_to(Path.cwd())) for path in _photos(Path.cwd())]
    _ask("runs/shapes", *names, out=str(tmp_path / "here.parquet"))
    here = _table(tmp_path / "here.parquet")
    found = _ask(stored.uri("runs/shapes"), stored.uri("photos"), out=stored.uri("out/there.parquet"))
    assert (found.rows, found.bad) == (48, 0)
    (tmp_path / "there.parquet").write_bytes(stored.read("out/there.parquet") or b"")
    there = _table(tmp_path / "there.parquet")
    assert [row["path"] for row in there] == [f"s3://{BUCKET}/{row['path']}" for row in here]
    assert {row["run"] for row in there} == {f"s3://{BUCKET}/runs/shapes"}
    for name in ("predicted", "top_classes", "top_probabilities", "sha256", "step", "error"):
        assert [row[name] for row in there] == [row[name] for row in here]
    assert list(stored.objects("out/")) == ["there.parquet"]


def test_a_single_object_and_the_lines_of_a_manifest_are_read(
    stored: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored.client.put_object(Bucket=BUCKET, Key="photos/empty.png", Body=b"")
    one = _ask("runs/shapes", stored.uri("photos/circle/000.png"), "photos/circle/000.png")
    assert one.parts[0].top[0].tolist() == one.parts[0].top[1].tolist()
    names = ["photos/circle/000.png", "photos/gone.png", "photos/empty.png", "photos/square/001.jpg"]
    (tmp_path / "m.csv").write_text("path\n" + "".join(f"{stored.uri(name)}\n" for name in names))
    listed = _ask("runs/shapes", str(tmp_path / "m.csv"))
    assert [error and error.partition(":")[0] for error in listed.parts[0].errors] == [
        None,
        "cannot read an image file",
        "a sample is not an image",
        None,
    ]


def test_a_storage_that_is_away_ends_the_command_and_is_no_fault_of_the_images(
    stored: S3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predictions, "_PART_ROWS", 16)
    monkeypatch.setattr(predictions, "_FEW_PARTS", 1000)
    stored.proxy.fault = lambda number, method, path: "403 AccessDenied" if "square/0" in path else None
    with pytest.raises(CheckpointError):
        _ask("runs/shapes", stored.uri("photos"), out=stored.uri("out/p.csv"))
    left = set(stored.objects("out/"))
    assert {"p.csv.parts/job.json", "p.csv.parts/part-00000.npz"} <= left
    stored.proxy.reset()
    _ask("runs/shapes", stored.uri("photos"), out=stored.uri("out/p.csv"))
    assert len((stored.read("out/p.csv") or b"").splitlines()) == 49
    assert set(stored.objects("out/")) <= {"p.csv", ""}  # and the mark of a folder, which the file system leaves


def test_an_address_where_nothing_is_is_refused(stored: S3) -> None:
    with pytest.raises(ConfigError) as caught:
        _ask("runs/shapes", stored.uri("nothing"))
    assert caught.value.where == f"INPUT s3://{BUCKET}/nothing"
