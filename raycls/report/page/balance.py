"""How many images of each class each split has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from raycls.quantities import plural
from raycls.run.folder import RunFolder

__all__ = ["Balance", "balance"]


@dataclass(frozen=True)
class Balance:
    """Images per class. Of a run that was started before splits were written down there is none."""

    splits: tuple[str, ...]
    counts: dict[str, dict[str, int]]
    """{class: {split: images}}"""

    @property
    def most(self) -> int:
        """The images of the largest class of any split; at least 1."""
        return max((count for counts in self.counts.values() for count in counts.values()), default=1)

    @property
    def words(self) -> str:
        """How even they are: for each split the largest class over the smallest one, or the classes without images."""
        told: dict[str, list[str]] = {}
        for split in self.splits:
            found = [counts.get(split, 0) for counts in self.counts.values()]
            empty = found.count(0)
            if empty:
                what = f"{plural(empty, 'class')} of {len(found):,} without images"
            elif min(found) == max(found):
                what = "every class has as many images"
            else:
                what = f"the largest class has {max(found) / min(found):.3g} times the images of the smallest"
            told.setdefault(what, []).append(split)
        return "; ".join(f"{', '.join(splits)}: {what}" for what, splits in told.items())


def balance(folder: RunFolder, classes: Sequence[str]) -> Balance | None:
    """Read it from the splits that the run wrote down."""
    data = folder.store.find_bytes(RunFolder.SPLITS)
    if data is None or not classes:
        return None
    import pyarrow as pa
    import pyarrow.parquet as parquet

    table = parquet.read_table(pa.BufferReader(data), columns=["split", "class"])
    grouped = table.group_by(["split", "class"]).aggregate([([], "count_all")])
    counts: dict[str, dict[str, int]] = {name: {} for name in classes}
    splits: dict[str, None] = {}
    several = "sets" in json.loads((table.schema.metadata or {}).get(b"raycls", b"{}"))
    for row in grouped.to_pylist():
        name = row["class"].decode("utf-8", "surrogateescape") if isinstance(row["class"], bytes) else row["class"]
        splits[row["split"]] = None
        for each in json.loads(name) if several else [name]:
            if each in counts:
                counts[each][row["split"]] = counts[each].get(row["split"], 0) + row["count_all"]
    ordered = [name for name in ("train", "val", "test") if name in splits]
    return Balance(tuple(ordered), counts)
