"""Manifests whose images have any number of classes: lists, several annotations, one cell of a table."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.errors import raised

from raycls.config.load import load_text
from raycls.data.source import Dataset, open_dataset
from raycls.errors import DataError

SAID = {"1.png": ["dog", "cat"], "2.png": ["cat"], "3.png": [], "4.png": ["ant", "dog"], "5.png": ["cat", "dog"]}
WHOLE = "data.split={train: 1.0, val: 0.0, test: 0.0}"


def _open(root: Path, name: str, text: str, *overrides: str) -> Dataset:
    for image in SAID:
        (root / image).touch()
    (root / name).write_text(text)
    base = ["data.source.name=manifest", f"data.source.path={root / name}", WHOLE]
    return open_dataset(load_text("", "test", [*base, *overrides]).run.data)


def _lines(**replaced: Any) -> str:
    return "\n".join(json.dumps({"path": path, "label": replaced.get(path[0], label)}) for path, label in SAID.items())


def _coco() -> str:
    ids = {"dog": 2, "cat": 7, "ant": 30}
    images = [{"id": index, "file_name": path} for index, path in enumerate(SAID)]
    boxes = [
        {"image_id": index, "category_id": ids[name]} for index, names in enumerate(SAID.values()) for name in names
    ]
    categories = [{"id": number, "name": name} for name, number in ids.items()]
    return json.dumps({"images": images, "annotations": boxes, "categories": categories})


def _nested() -> str:
    images = [{"file_path": path, "annotations": [{"label": each} for each in names]} for path, names in SAID.items()]
    return json.dumps({"images": images})


@pytest.mark.parametrize(
    ("name", "text", "classes", "overrides"),
    [
        ("m.jsonl", _lines(), ("ant", "cat", "dog"), ()),
        ("m.json", _nested(), ("ant", "cat", "dog"), ("data.source.args.multilabel=true",)),
        ("m.json", _coco(), ("dog", "cat", "ant"), ("data.source.args.multilabel=true",)),
        (
            "m.csv",
            "path,label\n" + "".join(f"{path},{'; '.join(names)}\n" for path, names in SAID.items()),
            ("ant", "cat", "dog"),
            ('data.source.args.multilabel=";"',),
        ),
    ],
    ids=["lists", "annotations inside", "annotations beside", "cells"],
)
def test_each_image_has_its_set_of_classes(
    name: str, text: str, classes: tuple[str, ...], overrides: tuple[str, ...], tmp_path: Path
) -> None:
    data = _open(tmp_path, name, text, *overrides)
    split = data.splits["train"]
    assert data.classes == classes
    assert split.sets is not None
    found = {
        split.key(row): {classes[column] for column in np.flatnonzero(split.sets[split.labels[row]])}
        for row in range(len(split))
    }
    assert found == {path: set(names) for path, names in SAID.items()}
    assert split.counts().tolist() == [sum(name in names for names in SAID.values()) for name in classes]


def test_a_list_on_the_image_counts_beside_annotations_without_a_label(tmp_path: Path) -> None:
    images = [{"id": index, "file_name": path, "label": names} for index, (path, names) in enumerate(SAID.items())]
    boxes = [{"image_id": index, "bbox": [0, 0, 1, 1]} for index in range(len(SAID))]
    split = _open(tmp_path, "m.json", json.dumps({"images": images, "annotations": boxes})).splits["train"]
    assert {split.key(row): split.label(row) for row in range(len(split))} == {
        path: ", ".join(sorted(names)) for path, names in SAID.items()
    }


def test_an_order_of_labels_is_no_difference_and_another_label_is_one(tmp_path: Path) -> None:
    first = _open(tmp_path, "m.jsonl", _lines())
    assert _open(tmp_path, "m.jsonl", _lines(**{"1": ["cat", "dog", "cat"]})).fingerprint == first.fingerprint
    assert _open(tmp_path, "m.jsonl", _lines(**{"1": ["cat"]})).fingerprint != first.fingerprint


def test_a_list_that_holds_no_name_is_refused_with_its_place(tmp_path: Path) -> None:
    with raised(DataError, where=f"{tmp_path / 'm.jsonl'}:2", found="None"):
        _open(tmp_path, "m.jsonl", _lines(**{"2": ["cat", None]}))


def test_a_class_id_beside_several_labels_is_refused(tmp_path: Path) -> None:
    line = json.dumps({"path": "1.png", "label": ["dog", "cat"], "class_id": 3})
    with raised(
        DataError,
        where=f"{tmp_path / 'm.jsonl'}:1",
        fix="leave the ids out: data.source.args.columns='{class_id: null}'",
    ):
        _open(tmp_path, "m.jsonl", line)


def test_a_class_that_is_only_in_the_test_split_is_refused(tmp_path: Path) -> None:
    lines = [
        {"path": path, "label": names, "split": "test" if "ant" in names else "train"} for path, names in SAID.items()
    ]
    with raised(DataError, found="ant"):
        _open(tmp_path, "m.jsonl", "\n".join(map(json.dumps, lines)))
