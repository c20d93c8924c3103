"""A precision that the CPU emulates is told by the process that trains, once, before its first step."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from harness.jobs import make_job, train_rank_stopped
from harness.play import Play

from raycls.config.sections.search import SearchConfig
from raycls.config.space.space import Parameter, Space
from raycls.doctor import rehearsal
from raycls.session import training
from raycls.session.job import World
from raycls.session.messages import Advice, Event, Started
from raycls.tune import trial
from raycls.tune.hooks import Groups, Judge

_SHORT = ("train.duration=1st", "data.batch_size=8", "evaluate.every=off")


@pytest.fixture
def old_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with AVX2 and nothing after it."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})


def _told(job: Any) -> list[str]:
    """What is said before the first step of a run."""
    records: list[dict[str, Any]] = []
    training.train(job, World(post=records.append))
    kinds = [type(one) for one in records]
    assert Started in kinds
    return [one.text for one in records[: kinds.index(Started)] if isinstance(one, Event)]


@pytest.mark.parametrize(("amp", "count"), [("bf16", 1), ("fp16", 1), ("off", 0), ("auto", 0)])
def test_it_is_told_with_the_remedy(amp: str, count: int, old_cpu: None, data: Path, tmp_path: Path) -> None:
    told = _told(make_job(tmp_path / "run", data, *_SHORT, f"train.amp={amp}"))
    assert len(told) == count
    for text in told:
        assert f"train.amp {amp}" in text
        assert text.endswith("fix: train.amp=off")


def test_a_native_one_is_not(monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert _told(make_job(tmp_path / "run", data, *_SHORT, "train.amp=bf16")) == []


def test_a_resumed_run_keeps_its_precision_so_the_remedy_begins_anew(
    monkeypatch: pytest.MonkeyPatch, data: Path, tmp_path: Path
) -> None:
    """Begun where bf16 is native, by auto, and resumed on an older CPU."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    overrides = ("train.duration=3st", "data.batch_size=8", "evaluate.every=off", "train.amp=auto")
    train_rank_stopped(0, 1, make_job(tmp_path / "run", data, *overrides), 1, "sigint")
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    told = [text for text in _told(make_job(tmp_path / "run", data, *overrides)) if "train.amp" in text]
    assert [text.partition("fix: ")[2] for text in told] == ["train.amp=off with --new"]


def test_the_doctor_hears_of_it(old_cpu: None, data: Path, tmp_path: Path) -> None:
    settings = make_job(tmp_path / "run", data, *_SHORT, "train.amp=bf16").config
    facts = rehearsal.rehearse(settings, str(tmp_path / "away"), str(Path.cwd()), "cpu", 60.0)
    assert [warning["fix"] for warning in facts["warnings"]] == ["train.amp=off"]


def test_of_a_search_one_trial_is_enough(tmp_path: Path) -> None:
    search = SearchConfig.model_validate({"trials": 3, "scheduler": {"name": "none"}})
    play = Play(tmp_path, Space((Parameter("optim.lr", "uniform", low=0.0, high=1.0),)), search, lambda chosen: 0.0)
    told: list[str] = []
    judge = Judge(
        play.board,
        Groups(),
        tick=lambda: None,
        changed=lambda name, move: None,
        interrupted=lambda: False,
        donated=lambda task: "",
        full=lambda name, error: None,
        most=lambda: 1,
        note=told.append,
    )
    play.board.start()
    for text in ("slow", "slow", "other", "slow"):
        given: Any = SimpleNamespace(config={"task": json.dumps({"trial": "0001"})})
        judge.on_trial_result(None, given, {"record": json.dumps({"kind": "note", "text": text})})
    assert told == ["slow", "other"]


def test_a_trial_hands_it_on() -> None:
    talk = trial._Talk()
    posting: Any = SimpleNamespace(talk=talk)
    record = Advice("warning: slow", what="slow", fix="none")
    thread = threading.Thread(target=trial._Trial._post, args=(posting, record), daemon=True)
    thread.start()
    assert json.loads(talk.next()["record"]) == {"kind": "note", "text": "warning: slow"}
    trial._Trial._post(posting, Event("nothing to do with all trials"))  # does not wait
    talk.stop()
    thread.join(5)
    assert not thread.is_alive()
