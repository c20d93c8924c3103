from __future__ import annotations

from raycls.config.errors import Place
from raycls.config.space.conditions import condition_problems, in_order
from raycls.config.space.space import Condition, Parameter
from raycls.config.space.text import Places


def parameter(path: str, *when: str, values: tuple[int, ...] = (1, 2)) -> Parameter:
    return Parameter(path, "choice", values, when=tuple(Condition(other, (1,)) for other in when))


def problems(*parameters: Parameter) -> list[tuple[str, str]]:
    paths = [each.path for each in parameters]
    return [(each.path, each.what) for each in condition_problems(parameters, paths, Places({}, Place("x")))]


def test_each_comes_after_what_its_conditions_name() -> None:
    written = [parameter("d", "b", "c"), parameter("c", "a"), parameter("b"), parameter("a")]
    assert [each.path for each in in_order(written)] == ["b", "a", "c", "d"]
    assert not problems(*written)


def test_without_conditions_the_written_order_stays() -> None:
    assert [each.path for each in in_order([parameter("z"), parameter("a")])] == ["z", "a"]


def test_a_circle_is_told_once_with_its_members() -> None:
    found = problems(parameter("x", "a"), parameter("a", "b"), parameter("b", "c"), parameter("c", "a"))
    ((path, what),) = found
    assert path == "search.space.a.when" and what.endswith(": a -> b -> c -> a")


def test_a_path_that_depends_on_itself() -> None:
    assert problems(parameter("a", "a"))[-1][1].endswith(": a -> a")


def test_a_condition_on_a_continuous_range() -> None:
    found = problems(Parameter("lr", "uniform", low=0, high=1), parameter("a", "lr"))
    ((path, what),) = found
    assert path == "search.space.a.when.lr" and "lr has a continuous range" in what


def test_a_value_that_is_never_taken_and_a_path_that_is_not_there() -> None:
    found = problems(parameter("a", values=(2, 3)), parameter("b", "a", "other"))
    assert [path for path, _ in found] == ["search.space.b.when.a", "search.space.b.when.other"]
    assert found[0][1].startswith("a ")


def test_a_path_that_could_not_be_read_is_not_missing() -> None:
    assert not condition_problems([parameter("b", "a")], ["a", "b"], Places({}, Place("x")))
