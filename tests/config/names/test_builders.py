"""Arguments of optimizers, schedules and losses, checked against signatures that are read and not imported."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from raycls.config.load import ConfigProblemsError, Problem, load
from raycls.config.names.annotations import checked, typed
from raycls.config.names.builders import BUILDERS, builtin, defaults
from raycls.config.sections.duration import Duration
from raycls.config.sections.run import Run
from raycls.config.sections.types import UnderOne, child


def problems(folder: Path, text: str, *overrides: str) -> list[Problem]:
    file = folder / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ConfigProblemsError) as caught:
        load(file, overrides)
    return list(caught.value.problems)


@pytest.mark.parametrize(
    ("line", "path", "what", "valid"),
    [
        ("optim: {args: {momentum: 1}}", "optim.args.momentum", "out of range", "a number, at least 0 and less than 1"),
        ("optim: {args: {nesterov: yes}}", "optim.args.nesterov", "the wrong type of value", "true or false"),
        ("optim: {name: adam, args: {betas: [0.9]}}", "optim.args.betas", "the wrong number of values", None),
        ("optim: {name: adam, args: {betas: [0.9, 1]}}", "optim.args.betas[1]", "out of range", None),
        ("optim: {name: adam, args: {eps: 0}}", "optim.args.eps", "out of range", "a number, greater than 0"),
        ("schedule: {name: step, args: {every: 30}}", "schedule.args.every", "the wrong type of value", None),
        ("schedule: {name: step, args: {gamma: 0}}", "schedule.args.gamma", "out of range", None),
        (
            "schedule: {name: multistep, args: {milestones: [30ep, x]}}",
            "schedule.args.milestones[1]",
            "a duration is a number with a unit: 90ep, 5000st, 10%, 90s, 15m, 2h or 1d",
            None,
        ),
        ("loss: {args: {label_smoothing: -0.1}}", "loss.args.label_smoothing", "out of range", None),
    ],
)
def test_a_value_is_checked_at_once(tmp_path: Path, line: str, path: str, what: str, valid: str | None) -> None:
    (found,) = problems(tmp_path, f"\n{line}\n")
    assert (found.place.line, found.path, found.what) == (2, path, what)
    assert found.valid == valid if valid else found.valid


@pytest.mark.parametrize(
    ("line", "path", "unknown", "fix"),
    [
        ("optim: {name: adamw, args: {momentum: 0.9}}", "optim.args", "momentum", "take momentum out"),
        ("optim: {args: {momentun: 0.9}}", "optim.args", "momentun", "did you mean optim.args.momentum?"),
        ("schedule: {name: cosine, args: {gamma: 0.5}}", "schedule.args", "gamma", "take gamma out"),
        ("loss: {args: {smoothing: 0.5}}", "loss.args", "smoothing", None),
    ],
)
def test_an_argument_that_is_not_taken(tmp_path: Path, line: str, path: str, unknown: str, fix: str | None) -> None:
    (found,) = problems(tmp_path, f"\n{line}\n")
    assert (found.place.line, found.path) == (2, path)
    assert f"there is no argument {unknown}" in found.what
    assert fix is None or str(found.fix).startswith(fix)


def test_what_raycls_passes_is_not_set(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, "optim: {args: {lr: 0.9}}\n")
    assert (found.path, "lr is set by raycls" in found.what) == ("optim.args", True)


def test_the_reference_names_every_argument_of_every_built_in() -> None:
    for section, builder in BUILDERS.items():
        model = child(Run, section)
        assert model is not None
        told = model.model_fields["args"].description or ""
        for name in builder.builtins:
            assert builtin(section, name) is not None
            assert all(f"`{key}`" in told for key in defaults(section, name)), (section, name)
            assert f"`{name}`" in told or not defaults(section, name)


def test_every_argument_of_a_built_in_has_a_type_and_a_default() -> None:
    for section, builder in BUILDERS.items():
        for name in builder.builtins:
            found = builtin(section, name)
            assert found is not None
            own = found[1].parameters.keys() - set(builder.given)
            without = {"teacher"} if name == "distillation" else set()  # there is no teacher for everything
            assert own <= typed(found[1]).keys() and own - without == defaults(section, name).keys()


def test_defaults_are_plain_values() -> None:
    assert defaults("optim", "adam") == {"betas": [0.9, 0.999], "eps": 1e-8}
    assert defaults("schedule", "step") == {"every": "30ep", "gamma": 0.1}
    assert defaults("schedule", "no_such") == {}


@pytest.mark.parametrize(
    ("annotation", "value", "as_it_is"),
    [
        ("Duration", "30ep", Duration(30, "ep")),
        ("tuple[Duration, ...]", ["1ep", "2st"], (Duration(1, "ep"), Duration(2, "st"))),
        ("Annotated[float, Field(ge=0, lt=1)]", 0, 0.0),
        ("typing.Literal['a', 'b']", "b", "b"),
        ("UnderOne | None", None, None),
    ],
)
def test_an_annotation_is_read_from_its_text(annotation: str, value: Any, as_it_is: Any) -> None:
    parameter = inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    kinds = typed(inspect.Signature([parameter]))
    assert checked(kinds["x"], value) == (as_it_is, [])
    assert checked(kinds["x"], {"no": "such"})[1] != []


@pytest.mark.parametrize("annotation", ["torch.Tensor", "Tensor", "open('x')", "Field(ge=__import__('os'))", "1 +", ""])
def test_an_annotation_of_other_things_says_nothing(annotation: str) -> None:
    parameter = inspect.Parameter("x", inspect.Parameter.KEYWORD_ONLY, annotation=annotation)
    assert typed(inspect.Signature([parameter])) == {}


def test_an_annotation_of_a_file_that_was_run() -> None:
    def mine(*, share: UnderOne, kind: Literal["a"] = "a", far: Annotated[int, "any"] = 3) -> None: ...

    kinds = typed(inspect.signature(mine), globals())
    assert checked(kinds["share"], 1.0)[1][0]["type"] == "less_than"
    assert checked(kinds["kind"], "b")[1] and not checked(kinds["far"], 7)[1]
