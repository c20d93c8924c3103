from __future__ import annotations

from raycls.config.describe import options
from raycls.config.difference import HARMLESS, difference
from raycls.config.load import from_dict


def test_equal_configs_do_not_differ() -> None:
    nan = {"model": {"args": {"x": float("nan")}}}
    assert difference(from_dict(nan), from_dict(nan)) == []


def test_each_option_that_differs_is_told_with_both_values() -> None:
    old = from_dict({"optim": {"lr": 0.1}, "scale": {"workers": 2}})
    new = from_dict({"optim": {"lr": 0.2}, "scale": {"workers": 3}, "train": {"duration": "3ep"}})
    found = {each.path: (each.old, each.new, each.harmless) for each in difference(old, new)}
    assert found == {
        "optim.lr": ("0.1", "0.2", False),
        "train.duration": ("10ep", "3ep", False),
        "scale.workers": ("2", "3", True),
    }
    assert str(difference(old, new)[0]) == "optim.lr: 0.1 -> 0.2"


def test_arguments_that_came_went_or_changed_their_kind() -> None:
    old = from_dict({"model": {"args": {"a": 1, "b": True}}})
    new = from_dict({"model": {"args": {"a": 1.0, "c": "x"}}})
    found = {each.path: (each.old, each.new) for each in difference(old, new)}
    assert found == {
        "model.args.a": ("1", "1.0"),
        "model.args.b": ("true", "(not set)"),
        "model.args.c": ("(not set)", "x"),
    }


def test_an_empty_mapping_that_is_filled_is_told_once() -> None:
    empty, filled = from_dict({}), from_dict({"model": {"args": {"width": 64}}})
    assert [each.path for each in difference(empty, filled)] == ["model.args.width"]
    assert [each.path for each in difference(filled, empty)] == ["model.args.width"]


def test_harmless_options_exist_and_say_why() -> None:
    assert set(HARMLESS) <= set(options())
    assert all(HARMLESS.values())
    for path in (
        "scale.workers",
        "data.executor",
        "run.name",
        "track.log_every",
        "track.print_every",
        "train.budget",
        "train.profile",
    ):
        assert path in HARMLESS
    for path in ("optim.lr", "data.batch_size", "run.seed", "scale.threads", "train.micro_batches", "train.duration"):
        assert path not in HARMLESS
