"""A file with the keys of COCO's `instances_val2017.json`, which has boxes: what a classifier makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from raycls.config.load import from_dict
from raycls.data.source import Pool, open_pool
from raycls.errors import DataError


def _instances(folder: Path, labels: Sequence[Sequence[int]]) -> Path:
    """`labels`: the category ids of the boxes of each image."""
    images, annotations = [], []
    (folder / "val2017").mkdir()
    for at, ids in enumerate(labels):
        name = f"{at + 139:012d}.jpg"
        Image.new("RGB", (4, 3), (at, 0, 0)).save(folder / "val2017" / name)
        url = f"http://images.example/val2017/{name}"
        facts = {"license": 2, "file_name": name, "coco_url": url, "height": 3, "width": 4, "id": at + 139}
        images.append({**facts, "date_captured": "2013-11-21 01:34:01", "flickr_url": url})
        for identity in ids:
            box = {"segmentation": [[1.0, 2.0, 3.0, 2.0, 3.0, 1.0]], "area": 1.5, "iscrowd": 0, "bbox": [1.0, 1, 2, 1]}
            more = {"image_id": at + 139, "category_id": identity, "id": 1000 + len(annotations)}
            annotations.append({**box, **more})
    categories = [
        {"supercategory": "animal", "id": 17, "name": "cat"},
        {"supercategory": "animal", "id": 18, "name": "dog"},
        {"supercategory": "person", "id": 1, "name": "person"},
        {"supercategory": "indoor", "id": 90, "name": "toothbrush"},
    ]
    licenses = [{"url": "http://licences.example", "id": 2, "name": "a licence"}]
    content = {"info": {"year": 2017}, "licenses": licenses, "images": images, "annotations": annotations}
    file = folder / "annotations" / "instances_val2017.json"
    file.parent.mkdir()
    file.write_text(json.dumps({**content, "categories": categories}))
    return file


def _open(file: Path, **args: Any) -> Pool:
    args = {"root": str(file.parents[1] / "val2017"), **args}
    return open_pool(from_dict({"data": {"source": {"name": "manifest", "path": str(file), "args": args}}}).data)


def test_boxes_of_one_category_are_one_label(tmp_path: Path) -> None:
    pool = _open(_instances(tmp_path, [[17, 17], [18], [1, 1, 1], [18, 18]]))
    assert pool.classes == ("person", "cat", "dog", "toothbrush")  # in the order of their ids
    assert pool.labels.tolist() == [1, 2, 0, 2]
    assert pool.notes == ("data: 1 of 4 categories have no image: toothbrush",)


def test_boxes_of_several_categories_are_refused_with_what_reads_them(tmp_path: Path) -> None:
    file = _instances(tmp_path, [[17, 1], [18], [], [1, 18, 18]])
    with pytest.raises(DataError) as caught:
        _open(file)
    assert caught.value.what == "an image has no annotation"
    with pytest.raises(DataError) as caught:
        _open(file, ignore=["000000000141.jpg"])
    assert caught.value.what == "an image has annotations of two classes"
    assert "data.source.args.multilabel=true" in (caught.value.valid or "")
    pool = _open(file, multilabel=True)
    assert pool.sets is not None
    assert pool.sets[pool.labels].tolist() == [
        [True, True, False, False],
        [False, False, True, False],
        [False, False, False, False],
        [True, False, True, False],
    ]
