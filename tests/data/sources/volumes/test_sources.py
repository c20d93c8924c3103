"""The sources `dicom` and `nifti`: class folders, splits, manifests, and what stands for patients."""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.errors import raised
from harness.phantom import CLASSES, PLANTED, phantom, write_data, write_nifti, write_series

from raycls.config.load import from_dict
from raycls.config.sections.data import DataConfig, SourceConfig
from raycls.data.making.bad import BadImageError
from raycls.data.source import open_dataset, open_pool
from raycls.data.sources.volumes.dicom import dicom
from raycls.data.sources.volumes.nifti import nifti
from raycls.errors import ConfigError, DataError
from raycls.run.folder import RunFolder
from raycls.session.data.record import pack
from raycls.session.data.resumed import resumed_data

_UID = "1.2.826.0.1.3680043.8.498.20250611"


@pytest.fixture(scope="module")
def visits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of each of ten patients."""
    folder = tmp_path_factory.mktemp("visits")
    for number in range(20):
        label = number // 2 % 2
        place, uid = folder / CLASSES[label] / f"s{number}", f"{_UID}.{number + 1}"
        write_series(place, phantom(number, label), uid=uid, seed=number, PatientID=f"P{number // 2}")
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two series of each class, and the same as NIfTI."""
    folder = tmp_path_factory.mktemp("volumes")
    write_data(folder / "ct", 2, "dicom")
    write_data(folder / "nii", 2, "nifti")
    return folder


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def test_series_are_called_by_hashes_and_their_files_are_found(data: Path) -> None:
    found = dicom(data / "ct", about=["patient"])
    assert list(found.classes) == list(CLASSES)
    assert sorted(found.keys) == sorted(
        _hash(f"{_UID}.{1000 * label + number + 1}") for label in range(3) for number in (0, 1)
    )
    assert set(found.about["patient"]) == {
        _hash(f"{PLANTED[1]}-{1000 * label + number}") for label in range(3) for number in (0, 1)
    }
    assert found.notes == ("data: 6 series of 6 patients",)
    for row, label in enumerate(np.asarray(found.labels).tolist()):
        place = Path(found.reader.locate(row))  # type: ignore[attr-defined]
        assert place.parent.name == CLASSES[label]
        seed = 1000 * label + int(place.name[1:])
        assert np.array_equal(found.reader.read(row), phantom(seed, label))


def test_ids_are_kept_where_that_is_asked_for(data: Path) -> None:
    found = dicom(data / "ct", keep_ids=True, about=["patient"])
    assert found.keys[0].startswith(_UID) and found.about["patient"][0].startswith(PLANTED[1])


def _patients(data: Path, **options: Any) -> list[set[str]]:
    config = DataConfig(source=SourceConfig(name="dicom", path=str(data)), **options)
    return [set(split.about["patient"]) for split in open_dataset(config).splits.values()]


@pytest.mark.parametrize("options", [{}, {"group": "patient"}])
def test_the_series_of_a_patient_stay_in_one_split(visits: Path, options: dict[str, Any]) -> None:
    patients = _patients(visits, **options)
    assert len(patients) == 3 and sum(map(len, patients)) == len(set.union(*patients)) == 10


def test_series_are_split_one_by_one_where_groups_are_off(visits: Path) -> None:
    patients = _patients(visits, group="off")
    assert sum(map(len, patients)) > len(set.union(*patients)) == 10


def test_the_header_says_that_patients_are_kept_together(visits: Path, data: Path) -> None:
    told = open_dataset(DataConfig(source=SourceConfig(name="dicom", path=str(visits)))).notes
    assert told[-1] == "data: all of a patient goes to one split (data.group=off splits series by series)"
    for path, group in ((data / "ct", None), (visits, "off"), (visits, "patient")):  # `ct`: nobody has two series
        config = DataConfig(source=SourceConfig(name="dicom", path=str(path)), group=group)
        assert not any("goes to one split" in note for note in open_dataset(config).notes)


def test_splits_of_the_data_that_divide_a_patient_are_told_and_refused_on_request(visits: Path, tmp_path: Path) -> None:
    for number in range(20):
        split, name = ("train", "val", "test")[min(number // 7, 2)], CLASSES[number // 2 % 2]
        (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / split / name / f"s{number}").symlink_to(visits / name / f"s{number}")
    told = open_dataset(DataConfig(source=SourceConfig(name="dicom", path=str(tmp_path)))).notes
    assert told[-1] == "data: 1 patient in more than one of the splits that the data brings"  # 6 in train, 7 in val
    with pytest.raises(DataError, match="a group is in two splits"):
        _patients(tmp_path, group="patient")


def test_a_run_of_an_earlier_version_keeps_its_splits(visits: Path, tmp_path: Path) -> None:
    """What such a run wrote down is what series by series gives."""
    source = {"name": "dicom", "path": str(visits)}
    before = open_dataset(from_dict({"data": {"source": source, "group": "off"}}).data)
    folder = RunFolder(str(tmp_path / "run"))
    about = {"classes": list(before.classes), "fingerprint": before.fingerprint}
    folder.store.write_bytes(RunFolder.ENV, json.dumps({"data": about}).encode())
    folder.store.write_bytes(RunFolder.SPLITS, pack(before, str(visits)))
    found = resumed_data(from_dict({"data": {"source": source}}), folder, None, lambda line: None).dataset
    assert {name: list(split.keys) for name, split in found.splits.items()} == {
        name: list(split.keys) for name, split in before.splits.items()
    }


def test_a_reader_can_be_cut_and_pickled(data: Path) -> None:
    reader = dicom(data / "ct").reader
    rows = np.array([4, 0, 3])
    cut = pickle.loads(pickle.dumps(reader.take(rows)))  # type: ignore[attr-defined]
    for place, row in enumerate(rows.tolist()):
        assert np.array_equal(cut.read(place), reader.read(row))
        assert cut.locate(place) == reader.locate(row)  # type: ignore[attr-defined]
    sizes = reader.sizes()  # type: ignore[attr-defined]
    assert sizes[0] == sum(file.stat().st_size for file in Path(reader.locate(0)).iterdir())  # type: ignore[attr-defined]
    assert cut.sizes().tolist() == sizes[rows].tolist()


def test_folders_of_splits(tmp_path: Path) -> None:
    for split in ("Training", "test"):
        write_data(tmp_path / split, 2 if split == "test" else 3, "nifti")
    found = nifti(tmp_path)
    assert {name: len(rows) for name, rows in (found.splits or {}).items()} == {"train": 9, "test": 6}
    assert found.notes == ("data: Training is read as train",)
    dataset = open_dataset(DataConfig(source=SourceConfig(name="nifti", path=str(tmp_path))))
    sizes = {name: len(split) for name, split in dataset.splits.items()}
    assert sizes["train"] + sizes["val"] == 9 and sizes["val"] > 0 and sizes["test"] == 6
    (tmp_path / "solid").mkdir()
    with raised(DataError, where=str(tmp_path), found="Training, test; solid"):
        nifti(tmp_path)


def test_a_manifest_lists_folders_of_series_or_files(data: Path, tmp_path: Path) -> None:
    lines = ["path,label,split"]
    files = ["path,label,split"]
    for name in CLASSES:
        for number, split in ((0, "train"), (1, "val")):
            lines.append(f"ct/{name}/s{number},{name},{split}")
            files.append(f"nii/{name}/{number}.nii.gz,{name},{split}")
    (data / "series.csv").write_text("\n".join(lines))
    (data / "files.csv").write_text("\n".join(files))
    series, volumes = dicom(data / "series.csv", about=["patient"]), nifti(data / "files.csv")
    assert {name: list(rows) for name, rows in (series.splits or {}).items()} == {"train": [0, 2, 4], "val": [1, 3, 5]}
    assert volumes.keys[0] == "nii/calcified/0.nii.gz" and len(set(series.keys)) == 6
    for row in range(6):
        assert np.array_equal(series.reader.read(row), volumes.reader.read(row))
    assert series.about["patient"][0] == _hash(f"{PLANTED[1]}-0")


def test_a_row_of_a_manifest_with_two_series_is_refused(data: Path) -> None:
    (data / "wrong.csv").write_text("path,label\nct/solid,solid\nct/cystic/s0,cystic\n")
    with raised(DataError, where=str(data / "ct" / "solid"), found=re.compile("^2 series")):
        dicom(data / "wrong.csv")


def test_a_pattern_leaves_out_a_series_by_its_key_or_folder(data: Path) -> None:
    keys = list(dicom(data / "ct").keys)
    assert list(dicom(data / "ct", ignore=[f"/{keys[2]}"]).keys) == [*keys[:2], *keys[3:]]
    assert len(dicom(data / "ct", ignore=["solid/s0"]).keys) == 5


@pytest.mark.parametrize("name", ["dicom", "nifti"])
def test_a_folder_without_volumes_is_refused(name: str, tmp_path: Path) -> None:
    config = DataConfig(source=SourceConfig(name=name, path=str(tmp_path)))
    with raised(DataError, where=str(tmp_path), what="the data folder holds no class folders"):
        open_pool(config)
    (tmp_path / "a").mkdir()
    with raised(DataError, where=str(tmp_path), what="the data folder holds no volumes"):
        open_pool(config)
    (tmp_path / "b.txt").write_text("x")
    with raised(DataError, where=str(tmp_path), found="b.txt"):
        open_pool(config)
    with raised(ConfigError, where="data.source.args"):
        open_pool(DataConfig(source=SourceConfig(name=name, path=str(tmp_path), args={"split": {}})))


def test_files_that_are_no_nifti_are_named(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "a" / "1.nii.gz", phantom(0, 0))
    write_nifti(tmp_path / "b" / "1.nii", phantom(0, 1))
    (tmp_path / "b" / "notes.txt").write_text("x")
    with raised(DataError, found="b/notes.txt"):
        nifti(tmp_path)
    (tmp_path / "b" / "notes.txt").unlink()
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with raised(BadImageError, where=str(path)):
        nifti(tmp_path).reader.read(0)
    path.write_bytes(b"no gzip at all")
    with raised(DataError, where=str(path)):
        nifti(tmp_path)


def test_nifti_files_that_hold_no_volume_are_refused(tmp_path: Path) -> None:
    import nibabel

    def written(array: np.ndarray, codes: int = 1) -> Path:
        image = nibabel.Nifti1Image(array, np.eye(4))
        image.set_sform(np.eye(4), codes)
        image.set_qform(np.eye(4), codes)
        image.to_filename(tmp_path / "a" / "1.nii")
        return tmp_path / "a" / "1.nii"

    write_nifti(tmp_path / "b" / "1.nii", phantom(0, 1))
    (tmp_path / "a").mkdir()
    with raised(
        DataError, where=str(written(np.zeros((4, 4, 4, 2), np.int16))), found="an array of shape [4, 4, 4, 2]"
    ):
        nifti(tmp_path)
    with raised(DataError, where=str(written(np.zeros((4, 4, 4), np.int16), 0)), found="sform_code 0 and qform_code 0"):
        nifti(tmp_path)
    path = written(np.full((2, 2, 2), np.nan, np.float32))
    with raised(DataError, where=str(path), found="8 of 8 voxels are NaN or infinite"):
        nifti(tmp_path).reader.read(0)
    assert nifti(tmp_path).keys == ["a/1.nii", "b/1.nii"]
    written(np.arange(8, dtype=np.int16).reshape(2, 2, 2, 1))  # a fourth axis of one
    assert nifti(tmp_path).reader.read(0).shape == (2, 2, 2)


def test_a_file_that_goes_away_is_an_error_of_the_data(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "ct" / "a", phantom(0, 0), uid="1.2.3")
    write_series(tmp_path / "ct" / "b", phantom(0, 1), uid="1.2.4")
    found = dicom(tmp_path / "ct")
    paths[2].unlink()
    with raised(DataError, where=str(paths[2]), found="No such file or directory"):
        found.reader.read(0 if "a" in found.reader.locate(0).split("/") else 1)  # type: ignore[attr-defined]
