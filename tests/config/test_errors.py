from __future__ import annotations

import pickle

from raycls.config.errors import ConfigProblemsError, Place, Problem, dotted
from raycls.errors import ConfigError, to_json

LR = Problem(Place("a.yaml", 4), "optim.lr", "out of range", "-1", "greater than 0", "write 0.1")
SYNTAX = Problem(Place("a.yaml", 7), "", "not valid YAML")


def test_problems_survive_pickling() -> None:
    error = ConfigProblemsError("a.yaml", [LR, SYNTAX])
    back = pickle.loads(pickle.dumps(error))
    assert isinstance(back, ConfigProblemsError)
    assert isinstance(back, ConfigError)
    assert back.problems == (LR, SYNTAX)
    assert str(back) == str(error)
    assert back.exit_code == 2


def test_one_problem_reads_like_any_error() -> None:
    assert str(ConfigProblemsError("a.yaml", [LR])) == (
        "optim.lr: out of range\n  where: a.yaml:4\n  found: -1\n  valid: greater than 0\n  fix:   write 0.1"
    )


def test_several_problems_are_counted_and_each_has_its_place() -> None:
    lines = str(ConfigProblemsError("a.yaml", [LR, SYNTAX])).splitlines()
    assert lines[0] == "a.yaml: 2 errors"
    assert lines[1] == "  a.yaml:4  optim.lr: out of range"
    assert lines[-1] == "  a.yaml:7  not valid YAML"


def test_the_text_of_all_problems_goes_into_json() -> None:
    assert "a.yaml:7" in str(to_json(ConfigProblemsError("a.yaml", [LR, SYNTAX]))["what"])


def test_dotted_path() -> None:
    assert dotted(("augment", "train", 2)) == "augment.train[2]"
    assert dotted(()) == ""
