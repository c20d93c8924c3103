"""What a node is asked, asked here."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from harness.object_store import BUCKET, S3

from raycls.doctor import node_probes

GPUS = "NVIDIA H100 80GB HBM3, 550.54.15, 81559\nNVIDIA A100, PCIe, 535.1, 40960\n"


def test_graphics(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert node_probes.graphics() == []
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\nprintf '{GPUS}'\n")
    program.chmod(0o755)
    assert node_probes.graphics() == [
        {"name": "NVIDIA H100 80GB HBM3", "driver": "550.54.15", "memory": 81559 << 20},
        {"name": "NVIDIA A100, PCIe", "driver": "535.1", "memory": 40960 << 20},
    ]


def tree(folder: Path) -> Path:
    for name, size in {"b/2.png": 20, "a/1.png": 10, "a/3.png": 30}.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"x" * size)
    return folder


def test_listing_is_the_same_for_the_same_names_and_sizes(tmp_path: Path) -> None:
    first = node_probes.listing(str(tree(tmp_path / "one")), 100)
    assert (first["kind"], first["entries"], first["bytes"], first["whole"]) == ("folder", 5, 60, True)
    copy = Path(shutil.copytree(tmp_path / "one", tmp_path / "two"))
    assert node_probes.listing(str(copy), 100) == first
    (copy / "a" / "1.png").write_bytes(b"y" * 10)  # pixels do not count
    assert node_probes.listing(str(copy), 100) == first
    (copy / "a" / "1.png").write_bytes(b"x" * 11)
    assert node_probes.listing(str(copy), 100)["digest"] != first["digest"]
    os.rename(copy / "a" / "1.png", copy / "a" / "0.png")
    assert node_probes.listing(str(copy), 100)["digest"] != first["digest"]


def test_listing_looks_at_so_many_entries_and_no_more(tmp_path: Path) -> None:
    tree(tmp_path / "one")
    found = node_probes.listing(str(tmp_path / "one"), 3)
    assert (found["entries"], found["whole"]) == (3, False)  # a, b, a/1.png
    (tmp_path / "one" / "b" / "2.png").write_bytes(b"")
    assert node_probes.listing(str(tmp_path / "one"), 3)["digest"] == found["digest"]
    assert node_probes.listing(str(tmp_path / "one"), 6)["whole"]


def test_listing_of_a_file_and_of_nothing(tmp_path: Path) -> None:
    file = tmp_path / "data.npz"
    file.write_bytes(b"a" * 70_000)
    found = node_probes.listing(str(file), 1)
    assert (found["kind"], found["bytes"]) == ("file", 70_000)
    file.write_bytes(b"b" * 70_000)
    assert node_probes.listing(str(file), 1)["digest"] != found["digest"]
    assert node_probes.listing(str(tmp_path / "absent"), 1)["kind"] == "missing"


def test_visit_answers_only_where_it_sees_the_mark(tmp_path: Path) -> None:
    seen, blind = tmp_path / "seen", tmp_path / "blind"
    seen.mkdir()
    (seen / "mark").write_text("1234")
    assert node_probes.visit(str(seen), "mark", "1234", "reply") == {"read": True, "wrote": True, "problem": ""}
    assert (seen / "reply").read_text() == "1234"
    nothing = {"read": False, "wrote": False, "problem": ""}
    assert node_probes.visit(str(blind), "mark", "1234", "reply") == nothing
    assert not blind.exists()
    assert node_probes.visit(str(seen), "mark", "5678", "other") == nothing  # an earlier doctor's
    assert not (seen / "other").exists()


def test_visit_says_what_is_wrong(tmp_path: Path) -> None:
    (tmp_path / "mark").write_text("1234")
    (tmp_path / "reply").mkdir()
    found = node_probes.visit(str(tmp_path), "mark", "1234", "reply")
    assert not found["wrote"]
    assert "could not be written" in found["problem"]


def test_exchange_between_two_processes() -> None:
    port = node_probes.open_port("127.0.0.1")
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        asked = [
            pool.submit(node_probes.exchange, "gloo", "127.0.0.1", port, rank, 2, 1000, 3, 60.0) for rank in (0, 1)
        ]
        assert all(0 < done.result(120) < 60 for done in asked)


def test_remove(tmp_path: Path) -> None:
    node_probes.remove(str(tree(tmp_path / "one")))
    node_probes.remove(str(tmp_path / "absent"))
    assert not list(tmp_path.iterdir())


def objects(uri: str) -> dict[str, Any]:
    return node_probes.objects(uri, 1000, 3)


def test_objects_behind_an_address_are_read_and_timed(s3: S3, tmp_path: Path) -> None:
    s3.upload(tree(tmp_path / "one"), "photos")
    for path, name in {
        "photos": "photos/a/1.png",
        "photos/b/2.png": "photos/b/2.png",
        "photos/b/{0000..0003}.tar": "photos/b/2.png",
        "photos/a/*.png": "photos/a/1.png",
    }.items():
        s3.proxy.reset()
        told = objects(s3.uri(path))
        assert (told["problem"], told["name"]) == ("", name)
        assert 0 < told["listing"] < 60 and 0 < told["reading"] < 60
        assert s3.proxy.count <= 12, "of one folder after another and of one object"
        assert {method for method, _ in s3.proxy.seen} <= {"GET", "HEAD"}


def test_what_is_wrong_with_an_address_is_told_by_its_kind(s3: S3, tmp_path: Path) -> None:
    s3.upload(tree(tmp_path / "one"), "photos")
    nothing = objects(s3.uri("nobody"))
    assert (nothing["problem"], nothing["fix"]) == ("nothing there", "correct the path")
    bucket = objects(s3.uri("x").replace(BUCKET, "no-such-bucket", 1))
    assert (bucket["problem"], bucket["fix"]) == ("nothing there", "correct the bucket, or make it")
    s3.proxy.fail_from(0, "403 AccessDenied")
    denied = objects(s3.uri("photos"))
    assert denied["problem"] == "denied"
    assert denied["fix"].startswith("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    s3.proxy.fail_from(0, "301 PermanentRedirect")
    region = objects(s3.uri("photos"))
    assert region["problem"] == "wrong address" and "region=" in region["fix"]
    s3.proxy.stop()
    assert objects(s3.uri("photos"))["problem"] == "no answer"
    s3.proxy.start()
    assert objects("s3://bucket/x?colour=red")["problem"] == "wrong address"
