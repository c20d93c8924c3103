"""Training from an S3 server on loopback beside a folder: images/s of the second epoch, with and without the cache.

The server is moto's, in this process, behind a proxy that counts requests; runs are commands of their own, in one
process without Ray. Each round trains two epochs from the folder, from the bucket, from the bucket with an empty cache,
and with the cache of that run; what is compared are images/s of the second epoch, within the round. All four end with
the same weights, and the cache's second epoch sends no request. Then, unless `--no-outage`: the server goes away for
5 s in the middle of an epoch, and for good; the run that was lost is resumed.

    python tests/benchmarks/remote.py --files 5000
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import measure
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from harness.object_store import S3, serving

CLASSES, AWAY = 10, 5.0
OPTIONS = (
    "data.image_size=32", "data.batch_size=64", "model={name: tiny_cnn, args: {width: 16}}", "optim.lr=0.02",
    "augment.train=[{random_crop: {size: 32, padding: 4}}, horizontal_flip]",
    "augment.eval=[{center_crop: {size: 32}}]",
    "train.duration=2ep", "train.micro_batches=2", "evaluate.every=off", "evaluate.keep=last", "track.log_every=1ep",
    "scale={workers: 0, threads: 1}", "run.seed=0",
)  # fmt: skip
IMPATIENT = "from raycls.run.storage import retry; retry.DEADLINE = 8.0; from raycls.cli.app import main; main()"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    parser = measure.arguments(__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=5000)
    parser.add_argument("--side", type=int, default=64, help="pixels of an image")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--no-outage", action="store_true")
    options = parser.parse_args(argv)
    if options.quick:
        options.files, options.rounds = 120, 1
    with tempfile.TemporaryDirectory() as scratch, serving() as s3:
        folder = Path(scratch)
        _write_images(folder / "photos", options.files, options.side)
        s3.upload(folder / "photos", "photos")
        (folder / "c.yaml").write_text("")
        result: dict[str, Any] = {**measure.begin("remote"), "files": options.files, "rounds": []}
        for number in range(options.rounds):
            result["rounds"].append(_round(folder, s3, number))
        for name in ("bucket", "cache, first run", "cache, second run"):
            pairs = [(each[name]["images_per_s"], each["folder"]["images_per_s"]) for each in result["rounds"]]
            result.setdefault("against_folder", {})[name] = ratio = measure.ratios(pairs)
            measure.say(f"{name} against the folder, images/s of the second epoch: {measure.spread(ratio)}")
        if not options.no_outage:
            weights = result["rounds"][0]["folder"]["weights"]
            result["away_for_a_while"] = _away(folder, s3, weights)
            result["away_for_good"] = _gone(folder, s3, weights)
    return measure.finish(result, options.json)


def _write_images(folder: Path, count: int, side: int) -> None:
    draw = np.random.default_rng(0)
    for index in range(count):
        small = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = folder / f"class{index % CLASSES}" / f"{index:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(small).resize((side, side), Image.Resampling.BICUBIC).save(path, quality=90)


def _round(folder: Path, s3: S3, number: int) -> dict[str, Any]:
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    kept = f"data.cache={{dir: {cache}, limit: 10GB}}"
    variants = {
        "folder": ("data.source.path=photos",),
        "bucket": (f"data.source.path={s3.uri('photos')}",),
        "cache, first run": (f"data.source.path={s3.uri('photos')}", kept),
        "cache, second run": (f"data.source.path={s3.uri('photos')}", kept),
    }
    found: dict[str, Any] = {}
    for name, words in variants.items():
        s3.proxy.reset()
        run = f"{name.replace(', ', '-').replace(' ', '-')}-{number}"
        began = time.monotonic()
        with _start(folder, run, words) as command:
            said = command.communicate()[0]
        if command.returncode:
            raise RuntimeError(said)
        gets = [path for method, path in s3.proxy.seen if method == "GET" and "/photos/" in path]
        found[name] = {
            "images_per_s": _rates(folder / "runs" / run)[-1],
            "first_epoch_images_per_s": _rates(folder / "runs" / run)[0],
            "seconds": time.monotonic() - began,
            "weights": _weights(folder / "runs" / run),
            "reads": len(gets),
            "objects": len(set(gets)),
        }
        each = found[name]
        first = each["first_epoch_images_per_s"]
        measure.say(
            f"{name}: {first:.0f} and {each['images_per_s']:.0f} images/s in the two epochs, "
            f"{each['reads']} reads of {each['objects']} objects, {each['seconds']:.0f} s in all"
        )
    if len({each["weights"] for each in found.values()}) != 1:
        raise RuntimeError(f"the weights differ: {found}")
    if (
        found["cache, first run"]["reads"] != found["cache, first run"]["objects"]
        or found["cache, second run"]["reads"]
    ):
        raise RuntimeError(f"an object was read again in spite of the cache: {found}")
    return found


def _away(folder: Path, s3: S3, weights: str) -> dict[str, Any]:
    """The server away for a few seconds in the middle of the second epoch."""
    s3.proxy.reset()
    with _start(folder, "away", (f"data.source.path={s3.uri('photos')}",)) as command:
        _when(command, lambda: len(s3.proxy.seen) > _middle(folder), s3.proxy.stop)
        time.sleep(AWAY)
        s3.proxy.start()
        said = command.communicate()[0]
    same = command.returncode == 0 and _weights(folder / "runs" / "away") == weights
    told = "does not answer" in said and "answers again" in said
    measure.say(f"away for {AWAY:g} s: exit {command.returncode}, told: {told}, same weights: {same}")
    return {"exit": command.returncode, "told": told, "same_weights": same}


def _gone(folder: Path, s3: S3, weights: str) -> dict[str, Any]:
    """The server away for good (with a deadline of 8 s), back later, and the same command again."""
    s3.proxy.reset()
    words = (f"data.source.path={s3.uri('photos')}", "checkpoint.every=20%")
    with _start(folder, "gone", words, IMPATIENT) as command:
        _when(command, lambda: len(s3.proxy.seen) > _middle(folder), s3.proxy.stop)
        began = time.monotonic()
        said, code = command.communicate()[0], command.returncode
    seconds = time.monotonic() - began
    named = "the object store with the data does not answer" in said and "Traceback" not in said
    s3.proxy.start()
    with _start(folder, "gone", words, IMPATIENT) as command:
        command.communicate()
    attempts = [
        json.loads(line)["step"] for line in (folder / "runs" / "gone" / "attempts.jsonl").read_text().splitlines()
    ]
    same = command.returncode == 0 and _weights(folder / "runs" / "gone") == weights
    measure.say(
        f"away for good: exit {code} after {seconds:.0f} s, named: {named}; resumed from step {attempts[-1]}, "
        f"exit {command.returncode}, same weights: {same}"
    )
    return {"exit": code, "seconds": seconds, "named": named, "resumed_from": attempts[-1], "same_weights": same}


def _middle(folder: Path) -> int:
    """Requests after which a run without a cache is in its second epoch: a HEAD and a GET for each image."""
    trained = 0.7 * sum(1 for _ in (folder / "photos").glob("*/*"))
    return int(2 * 1.4 * trained)


def _when(command: subprocess.Popen[str], reached: Callable[[], bool], act: Callable[[], object]) -> None:
    while not reached():
        if command.poll() is not None:
            raise RuntimeError(f"the run has ended: {command.communicate()[0]}")
        time.sleep(0.05)
    threading.Thread(target=act).run()


def _start(folder: Path, run: str, words: Sequence[str], code: str = "") -> subprocess.Popen[str]:
    python = [sys.executable, *(["-c", code] if code else ["-m", "raycls"])]
    typed = [*python, "train", "c.yaml", f"run.name={run}", *OPTIONS, *words]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    return subprocess.Popen(typed, cwd=folder, env=environment, **pipes)


def _rates(run: Path) -> list[float]:
    """Images per second of each epoch, as the history has them."""
    lines = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [line["images_per_second"] for line in lines if line["kind"] == "train"]


def _weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
