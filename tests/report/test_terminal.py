"""Curves in a terminal, compared with drawings by hand."""

from __future__ import annotations

from raycls.report.series import Line, Panel
from raycls.report.terminal import draw

_RISING = Panel("loss", "loss", (Line("train", "train", ((0.0, 0.0), (10.0, 10.0))),))


def test_a_line_without_braille() -> None:
    assert draw(_RISING, width=20, height=5, colour=False, braille=False) == [
        "loss  .. train",
        "      10 |        ..",
        "     7.5 |      ..",
        "       5 |    ..",
        "     2.5 |  ..",
        "       0 |..",
        "         +----------",
        "          0 epoch 10",
    ]


def test_a_line_of_braille_dots_is_four_times_as_fine() -> None:
    lines = draw(_RISING, width=20, height=5, colour=False, braille=True)
    assert lines[0] == "loss  ⠒⠒ train"
    drawn = lines[1][10:]
    dots = [
        (column * 2 + side, row)
        for column, char in enumerate(drawn)
        for side in (0, 1)
        for row in range(4)
        if char != " " and ord(char) - 0x2800 & ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))[side][row]
    ]
    assert (19, 0) in dots, lines  # the last point is in the upper right corner
    assert min(x for x, _ in dots) >= 15  # and the uppermost of five rows holds the last fifth


def test_evaluations_are_marks_and_colours_are_optional() -> None:
    panel = Panel("top1", "accuracy", (Line("validation", "val", ((1.0, 0.2), (2.0, 0.8)), marked=True),), share=True)
    plain = draw(panel, width=30, height=4, colour=False, braille=True)
    assert "".join(plain).count("●") == 3  # the key and both points
    assert "\x1b" not in "".join(plain)
    assert plain[1].startswith("    80 % │")
    coloured = draw(panel, width=30, height=4, colour=True, braille=True)
    assert "".join(coloured).count("\x1b[33m●") == 3
    assert all(line.count("\x1b[0m") == line.count("\x1b[33m") for line in coloured)


def test_lines_of_several_runs_are_told_apart_without_colour() -> None:
    lines = tuple(
        Line(f"run {index}", f"run{index}", tuple((float(x), float(x * (index + 1))) for x in range(60)))
        for index in range(2)
    )
    for braille, marks in ((True, "●○"), (False, "ox")):
        drawn = draw(Panel("loss", "loss", lines), width=80, height=12, colour=False, braille=braille)
        assert drawn[0] == f"loss  {marks[0]} run 0  {marks[1]} run 1"
        chart = [line[10:] for line in drawn[1:-2]]
        highest = {mark: next(row for row, line in enumerate(chart) if mark in line) for mark in marks}
        assert highest[marks[1]] < highest[marks[0]]  # the second run rises twice as high
        for mark in marks:
            assert 4 <= sum(line.count(mark) for line in chart) <= 70 / 8 + 1  # the line itself is dots


def test_nothing_finite_is_told() -> None:
    panel = Panel("loss", "loss", (Line("train", "train", (), left_out=3),))
    assert draw(panel, width=60, height=4, colour=False, braille=True) == ["loss  (3 not finite, not drawn)"]
