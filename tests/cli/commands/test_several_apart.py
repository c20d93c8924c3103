"""A run of any number of labels per image whose validation split lacks a class, and other tables than its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from harness.command_line import Result
from harness.tagged import TAGS, write_tagged
from pyarrow import parquet

from raycls.export.pictures import pictures
from raycls.session.trained.trained import open_trained

_CLASSES = sorted(TAGS)
_KEPT = "no threshold can be fitted without an image, 0.5 is kept for: blue"


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raycls_command: Callable[..., Result]) -> dict[str, str]:
    """The labels of each image as a cell of a table has them, `red;green` or nothing; a run was trained on `t.csv`."""
    write_tagged(tmp_path, 30)
    monkeypatch.chdir(tmp_path)
    found: dict[str, str] = {}
    table = ["path,label,split"]
    for number, line in enumerate(Path("m.jsonl").read_text().splitlines()):
        read, split = json.loads(line), "train" if number < 15 else "val" if number < 25 else "test"
        found[read["path"]] = ";".join(name for name in read["label"] if (name, split) != ("blue", "val"))
        table.append(f"{read['path']},{found[read['path']]},{split}")
    Path("t.csv").write_text("\n".join(table))
    source = ["data.source.path=t.csv", "data.source.args.multilabel=';'", "train.duration=1ep"]
    assert raycls_command("train", "c.yaml", *source).code == 0
    return found


def _write(name: str, cells: dict[str, str]) -> None:
    Path(name).write_text("path,label\n" + "".join(f"{path},{cell}\n" for path, cell in cells.items()))


def test_a_class_without_an_image_in_val_keeps_one_half_and_is_named(
    cells: dict[str, str], raycls_command: Callable[..., Result]
) -> None:
    assert "blue" in "".join(cells.values())
    result = raycls_command("eval", "c", "--split=val")
    assert result.code == 0 and result.out.splitlines().count(_KEPT) == 1
    result = raycls_command("eval", "c", "--split=test", "--threshold=max-f1")
    assert result.code == 0 and result.out.splitlines().count(_KEPT) == 1
    chosen = json.loads(raycls_command("eval", "c", "--split=test", "--threshold=max-f1", "--json").out)["threshold"]
    assert (chosen["unfitted"], chosen["values"]["blue"]) == (["blue"], 0.5)
    result = raycls_command("predict", "c", *cells, "--thresholds=stored", "--json")
    assert result.code == 0 and result.err.splitlines().count(_KEPT) == 1
    rows = [json.loads(line) for line in result.out.splitlines()]
    assert len(rows) == len(cells)
    for row in rows:
        named = [name for name in _CLASSES if row["probabilities"][name] >= chosen["values"][name]]
        assert row["labels"] == named
    given = raycls_command("eval", "c", "--split=test", "--threshold=0.3")
    assert given.code == 0 and _KEPT not in given.out + given.err


def test_other_tables_are_read_with_the_divider_of_the_run(
    cells: dict[str, str], raycls_command: Callable[..., Result]
) -> None:
    assert "" in cells.values() and any(";" in cell for cell in cells.values())
    _write("o.csv", cells)
    result = raycls_command("eval", "c", "--data=o.csv", "--json")
    assert result.code == 0, result.err
    summary = json.loads(result.out)
    table = parquet.read_table(Path("runs/c") / summary["predictions"])
    assert {
        Path(path).name: sorted(labels)
        for path, labels in zip(table["path"].to_pylist(), table["labels"].to_pylist(), strict=True)
    } == {Path(path).name: sorted(filter(None, cell.split(";"))) for path, cell in cells.items()}
    _write("z.csv", {path: cell.replace("blue", "zebra") for path, cell in cells.items()})
    count = sum("blue" in cell for cell in cells.values())
    result = raycls_command("eval", "c", "--data=z.csv")
    assert result.code == 3 and f"found: zebra ({count})\n" in result.err
    assert "data.source.args.multilabel" not in result.err
    result = raycls_command("eval", "c", "--data=z.csv", "--extra-classes=leave-out", "--json")
    assert json.loads(result.out)["count"] == len(cells) - count
    _write("bar.csv", {path: cell.replace(";", "|") for path, cell in cells.items()})
    result = raycls_command("eval", "c", "--data=bar.csv")
    assert result.code == 3 and "data.source.args.multilabel='\"|\"'" in result.err
    result = raycls_command("eval", "c", "--data=bar.csv", 'data.source.args.multilabel="|"', "--json")
    assert json.loads(result.out)["map"] == summary["map"]
    compared = pictures(open_trained("runs/c"), split=None, data="o.csv", most=99, say=lambda _: None)  # by an export
    assert len(compared.rows) == len(cells)
