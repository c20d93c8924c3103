"""A run folder that ended before its first step: as the training leaves it, with weights that are given or random."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from torch import nn

from raycls.config.load import load_text
from raycls.models import zoo
from raycls.run.folder import RunFolder
from raycls.run.model_file import write_model
from raycls.session.plan_file import write_plan
from raycls.session.prepare import prepare
from raycls.workdir import set_workdir

__all__ = ["make_untrained"]


def make_untrained(home: Path, text: str, change: Callable[[nn.Module], None] = lambda model: None) -> Path:
    """The folder of the run that the config `text` describes, in the working directory `home`. `change` alters the
    network before it is written."""
    before = os.getcwd()
    os.chdir(home)
    try:
        set_workdir(str(home))
        prepared = prepare(load_text(text, "untrained.yaml").run, new=False, command=(), say=lambda line: None)
        run, folder, classes = prepared.run, prepared.folder, prepared.dataset.classes
        write_plan(folder, prepared.plan, None)
        model = zoo.build(run.model, len(classes), run.run.seed, load=False)
        change(model)
        write_model(
            folder,
            model.state_dict(),
            classes=classes,
            preprocessing={"image_size": run.data.image_size},
            config=run.model.model_dump(mode="json"),
            weights={"name": "last", "step": 0, "reason": "none was trained"},
        )
        return Path(RunFolder(folder.uri).uri)
    finally:
        os.chdir(before)
