"""What the driver makes of the answers of workers on Ray, and how many it asks for. The real Ray: tests/e2e."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from raycls.cluster.connection import Cluster
from raycls.errors import DataError, LaunchError, ModelError, to_json
from raycls.launch.predictions import on_ray, pool
from raycls.launch.predictions.on_ray import OnRay
from raycls.session.predictions.compute import Part, Predictor, Work
from raycls.session.predictions.inputs import list_inputs
from raycls.session.trained.trained import Trained, open_trained


@pytest.fixture
def run(trained: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Trained]:
    monkeypatch.chdir(trained)
    return lambda *overrides: open_trained("runs/shapes", overrides=overrides)


def _work(run: Trained, *inputs: str) -> Work:
    found = list_inputs(inputs, print)
    return Work(run, run.split(found.keys, found.reader), 5, False, "cpu", ".", 256, "off")


@pytest.mark.parametrize(
    ("overrides", "nodes", "parts", "size"),
    [
        (("scale.workers=2",), [{"CPU": 4.0}], 40, (2, 2)),
        (("scale.workers=8",), [{"CPU": 4.0}, {"CPU": 2.0}], 40, (6, 6)),
        (("scale.workers=8",), [{"CPU": 4.0}], 3, (3, 3)),
        (("scale.workers=8", "scale.threads=3"), [{"CPU": 4.0}, {"CPU": 2.0}], 40, (1, 1)),
        (("scale.workers=8", "scale.device=cuda"), [{"CPU": 4.0, "GPU": 1.0}, {"CPU": 64.0}], 40, (1, 1)),
        (("scale.workers=[2,8]",), [{"CPU": 3.0}], 40, (3, 3)),
    ],
)
def test_workers_are_as_many_as_there_is_room_for(
    run: Callable[..., Trained],
    monkeypatch: pytest.MonkeyPatch,
    overrides: tuple[str, ...],
    nodes: list[dict[str, float]],
    parts: int,
    size: tuple[int, int],
) -> None:
    monkeypatch.setattr(on_ray, "nodes", lambda: nodes)
    total = {name: sum(node.get(name, 0.0) for node in nodes) for name in ("CPU", "GPU")}
    ray = OnRay(run(*overrides).run, Cluster(True, "local", total, ""), print)
    assert ray._size(parts, ray.device) == size


def test_no_room_is_told_with_the_nodes(run: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "nodes", lambda: [{"CPU": 1.0}])
    ray = OnRay(run("scale.workers=2", "scale.threads=2").run, Cluster(True, "local", {"CPU": 1.0}, ""), print)
    with pytest.raises(LaunchError) as caught:
        ray._size(40, "cpu")
    assert caught.value.found == "nodes: 1 x (1 CPUs)"


def test_a_worker_answers_with_a_part_or_an_error_and_never_raises(
    run: Callable[..., Trained], monkeypatch: pytest.MonkeyPatch
) -> None:
    work = _work(run(), "photos")
    monkeypatch.setattr("ray.get", lambda reference: reference)
    notes = pool.UnderWay()
    remote = {name: SimpleNamespace(remote=getattr(notes, name)) for name in ("begin", "end")}
    worker = pool.Worker([work], ".", SimpleNamespace(**remote))
    (row,) = worker(pa.table({"number": [0]})).to_pylist()
    part = Part.from_bytes(pool.done_of(row).data)
    with Predictor(work) as here:
        expected = here.part(0)
    assert part.number == 0
    assert np.array_equal(part.top, expected.top)
    assert notes.suspects() == []  # what has ended is none
    for error, kind in ((ModelError("no", where="x"), ModelError), (KeyError("k"), LaunchError)):
        monkeypatch.setattr(Predictor, "part", _raising(error))
        (row,) = worker(pa.table({"number": [0]})).to_pylist()
        with pytest.raises(kind) as caught:
            pool.done_of(row)
        assert row["host"] in str(caught.value.where)
        assert notes.suspects() == []


def test_the_part_that_was_begun_most_often_and_never_ended_is_suspected() -> None:
    notes = pool.UnderWay()
    for number in (4, 7, 4, 9, 4):
        notes.begin(number)
    notes.end(9)
    assert notes.suspects() == [4]
    notes.end(4)
    assert notes.suspects() == [7]


def _raising(error: Exception) -> Callable[..., Part]:
    def part(*_: Any) -> Part:
        raise error

    return part


def test_an_image_that_only_the_driver_sees_is_no_bad_file(run: Callable[..., Trained], tmp_path: Path) -> None:
    (tmp_path / "gone.png").write_bytes(b"x")
    work = _work(run(), "photos/circle/000.png", str(tmp_path / "gone.png"))
    (tmp_path / "gone.png").unlink()
    with Predictor(work) as predictor:
        part = predictor.part(0)
    assert part.unread == (1,)
    on_ray._refuse_unseen(work, part, "far")  # it is not here either
    (tmp_path / "gone.png").write_bytes(b"x")
    with pytest.raises(LaunchError) as caught:
        on_ray._refuse_unseen(work, part, "far")
    assert caught.value.where == str(tmp_path / "gone.png")
    assert "on the node far: cannot read an image file" in (caught.value.found or "")


def test_a_damaged_image_is_none_that_could_not_be_read(run: Callable[..., Trained], tmp_path: Path) -> None:
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"\0" * 40)
    with Predictor(_work(run(), str(tmp_path / "bad.png"))) as predictor:
        part = predictor.part(0)
    assert part.unread == ()
    assert part.errors[0] is not None


def test_an_error_of_a_worker_keeps_its_kind() -> None:
    row = {"error": json.dumps(to_json(DataError("no", found="x"))), "data": None, "host": "far"}
    with pytest.raises(DataError) as caught:
        pool.done_of(row)
    assert (caught.value.where, caught.value.exit_code) == ("the node far", 3)
