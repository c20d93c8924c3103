"""What a summary says of the views and of the file of its predictions, whatever an image may be, and that file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from raycls.data.source import Split
from raycls.errors import CheckpointError
from raycls.progress import progress
from raycls.session.scoring.options import Scoring, unwritten
from raycls.session.scoring.views import VIEWS

__all__ = ["written"]


def written(scoring: Scoring, split: Split, write: Callable[..., None], **own: Any) -> dict[str, Any]:
    """`tta`, and `predictions`, the name of the file, or why there is none; each where it was asked for.

    `write` makes the file of `facts` (its metadata, `own` among them), of `about`, the columns of the manifest, and
    `logits_too`.
    """
    found: dict[str, Any] = {}
    if scoring.tta != "off":
        found["tta"] = {"name": scoring.tta, "views": [view.name for view in VIEWS[scoring.tta]]}
    if scoring.predictions == "off":
        return found
    progress("writing predictions")
    facts = {
        **dict(scoring.provenance),
        "split": split.name,
        "data": scoring.data,
        "count": len(split),
        "tta": scoring.tta,
        **own,
    }
    about = {column: split.about[column] for column in scoring.by}
    try:
        write(facts=facts, about=about, logits_too=scoring.predictions == "full")
    except CheckpointError as error:
        return found | unwritten(error)
    return {**found, "predictions": scoring.file}
