from __future__ import annotations

from raycls.config.describe import allowed, meant, options, shown
from raycls.config.sections.optim import OptimConfig
from raycls.config.sections.run import Run
from raycls.config.sections.train import TrainConfig


def test_every_option_can_be_described() -> None:
    for path in options():
        valid, _ = allowed(tuple(path.split(".")))
        assert valid, path
        assert "any value" not in valid, path


def test_descriptions() -> None:
    assert allowed(("scale", "max_failures"))[0] == "an integer, at least 0"
    assert allowed(("scale", "workers"))[0] == (
        "an integer, at least 0 or a list of 2 values, each an integer, at least 1"
    )
    assert allowed(("optim", "lr"))[0] == "a number, greater than 0"
    assert allowed(("optim", "weight_decay_on")) == ("all or weights", ("all", "weights"))
    assert allowed(("train", "micro_batches")) == ("an integer, at least 1 or auto", ("auto",))
    assert allowed(("train", "duration"))[0].startswith("a duration such as 90ep")
    assert allowed(("augment", "std"), 1)[0] == "a number, greater than 0"
    assert allowed(("augment", "std"))[0] == "a list, each item a number, greater than 0"
    assert allowed(("data", "spacing"))[0].startswith("a list of 3 values, each a number, greater than 0")
    assert allowed((), None, {"type": "boolean"})[0] == "true or false"
    assert allowed(("loss",))[0] == "a section with name, args, balance, balance_beta, balance_tau"


def test_where_a_misplaced_key_belongs() -> None:
    assert meant("lrr", OptimConfig, "optim.") == ("optim.lr",)
    assert meant("lr", TrainConfig, "train.") == ("optim.lr",)
    assert meant("seed", OptimConfig, "optim.") == ("run.seed", "data.split.seed", "search.seed")
    assert meant("optimizer", Run, "") == ("optim",)
    assert meant("epochs", TrainConfig, "train.") == ("train.duration",)
    for key, section, prefix in (("precision", TrainConfig, "train."), ("mixed_precision", TrainConfig, "train.")):
        assert meant(key, section, prefix) == meant(key, Run, "") == ("train.amp",)
    assert meant("qqqq", TrainConfig, "train.") == ()


def test_values_are_shown_with_their_kind_and_short() -> None:
    assert shown("64") == "'64' (string)"
    assert shown(64) == "64 (integer)"
    assert shown(True) == "true (boolean)"
    assert shown(None) == "null"
    assert len(shown("x" * 1000)) < 80
