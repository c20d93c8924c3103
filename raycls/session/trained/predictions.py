"""`predictions/WHAT-WEIGHTS.parquet` in the run folder: what an evaluation predicted, a row per sample in its order.

WHAT is the split (`test`), or `data-NAME` for other data; WEIGHTS is `best`, `last` or `step-N`, with `-TTA` behind it
where several views of each sample were averaged.

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
probabilities. The schema's metadata has the key `raycls`: JSON with `run`, `weights` (their name), `step` and `sha256`
as `Trained.provenance` has them, `split`, `data` (the path of other data, or null), `count`, `classes` (in the order of
`logits`), `tta` and `temperature`. Equal evaluations give equal bytes, on any number of workers.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from raycls.data.source import Split
from raycls.progress import counted
from raycls.run import strict_json
from raycls.run.folder import RunFolder
from raycls.run.storage.store import Store
from raycls.tasks.scores.probabilities import Probabilities, blocks_of

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["FOLDER", "METADATA", "file_of", "metadata_of", "summary_of", "write_predictions"]

FOLDER = RunFolder.PREDICTIONS
METADATA = b"raycls"
"""The key of the metadata in the schema of the file."""
_ODD = re.compile(r"[^A-Za-z0-9._-]+")


def file_of(split: str, weights: str, *, data: str | None = None, tta: str = "off") -> str:
    """The name of the file in the run folder."""
    parts = [] if data is None else ["data", Path(data).stem]
    parts += [] if data is not None and split == "all" else [split]
    parts += [weights or "model", *([tta] if tta != "off" else [])]
    return f"{FOLDER}/{_ODD.sub('_', '-'.join(parts))}.parquet"


def summary_of(split: str, weights: str, *, data: str | None = None, tta: str = "off") -> str:
    """The name of the file beside it that holds the summary of the evaluation, as `raycls eval --json` prints it, with
    the `provenance` of its weights."""
    return file_of(split, weights, data=data, tta=tta).removesuffix(".parquet") + ".json"


def write_predictions(
    store: Store,
    name: str,
    split: Split,
    probabilities: Probabilities,
    *,
    facts: Mapping[str, Any],
    about: Mapping[str, Sequence[str]],
    logits: bool,
) -> None:
    """Write the file; see the module. `facts` is its metadata, `about` columns of the manifest.

    CheckpointError where it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    metadata = {METADATA: strict_json.dumps({**facts, "classes": list(split.classes)}).encode()}
    schema = _schema(pa, probabilities.size, list(about), logits).with_metadata(metadata)
    blocks = list(blocks_of(probabilities.logits))
    with tempfile.TemporaryDirectory(prefix="raycls-predictions-") as folder:
        file = Path(folder) / "part.parquet"
        with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
            for block in counted(blocks, "writing predictions", len(blocks), "blocks"):
                writer.write_table(_table(pa, schema, split, probabilities, block, about))
        store.upload_file(file, name)


def metadata_of(schema: pa.Schema) -> dict[str, Any]:
    """What the file says of itself, from its schema; empty where it is another program's."""
    return json.loads((schema.metadata or {}).get(METADATA, b"{}"))


def text_of(name: str) -> str:
    """A name as valid UTF-8: bytes of a file name that are none stand escaped."""
    return name.encode("utf-8", "backslashreplace").decode()


def _schema(pa: Any, size: int, columns: Sequence[str], logits: bool) -> Any:
    name = pa.dictionary(pa.int32(), pa.string())
    fields = [("key", pa.string()), ("path", pa.string()), ("label", name), ("predicted", name)]
    fields += [("confidence", pa.float64()), ("top_classes", pa.list_(pa.string()))]
    fields += [("top_probabilities", pa.list_(pa.float64()))]
    fields += [(f"by_{column}", pa.string()) for column in columns]
    return pa.schema(fields + ([("logits", pa.list_(pa.float32(), size))] if logits else []))


def _table(
    pa: Any, schema: Any, split: Split, probabilities: Probabilities, block: slice, about: Mapping[str, Sequence[str]]
) -> Any:
    rows = range(block.start, block.stop)
    names = pa.array([text_of(name) for name in split.classes], pa.string())
    best, values = probabilities.top(block)
    ends = np.arange(0, best.size + 1, best.shape[1], dtype=np.int32)

    def named(classes: np.ndarray) -> Any:
        return pa.DictionaryArray.from_arrays(pa.array(classes.astype(np.int32)), names)

    columns = {
        "key": pa.array([text_of(split.key(row)) for row in rows], pa.string()),
        "path": pa.array([text_of(split.locate(row)) for row in rows], pa.string()),
        "label": named(split.labels[block]),
        "predicted": named(best[:, 0]),
        "confidence": values[:, 0],
        "top_classes": pa.ListArray.from_arrays(ends, names.take(pa.array(best.ravel()))),
        "top_probabilities": pa.ListArray.from_arrays(ends, pa.array(values.ravel())),
        **{
            f"by_{name}": pa.array([text_of(column[row]) for row in rows], pa.string())
            for name, column in about.items()
        },
    }
    if "logits" in schema.names:
        columns["logits"] = pa.FixedSizeListArray.from_arrays(probabilities.logits[block].ravel(), probabilities.size)
    return pa.table(columns, schema=schema)
