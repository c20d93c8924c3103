"""Groups in two splits that the data brought: found, told, and taken out of a cleaned manifest."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.phantom import CLASSES, phantom, write_series
from harness.planted import picture

from raycls.config.load import load_text
from raycls.data.source import open_dataset
from raycls.screen.measured.data_text import check_lines
from raycls.session.checking.check import Checked, check
from raycls.session.checking.cleaned import cleaned, verify
from raycls.session.checking.page import page


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _manifest(splits: dict[str, tuple[str, ...]]) -> None:
    """Two images of each class for each patient of each split."""
    lines, number = ["path,label,split,patient"], 0
    for split, patients in splits.items():
        for patient in patients:
            for label in "abab":
                name = f"{split}-{patient}-{number}.png"
                picture(number, (24, 20)).save(name)
                lines.append(f"{name},{label},{split},{patient}")
                number += 1
    Path("m.csv").write_text("\n".join(lines) + "\n")


def _check(group: str = "patient") -> Checked:
    text = f"data: {{source: {{name: manifest, path: m.csv}}, image_size: 8, group: {group}}}"
    return check(load_text(text, "c.yaml", ()).run, (), lambda line: None)


def test_groups_in_two_splits_are_found_and_those_of_the_evaluation_stay() -> None:
    _manifest({"train": ("p1", "p2", "p3", "p4"), "val": ("p5", "p2"), "test": ("p6", "p3", "p2")})
    checked = _check()
    facts = checked.facts()
    found = {each["group"]: len(each["images"]) for each in facts["groups_in_two_splits"]}
    assert found == {"p2": 12, "p3": 8}
    assert not facts["clean"] and not checked.clean
    assert facts["leaks"] == [], "other pictures"
    lines = check_lines(facts)
    assert "groups in two splits  2 groups  <- look at it" in lines
    assert any(line.startswith("  p2: train-p2-4.png (train), train-p2-5.png (train)") for line in lines)
    assert b"Groups in two splits" in page(checked, [], "m.csv")
    left = cleaned(checked, Path("clean.csv"))
    assert (left.images, left.left_out) == (36 - 12, {"in two splits by their group": 12})
    Path("clean.csv").write_text(left.text)
    verify(checked, Path("clean.csv"))
    kept = open_dataset(load_text("data: {source: {name: manifest, path: clean.csv}}", "c.yaml", ()).run.data).splits
    assert {name: sorted({key.split("-")[1] for key in split.keys}) for name, split in kept.items()} == {
        "train": ["p1", "p4"],
        "val": ["p5"],
        "test": ["p2", "p3", "p6"],
    }


def test_whole_groups_are_told_and_no_finding() -> None:
    _manifest({"train": ("p1", "p2"), "val": ("p3",), "test": ("p4",)})
    facts = _check().facts()
    assert facts["clean"] and facts["groups_in_two_splits"] == []
    assert any(line.split() == ["groups", "in", "two", "splits", "none"] for line in check_lines(facts))


def test_a_part_of_train_that_becomes_val_is_on_its_side() -> None:
    """The data brings train and test; val is cut from train, and a patient of both is no group on two sides."""
    _manifest({"train": tuple(f"p{number}" for number in range(10)), "test": ("p20", "p3")})
    facts = _check().facts()
    assert [each["group"] for each in facts["groups_in_two_splits"]] == ["p3"]
    assert {image["split"] for image in facts["groups_in_two_splits"][0]["images"]} <= {"train", "val", "test"}


def test_without_groups_nothing_is_said_of_them() -> None:
    _manifest({"train": ("p1", "p2"), "val": ("p1",)})
    facts = _check("null").facts()
    assert facts["groups_in_two_splits"] is None and facts["clean"]
    assert not any("groups" in line for line in check_lines(facts))


def _series(patients: dict[str, tuple[str, ...]]) -> None:
    """A series of each class for each patient of each split; `same` is one with the values of another."""
    number = 0
    for split, names in patients.items():
        for name in names:
            for label, kind in enumerate(CLASSES):
                volume, uid = phantom(number, label), f"1.2.826.0.1.3680043.8.498.{number + 1}"
                write_series(Path("d") / split / kind / f"s{number}", volume, uid=uid, seed=number, PatientID=name)
                number += 1


def _check_series(*overrides: str) -> Checked:
    text = "data: {source: {name: dicom, path: d}, batch_size: 2}\ntask: {name: volume_classification}\n"
    text += "model: {name: resnet3d, in_channels: 1}\n"
    return check(load_text(text, "c.yaml", overrides).run, (), lambda line: None)


def test_patients_are_groups_until_they_are_turned_off() -> None:
    """Nobody named a group: a run keeps patients whole and cannot where the data brought them in two splits."""
    _series({"train": ("p1", "p2", "p3", ""), "test": ("p4", "p2", "")})
    checked = _check_series()
    facts = checked.facts()
    assert [len(each["images"]) for each in facts["groups_in_two_splits"]] == [6], "who is nobody is no group"
    assert "test" in {image["split"] for image in facts["groups_in_two_splits"][0]["images"]}
    assert not facts["clean"]
    lines = check_lines(facts)
    assert "groups in two splits  1 group  <- look at it" in lines
    assert b"a run trains on them" in page(checked, [], "d")
    off = _check_series("data.group=off").facts()
    assert off["groups_in_two_splits"] is None and off["clean"]


def test_volumes_are_read_and_those_of_the_same_values_are_duplicates() -> None:
    _series({"train": ("p1", "p2"), "test": ("p3", "p4")})
    write_series(Path("d/test/solid/again"), phantom(2, 2), uid="1.2.826.0.1.3680043.8.498.99", PatientID="p4")
    broken = next(Path("d/train/cystic/s1").iterdir())
    data = broken.read_bytes()
    broken.write_bytes(data[: len(data) - 100])
    checked = _check_series()
    facts = checked.facts()
    assert facts["formats"] == {"dicom": 12}
    assert facts["sizes"] == {"min": [24, 20], "median": [24.0, 20.0], "max": [24, 20], "different": 1}
    assert len(facts["exact_duplicates"]) == 1 and len(facts["leaks"]) == 1
    assert [entry["path"].rpartition("/")[2] for entry in facts["unreadable"]] == ["s1"]
    assert facts["near_duplicates"] is None
    assert any(line.endswith("not looked for in volumes") for line in check_lines(facts))
    text = page(checked, [], "d").decode()
    assert text.count("<img") == 4, "the middle slices of the leak, once more as exact duplicates"


def test_a_set_of_which_nothing_can_be_decoded_is_told() -> None:
    _manifest({"train": ("p1", "p2")})
    for file in Path().glob("*.png"):
        file.write_bytes(b"")
    facts = _check("null").facts()
    assert facts["sizes"] is None and len(facts["unreadable"]) == 8
    assert any(line.split() == ["width", "x", "height", "-"] for line in check_lines(facts))
