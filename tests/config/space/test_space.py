"""The arithmetic of a space: values of a path, sizes, combinations, corners."""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest

from raycls.config.space.space import Condition, Parameter, Space, same


def choice(path: str, *values: Any, when: tuple[Condition, ...] = ()) -> Parameter:
    return Parameter(path, "choice", values, when=when)


LR = Parameter("optim.lr", "loguniform", low=1e-4, high=1)
NAME = choice("model.name", "tiny", "big", "huge")
WIDTH = choice("model.args.width", 8, 16, when=(Condition("model.name", ("tiny", "big")),))
GROUPS = choice("model.args.groups", 1, 2, 4, when=(Condition("model.args.width", (16,)),))


@pytest.mark.parametrize(
    ("parameter", "count", "values", "ends"),
    [
        (choice("a", "x", "y", "z"), 3, ["x", "y", "z"], ("x", "y", "z")),
        (Parameter("a", "randint", low=3, high=6), 4, [3, 4, 5, 6], (3, 6)),
        (Parameter("a", "lograndint", low=1, high=3), 3, [1, 2, 3], (1, 3)),
        (Parameter("a", "quniform", low=0.1, high=0.55, step=0.1), 5, [0.1, 0.2, 0.3, 0.4, 0.5], (0.1, 0.5)),
        (Parameter("a", "quniform", low=32, high=100, step=32), 3, [32, 64, 96], (32, 96)),
        (Parameter("a", "uniform", low=2, high=2), 1, [2.0], (2,)),
    ],
)
def test_values_of_a_finite_path(parameter: Parameter, count: int, values: list[Any], ends: tuple[Any, ...]) -> None:
    assert parameter.count == count
    found = [parameter.value(index) for index in range(count)]
    assert found == values
    assert [type(value) for value in found] == [type(value) for value in values]
    assert parameter.ends == ends
    assert all(parameter.has(value) for value in values)


def test_a_continuous_path_has_no_count_and_both_ends() -> None:
    assert LR.count is None
    assert LR.ends == (1e-4, 1)
    assert LR.has(1e-4)
    assert LR.has(0.5)
    assert not LR.has(2)


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (choice("a", 1, 2), True),
        (choice("a", "1"), 1),
        (Parameter("a", "randint", low=0, high=3), True),
        (Parameter("a", "randint", low=0, high=3), 1.5),
        (Parameter("a", "randint", low=0, high=3), 4),
        (Parameter("a", "quniform", low=0.1, high=0.5, step=0.2), 0.2),
        (Parameter("a", "uniform", low=0, high=1), "0.5"),
    ],
)
def test_what_a_path_does_not_have(parameter: Parameter, value: Any) -> None:
    assert not parameter.has(value)


def test_true_is_not_one() -> None:
    assert same(1, 1.0)
    assert not same(True, 1)
    assert same([1, 2], [1, 2])


def test_a_conditional_path_is_active_where_every_condition_holds() -> None:
    both = choice("x", 1, when=(Condition("a", (1, 2)), Condition("b", ("on",))))
    assert both.active({"a": 2, "b": "on"})
    assert not both.active({"a": 3, "b": "on"})
    assert not both.active({"a": 1})
    assert choice("x", 1).active({})


def test_combinations_in_order_without_what_is_inactive() -> None:
    space = Space((NAME, WIDTH, GROUPS))
    found = [tuple(chosen.values()) for chosen in space.combinations()]
    assert found == [
        ("tiny", 8),
        ("tiny", 16, 1),
        ("tiny", 16, 2),
        ("tiny", 16, 4),
        ("big", 8),
        ("big", 16, 1),
        ("big", 16, 2),
        ("big", 16, 4),
        ("huge",),
    ]
    assert space.size() == len(found)
    assert space.paths == ("model.name", "model.args.width", "model.args.groups")


def test_size_of_what_nobody_could_count_through() -> None:
    wide = Parameter("depth", "randint", low=1, high=10**9)
    inner = choice("kind", "a", "b", "c", when=(Condition("depth", (2, 7)),))
    assert Space((wide, inner)).size() == 10**9 - 2 + 2 * 3
    pairs: list[Parameter] = []
    for index in range(100):
        pairs += [choice(f"a{index}", 0, 1), choice(f"b{index}", 0, 1, when=(Condition(f"a{index}", (1,)),))]
    assert Space(tuple(pairs)).size() == 3**100


def test_size_of_a_continuous_space_and_of_an_empty_one() -> None:
    assert Space((LR,)).size() is None
    assert (
        Space(
            (NAME, Parameter("optim.lr", "uniform", low=0.1, high=1, when=(Condition("model.name", ("tiny",)),)))
        ).size()
        is None
    )
    assert Space(()).size() == 1
    assert list(Space(()).combinations()) == [{}]


def test_a_continuous_space_has_no_combinations() -> None:
    with pytest.raises(ValueError, match=r"optim\.lr"):
        Space((NAME, LR)).combinations()


def test_corners_are_all_choices_with_both_ends() -> None:
    space = Space((LR, choice("model.name", "tiny", "big")))
    assert list(space.corners(4)) == [
        {"optim.lr": 1e-4, "model.name": "tiny"},
        {"optim.lr": 1e-4, "model.name": "big"},
        {"optim.lr": 1, "model.name": "tiny"},
        {"optim.lr": 1, "model.name": "big"},
    ]


def test_corners_reach_what_depends_on_the_middle_of_a_range() -> None:
    depth = Parameter("depth", "randint", low=1, high=9)
    inner = choice("kind", "a", when=(Condition("depth", (5,)),))
    assert list(Space((depth, inner)).corners(10)) == [{"depth": 1}, {"depth": 9}, {"depth": 5, "kind": "a"}]


def test_too_many_corners_are_drawn_evenly_and_always_the_same() -> None:
    space = Space((*(choice(f"a{index}", *range(10)) for index in range(6)), LR))
    found = list(space.corners(200))
    assert len(found) == 200
    assert found == list(space.corners(200))
    for path in ("a0", "a5"):
        assert all(sum(chosen[path] == value for chosen in found) == 20 for value in range(10))
    pairs = {(chosen["a0"], chosen["a5"]) for chosen in islice(space.corners(2000), 2000)}
    assert len(pairs) == 100
