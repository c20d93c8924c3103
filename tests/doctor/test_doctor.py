"""The doctor's words, display, and the small parts that need no Ray."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path
from typing import Any

import pytest
from harness.object_store import S3

from raycls.config.load import load, load_text
from raycls.doctor import display, doctor
from raycls.doctor.arguments import Asked, read, refuse_dashboard
from raycls.doctor.cluster_rows import Row
from raycls.doctor.nodes import Examined
from raycls.doctor.rehearsal import rehearse, rehearsed
from raycls.errors import ConfigError
from raycls.jobs import note
from raycls.run.storage.store import Store

ROWS = [Row("nodes", "ok", "1 node", facts={"n": 1}), Row("disk", "wrong", "full", "free some space")]


def test_words() -> None:
    assert read(()) == Asked()
    assert read(("run.storage=/mnt",), 5.0) == Asked(None, "/mnt", 5.0)
    assert read(("scale.workers=2",)).storage is None
    with pytest.raises(ConfigError, match=r"no file absent\.yaml"):
        read(("absent.yaml",))
    with pytest.raises(ConfigError, match=r"did you mean run\.storage"):
        read(("run.storag=/mnt",))


def test_words_with_a_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pets.yaml").write_text("run: {storage: /mnt}")
    asked = read(("pets.yaml", "scale.workers=3"))
    assert asked.run is not None
    assert (asked.run.scale.workers, asked.storage) == (3, "/mnt")


def test_a_dashboard_takes_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for address in (None, "head:6379"):
        refuse_dashboard(address, ("pets.yaml",), said.append)
    with pytest.raises(ConfigError) as caught:
        refuse_dashboard("https://head", ("pets.yaml", "run.name=a b"), said.append)
    assert (caught.value.where, caught.value.found) == ("--address", "https://head")
    assert caught.value.fix == "raycls submit --address https://head -- doctor pets.yaml 'run.name=a b'"
    monkeypatch.setenv("RAY_ADDRESS", "http://one:8265")
    with pytest.raises(ConfigError) as caught:
        refuse_dashboard(None, (), said.append)
    assert (caught.value.where, caught.value.fix) == ("RAY_ADDRESS", "raycls submit -- doctor")
    refuse_dashboard("head:6379", (), said.append)
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://two:8265")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")  # as in a job
    refuse_dashboard(None, (), said.append)
    assert said == []
    monkeypatch.delenv("RAY_ADDRESS")
    refuse_dashboard(None, ("pets.yaml",), said.append)
    (note,) = said
    assert "RAY_API_SERVER_ADDRESS: raycls submit -- doctor pets.yaml" in note


def test_a_job_refuses_a_relative_storage_as_submit_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(note.VARIABLE, note.note([]))
    row = doctor._storage(Asked(storage="runs"), Examined([], 5.0))
    assert row.verdict == "wrong"
    assert row.fix == "give run.storage=/a/shared/folder/runs"
    monkeypatch.delenv(note.VARIABLE)  # of `ray job submit`
    copy = tmp_path / "runtime_resources" / "working_dir_files" / "package"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    row = doctor._storage(Asked(storage="runs"), Examined([], 5.0))
    assert (row.verdict, "the run would be lost" in row.found) == ("wrong", True)
    assert list(copy.iterdir()) == []


class Here:
    """Stands for the nodes: this process answers."""

    def ask(self, function: Any, *arguments: Any) -> dict[str, Any]:
        return {"here": function(*arguments)}


def test_a_local_list_of_far_images_has_a_row_for_each(s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    s3.client.put_object(Bucket="bucket", Key="photos/1.png", Body=b"x")
    Path("list.csv").write_text("path,label\n1.png,a\n")
    nodes: Any = Here()

    def rows(source: str) -> list[Row]:
        run = load_text(f"data: {{source: {source}}}", "c.yaml", ()).run
        return [*doctor._data(Asked(run), nodes)]

    local, far = rows(f"{{name: manifest, path: list.csv, args: {{root: '{s3.uri('photos')}'}}}}")
    assert (local.verdict, "a file of" in local.found) == ("ok", True)
    assert (far.verdict, far.found.startswith("s3://bucket/photos: reachable from 1 node")) == ("ok", True)
    (wrong,) = rows(f"{{path: '{s3.uri('foto')}'}}")
    assert (wrong.verdict, wrong.fix) == ("wrong", "correct the path")
    assert "endpoint_override" not in wrong.found
    assert [row.verdict for row in rows("{path: 'hdfs://host/photos'}")] == ["skipped"]
    assert [row.verdict for row in doctor._data(Asked(), nodes)] == ["skipped"]


def test_plain_lines() -> None:
    out = io.StringIO()
    assert display.show(ROWS, out) == ROWS
    assert out.getvalue().splitlines() == [
        "ok       nodes: 1 node",
        "wrong    disk: full",
        "         fix: free some space",
        "1 wrong of 2 rows",
    ]


def test_a_table_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    out = Terminal()
    display.show(ROWS, out)
    for words in ("nodes", "full", "free some space", "1 wrong of 2 rows"):
        assert words in out.getvalue()


def test_json_holds_the_exit_code_and_every_row() -> None:
    told = json.loads(display.to_json(ROWS))["raycls_doctor"]
    assert told["exit_code"] == 1
    assert told["rows"] == [row.to_dict() for row in ROWS]


def test_what_would_be_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"a.py": 10, "data/x.bin": 500, "runs/y": 900, "deep/z.log": 70, ".git/objects": 99}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x" * size)
    (tmp_path / ".gitignore").write_text("runs\n")  # 5 bytes
    (tmp_path / ".rayignore").write_text("*.log\n")  # 6 bytes
    monkeypatch.chdir(tmp_path)
    facts = doctor._working_directory(Asked()).facts
    assert facts["biggest"] == [["data/x.bin", 500], ["a.py", 10], [".rayignore", 6]]
    assert 10 + 500 + 5 + 6 <= facts["bytes"] < 2000  # with what a ZIP file adds to them
    (tmp_path / "key.pem").write_text("secret")
    assert doctor._working_directory(Asked()).facts["credentials"] == ["key.pem"]


def test_folders_that_storing_makes_are_removed_again(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    store = Store(tmp_path / "there" / "new" / "runs")
    made = doctor._missing(store)
    assert made == [tmp_path / "there" / "new" / "runs", tmp_path / "there" / "new"]
    store.write_bytes("mark", b"x")
    doctor._tidy(store, ["mark", "absent"], made)
    assert list((tmp_path / "there").iterdir()) == []


def test_folders_that_somebody_uses_meanwhile_stay(tmp_path: Path) -> None:
    store = Store(tmp_path / "runs")
    made = doctor._missing(store)
    store.write_bytes("mark", b"x")
    store.write_bytes("other", b"x")
    doctor._tidy(store, ["mark"], made)
    assert os.listdir(tmp_path / "runs") == ["other"]


CONFIG = """
data: {source: {name: digits, path: images}, batch_size: 50, image_size: 8}
augment: {train: [{center_crop: {size: 8}}], eval: []}
model: {name: tiny_cnn, args: {width: 4}}
optim: {name: adamw, lr: 0.1}
schedule: {name: cosine, warmup: 2ep}
train: {duration: 4ep, micro_batches: 6, ledger: pixels, early_stop: {patience: 2}, budget: 1h}
checkpoint: {every: 1st}
scale: {workers: 3, threads: 1}
track: {mlflow: {uri: "http://127.0.0.1:1"}}
"""


def test_a_rehearsal_is_one_worker_s_part_and_leaves_nothing_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from raycls.config.load import to_dict

    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAYCLS_WORKDIR", raising=False)
    monkeypatch.setenv("RAYCLS_WORKDIR", str(tmp_path))
    Path("pets.yaml").write_text(CONFIG)
    run = load("pets.yaml").run
    small = rehearsed(run, str(tmp_path / "away"), "cpu")
    assert (small.data.batch_size, small.train.micro_batches, small.scale.workers) == (17, 2, 0)
    assert small.track.mlflow.uri == "off"
    assert (small.optim.name, small.model, small.train.ledger) == ("adamw", run.model, "off")
    facts = rehearse(to_dict(run), str(tmp_path / "away"), str(tmp_path), "cpu", 60.0)
    assert len(facts["seconds"]) == 8  # ten steps, of which two are not counted
    assert (facts["images"], facts["batch"]) == (8 * 17, 17)
    assert (facts["steps_per_epoch"], facts["total_steps"]) == (
        -(-facts["samples"] // 50),
        4 * -(-facts["samples"] // 50),
    )
    assert all(seconds > 0 for seconds in facts["seconds"])
    assert 0 <= facts["data_wait"] <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["away", "pets.yaml"]


def test_a_rehearsal_that_cannot_be_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raycls.config.load import to_dict

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAYCLS_WORKDIR", str(tmp_path))
    Path("pets.yaml").write_text("data: {source: {name: folder, path: absent}}")
    facts = rehearse(to_dict(load("pets.yaml").run), str(tmp_path / "away"), str(tmp_path), "cpu", 60.0)
    assert facts["error"]["kind"] == "DataError"
    Path("pets.yaml").write_text(CONFIG)
    late = rehearse(to_dict(load("pets.yaml").run), str(tmp_path / "late"), str(tmp_path), "cpu", 0.0)
    assert late["seconds"] == []
    assert "0 steps done" in late["why"]
