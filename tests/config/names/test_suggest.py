from __future__ import annotations

import pytest

from raycls.config.names.suggest import suggest


@pytest.mark.parametrize(
    ("word", "choices", "meant"),
    [
        ("lrr", ["lr", "momentum"], "lr"),
        ("optimizer", ["optim", "schedule"], "optim"),
        ("Batch-Size", ["batch_size", "image_size"], "batch_size"),
        ("cos", ["cosine", "step"], "cosine"),
        ("f1", ["f1_macro", "f1_weighted", "loss"], None),
        ("zzz", ["lr", "momentum"], None),
        ("", ["lr"], None),
    ],
)
def test_the_nearest_word_or_none(word: str, choices: list[str], meant: str | None) -> None:
    assert suggest(word, choices) == meant
