"""Which images a run did without, and which an evaluation could not score: damaged, gone, changed, or ignored."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from raycls.quantities import plural
from raycls.report.runs import Told
from raycls.run.folder import RunFolder
from raycls.run.ledgers import bad_images

__all__ = ["left_out"]

_SHOWN = 20
_REASONS = 5
_CHANGES = {
    "gone": "of the evaluated split, gone since the run was started and not scored",
    "ignored": "of the evaluated split, left out by data.source.args.ignore and not scored",
    "changed": "of the evaluated split, with other content than when the run was started and not scored",
    "relabelled": "of the evaluated split, of another class than when the run was started and not scored",
    "new": "added to the data since the run was started, not scored",
}


def left_out(told: Told, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """`text` and `names` of each group of images; nothing where every image counted."""
    found: list[dict[str, Any]] = []
    args: Mapping[str, Any] = told.config.data.source.args
    patterns = args.get("ignore") or ()
    patterns = [patterns] if isinstance(patterns, str) else list(patterns)
    patterns += [f"those in {args['ignore_file']}"] if args.get("ignore_file") else []
    if patterns:
        found.append({"text": "Left out of the data by data.source.args.ignore:", "names": patterns[:_SHOWN]})
    ids = sorted({row for start in told.starts for row in start.attempt.rest.get("left_out") or ()})
    if ids:
        what = f"{plural(len(ids), 'training image')} left out since a resume: damaged, gone, or ignored."
        found.append({"text": what, "names": _names(told.folder, ids[:_SHOWN])})
    found += _bad_images(told.folder)
    evaluated = summary.get("bad_images") or {}
    if evaluated.get("count"):
        text = f"{plural(evaluated['count'], 'bad image')} of the evaluated split, skipped and not counted:"
        found.append({"text": text, "names": list(evaluated["first"])})
    changes: Mapping[str, Any] = summary.get("split_changes") or {}
    for what, text in _CHANGES.items():
        each = changes.get(what) or {}
        if each.get("count"):
            found.append({"text": f"{plural(each['count'], 'image')} {text}:", "names": list(each["first"])})
    if summary.get("not_finite"):
        text = f"The network gave no finite numbers for {plural(summary['not_finite'], 'image')}."
        found.append({"text": text, "names": []})
    return found


def _bad_images(folder: RunFolder) -> list[dict[str, Any]]:
    """The files that the run skipped, a group for each split, counted by reason; the first ones are named."""
    lines = bad_images.read(folder)
    found: list[dict[str, Any]] = []
    for split in dict.fromkeys(line["split"] for line in lines):
        own = [line for line in lines if line["split"] == split]
        reasons = Counter(line["reason"] for line in own).most_common()
        told = "; ".join(f"{count:,} {reason}" for reason, count in reasons[:_REASONS])
        told += f"; and {plural(len(reasons) - _REASONS, 'other reason')}" if len(reasons) > _REASONS else ""
        text = f"{plural(len(own), 'bad image')} of the split {split} skipped ({bad_images.NAME}): {told}."
        found.append({"text": text, "names": [f"{line['path']}: {line['reason']}" for line in own[:_SHOWN]]})
    return found


def _names(folder: RunFolder, ids: list[int]) -> list[str]:
    """Keys of training samples by their ids, from the splits that the run wrote down."""
    data = folder.store.find_bytes(RunFolder.SPLITS)
    if data is None:
        return [f"sample {row}" for row in ids]
    import pyarrow as pa
    from pyarrow import compute, parquet

    table = parquet.read_table(pa.BufferReader(data), columns=["split", "key"])
    keys = table["key"].filter(compute.equal(table["split"].cast(pa.string()), "train"))  # pyright: ignore[reportAttributeAccessIssue]
    found = [keys[row].as_py() for row in ids if row < len(keys)]
    return [key.decode("utf-8", "backslashreplace") if isinstance(key, bytes) else key for key in found]
