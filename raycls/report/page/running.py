"""How a run ran: its speed, its restarts, where it ran, and what its config sets."""

from __future__ import annotations

import datetime
import statistics
from collections.abc import Sequence
from typing import Any

from raycls.report.axis import number
from raycls.report.runs import Start, Told
from raycls.report.series import Record

__all__ = ["Row", "environment", "moment", "resumed", "speed", "start_rows"]

Row = tuple[str, str]


def speed(records: Sequence[Record], told: Told) -> list[Row]:
    """Images per second and the wait for data over the whole training, weighted by its steps, and how long it took."""
    train = [record for record in records if record.get("kind") == "train"]
    rates = [float(record["images_per_second"]) for record in train if record.get("images_per_second")]
    waits = [float(record["data_wait"]) for record in train if "data_wait" in record]
    rows: list[Row] = []
    if rates:
        spread = f"{number(min(rates))} to {number(max(rates))}" if len(rates) > 1 else "one measurement"
        rows.append(("images per second", f"{number(statistics.median(rates))} (median; {spread})"))
    if waits:
        share = statistics.fmean(waits)
        hint = (
            "; data.prefetch and more CPUs for decoding help" if share > 0.3 else ""
        )  # a third of the time is worth it
        rows.append(("waiting for data", f"{100 * share:.0f} % of the time{hint}"))
    seconds = (told.result or {}).get("seconds")
    if isinstance(seconds, int | float):
        rows.append(("training took", f"{clock(seconds)}, evaluations included"))
    return rows


def start_rows(starts: Sequence[Start]) -> list[dict[str, str]]:
    """The attempts as a table has them."""
    return [
        {
            "number": str(start.attempt.attempt),
            "began": moment(start.attempt.time),
            "lasted": clock(max(0.0, start.ended - start.attempt.time)) if start.ended else "-",
            "from": f"{start.attempt.step:,}",
            "to": f"{start.reached:,}",
            "repeated": f"{start.repeated:,}" if start.repeated else "none",
            "workers": f"{start.attempt.workers} x {start.attempt.threads}",
            "rest": ", ".join(f"{key} {value}" for key, value in start.attempt.rest.items() if isinstance(value, str)),
        }
        for start in starts
    ]


def resumed(told: Told) -> list[tuple[float, str]]:
    """(epoch, text) of each resume, for the charts."""
    per_epoch = told.plan.get("steps_per_epoch") or 0
    return [
        (start.attempt.step / per_epoch, f"attempt {start.attempt.attempt} resumed from step {start.attempt.step}")
        for start in told.starts[1:]
        if per_epoch
    ]


def environment(told: Told) -> list[Row]:
    """Where the run ran, and with which versions."""
    found = told.environment
    versions: dict[str, Any] = found.get("versions") or {}
    rows = [
        ("command", " ".join(map(str, found.get("command") or ())) or "not from the command line"),
        ("started", moment(found["time"]) if "time" in found else "not known"),
        ("seed", str(found.get("seed", "not known"))),
        ("raycls", str(found.get("raycls", "not known"))),
        ("Python", str(found.get("python", "not known"))),
        ("versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("platform", str(found.get("platform", "not known"))),
        ("git commit", str(found.get("git") or "no repository")),
        ("data fingerprint", str((found.get("data") or {}).get("fingerprint", "not known"))),
        ("weights sha256", str(told.model.get("sha256", "no model yet"))),
    ]
    plan = {name: told.plan.get(name) for name in ("device", "precision", "reduction", "batch_size", "micro_batches")}
    return [*rows, ("arithmetic", ", ".join(f"{name} {value}" for name, value in plan.items() if value is not None))]


def moment(time: float) -> str:
    """A Unix time as a date and a time of day, UTC."""
    return datetime.datetime.fromtimestamp(time, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def clock(seconds: float) -> str:
    """`0.4 s`, `2:05`, `1:02:05`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02} min"
