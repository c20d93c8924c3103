"""Everything that happens to a trained run, on a run folder in an object store: the same answers as on a local one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from harness.object_store import S3
from harness.processes import raycls

pytestmark = [pytest.mark.nightly, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Bench:
    """A working directory with images and a run, and the same run in a bucket."""

    folder: Path
    s3: S3

    @property
    def there(self) -> str:
        return self.s3.uri("runs/shapes")

    def __call__(self, *words: str, code: int = 0) -> str:
        """What `raycls WORDS` prints on its standard output."""
        with raycls(self.folder, *words, env=self.s3.environment) as command:
            assert command.wait(240) == code, command.said()
            return command.stdout

    def names(self, prefix: str) -> set[str]:
        return set(self.s3.objects(f"runs/shapes/{prefix}"))


@pytest.fixture(scope="module")
def bench(trained: Path, s3_server: S3, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    folder = shutil.copytree(trained, tmp_path_factory.mktemp("after") / "home")
    s3_server.empty()
    s3_server.upload(folder / "runs" / "shapes", "runs/shapes")
    yield Bench(folder, s3_server)
    s3_server.empty()


def test_evaluated(bench: Bench) -> None:
    here, there = (json.loads(bench("eval", run, "scale.workers=0", "--json")) for run in ("shapes", bench.there))
    assert here["count"] == 24
    for name in ("top1", "loss", "confusion", "support"):
        assert there[name] == here[name]
    assert bench.names("predictions/")


def test_predicted(bench: Bench) -> None:
    bench("predict", "shapes", "photos", "--out", "here.parquet", "--all")
    bench("predict", bench.there, "photos", "--out", "there.parquet", "--all")
    here, there = (pq.read_table(bench.folder / f"{name}.parquet") for name in ("here", "there"))
    assert here.num_rows == 120
    own = [name for name in here.column_names if name != "run"]
    assert there.select(own).equals(here.select(own))


def test_reported(bench: Bench) -> None:
    bench("report", bench.there)
    (page,) = (data for name, data in bench.s3.objects("runs/shapes/").items() if name == "report.html")
    assert b"circle" in page and b"<script src" not in page
    assert "validation" in bench("curves", bench.there)


def test_exported(bench: Bench) -> None:
    bench("export", bench.there, "--to", "onnx")
    assert {name for name in bench.names("export/") if name.endswith(".onnx")} == {"shapes-fp32.onnx"}
    report = json.loads(bench.s3.read("runs/shapes/export/shapes-fp32.onnx.json") or b"")
    assert report["passed"] and report["comparison"]["agreement"] == 1.0
    bench("export", bench.there, "--to", "triton", "--repository", "models")
    assert (bench.folder / "models" / "shapes" / "1" / "model.onnx").is_file()


def test_pruned_and_measured(bench: Bench) -> None:
    bench("prune", bench.there, "--ratio", "0.5")
    pruned = {name.split("/")[0] for name in bench.s3.objects("runs/")} - {"shapes"}
    assert len(pruned) == 1
    summary = json.loads(bench("eval", bench.s3.uri(f"runs/{pruned.pop()}"), "scale.workers=0", "--json"))
    assert summary["count"] == 24 and 0 <= summary["top1"] <= 1
    facts = json.loads(bench("bench", "model", bench.there, "--no-compile", "--seconds", "1", "--json"))
    assert [row["name"] for row in facts["rows"]] == ["eager", "onnx fp32", "onnx int8"]
    assert facts["rows"][0]["top1"] == facts["rows"][1]["top1"] > 1 / 3
    assert bench.names("bench/")
