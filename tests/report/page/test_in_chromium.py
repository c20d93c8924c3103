"""The pages in a real Chromium at the width of a desk and of a phone, in light and dark. Its pictures are kept in the
temporary folder of the test."""

from __future__ import annotations

import json
import shutil
import threading
from collections import Counter
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from harness.chromium import Browser, Visit, install
from harness.reported import HOSTILE, make_hostile, make_many
from harness.typed import raycls
from PIL import Image

from raycls.report.live import LiveServer
from raycls.run.folder import RunFolder

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]
_DESK, _PHONE = 1280, 390


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    folder = tmp_path_factory.mktemp("chromium")
    yield install(folder)
    shutil.rmtree(folder)  # some 400 MB


def _visits(url: str, shots: Path, **more: Any) -> list[Visit]:
    return [
        Visit(url, width, dark, str(shots / f"{width}{'-dark' if dark else ''}.png"), **more)
        for width, dark in product((_DESK, _PHONE), (False, True))
    ]


def _assert_sound(found: list[dict[str, Any]], visits: list[Visit], requests: int = 1) -> None:
    """Nothing sticks out, loads, complains or runs; every picture is there; text is large and strong enough."""
    assert len(found) == len(visits)
    for each, visit in zip(found, visits, strict=True):
        assert each["said"] == []
        assert each["requests"][0] == visit.url
        assert len(each["requests"]) >= requests if requests > 1 else each["requests"] == [visit.url]
        assert each["width"] <= each["inner"] == visit.width
        assert each["faint"] == []
        assert each["small"] >= 11
        assert each["scripts"] == 1
        assert all(complete and natural > 0 and shown > 40 for complete, natural, shown in each["images"])
        with Image.open(visit.shot) as shot:
            assert shot.width == visit.width * (2 if visit.width == _PHONE else 1)
            corner = shot.convert("RGB").getpixel((0, 0))
            assert isinstance(corner, tuple)
            assert (max(corner) < 60) == visit.dark
            assert len(shot.convert("RGB").getcolors(1 << 24) or []) > 50


def test_a_page_with_names_that_are_code(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_hostile(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert raycls("report", "hostile") == 0
    sort = """(() => {
        const table = document.getElementById("per-class");
        const column = [...table.tHead.rows[0].cells].findIndex(cell => cell.textContent.includes("AUROC"));
        table.tHead.rows[0].cells[column].querySelector("button").click();
        return [...table.tBodies[0].rows].map(row => Number(row.cells[column].dataset.value));
    })()"""
    visits = _visits((run / "report.html").as_uri(), tmp_path, steps=(sort, sort))
    found = browser.open(visits)
    _assert_sound(found, visits)
    for each in found:
        shown = "".join(each["text"].split())
        assert all("".join(name.split()) in shown for name in HOSTILE)
        assert len(each["images"]) > 10
        falling, rising = each["stepped"]
        assert falling == sorted(falling, reverse=True) != rising
        assert rising == sorted(rising)


def test_a_page_of_a_thousand_classes(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_many(tmp_path / "many", 1000, 1200)
    monkeypatch.chdir(tmp_path)
    assert raycls("report", "./many", "--out", "page.html") == 0
    find = """(() => {
        const field = document.querySelector("input[type=search]");
        field.value = "N00000999";
        field.dispatchEvent(new Event("input"));
        return [...document.getElementById("per-class").tBodies[0].rows].filter(row => row.checkVisibility()).length;
    })()"""
    visits = _visits((tmp_path / "page.html").as_uri(), tmp_path, steps=(find,))
    found = browser.open(visits)
    _assert_sound(found, visits)
    assert [each["stepped"] for each in found] == [[1]] * 4
    assert all(len(each["images"]) == 1 for each in found)  # the confusion matrix


def test_a_page_that_compares_two_runs(browser: Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, skill in (("weak", 1.0), ("strong", 4.0)):
        make_many(tmp_path / "runs" / name, 30, 400, name=name, skill=skill)
    monkeypatch.chdir(tmp_path)
    assert raycls("report", "weak", "strong") == 0
    visits = _visits((tmp_path / "comparison.html").as_uri(), tmp_path)
    found = browser.open(visits)
    _assert_sound(found, visits)
    assert all("strong is more accurate than weak" in each["text"] for each in found)


def test_the_live_page_follows_the_run(browser: Browser, tmp_path: Path) -> None:
    folder = make_many(tmp_path / "many", 3, 30)
    server = LiveServer(RunFolder(folder))
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        line = {"attempt": 1, "time": 2.0, "kind": "train", "step": 450, "epoch": 45, "loss": 0.125}
        visits = _visits(server.url, tmp_path, wait='document.body.innerText.includes("accuracy")')
        RunFolder(folder).store.append_line(RunFolder.HISTORY, json.dumps({**line, "step": 900, "top1": 0.5}))
        found = browser.open(visits)
    finally:
        server.close()
        thread.join(10)
    _assert_sound(found, visits, requests=2)
    for each in found:
        assert "step 900 of 900" in each["text"]
        assert set(Counter(url.partition("?")[0] for url in each["requests"])) == {server.url, f"{server.url}state"}
