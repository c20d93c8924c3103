"""The page of a run: whole, safe and true, taken apart as a browser does it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from harness.html import Page, parse
from harness.object_store import S3
from harness.reported import HOSTILE, make_hostile, make_many
from harness.typed import raycls
from PIL import Image


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run whose class names are code; its working directory is two above."""
    return make_hostile(tmp_path_factory.mktemp("hostile"))


@pytest.fixture
def at_hostile(hostile: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(hostile.parents[1])
    return hostile


def _assert_safe(page: Page, text: str) -> None:
    """Nothing loads, nothing runs but the script of the page, whose hash stands in its policy."""
    (script,) = page.of("script")
    assert script == {}
    code = [code for code in page.code if "use strict" in code]
    digest = base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()
    policy = next(meta["content"] for meta in page.of("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "object", "embed", "base", "form", "image", "style/"), tag
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name, value)
            if name in ("src", "href", "xlink:href", "srcset", "action"):
                assert value.startswith(("data:", "#")), (tag, name, value)
    assert not re.search(r"url\(|@import", text)


def test_names_that_are_code_are_shown_and_do_nothing(at_hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert raycls("report", "hostile") == 0
    text = (at_hostile / "report.html").read_text(encoding="utf-8")
    page = parse(text)
    _assert_safe(page, text)
    shown = " ".join("".join(page.texts).split())
    for name in HOSTILE:
        assert " ".join(name.split()) in shown
    assert "49" not in {part.strip() for part in page.texts}  # of {{ 7 * 7 }}
    pictures = [image["src"] for image in page.of("img")]
    assert len(pictures) > 10
    for picture in pictures:
        kind, data = picture.split(";base64,")
        with Image.open(io.BytesIO(base64.b64decode(data))) as image:
            assert (kind, image.size) == ("data:image/png", (16, 16))
    assert "<b>.png" in shown  # the name of a file is text too


def test_the_numbers_are_those_of_eval(at_hostile: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert raycls("eval", "hostile", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert raycls("report", "hostile") == 0
    page = parse((at_hostile / "report.html").read_text(encoding="utf-8"))
    text = page.text
    intervals = summary["intervals"]
    for title, value, name in (
        ("accuracy", summary["top1"], "top1"),
        ("macro F1", summary["f1"]["macro"], "f1_macro"),
        ("macro AUROC", summary["auroc"]["macro"], "auroc_macro"),
        ("calibration error (ECE)", summary["calibration"]["ece"], "ece"),
        ("weighted recall", summary["recall"]["weighted"], "recall_weighted"),
    ):
        low, high = intervals[name]["low"], intervals[name]["high"]
        assert f"{title} {100 * value:.2f} % {100 * low:.2f} to {100 * high:.2f} %" in text, title
    assert f"negative log-likelihood {summary['calibration']['nll']:.4g}" in text
    for name in HOSTILE:
        cells = [f"{100 * summary[metric]['per_class'][name]:.1f} %" for metric in ("f1", "precision", "recall")]
        assert " ".join([*name.split(), *cells]) in text
    values = [cell["style"] for cell in page.of("td") if cell.get("style", "").startswith("--part")]
    assert len(values) == len(HOSTILE) ** 2


def test_without_the_data_the_page_is_made_and_says_what_it_lacks(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(trained / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    assert raycls("report", "shapes") == 3
    said = capsys.readouterr()
    assert "the page has no evaluation: cannot read the data folder" in said.err
    assert said.out == f"wrote {tmp_path}/runs/shapes/report.html\n"
    page = parse((tmp_path / "runs" / "shapes" / "report.html").read_text())
    assert "Not evaluated: cannot read the data folder" in page.text
    assert page.of("img") == []


def test_pictures_that_are_gone_are_told(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    assert raycls("eval", "shapes") == 0
    os.rename("photos", "moved")
    assert raycls("report", "shapes") == 0
    page = parse((tmp_path / "runs" / "shapes" / "report.html").read_text())
    assert "No pictures: the images are not where they were" in page.text
    assert "no picture" in page.text
    assert page.of("img") == []


def test_images_that_were_not_scored_are_named(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    from raycls.run.folder import RunFolder
    from raycls.session.data.scored import find_record

    record = find_record(RunFolder(tmp_path / "runs" / "shapes"))
    assert record is not None
    gone = record.parts["test"].name(0)
    (tmp_path / "photos" / gone).unlink()
    assert raycls("report", "shapes") == 0
    text = parse((tmp_path / "runs" / "shapes" / "report.html").read_text()).text
    assert f"1 image of the evaluated split, gone since the run was started and not scored: {gone}" in text
    assert "23 images of split test" in text


def test_bad_images_are_counted_by_split_and_reason(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    lines = [
        {"path": f"a/{number}.png", "split": split, "reason": reason, "bytes": number}
        for split, reason, count in (("train", "damaged", 23), ("train", "<b>empty</b>", 2), ("val", "damaged", 1))
        for number in range(count)
    ]
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    (tmp_path / "runs" / "shapes" / "bad_images.jsonl").write_text(text)
    assert raycls("report", "shapes") == 0
    page = parse((tmp_path / "runs" / "shapes" / "report.html").read_text()).text
    assert "25 bad images of the split train skipped (bad_images.jsonl): 23 damaged; 2 <b>empty</b>." in page
    assert "1 bad image of the split val skipped (bad_images.jsonl): 1 damaged." in page
    assert "a/19.png: damaged" in page and "a/20.png: damaged" not in page


def test_a_page_of_a_run_that_was_resumed_shows_its_starts(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    with (tmp_path / "runs" / "shapes" / "attempts.jsonl").open("a") as file:
        line = {"attempt": 2, "step": 25, "workers": 4, "threads": 2, "time": 2e9, "left_out": [0], "device": "cuda"}
        file.write(json.dumps(line) + "\n")
    assert raycls("report", "shapes") == 0
    page = parse((tmp_path / "runs" / "shapes" / "report.html").read_text())
    assert "The run was started or resumed 2 times." in page.text
    assert "2 2033-05-18 03:33:20 UTC" in page.text
    assert "4 x 2 device cuda" in page.text
    assert "attempt 2 resumed from step 25" in page.text
    assert "1 training image left out since a resume" in page.text


def test_a_run_on_an_object_store_has_its_page_there(
    trained: Path, s3: S3, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    s3.upload(trained / "runs" / "shapes", "runs/shapes")
    monkeypatch.chdir(trained)
    assert raycls("report", s3.uri("runs/shapes")) == 0
    assert capsys.readouterr().out == "wrote s3://bucket/runs/shapes/report.html\n"
    data = s3.read("runs/shapes/report.html")
    assert data is not None
    page = parse(data.decode())
    assert "24 images of split test" in page.text
    assert len(page.of("img")) >= 1
    assert raycls("curves", s3.uri("runs/shapes")) == 0
    assert capsys.readouterr().out.startswith("shapes: done\n")


@pytest.mark.slow
def test_a_page_of_a_thousand_classes_is_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_many(tmp_path / "many", 1000, 1200)
    monkeypatch.chdir(tmp_path)
    assert raycls("report", "./many", "--out", "page.html") == 0
    data = (tmp_path / "page.html").read_bytes()
    assert len(data) < 5e6
    page = parse(data.decode())
    _assert_safe(page, data.decode())
    assert "1,000 classes, the lowest F1 first" in page.text
    assert sum("n00000999 a class" in text for text in page.texts) >= 1
    assert not (tmp_path / "many" / "report.html").exists()


def test_two_runs_are_compared_on_the_same_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_many(tmp_path / "runs" / "weak", 4, 300, name="weak", skill=1.0)
    make_many(tmp_path / "runs" / "strong", 4, 300, name="strong", skill=4.0)
    make_many(tmp_path / "runs" / "again", 4, 280, name="again", skill=4.0, seed=1)
    monkeypatch.chdir(tmp_path)
    summaries: Mapping[str, Any] = {
        name: json.loads((tmp_path / "runs" / name / "predictions" / "test-best.json").read_text())
        for name in ("weak", "strong")
    }
    assert raycls("report", "weak", "strong") == 0
    out = capsys.readouterr().out
    accuracy = {name: f"{summary['top1']:.2%}" for name, summary in summaries.items()}
    assert f"strong is more accurate than weak: {accuracy['strong']} against {accuracy['weak']}, a diff" in out
    text = (tmp_path / "comparison.html").read_text()
    page = parse(text)
    _assert_safe(page, text)
    assert "On the same 300 images" in page.text
    for name, title in (("f1", "macro F1"), ("calibration", "calibration error")):
        first, second = (summaries[run][name]["macro" if name == "f1" else "ece"] for run in ("weak", "strong"))
        assert f"{title} paired bootstrap {100 * first:.2f} % {100 * second:.2f} %" in page.text
    assert raycls("report", "weak", "strong", "again", "--out", "three.html") == 0
    assert "adjusted for 2 comparisons" in capsys.readouterr().out
    assert (
        "The runs were not evaluated on the same images: 20 that only one of them saw are left out."
        in parse((tmp_path / "three.html").read_text()).text
    )


@pytest.mark.parametrize(("first", "other"), [("one", "two"), ("two", "one")])
def test_where_no_difference_is_found_the_numbers_are_in_the_order_of_the_names(
    first: str, other: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_many(tmp_path / "runs" / "one", 4, 30, name="one", skill=2.0)
    make_many(tmp_path / "runs" / "two", 4, 30, name="two", skill=2.0, seed=1)
    monkeypatch.chdir(tmp_path)
    found = {
        name: json.loads((tmp_path / "runs" / name / "predictions" / "test-best.json").read_text())["top1"]
        for name in (first, other)
    }
    assert found[first] != found[other]
    assert raycls("report", first, other) == 0
    said = capsys.readouterr().out
    assert (
        f"no difference in accuracy between {first} and {other} was found: "
        f"{found[first]:.2%} and {found[other]:.2%}; " in said
    )


def test_runs_without_an_image_in_common_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], hostile: Path
) -> None:
    make_many(tmp_path / "runs" / "many", 3, 30)
    monkeypatch.chdir(hostile.parents[1])
    assert raycls("report", str(tmp_path / "runs" / "many"), "hostile") == 3
    assert "the runs have no image in common" in capsys.readouterr().err
