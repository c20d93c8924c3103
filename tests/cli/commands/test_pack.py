"""`raycls pack`: what is typed, what it prints, and its exit codes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result
from harness.trained import CONFIG, write_photos

Command = Callable[..., Result]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", 10)
    (tmp_path / "c.yaml").write_text(CONFIG)
    return tmp_path


def test_packed_data_has_a_table_and_is_checked(photos: Path, raycls_command: Command) -> None:
    words = ["pack", "c.yaml", "--out", "p", "--to", "parquet", "--quality", "raw", "--size", "24"]
    told = raycls_command(*words)
    assert told.code == 0, told.err
    lines = told.out.splitlines()
    assert lines[0].split() == ["split", "images", "shards", "before", "after"]
    assert [line.split()[:3] for line in lines[1:5]] == [
        ["train", "18", "1"],
        ["val", "6", "1"],
        ["test", "6", "1"],
        ["all", "30", "3"],
    ]
    assert lines[5].startswith("parquet, raw pixels, shorter side at most 24: 3 shards made in ")
    assert lines[7] == f"train from it with data.source.name=packed data.source.path={photos / 'p'}"
    assert "complete already" in raycls_command(*words).out
    config = raycls_command("config", "c.yaml", "data.source.name=packed", "data.source.path=p")
    assert config.code == 0, config.err
    file = photos / "p/shard-00001.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
    checked = raycls_command("pack", "--check", "p")
    assert checked.code == 3
    assert checked.out.splitlines() == [
        "shard-00001.parquet: its sha256 is another than when it was written",
        "1 of 4 files are damaged: delete them and rerun raycls pack to write them again",
    ]
    file.unlink()
    again = raycls_command(*words)
    assert "1 shard made" in again.out
    assert file.read_bytes() == data
    assert raycls_command("pack", "--check", "p").out == "checked 4 files of p: all are as they were written\n"


@pytest.mark.parametrize(
    ("words", "place"),
    [
        ("pack", ""),
        ("pack c.yaml", ""),
        ("pack c.yaml --out p --to zip", "--to"),
        ("pack c.yaml --out p --size 0", "--size"),
        ("pack c.yaml --out p --size big", "--size"),
        ("pack c.yaml --out p --quality 101", "--quality"),
        ("pack c.yaml --out p --quality none", "--quality"),
        ("pack c.yaml --check p", "--check"),
    ],
)
def test_what_cannot_be_asked_for(photos: Path, raycls_command: Command, words: str, place: str) -> None:
    told = raycls_command(*words.split())
    assert told.code == 2
    assert (f"where: {place}" in told.err) is bool(place)
    assert not (photos / "p").exists()


def test_a_folder_that_is_not_packed_to_the_end_has_no_data(photos: Path, raycls_command: Command) -> None:
    (photos / "p").mkdir()
    told = raycls_command("pack", "--check", "p")
    assert told.code == 3
    assert "no pack.json, which is written last" in told.err
