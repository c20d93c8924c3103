"""Optimizers, schedules and losses of a user, and runs that were started when options had other paths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.jobs import make_job, train, train_rank_stopped, weights, write_arrays
from harness.plugins import user_module

from raycls.config.load import ConfigProblemsError, load, load_text, to_dict
from raycls.config.space.check import apply, space_of
from raycls.config.write import render
from raycls.errors import ConfigError
from raycls.names import name_problems

MINE = '''
from __future__ import annotations

import torch
from torch.optim import Optimizer

from raycls.config.sections.duration import Duration
from raycls.config.sections.types import UnderOne


class Sign(Optimizer):
    """Each parameter moves by lr against the sign of its averaged gradient."""

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                mean = self.state[parameter].setdefault("mean", torch.zeros_like(parameter))
                mean.mul_(group["beta"]).add_(parameter.grad, alpha=1 - group["beta"])
                parameter.sub_(mean.sign(), alpha=group["lr"])


def sign(groups, lr, *, beta: UnderOne = 0.9):
    return Sign(groups, {"lr": lr, "beta": beta})


def triangle(steps, *, period: Duration = Duration(2, "ep"), low: UnderOne = 0.1):
    half = steps.count(period, "period") / 2
    return lambda step: low + (1 - low) * abs(1 - step / half % 2)


def falling(steps):
    return lambda step: 1 - step / steps.total


def squares(*, scale: float = 1.0):
    def loss(logits, labels):
        wanted = torch.nn.functional.one_hot(labels, logits.shape[1]).float()
        return scale * (logits - wanted).square().sum()

    return loss


def mean(*, scale: float = 1.0):
    return lambda logits, labels: scale * torch.nn.functional.cross_entropy(logits, labels)
'''
OPTIONS = ("data.batch_size=16", "train.micro_batches=2", "train.duration=2ep", "optim.lr=0.01")
PLUGINS = ("optim={name: 'mine:sign', args: {beta: 0.8}}", "schedule={name: 'mine:triangle', args: {period: 1ep}}")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three steps per epoch."""
    return write_arrays(tmp_path_factory.mktemp("data") / "data.npz", train=48, val=20)


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.chdir(tmp_path)  # a job runs in the folder that it was made in
    with user_module(tmp_path, "mine", MINE) as name:
        yield name


@pytest.mark.usefixtures("mine")
def test_plug_ins_are_trained_and_resumed(data: Path, tmp_path: Path) -> None:
    options = (*OPTIONS, *PLUGINS, "loss={name: 'mine:squares', args: {scale: 0.5}}")
    whole, stopped = tmp_path / "whole" / "run", tmp_path / "stopped" / "run"
    assert train(make_job(whole, data, *options))["state"] == "done"
    first = train_rank_stopped(0, 1, make_job(stopped, data, *options), 4, "sigterm")
    assert 0 < first["step"] < 6
    assert train(make_job(stopped, data, *options))["step"] == 6
    assert weights(stopped) == weights(whole)
    other = tmp_path / "other" / "run"
    train(make_job(other, data, *options, "optim.args.beta=0.2"))
    assert weights(other) != weights(whole)


@pytest.mark.usefixtures("mine")
def test_arguments_of_plug_ins_are_searched(data: Path, tmp_path: Path) -> None:
    space = "{optim.name: [sgd, 'mine:sign'], optim.args.beta: {when: {optim.name: 'mine:sign'}, values: [0.5, 0.9]}}"
    (tmp_path / "one.yaml").write_text(f"schedule: {{name: 'mine:triangle'}}\nsearch: {{space: {space}}}\n")
    run = load(tmp_path / "one.yaml", ["search.space.schedule.args.low=[0.1]"], names=name_problems).run
    trials = [apply(run, chosen) for chosen in space_of(run).combinations()]
    assert [(trial.optim.name, trial.optim.args.get("beta"), trial.schedule.args["low"]) for trial in trials] == [
        ("sgd", None, 0.1),
        ("mine:sign", 0.5, 0.1),
        ("mine:sign", 0.9, 0.1),
    ]
    bits = set()
    for number, trial in enumerate(trials):
        optim = ", ".join(f"{key}: {value}" for key, value in trial.optim.args.items()).replace("True", "true")
        named = f"optim={{name: '{trial.optim.name}', lr: 0.01, args: {{{optim.replace('False', 'false')}}}}}"
        folder = tmp_path / str(number) / "run"
        train(make_job(folder, data, *OPTIONS, named, "train.duration=1ep"))
        bits.add(str(weights(folder)))
    assert len(bits) == 3


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("override", "path", "words"),
    [
        ("optim={name: 'mine:sing'}", "optim.name", "did you mean Sign?"),
        ("optim={name: 'mine:sign', args: {beta: 1}}", "optim.args.beta", "less than 1"),
        ("optim={name: 'mine:sign', args: {momentum: 1}}", "optim.args", "there is no argument momentum"),
        ("optim={name: 'mine:squares'}", "optim.args", "it must take the argument groups"),
        ("optim.name=sdg", "optim.name", "did you mean sgd?"),
        ("schedule={name: 'mine:triangle', args: {period: 3}}", "schedule.args.period", "write"),
        ("schedule.name=cosin", "schedule.name", "did you mean cosine?"),
        ("loss.name=crossentropy", "loss.name", "did you mean cross_entropy?"),
        ("search.space.optim.name=[sgd, sdg]", "search.space.optim.name[1]", "did you mean sgd?"),
    ],
)
def test_what_is_wrong_with_a_name_is_told_without_torch(tmp_path: Path, override: str, path: str, words: str) -> None:
    (tmp_path / "one.yaml").write_text("")
    with pytest.raises(ConfigProblemsError) as caught:
        load(tmp_path / "one.yaml", [override], names=name_problems)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert words in str(problem)


@pytest.mark.usefixtures("mine")
@pytest.mark.parametrize(
    ("override", "where", "found"),
    [
        ("loss.name=mine:mean", "loss.name", "for three samples"),
        ("loss.name=mine:sign", "loss.args", "no arguments"),
        ("optim.name=mine:mean", "optim.args", "no arguments"),
        ("schedule={name: 'mine:triangle', args: {period: 2h}}", "schedule.args.period", "2h"),
    ],
)
def test_a_plug_in_that_does_not_fit_is_refused_before_the_start(
    data: Path, tmp_path: Path, override: str, where: str, found: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        make_job(tmp_path / "run", data, *OPTIONS, override)
    assert caught.value.where == where
    assert found in str(caught.value.found)


@pytest.mark.usefixtures("mine")
def test_a_run_is_made_longer_where_the_schedule_of_a_plug_in_allows_it(data: Path, tmp_path: Path) -> None:
    for name, allowed in (("mine:triangle", True), ("mine:falling", False)):
        folder = tmp_path / name[5:] / "run"
        options = (*OPTIONS, f"schedule.name={name}")
        train(make_job(folder, data, *options))
        if allowed:
            assert train(make_job(folder, data, *options, "train.duration=3ep"))["step"] == 9
        else:
            with pytest.raises(ConfigError) as caught:
                make_job(folder, data, *options, "train.duration=3ep")
            assert f"schedule.name: {name}" in str(caught.value.found)


def test_a_run_of_before_resumes_with_the_same_bits_and_may_be_longer(data: Path, tmp_path: Path) -> None:
    """Its `config.yaml` has every option at its old path, and so has the file of the user."""
    new = ("schedule={name: plateau, args: {gamma: 0.5, patience: 1}}", "optim.args={momentum: 0.8, nesterov: true}")
    old = ("schedule={name: plateau, gamma: 0.5, patience: 1}", "optim={momentum: 0.8, nesterov: true, lr: 0.01}")
    whole, folder = tmp_path / "whole" / "run", tmp_path / "old" / "run"
    train(make_job(whole, data, *OPTIONS, *new, "loss.args.label_smoothing=0.1"))
    first = train_rank_stopped(
        0, 1, make_job(folder, data, *OPTIONS, *new, "loss.args.label_smoothing=0.1"), 4, "sigterm"
    )
    assert 0 < first["step"] < 6
    values = to_dict(load(folder / "config.yaml").run)
    del values["task"]
    values["loss"] = {"task": "classification", "label_smoothing": values["loss"]["args"]["label_smoothing"]}
    values["optim"] |= {**values["optim"].pop("args"), "betas": [0.9, 0.999], "eps": 1e-8, "alpha": 0.99}
    values["schedule"] |= {**values["schedule"].pop("args"), "every": "30ep", "milestones": [], "period_factor": 1.0}
    (folder / "config.yaml").write_text(render(values))
    assert "args: {" not in (folder / "config.yaml").read_text().partition("\nloss:")[2]
    assert train(make_job(folder, data, *OPTIONS, *old, "loss.label_smoothing=0.1"))["step"] == 6
    assert weights(folder) == weights(whole)
    (folder / "config.yaml").write_text(render(values))
    longer = make_job(folder, data, *OPTIONS, *old, "loss.label_smoothing=0.1", "train.duration=3ep")
    assert train(longer)["step"] == 9
    assert load_text((folder / "config.yaml").read_text()).run.optim.args == {"momentum": 0.8, "nesterov": True}
