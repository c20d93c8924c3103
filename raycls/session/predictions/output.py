"""Predictions as Parquet, CSV or JSON Lines: one row per image, in the order of the images.

The same rows give the same bytes. Texts that are no Unicode (bytes of a file name) are written as `\\udcff`.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raycls.data.samples import text_of
from raycls.errors import ConfigError
from raycls.run import strict_json
from raycls.session.predictions.compute import Part, Work
from raycls.session.predictions.masks import mask_row
from raycls.tasks.build import takes_volumes

__all__ = ["SUFFIXES", "classes_in", "form_of", "json_lines", "rows_of", "write_file"]

_SPREADSHEET = ("=", "+", "-", "@", "'", "\t", "\r")
"""What a spreadsheet takes for the start of a formula, and what says that it is none."""
_ONE = ("run", "weights", "step", "sha256", "temperature")
_SEVERAL = ("run", "weights", "step", "sha256", "thresholds")
_MASKS = ("run", "weights", "step", "sha256")
SUFFIXES = (".parquet", ".csv", ".jsonl")
_DIVIDER = ";"
"""Between the labels of an image in one cell; the columns `has CLASS` tell classes apart whose names have one."""

Row = dict[str, Any]


def form_of(file: str) -> str:
    """The suffix of `file`, without the options of an address. ConfigError where it is no form of predictions."""
    name = file.partition("?")[0] if "://" in file else file
    found = next((suffix for suffix in SUFFIXES if name.lower().endswith(suffix)), None)
    if found is None:
        raise ConfigError(
            "predictions cannot be written in this form",
            where=f"--out {name}",
            found=Path(name).suffix or "no suffix",
            valid=", ".join(SUFFIXES),
        )
    return found


def rows_of(work: Work, part: Part) -> Iterator[Row]:
    """The rows of a part as plain values; what an image without an answer lacks is None."""
    classes = [text_of(name) for name in work.trained.classes]
    start = part.number * work.part_rows
    facts = work.facts
    provenance = {name: facts[name] for name in _provenance(work)}
    if part.masks is not None:
        names = work.masks or []
        for row, error in enumerate(part.errors):
            made = mask_row(part.masks, row, names[start + row], volumes="ml" in _counted(work))
            path = text_of(work.split.keys[start + row])
            yield {"path": path, **made, "error": error and text_of(error), **provenance}
        return
    for row, error in enumerate(part.errors):
        positions, top = part.classes[row].tolist(), part.top[row].tolist()
        yield {
            "path": text_of(work.split.keys[start + row]),
            **(dict.fromkeys(_said(work)) if error else _answer(work, part, row, classes)),
            "top_classes": None if error else [classes[position] for position in positions],
            "top_probabilities": None if error else top,
            **({"probabilities": None if error else part.probabilities[row].tolist()} if work.every else {}),
            "error": error and text_of(error),
            **provenance,
        }


def classes_in(work: Work, row: Row) -> Sequence[str]:
    """The classes that a row says its image has; of a mask those that occur, but for the first one."""
    if work.masks is not None:
        pairs = zip(work.trained.classes, row[_counted(work)[0]], strict=True)
        return [text_of(name) for name, count in list(pairs)[1:] if count]
    return row["labels"] if work.thresholds else [row["predicted"]]


def _counted(work: Work) -> Sequence[str]:
    """What the row of a mask has for each class."""
    return ("voxels", "ml") if takes_volumes(work.trained.run.task) else ("pixels",)


def _provenance(work: Work) -> Sequence[str]:
    if work.masks is not None:
        return _MASKS
    return _ONE if work.thresholds is None else _SEVERAL


def _said(work: Work) -> Sequence[str]:
    """The columns of the answer itself."""
    return ("predicted", "confidence") if work.thresholds is None else ("labels",)


def _answer(work: Work, part: Part, row: int, classes: Sequence[str]) -> Row:
    if work.thresholds is not None:
        return {"labels": [classes[place] for place in np.flatnonzero(part.labels[row]).tolist()]}
    return {"predicted": classes[int(part.classes[row, 0])], "confidence": float(part.top[row, 0])}


def write_file(file: Path, form: str, work: Work, parts: Iterable[Part]) -> None:
    """Write the rows of `parts`, which come in their order, to the local `file`."""
    _WRITERS[form](file, work, parts)


def _write_jsonl(file: Path, work: Work, parts: Iterable[Part]) -> None:
    with open(file, "w", encoding="utf-8", newline="\n") as stream:
        for part in parts:
            stream.writelines(f"{line}\n" for line in json_lines(work, part))


def json_lines(work: Work, part: Part) -> Iterator[str]:
    """Each row as one object of strict JSON; with all probabilities, these by the names of their classes."""
    names = [text_of(name) for name in work.trained.classes]
    for row in rows_of(work, part):
        for column in ("probabilities", *_counted(work)):
            if row.get(column) is not None:
                row[column] = dict(zip(names, row[column], strict=True))
        yield strict_json.dumps(row)


def _write_csv(file: Path, work: Work, parts: Iterable[Part]) -> None:
    names = [text_of(name) for name in work.trained.classes]
    if work.masks is not None:
        _write_masks_csv(file, work, parts, names)
        return
    kept = min(work.top, len(names))
    ranks = [column for rank in range(1, kept + 1) for column in (f"class_{rank}", f"probability_{rank}")]
    every = [f"probability of {name}" for name in names] if work.every else []
    has = [] if work.thresholds is None else [f"has {name}" for name in names]
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["path", *_said(work), *ranks, *has, *every, "error", *_provenance(work)])
        for part in parts:
            for index, row in enumerate(rows_of(work, part)):
                there = [None] * len(has) if row["error"] else part.labels[index].astype(int).tolist()
                writer.writerow([_cell(value) for value in _flat(work, row, kept, there, len(every))])


def _write_masks_csv(file: Path, work: Work, parts: Iterable[Part], names: Sequence[str]) -> None:
    counted = _counted(work)
    columns = [f"{column} of {name}" for column in counted for name in names]
    with open(file, "w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["path", "mask", *columns, "outside", "error", *_provenance(work)])
        for row in (row for part in parts for row in rows_of(work, part)):
            each = [value for column in counted for value in row[column] or [None] * len(names)]
            ends = (row[name] for name in ("outside", "error", *_provenance(work)))
            writer.writerow([_cell(value) for value in (row["path"], row["mask"], *each, *ends)])


def _flat(work: Work, row: Row, kept: int, has: list[Any], every: int) -> list[Any]:
    pairs = zip(row["top_classes"] or [None] * kept, row["top_probabilities"] or [None] * kept, strict=True)
    ranked = [value for pair in pairs for value in pair]
    others = (row["probabilities"] or [None] * every) if every else []
    said = [_DIVIDER.join(value) if isinstance(value := row[name], list) else value for name in _said(work)]
    return [row["path"], *said, *ranked, *has, *others, row["error"], *(row[name] for name in _provenance(work))]


def _cell(value: Any) -> Any:
    """A text that a spreadsheet would run as a formula gets a `'` before it, and so does one that has it already."""
    return f"'{value}" if isinstance(value, str) and value.startswith(_SPREADSHEET) else value


def _write_parquet(file: Path, work: Work, parts: Iterable[Part]) -> None:
    import pyarrow as pa
    from pyarrow import parquet

    schema = _schema(work)
    with parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for part in parts:
            rows = list(rows_of(work, part))
            columns: list[Any] = [pa.array([row[field.name] for row in rows], field.type) for field in schema]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(rows))


def _schema(work: Work) -> Any:
    import pyarrow as pa

    text = pa.string()
    lists = {name: pa.list_(pa.float64() if name == "ml" else pa.int64()) for name in _counted(work)}
    masks = {"mask": text, **lists, "outside": pa.int64()}
    answers: Mapping[str, Any] = {
        **({"predicted": text, "confidence": pa.float64()} if work.thresholds is None else {"labels": pa.list_(text)}),
        "top_classes": pa.list_(text),
        "top_probabilities": pa.list_(pa.float64()),
        **({"probabilities": pa.list_(pa.float64())} if work.every else {}),
    }
    provenance = {"temperature": pa.float64(), "step": pa.int64()}
    fields: Mapping[str, Any] = {
        "path": text,
        **(answers if work.masks is None else masks),
        "error": text,
        **{name: provenance.get(name, text) for name in _provenance(work)},
    }
    facts = {**work.facts, "classes": [text_of(name) for name in work.trained.classes]}
    return pa.schema(list(fields.items()), metadata={"raycls": strict_json.dumps(facts)})


_Writer = Callable[[Path, Work, Iterable[Part]], None]
_WRITERS: Mapping[str, _Writer] = {".parquet": _write_parquet, ".csv": _write_csv, ".jsonl": _write_jsonl}
