"""Who decodes where `data.executor` is `auto`."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness.jobs import make_job, write_arrays

from raycls.config.load import from_dict, load_text
from raycls.launch.placing.executor import choose, seconds_per_sample, with_executor
from raycls.launch.placing.fit import Nodes, executor_of
from raycls.train.plan import Plan


def cpus(*counts: float, gpus: float = 0) -> Nodes:
    return [{"CPU": count, "GPU": gpus} if gpus else {"CPU": count} for count in counts]


@pytest.mark.parametrize(
    ("overrides", "nodes", "device", "grows", "sample_ms", "executor", "why"),
    [
        ([], cpus(2), "cpu", False, 100, "inline", "whose CPUs the workers use"),
        (["scale.threads=2"], cpus(4), "cpu", False, 100, "inline", "whose CPUs the workers use"),
        ([], cpus(2.5), "cpu", False, 100, "inline", "whose CPUs the workers use"),
        ([], cpus(1, 1), "cpu", False, 0.001, "ray", "other nodes"),
        ([], cpus(2), "cpu", True, 0.001, "ray", "other nodes"),
        (["scale.workers=[1, 2]"], cpus(2), "cpu", False, 0.001, "ray", "other nodes"),
        ([], cpus(3), "cpu", False, 0.155, "inline", "5.0 ms"),  # 32 images each
        ([], cpus(3), "cpu", False, 0.157, "ray", "5 ms"),
        ([], cpus(2, gpus=2), "cuda", False, 0.1, "inline", "3.2 ms"),
        ([], cpus(2, gpus=2), "cuda", False, 10, "ray", "320 ms"),
        (["data.batch_size=1024"], cpus(16, gpus=8), "cuda", False, 0.1, "ray", "51 ms"),
        (["scale.cpus_per_worker=4"], cpus(8), "cpu", False, 100, "inline", "whose CPUs the workers use"),
        (["scale.cpus_per_worker=4"], cpus(8, gpus=2), "cuda", False, 100, "inline", "reserve"),
        (["scale.cpus_per_worker=4"], cpus(9, gpus=2), "cuda", False, 100, "ray", "3200 ms"),
        (["data.executor=ray"], cpus(2), "cpu", False, 0.1, "ray", ""),
        (["data.executor=processes"], cpus(2, 2), "cpu", False, 0.1, "processes", ""),
        (["data.executor=inline"], cpus(16, gpus=8), "cuda", True, 100, "inline", ""),
        (["scale.workers=0"], cpus(2), "cpu", False, 100, "inline", ""),
    ],
)
def test_chosen_by_cost(
    overrides: list[str], nodes: Nodes, device: str, grows: bool, sample_ms: float, executor: str, why: str
) -> None:
    run = load_text("", "run.yaml", ["data.source.name=digits", "scale.workers=2", *overrides]).run
    choice = choose(run, nodes, device, grows=grows, decoding_s=lambda: sample_ms / 1000)
    assert choice.executor == executor
    assert (why in choice.why) if why else not choice.why
    placed = with_executor(run, choice.executor)
    assert executor_of(placed) == executor
    assert placed.model_copy(update={"data": run.data}) == run


def test_nothing_is_measured_where_it_decides_nothing() -> None:
    def measured() -> float:
        raise AssertionError("measured")

    run = load_text("", "run.yaml", ["data.source.name=digits", "scale.workers=2"]).run
    for nodes, grows in ((cpus(2), False), (cpus(2, 2), False), (cpus(8), True)):
        choose(run, nodes, "cpu", grows=grows, decoding_s=measured)


def test_the_time_of_a_sample_is_measured_as_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow in training, quick in evaluation."""
    write_arrays(tmp_path / "data.npz", train=40, val=8)
    (tmp_path / "slow_op.py").write_text(
        "import time\n\ndef waiting():\n    return lambda image: time.sleep(0.02) or image\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    job = make_job(tmp_path / "run", tmp_path / "data.npz", "augment.train=['slow_op:waiting']")
    run, plan = from_dict(job.config), Plan.from_dict(job.plan)
    assert 0.02 <= seconds_per_sample(run, job.dataset, plan, "") < 0.2
    assert seconds_per_sample(run, job.dataset, plan, "val") < 0.02
