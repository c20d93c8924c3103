"""JSON as annotation tools write it: nested, COCO, plain lists; and each contradiction with its place."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from harness.errors import raised

from raycls.config.load import load_text
from raycls.data.source import Dataset, open_dataset
from raycls.errors import DataError

NAMES = [f"{label}{index}.png" for label in ("cat", "dog", "ant") for index in range(4)]
IDS = {"cat": 7, "dog": 2, "ant": 30}
"""In the order of their ids: dog, cat, ant."""


def _label(name: str) -> str:
    return name[:3]


def _open(root: Path, content: object, *overrides: str, name: str = "m.json") -> Dataset:
    for image in NAMES:
        (root / "d").mkdir(exist_ok=True)
        (root / "d" / image).touch()
    text = content if isinstance(content, str) else json.dumps(content)
    (root / name).write_text(text)
    base = ["data.source.name=manifest", f"data.source.path={root / name}"]
    return open_dataset(load_text("", "test", [*base, *overrides]).run.data)


def _labels(data: Dataset) -> dict[str, str]:
    return {
        split.key(row): data.classes[split.labels[row]] for split in data.splits.values() for row in range(len(split))
    }


EXPECTED = {f"d/{name}": _label(name) for name in NAMES}


def _nested(**more: object) -> dict[str, Any]:
    return {
        "images": [
            {
                "id": row,
                "file_path": f"d/{name}",
                "annotations": [{"class_id": IDS[_label(name)], "label": _label(name)}],
            }
            for row, name in enumerate(NAMES)
        ]
    } | more


def _coco() -> dict[str, Any]:
    """Two boxes on every image, the annotations from the last image to the first."""
    return {
        "info": {"year": 2020},
        "images": [{"id": 100 + row, "file_name": f"d/{name}", "width": 9} for row, name in enumerate(NAMES)],
        "annotations": [
            {"id": 2 * row + box, "image_id": 100 + row, "category_id": IDS[_label(NAMES[row])], "bbox": [0, 0, box, 1]}
            for row in reversed(range(len(NAMES)))
            for box in (0, 1)
        ],
        "categories": [{"id": number, "name": name, "supercategory": "x"} for name, number in IDS.items()],
    }


def _records() -> list[dict[str, Any]]:
    return [{"path": f"d/{name}", "label": _label(name)} for name in NAMES]


def _with_ids() -> list[dict[str, Any]]:
    return [record | {"class_id": IDS[record["label"]]} for record in _records()]


def _change(content: Any, *path: Any, **values: Any) -> Any:
    """`content` with values of the object at `path` replaced; None takes a key away."""
    target = content
    for key in path:
        target = target[key]
    target.update(values)
    for key in [key for key, value in values.items() if value is None]:
        del target[key]
    return content


@pytest.mark.parametrize("content", [_nested(), _nested(annotations=[]), _coco(), _with_ids(), {"images": _with_ids()}])
def test_the_ids_give_the_order(tmp_path: Path, content: object) -> None:
    data = _open(tmp_path, content)
    assert data.classes == ("dog", "cat", "ant")
    assert _labels(data) == EXPECTED


def test_a_list_of_records_is_sorted_where_it_has_no_ids(tmp_path: Path) -> None:
    data = _open(tmp_path, _records())
    assert data.classes == ("ant", "cat", "dog")
    assert _labels(data) == EXPECTED


def test_lines_and_tables_with_ids(tmp_path: Path) -> None:
    lines = "\n".join(map(json.dumps, _with_ids()))
    nested = "\n".join(map(json.dumps, _nested()["images"]))
    table = "path,label,class_id\n" + "".join(f"{r['path']},{r['label']},{r['class_id']}.0\n" for r in _with_ids())
    for text, name in ((lines, "m.jsonl"), (nested, "m.ndjson"), (table, "m.csv")):
        data = _open(tmp_path, text, name=name)
        assert data.classes == ("dog", "cat", "ant")
        assert _labels(data) == EXPECTED


def test_an_id_that_the_label_has_elsewhere_need_not_be_repeated(tmp_path: Path) -> None:
    content = _change(_nested(), "images", 3, "annotations", 0, class_id=None)
    content = _change(content, "images", 5, "annotations", 0, label=None)
    data = _open(tmp_path, content)
    assert (data.classes, _labels(data)) == (("dog", "cat", "ant"), EXPECTED)


def test_ids_without_names_are_the_classes(tmp_path: Path) -> None:
    content = [{"path": record["path"], "class_id": record["class_id"]} for record in _with_ids()]
    data = _open(tmp_path, content)
    assert data.classes == ("2", "7", "30")
    assert _labels(data) == {path: str(IDS[label]) for path, label in EXPECTED.items()}


def test_ids_may_be_texts_and_floats(tmp_path: Path) -> None:
    content = _coco()
    for image in content["images"]:
        image["id"] = str(image["id"])
    for each in content["annotations"]:
        each |= {"image_id": float(each["image_id"]), "category_id": str(each["category_id"])}
    assert _open(tmp_path, content).classes == ("dog", "cat", "ant")


def test_categories_without_images_stay_classes_and_are_told(tmp_path: Path) -> None:
    content = _coco()
    content["categories"].append({"id": 0, "name": "animals"})
    data = _open(tmp_path, content)
    assert data.classes == ("animals", "dog", "cat", "ant")
    assert _labels(data) == EXPECTED
    assert [note.endswith(": animals") and "1 of 4 categories" in note for note in data.notes] == [True]


def test_categories_whose_ids_are_no_integers_are_sorted_by_name(tmp_path: Path) -> None:
    content = _coco()
    for each in (*content["annotations"], *content["categories"]):
        key = "category_id" if "category_id" in each else "id"
        each[key] = f"n{each[key]}"
    assert _open(tmp_path, content).classes == ("ant", "cat", "dog")


CAT = {"class_id": 7, "label": "cat"}


@pytest.mark.parametrize(
    ("content", "place", "what"),
    [
        (_change(_nested(), "images", 3, "annotations", 0, label="dog"), "images[3].annotations[0]", "two labels"),
        (_change(_nested(), "images", 3, "annotations", 0, class_id=8), "images[3].annotations[0]", "two class_ids"),
        (
            _change(_nested(), "images", 3, "annotations", 0, class_id=None, label="emu"),
            "images[3].annotations[0]",
            "no class_id",
        ),
        (_change(_nested(), "images", 3, "annotations", 0, class_id="x"), "images[3].annotations[0]", "integer"),
        (_change(_nested(), "images", 3, "annotations", 0, class_id=1.5), "images[3].annotations[0]", "integer"),
        (
            _change(_nested(), "images", 3, "annotations", 0, label=None, class_id=None),
            "images[3].annotations[0]",
            "no label",
        ),
        (
            _change(_nested(), "images", 3, "annotations", 0, label=None, class_id=9),
            "images[3].annotations[0]",
            "no label",
        ),
        (
            _change(_nested(), "images", 3, annotations=[CAT, {"class_id": 2, "label": "dog"}]),
            "images[3].annotations[1]",
            "two classes",
        ),
        (_change(_nested(), "images", 3, label="dog"), "images[3].annotations[0]", "two classes"),
        (_change(_nested(), "images", 3, annotations=[]), "images[3]", "no annotation"),
        (_change(_nested(), "images", 3, annotations={}), "images[3].annotations", "list of objects"),
        (_change(_nested(), "images", 3, annotations=["cat"]), "images[3].annotations[0]", "list of objects"),
        (_change(_nested(), "images", 3, id=1), "images[3]", "id is used twice"),
        (_nested(annotations=[{"image_id": 0, "label": "cat"}]), "images[0].annotations", "both inside"),
        (_change(_coco(), "images", 3, id=101), "images[3]", "id is used twice"),
        (_change(_coco(), "images", 3, id=None), "images[3]", "id is missing"),
        (_change(_coco(), "categories", 1, id=7), "categories[1]", "id is used twice"),
        (_change(_coco(), "categories", 1, name="cat"), "categories[1]", "two class_ids"),
        (_change(_coco(), "categories", 1, name=" "), "categories[1]", "no name"),
        (_change(_coco(), "annotations", 4, category_id=3), "annotations[4]", "among the categories"),
        (_change(_coco(), "annotations", 4, category_id=7), "annotations[5]", "two classes"),
        (_change(_coco(), "annotations", 4, image_id=1), "annotations[4]", "not listed"),
        (_change(_coco(), "annotations", 4, image_id=None), "annotations[4]", "have an image_id"),
        (_change(_coco(), "annotations", 4, label="cat"), "annotations[4]", "name of its category"),
        (_change(_coco(), categories=None), None, ""),
        ([*_records(), {"path": "d/cat0.png", "label": "cat"}], "[12]", "listed twice"),
        ([*_records(), {"path": "d/x.png"}], "[12]", "no label"),
        ([*_records(), 3], "[12]", "list of objects"),
        ('[{"path": "d\\cat0.png"}]', "1", "JSON"),
    ],
)
def test_a_contradiction_has_its_place(tmp_path: Path, content: object, place: str | None, what: str) -> None:
    if place is None:  # ids without names are classes of their own
        assert _open(tmp_path, content).classes == ("2", "7", "30")
        return
    with pytest.raises(DataError, match=what) as caught:
        _open(tmp_path, content)
    assert caught.value.where == f"{tmp_path / 'm.json'}:{place}"


def _remedy(error: DataError, option: str) -> str:
    return next(word for word in shlex.split(error.fix or "") if word.startswith(f"data.source.args.{option}="))


def test_images_without_annotation_can_be_left_out(tmp_path: Path) -> None:
    content = _coco()
    content["annotations"] = [each for each in content["annotations"] if each["image_id"] not in (100, 105)]
    with raised(DataError, what=re.compile("2 images"), found="d/cat0.png, d/dog1.png") as caught:
        _open(tmp_path, content)
    kept = {key: value for key, value in EXPECTED.items() if key not in ("d/cat0.png", "d/dog1.png")}
    assert _labels(_open(tmp_path, content, _remedy(caught.value, "ignore"))) == kept


def test_images_of_two_classes_can_be_left_out(tmp_path: Path) -> None:
    content = _nested()
    for row in (3, 5):
        content["images"][row]["annotations"] = [CAT, {"class_id": 2, "label": "dog"}]
    with pytest.raises(DataError, match="two classes") as caught:
        _open(tmp_path, content)
    kept = {key: value for key, value in EXPECTED.items() if key not in ("d/cat3.png", "d/dog1.png")}
    assert _labels(_open(tmp_path, content, _remedy(caught.value, "ignore"))) == kept


def test_ids_that_are_no_numbers_of_classes_can_be_left_out(tmp_path: Path) -> None:
    content = _change(_nested(), "images", 3, "annotations", 0, class_id=8)
    with pytest.raises(DataError, match="two class_ids") as caught:
        _open(tmp_path, content)
    data = _open(tmp_path, content, _remedy(caught.value, "columns"))
    assert data.classes == ("ant", "cat", "dog")
    assert _labels(data) == EXPECTED


def test_other_keys_of_annotations_have_a_remedy(tmp_path: Path) -> None:
    content = _nested()
    for image in content["images"]:
        image["annotations"] = [{"id": image["id"], "category": image["annotations"][0]["label"], "score": 1.0}]
    with pytest.raises(DataError, match="no label") as caught:
        _open(tmp_path, content)
    assert _labels(_open(tmp_path, content, _remedy(caught.value, "columns"))) == EXPECTED
    content = _coco()
    for image in content["images"]:
        image["img_file"] = image.pop("file_name")
    with pytest.raises(DataError, match="no path") as caught:
        _open(tmp_path, content)
    assert _labels(_open(tmp_path, content, _remedy(caught.value, "columns"))) == EXPECTED


def test_splits_may_stand_in_annotations(tmp_path: Path) -> None:
    content = _nested()
    for row, image in enumerate(content["images"]):
        image["annotations"][0]["split"] = "test" if row % 4 == 3 else "train"
    data = _open(tmp_path, content)
    assert sorted(data.splits["test"].keys) == ["d/ant3.png", "d/cat3.png", "d/dog3.png"]
    assert set(data.own_splits) == {"train", "test"}
    content["images"][3]["split"] = "train"
    with pytest.raises(DataError, match="two splits") as caught:
        _open(tmp_path, content)
    assert caught.value.where == f"{tmp_path / 'm.json'}:images[3].annotations[0]"


@pytest.mark.parametrize("name", ["m.json", "m.jsonl"])
def test_an_object_that_says_two_things_of_one_key(tmp_path: Path, name: str) -> None:
    lines = [json.dumps(record) for record in _records()]
    form = "[{}]" if name == "m.json" else "{}"
    separator = ", " if name == "m.json" else "\n"
    lines[2] = lines[2].replace('"label": "cat"', '"label": "cat", "label": "cat"')
    assert _labels(_open(tmp_path, form.format(separator.join(lines)), name=name)) == EXPECTED
    lines[2] = lines[2].replace('"label": "cat", ', '"label": "dog", ')
    where = str(tmp_path / name) + (":3" if name == "m.jsonl" else "")
    with raised(DataError, what=re.compile("JSON"), where=where, found=re.compile("key label twice")):
        _open(tmp_path, form.format(separator.join(lines)), name=name)
