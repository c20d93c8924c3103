"""Data in a bucket: the bits of a local folder on any number of workers, through outages of the store."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest
from harness.object_store import KEY, S3, SECRET
from harness.processes import Command, start
from harness.runs import Site
from harness.trained import CONFIG, write_photos

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

IMPATIENT = "from raycls.run.storage import retry; retry.DEADLINE = 3.0; from raycls.cli.app import main; main()"
_PACING = """
import os
import time


def paced(flag):
    def wait(image):
        if os.path.exists(flag):
            time.sleep(0.02)
        return image

    return wait
"""


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A working directory with 120 photos and a finished run on them, `runs/reference`."""
    site = Site(tmp_path_factory.mktemp("remote"))
    write_photos(site.folder / "photos", 40)
    (site.folder / "pacing.py").write_text(_PACING)
    text = CONFIG.replace("horizontal_flip]", f"horizontal_flip, {{pacing:paced: {{flag: {site.folder / 'slow'}}}}}]")
    more = "evaluate: {keep: last}\ncheckpoint: {every: 3st}\ntrack: {log_every: 1st}\n"
    text = text.replace('amp: "off"}', 'amp: "off", micro_batches: 2, ledger: pixels}')
    (site.folder / "small.yaml").write_text(text + more)
    with site.raycls("train", "small.yaml", "run.name=reference") as command:
        assert command.wait(200) == 0, command.said()
    return site


@pytest.fixture
def bucket(local: Site, s3: S3) -> S3:
    s3.upload(local.folder / "photos", "photos")
    return s3


def train(site: Site, s3: S3, name: str, *options: str) -> Command:
    words = ("train", "small.yaml", f"run.name={name}", f"data.source.path={s3.uri('photos')}", *options)
    return site.raycls(*words, name=name, env=s3.environment)


def holds_no_secret(folder: Path) -> bool:
    return not any(
        secret.encode() in file.read_bytes() for file in folder.rglob("*") if file.is_file() for secret in (KEY, SECRET)
    )


@pytest.mark.ray
@pytest.mark.parametrize(
    "workers, executor",
    [
        pytest.param(1, "auto", marks=pytest.mark.nightly),
        pytest.param(2, "auto", marks=pytest.mark.slow),
        pytest.param(2, "ray", marks=pytest.mark.nightly),
        pytest.param(2, "processes", marks=pytest.mark.nightly),
    ],
)
def test_workers_that_share_a_cache_give_the_bits_of_a_local_folder(
    local: Site, bucket: S3, tmp_path: Path, workers: int, executor: str
) -> None:
    name = f"workers-{workers}-{executor}"
    cache = f"data.cache={{dir: {tmp_path / 'cache'}, limit: 1GB}}"
    bucket.proxy.reset()
    with train(local, bucket, name, f"scale.workers={workers}", f"data.executor={executor}", cache) as command:
        assert command.wait(400) == 0, command.said()
        assert KEY not in command.said() and SECRET not in command.said()
    local.assert_same(name)
    assert holds_no_secret(local.run(name))
    objects = [path for method, path in bucket.proxy.seen if method == "GET" and "/photos/" in path]
    # Six epochs and six evaluations: an object that two processes ask for at once is read by both, and never again.
    assert len(set(objects)) >= 96 and max(map(objects.count, objects)) <= 2 + workers


@pytest.mark.nightly
def test_away_for_five_seconds_in_the_middle_of_an_epoch(local: Site, bucket: S3) -> None:
    local.slow(True)
    with train(local, bucket, "away") as command:
        command.until(lambda: local.step("away") >= 7)
        bucket.proxy.stop()
        time.sleep(5.0)
        local.slow(False)
        bucket.proxy.start()
        assert command.wait(200) == 0, command.said()
        assert command.said().count("does not answer") == 1 and "answers again" in command.said()
    local.assert_same("away")


@pytest.mark.nightly
def test_away_for_good_is_named_and_the_same_command_resumes(local: Site, bucket: S3) -> None:
    words = [sys.executable, "-c", IMPATIENT, "train", "small.yaml", "run.name=gone"]
    words.append(f"data.source.path={bucket.uri('photos')}")
    environment = {**bucket.environment, "RAY_ADDRESS": ""}
    local.slow(True)
    with start(words, local.folder, env=environment) as command:
        command.until(lambda: local.step("gone") >= 7)
        bucket.proxy.stop()
        assert command.wait(150) == 4, command.said()
        error = command.stderr
        assert "the object store with the data does not answer" in error and "where: s3://bucket/photos/" in error
        assert f"127.0.0.1:{bucket.proxy.port}" in error and "rerun the command to resume" in error
        assert "Traceback" not in command.said() and KEY not in command.said()
    bucket.proxy.start()
    local.slow(False)
    with start(words, local.folder, env=environment) as command:
        assert command.wait(150) == 0, command.said()
    assert local.attempts("gone")[-1]["step"] >= 3
    local.assert_same("gone")
