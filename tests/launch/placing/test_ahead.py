"""Whether slices are read ahead by a thread: where a CPU is idle, and nothing is drawn that the steps draw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness.jobs import make_job, write_arrays
from harness.tasks import classification, setting

from raycls.config.load import from_dict, load_text
from raycls.config.sections.data import SourceConfig
from raycls.config.sections.run import Run
from raycls.launch.placing.ahead import made_apart, reads_ahead
from raycls.tasks.classification import Classification
from raycls.train.plan import Plan


@pytest.mark.parametrize(
    ("workers", "threads", "cpus", "device", "ahead"),
    [
        (0, 1, 1, "cpu", False),
        (0, 1, 2, "cpu", True),
        (0, 2, 2, "cpu", False),
        (1, 2, 3, "cpu", True),
        (2, 1, 2, "cpu", False),
        (2, 1, 3, "cpu", True),
        (2, 4, 8, "cpu", False),
        (2, 1, 2, "cuda", True),
    ],
)
def test_where_a_cpu_would_be_idle(workers: int, threads: int, cpus: float, device: str, ahead: bool) -> None:
    run = load_text("", "run.yaml", [f"scale.workers={workers}", f"scale.threads={threads}"]).run
    found, why = reads_ahead(run, "inline", device, cpus, lambda: True)
    assert (found, why) == (ahead, "" if ahead else "not read ahead: the steps use every CPU")
    found, why = reads_ahead(run, "inline", device, cpus, lambda: False)
    assert not found
    assert why.startswith("not read ahead")


@pytest.mark.parametrize("executor", ["ray", "processes"])
def test_other_executors_do_not(executor: str) -> None:
    assert reads_ahead(load_text("", "run.yaml").run, executor, "cuda", 64, lambda: True) == (False, "")


@pytest.mark.parametrize(
    ("override", "apart"),
    [
        ("augment.train=[{random_crop: {size: 12, padding: 1}}, horizontal_flip]", True),
        ("augment.train=[{color_jitter: {brightness: 0.4}}]", False),
        ("augment.eval=[{tests.harness.transforms:noise: {strength: 9}}]", False),
    ],
)
def test_what_draws_from_the_generators_of_the_process_is_not_made_beside_the_steps(
    override: str, apart: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAYCLS_WORKDIR", str(Path(__file__).parents[3]))
    job = make_job(tmp_path / "run", write_arrays(tmp_path / "data.npz", 20), override)
    run, classes, plan = from_dict(job.config), job.dataset.classes, Plan.from_dict(job.plan)
    assert made_apart(run, classes, plan) == apart
    assert not made_apart(_with(run, source=SourceConfig(name="tests.harness.mine:source")), classes, plan)


def _with(run: Run, **data: Any) -> Run:
    return run.model_copy(update={"data": run.data.model_copy(update=data)})


def test_of_a_task_of_ones_own_nobody_knows() -> None:
    class Own(Classification):
        def view(self, image: Any, key: Any, *, train: bool) -> Any:
            return super().view(image, key, train=train)

    assert classification().separate
    assert not Own(setting()).separate
