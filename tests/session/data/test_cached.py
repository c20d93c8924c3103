"""`data.cache: memory`: the weights of a run without it, each image decoded once, a refusal before a step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from harness.errors import raised
from harness.jobs import curve, make_job, train, weights
from PIL import Image

from raycls.data.images.decoding import kept
from raycls.errors import ConfigError
from raycls.session import training
from raycls.session.job import World
from raycls.session.messages import Event

_SET = ("data.source.name=folder", "train.duration=3ep", "data.batch_size=8", "train.micro_batches=2")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """24 JPEGs of noise to train on, and 8 for validation, in two classes."""
    random = np.random.RandomState(0)
    for split, count in (("train", 24), ("val", 8)):
        for index in range(count):
            path = tmp_path / "files" / split / "ab"[index % 2] / f"{index}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(random.randint(0, 256, (14, 15, 3), dtype=np.uint8)).save(path)
    return tmp_path / "files"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are decoded to be kept."""
    names: list[str] = []
    original = kept.decoded

    def counted(data: bytes, name: str, **options: Any) -> Any:
        names.append(name)
        return original(data, name, **options)

    monkeypatch.setattr(kept, "decoded", counted)
    return names


@pytest.mark.parametrize(
    ("world", "executor"),
    [
        (0, "inline"),
        pytest.param(2, "inline", marks=pytest.mark.slow),
        pytest.param(0, "processes", marks=pytest.mark.slow),
    ],
)
def test_the_bits_are_those_without_it(
    files: Path, tmp_path: Path, decoded: list[str], world: int, executor: str
) -> None:
    train(make_job(tmp_path / "plain", files, *_SET))
    assert decoded == []
    job = make_job(tmp_path / "kept", files, *_SET, "data.cache=memory", world=world, executor=executor)
    train(job, world)
    assert weights(tmp_path / "kept") == weights(tmp_path / "plain")
    assert curve(tmp_path / "kept") == curve(tmp_path / "plain")
    if (world, executor) == (0, "inline"):  # elsewhere it is other processes that decode
        assert len(decoded) == len(set(decoded)) == 32


def test_the_run_says_how_much_it_keeps(files: Path, tmp_path: Path) -> None:
    told: list[object] = []
    training.train(make_job(tmp_path / "run", files, *_SET, "data.cache=memory"), World(post=told.append))
    texts = [message.text for message in told if isinstance(message, Event)]
    assert "data.cache: about 19.7 KiB of decoded images are kept in memory" in texts  # 32 x 14 x 15 x 3 bytes


def test_a_run_that_does_not_fit_is_refused(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "free_memory", lambda: 20_000)
    job = make_job(tmp_path / "run", files, *_SET, "data.cache=memory")
    with raised(
        ConfigError,
        where="data.cache",
        found="memory: 32 images take about 19.7 KiB, 19.5 KiB are free",
        valid="at most 15.6 KiB together",
    ):
        train(job)
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize("section", ["train", "eval"])
def test_files_that_are_decoded_smaller_are_not_kept(section: str, files: Path, tmp_path: Path) -> None:
    fast = f"augment.{section}=[{{random_resized_crop: {{resampling: fast}}}}, horizontal_flip]"
    with pytest.raises(ConfigError) as caught:
        make_job(tmp_path / "run", files, *_SET, fast, "data.cache=memory")
    assert "that would be other pixels" in str(caught.value)
    assert caught.value.fix == "data.cache=off, or resampling: exact in augment.train"
    later = fast.replace("[{", "[vertical_flip, {", 1)  # of an image that is decoded, the pixels are the same
    make_job(tmp_path / "run", files, *_SET, later, "data.cache=memory")
