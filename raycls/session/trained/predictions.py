"""`predictions/WHAT-WEIGHTS.parquet` in the run folder: what an evaluation predicted, a row per sample in its order.

WHAT is the split (`test`), or `data-NAME-MARK` for other data, with a mark of its own for each place and way of reading
it. WEIGHTS is `best`, `last` or `step-N`, with `-TTA` behind it where several views of each sample were averaged, and
`-calibrated` where a temperature was applied: each of these is a file of its own.

| column | type | meaning |
|---|---|---|
| `key` | string | the name of the sample in the data, such as its path below the data folder |
| `path` | string | where it lies: the path of a file, or the place that a source names |
| `label` | dictionary of string | its class in the data |
| `predicted` | dictionary of string | the most probable class |
| `confidence` | double | the probability of `predicted` |
| `top_classes` | list of string | the most probable classes, the first one first: at most 5 |
| `top_probabilities` | list of double | their probabilities |
| `by_COLUMN` | string | a column of the manifest that the evaluation was asked for, one for each |
| `logits` | fixed size list of float, [C] | what the network said, in the order of the classes; not with `top` |

Probabilities are `softmax(logits / temperature)`. With several views `logits` are the logarithms of the averaged
probabilities. Where an image has any number of classes there are other columns instead of `label`, `predicted` and
`confidence`: `labels` and `predicted`, lists of string in the order of the classes, and probabilities are those of each
class by itself; the metadata has `thresholds`, `[C]`, from which on a class is predicted, instead of `temperature`.

The schema's metadata has the key `raycls`: JSON with `run`, `weights` (their name), `step` and `sha256`
as `Trained.provenance` has them, `split`, `data` (the path of other data, or null), `count`, `classes` (in the order of
`logits`), `tta` and `temperature` (1 where none was applied). Equal evaluations give equal bytes, on any number of
workers.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raycls.config.paths import expand
from raycls.config.sections.data import SourceConfig
from raycls.data.samples import text_of
from raycls.data.source import Split
from raycls.progress import counted
from raycls.run import strict_json
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.session.trained.answers import answers
from raycls.tasks.scores.probabilities import TOP, Probabilities, blocks_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FOLDER", "METADATA", "file_of", "metadata_of", "write_label_sets", "write_predictions"]

FOLDER = RunFolder.PREDICTIONS
METADATA = b"raycls"
"""The key of the metadata in the schema of the file."""
_MARK = 6
"""Hexadecimal digits: of a hundred data sets two have the same one with a chance of 1 in 3,400."""
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def file_of(
    split: str, weights: str, *, data: SourceConfig | None = None, tta: str = "off", calibrated: bool = False
) -> str:
    """The name of the file in the run folder. `data` is where other data comes from."""
    parts = [] if data is None else ["data", Path(data.path or data.name).stem, _mark(data)]
    parts += [] if data is not None and split == "all" else [split]
    parts += [weights or "model", *([tta] if tta != "off" else []), *(["calibrated"] if calibrated else [])]
    return f"{FOLDER}/{_ODD.sub('_', '-'.join(parts))}.parquet"


def _mark(data: SourceConfig) -> str:
    """Tells `a/test` from `b/test`, and the same place that is read otherwise."""
    path = data.path and (data.path if "://" in data.path else os.path.realpath(expand(data.path, where="--data")))
    told = json.dumps([data.name, path, data.args], sort_keys=True, default=str)
    return hashlib.sha256(told.encode("utf-8", "surrogateescape")).hexdigest()[:_MARK]


def write_predictions(
    store: Store,
    name: str,
    split: Split,
    probabilities: Probabilities,
    *,
    facts: Mapping[str, Any],
    about: Mapping[str, Sequence[str]],
    logits_too: bool,
) -> None:
    """Write the file; see the module. `facts` is its metadata, `about` columns of the manifest.

    CheckpointError where it cannot be written.
    """
    import pyarrow as pa

    names = _texts(split.classes)
    name_of = pa.dictionary(pa.int32(), pa.string())

    def told(block: slice) -> _Told:
        best, values = probabilities.top(block)
        indices = (pa.array(each.astype(np.int32)) for each in (split.labels[block], best[:, 0]))
        label, predicted = (pa.DictionaryArray.from_arrays(each, names) for each in indices)
        return {"label": label, "predicted": predicted, "confidence": values[:, 0]}, best, values

    own = [("label", name_of), ("predicted", name_of), ("confidence", pa.float64())]
    _write(store, name, split, probabilities.logits, own, told, facts=facts, about=about, logits_too=logits_too)


def write_label_sets(
    store: Store,
    name: str,
    split: Split,
    logits: np.ndarray,
    thresholds: np.ndarray,
    *,
    facts: Mapping[str, Any],
    about: Mapping[str, Sequence[str]],
    logits_too: bool,
) -> None:
    """As `write_predictions`, of images with any number of classes: `logits` are `[N, C]`, `thresholds` `[C]`."""
    import pyarrow as pa

    names = _texts(split.classes)
    sets = np.zeros((1, logits.shape[1]), bool) if split.sets is None else split.sets

    def told(block: slice) -> _Told:
        said = answers(logits[block], TOP, thresholds=thresholds)
        own = {"labels": _named(sets[split.labels[block]], names), "predicted": _named(said.labels, names)}
        return own, said.classes, said.top

    own = [(column, pa.list_(pa.string())) for column in ("labels", "predicted")]
    _write(store, name, split, logits, own, told, facts=facts, about=about, logits_too=logits_too)


def metadata_of(schema: pa.Schema) -> dict[str, Any]:
    """What the file says of itself, from its schema; empty where it is another program's."""
    return json.loads((schema.metadata or {}).get(METADATA, b"{}"))


_Told = tuple[dict[str, Any], np.ndarray, np.ndarray]
"""Of some rows: the columns of one kind of file, and the likeliest classes with their probabilities, `[n, k]`."""


def _write(
    store: Store,
    name: str,
    split: Split,
    logits: np.ndarray,
    own: Sequence[tuple[str, Any]],
    told: Callable[[slice], _Told],
    *,
    facts: Mapping[str, Any],
    about: Mapping[str, Sequence[str]],
    logits_too: bool,
) -> None:
    """The file with the fields `own` of its kind behind the path; `told` gives these for a block of rows."""
    import pyarrow as pa
    from pyarrow import parquet

    fields = [("key", pa.string()), ("path", pa.string()), *own]
    fields += [("top_classes", pa.list_(pa.string())), ("top_probabilities", pa.list_(pa.float64()))]
    fields += [(f"by_{column}", pa.string()) for column in about]
    fields += [("logits", pa.list_(pa.float32(), logits.shape[1]))] if logits_too else []
    metadata = {METADATA: strict_json.dumps({**facts, "classes": list(split.classes)}).encode()}
    schema, names, blocks = pa.schema(fields, metadata=metadata), _texts(split.classes), list(blocks_of(logits))
    with tempfile.TemporaryDirectory(prefix="raycls-predictions-") as folder:
        file = Path(folder) / "part.parquet"
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for block in counted(blocks, "writing predictions", len(blocks), "blocks"):
                rows = range(block.start, block.stop)
                columns, best, values = told(block)
                columns["key"] = _texts(split.key(row) for row in rows)
                columns["path"] = _texts(split.locate(row) for row in rows)
                ends = np.arange(0, best.size + 1, best.shape[1], dtype=np.int32)
                columns["top_classes"] = pa.ListArray.from_arrays(ends, names.take(pa.array(best.ravel())))
                columns["top_probabilities"] = pa.ListArray.from_arrays(ends, pa.array(values.ravel()))
                columns |= {f"by_{each}": _texts(of[row] for row in rows) for each, of in about.items()}
                if logits_too:
                    columns["logits"] = pa.FixedSizeListArray.from_arrays(logits[block].ravel(), logits.shape[1])
                writer.write_table(pa.table(columns, schema=schema))
        store.upload_file(file, name)


def _texts(values: Iterable[str]) -> pa.StringArray:
    import pyarrow as pa

    return pa.array([text_of(value) for value in values], pa.string())


def _named(there: Any, names: pa.StringArray) -> pa.ListArray:
    """The names of the classes in each row of `there` `[n, C] bool`."""
    import pyarrow as pa

    ends = np.concatenate([[0], there.sum(axis=1).cumsum()]).astype(np.int32)
    return pa.ListArray.from_arrays(ends, names.take(pa.array(np.nonzero(there)[1])))
