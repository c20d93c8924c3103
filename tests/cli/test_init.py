from __future__ import annotations

import dataclasses
import random
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from raycls.cli.init import compose, describe, survey, write
from raycls.config.load import load
from raycls.config.sections.run import Run
from raycls.data.images.operations import build
from raycls.data.source import open_dataset
from raycls.errors import ConfigError, DataError
from raycls.models.zoo import check


def make(folder: Path, counts: dict[str, int], size: tuple[int, int] = (40, 30)) -> Path:
    """One folder per class with `counts[class]` images of `size` (width, height)."""
    draw = random.Random(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for index in range(count):
            color = (draw.randrange(256), draw.randrange(256), draw.randrange(256))
            Image.new("RGB", size, color).save(folder / name / f"{index}.png")
    return folder


def loaded(folder: Path, out: Path, ignore: tuple[str, ...] = ()) -> Run:
    write(compose(survey(str(folder), ignore=ignore), out=str(out)), out)
    return load(out).run


def test_the_config_trains_on_what_was_found(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", {"cat": 30, "dog": 30})
    run = loaded(folder, tmp_path / "pets.yaml")
    assert (run.run.name, run.data.source.name, run.data.source.path) == ("pets", "folder", str(folder))
    assert run.data.image_size == 32  # 30 pixels, up to a multiple of 4
    assert run.data.batch_size == 4  # 42 training images: twenty steps would need 2.1, 4 is the least
    assert run.train.micro_batches == 2  # two images in each
    assert (run.model.name, run.evaluate.split, run.evaluate.metric) == ("tiny_cnn", "val", "top1")
    check(run.model)
    dataset = open_dataset(run.data)
    image = dataset.splits["train"].image(0)
    assert image.size == (40, 30)
    for operations, train in ((run.augment.train, True), (run.augment.eval, False)):
        augment = build(operations, train=train, image_size=run.data.image_size)
        assert augment(image, (0, 0, 0)).shape == (32, 32, 3)


def test_large_images_get_a_resnet_and_crops(tmp_path: Path) -> None:
    folder = make(tmp_path / "scenes", {"sea": 12, "town": 12}, size=(320, 170))
    run = loaded(folder, tmp_path / "scenes.yaml")
    assert run.data.image_size == 160  # the largest of the usual sizes within 170
    assert run.model.name == "resnet18"
    assert run.augment.eval == ({"resize": {"size": 183}}, {"center_crop": {"size": 160}})  # 160 * 8/7 = 182.9
    assert run.augment.train is not None
    assert run.augment.train[1] == "horizontal_flip"


def test_elongated_images_are_kept_whole(tmp_path: Path) -> None:
    folder = make(tmp_path / "signs", {"a1": 8, "b2": 8}, size=(500, 100))
    run = loaded(folder, tmp_path / "signs.yaml")
    assert run.augment.eval == ({"resize": {"size": [96, 96]}},)
    assert run.augment.train is not None
    assert run.augment.train[0] == {"resize": {"size": [96, 96]}}


@pytest.mark.parametrize("name", ["m.csv", "m.jsonl", "a.npz"])
def test_a_manifest_or_arrays_are_looked_at_too(name: str, tmp_path: Path) -> None:
    make(tmp_path, {"cat": 10, "dog": 10})
    rows = [(f"{label}/{index}.png", label) for label in ("cat", "dog") for index in range(10)]
    if name == "a.npz":
        np.savez(tmp_path / name, images=np.zeros((20, 30, 40, 3), np.uint8), labels=np.array([row[1] for row in rows]))
    elif name == "m.csv":
        (tmp_path / name).write_text("path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    else:
        (tmp_path / name).write_text("".join(f'{{"path": "{path}", "label": "{label}"}}\n' for path, label in rows))
    run = loaded(tmp_path / name, tmp_path / "c.yaml")
    assert run.data.source.name == ("arrays" if name == "a.npz" else "manifest")
    data = open_dataset(run.data)
    assert (data.classes, {split: len(rows) for split, rows in data.splits.items()}) == (
        ("cat", "dog"),
        {"train": 14, "val": 4, "test": 2},
    )


def test_characters_are_not_mirrored(tmp_path: Path) -> None:
    run = loaded(make(tmp_path / "letters", {"b": 6, "d": 6}), tmp_path / "letters.yaml")
    assert run.augment.train is not None
    assert "horizontal_flip" not in run.augment.train


def test_unequal_classes_are_named_and_weighed(tmp_path: Path) -> None:
    folder = make(tmp_path / "rare", {"common": 40, "rare": 10})
    found = survey(str(folder))
    assert found.imbalance == 4.0  # 28 and 7 of the 7:2:1 split
    assert "imbalance: the largest class has 4 times the images of the smallest" in describe(found)
    assert loaded(folder, tmp_path / "rare.yaml").evaluate.metric == "f1_macro"


def test_a_metric_that_the_evaluated_images_tell_nothing_about_is_not_proposed(tmp_path: Path) -> None:
    folder = make(tmp_path / "rare", {"common": 20, "rare": 1})
    assert survey(str(folder)).counts["val"] == (4, 0)  # the only image of a class is trained on
    run = loaded(folder, tmp_path / "rare.yaml")
    assert (run.evaluate.split, run.evaluate.metric) == ("val", "top1")
    assert "1 of them has no image in val" in (tmp_path / "rare.yaml").read_text()


def test_too_few_images_for_a_val_split_are_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "few", {"a": 1, "b": 1})
    run = loaded(folder, tmp_path / "few.yaml")
    assert (run.evaluate.split, run.data.batch_size, run.train.micro_batches) == ("train", 2, 1)
    assert "too few images for a val split" in (tmp_path / "few.yaml").read_text()


@pytest.mark.parametrize(("train", "batch"), [(2, 2), (3, 3), (5, 3), (13, 5), (40, 4), (42, 4), (65, 3), (1281, 63)])
def test_no_last_batch_of_one_image(train: int, batch: int, tmp_path: Path) -> None:
    found = survey(str(make(tmp_path / "large", {"a": 2, "b": 2}, size=(80, 80))))
    counts = {"train": (train - 1, 1), "val": (1, 1)}
    write(compose(dataclasses.replace(found, counts=counts), out="x.yaml"), tmp_path / "x.yaml")
    run = load(tmp_path / "x.yaml").run
    assert run.data.batch_size == batch
    assert train % batch != 1
    assert run.train.micro_batches == max(1, min(4, batch // 2))


def test_images_of_one_size_are_resized_for_those_that_were_not_looked_at(tmp_path: Path) -> None:
    run = loaded(make(tmp_path / "square", {"cat": 3, "dog": 3}, size=(32, 32)), tmp_path / "square.yaml")
    assert run.augment.train is not None
    assert run.augment.train[0] == {"resize": {"size": [32, 32]}}


def test_describe_lists_classes_counts_and_sizes(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", {"cat": 10, "dog": 20})
    Image.new("L", (90, 60)).save(folder / "dog" / "19.png")
    lines = describe(survey(str(folder)))
    assert lines[0] == f"30 images of 2 classes in {folder}"
    assert [line.split() for line in lines[1:3]] == [["20", "dog"], ["10", "cat"]]
    assert lines[3] == "splits: 21 train, 6 val, 3 test (cut by fraction, stratified)"
    assert lines[4].startswith("pixels: ")


def test_many_classes_are_cut_short(tmp_path: Path) -> None:
    folder = make(tmp_path / "many", {f"class{index:02d}": 4 + index for index in range(23)}, size=(8, 8))
    lines = describe(survey(str(folder)))
    assert lines[1].split() == ["26", "class22"]
    assert lines[20].split() == ["7", "class03"]
    assert lines[21] == "  and 3 more, down to 4 of class00"


def test_splits_of_the_folder_are_used(tmp_path: Path) -> None:
    make(tmp_path / "own" / "train", {"x1": 10, "x2": 10})
    make(tmp_path / "own" / "test", {"x1": 3, "x2": 4})
    found = survey(str(tmp_path / "own"))
    assert found.own_splits
    assert found.counts["test"] == (3, 4)
    assert describe(found)[3] == (
        "splits: 16 train, 4 val, 7 test "
        "(the data has train and test; val is cut from its train by data.split, stratified)"
    )  # 0.2 / 0.9 of 20 are 4.4
    assert f"  # splits: {found.origin}\n" in compose(found, out="c.yaml")
    assert "imbalance: none, every class has as many images" in describe(found)
    assert not survey(str(make(tmp_path / "flat", {"x1": 10, "x2": 10}))).own_splits
    make(tmp_path / "loud" / "Train", {"x1": 10, "x2": 10})
    make(tmp_path / "loud" / "VALID", {"x1": 3, "x2": 4})
    assert survey(str(tmp_path / "loud")).own_splits == ("train", "val")
    assert survey(str(tmp_path / "loud")).origin == "the data has them"


def test_a_name_that_yaml_would_misread_survives(tmp_path: Path) -> None:
    folder = make(tmp_path / 'it\'s: #1 "best", é', {"cat": 4, "dog": 4})
    assert loaded(folder, tmp_path / "c.yaml").data.source.path == str(folder)


def test_files_that_are_no_images_can_be_left_out(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", {"cat": 6, "dog": 6})
    (folder / "cat" / "notes of 1.txt").write_text("nine lives")
    with pytest.raises(DataError) as caught:
        survey(str(folder))
    (option,) = [word for word in shlex.split(str(caught.value.fix)) if word.startswith("--ignore=")]
    assert "data.source" not in str(caught.value.fix)
    run = loaded(folder, tmp_path / "c.yaml", ignore=(option.partition("=")[2],))
    assert sum(len(split) for split in open_dataset(run.data).splits.values()) == 12


def test_an_image_that_cannot_be_decoded_is_told(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", {"cat": 10, "dog": 10})
    for index in range(10):
        (folder / "cat" / f"{index}.png").write_bytes(b"<html>")
    lines = describe(survey(str(folder)))
    told = [line for line in lines if line.startswith("not readable")]
    assert len(told) == 7  # the 7 cats of the training split, all of which were looked at
    assert "cat/" in told[0]
    assert f"raycls init {folder} --check" in lines[-1]


def test_images_that_were_left_out_are_checked_by_the_config(tmp_path: Path) -> None:
    """`raycls init FOLDER --check` would stop at what `--ignore` left out."""
    folder = make(tmp_path / "pets", {"cat": 10, "dog": 10})
    (folder / "cat" / "notes.txt").write_text("nine lives")
    for index in range(10):
        (folder / "cat" / f"{index}.png").write_bytes(b"<html>")
    lines = describe(survey(str(folder), ignore=("cat/notes.txt",)))
    assert "raycls init CONFIG --check" in lines[-1]


def test_nothing_readable_is_an_error(tmp_path: Path) -> None:
    folder = make(tmp_path / "pets", {"cat": 2, "dog": 2})
    for file in folder.glob("*/*.png"):
        file.write_bytes(b"")
    with pytest.raises(DataError, match="can be decoded"):
        survey(str(folder))


def test_one_class_is_no_task(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two classes"):
        survey(str(make(tmp_path / "pets", {"cat": 4})))


def test_write_replaces_in_one_step_and_says_what_failed(tmp_path: Path) -> None:
    target = tmp_path / "new" / "c.yaml"
    write("a: 1\n", target)
    write("a: 2\n", target)
    assert target.read_text() == "a: 2\n"
    assert [path.name for path in target.parent.iterdir()] == ["c.yaml"]
    with pytest.raises(ConfigError, match="cannot write"):
        write("a: 1\n", target / "below.yaml")


def test_folders_that_look_like_splits_are_asked_for(tmp_path: Path) -> None:
    for name, count in (("fold 1", 10), ("fold 2", 3)):
        make(tmp_path / "own" / name, {"x1": count, "x2": count})
    with pytest.raises(DataError, match="names do not say which") as caught:
        survey(str(tmp_path / "own"))
    overrides = [word for word in shlex.split(caught.value.fix or "") if word.startswith("data.source.args.splits=")]
    found = survey(str(tmp_path / "own"), overrides=overrides[:1], ignore=("*.txt",))
    assert found.counts["test"] == (3, 3)
    assert "data: fold 1 is read as train, fold 2 is read as test" in describe(found)
    write(compose(found, out="own.yaml"), tmp_path / "own.yaml")
    run = load(tmp_path / "own.yaml").run
    assert run.data.source.args == {"splits": {"fold 1": "train", "fold 2": "test"}, "ignore": ["*.txt"]}
    assert len(open_dataset(run.data).splits["test"]) == 6
    assert survey(str(tmp_path / "own"), overrides=overrides[1:]).classes == ("fold 1", "fold 2")
    with pytest.raises(ConfigError, match="options of the source alone"):
        survey(str(tmp_path / "own"), overrides=["optim.lr=1"])


def test_splits_by_other_names_need_no_argument(tmp_path: Path) -> None:
    make(tmp_path / "own" / "Training", {"x1": 10, "x2": 10})
    make(tmp_path / "own" / "Testing", {"x1": 3, "x2": 4})
    found = survey(str(tmp_path / "own"))
    assert (found.classes, found.counts["test"], found.args) == (("x1", "x2"), (3, 4), {})
    assert "data: Testing is read as test, Training is read as train" in describe(found)
