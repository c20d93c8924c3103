"""The table of `raycls bench CONFIG`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from raycls.quantities import plural, rate_text

__all__ = ["speed_lines"]


def speed_lines(facts: Mapping[str, Any], typed: Sequence[str]) -> list[str]:
    """`facts` as `raycls.launch.speed` has them, of the config and the overrides that were `typed`."""
    workers = facts["workers"]
    who = f"{plural(workers, 'worker')} on Ray" if workers else "this process, no Ray"
    threads = plural(facts["threads"], "thread")
    lines = [
        f"{facts['name']}: batch {facts['batch_size']}, {who}, {threads}{' each' if workers > 1 else ''}, "
        f"{facts['device']}, precision {facts['precision']}; {plural(facts['cpus'], 'CPU')} here",
        "",
        f"{'':<12}{'images/s':>12}{'min':>12}{'max':>12}",
    ]
    of_worker = "" if workers < 2 else f", one worker's {plural(facts['worker_batch_size'], 'image')}"
    why = f" ({facts['executor_why']})" if facts["executor_why"] else ""
    ahead = ", read ahead" if facts["ahead"] else ""
    about = {
        "fetch": "reading, one process",
        "decode": "one process",
        "augment": "operations and batching, one process",
        "sample": "the three above, one process",
        "transfer": f"to the device, normalised{of_worker}",
        "step": f"forward, backward, update{of_worker}",
        "together": f"as it trains: executor {facts['executor']}{ahead}{why}; data-wait {facts['data_wait']:.0%}",
        "dataloader": f"torch's DataLoader, {plural(facts['dataloader_processes'], 'process')}: the same files, "
        f"operations and steps{of_worker}",
    }
    for name, text in about.items():
        found = facts["rates"][name]
        if found is None:
            lines.append(f"{name:<12}{'-':>12}{'':>24}  the source has pixels")
        else:
            numbers = "".join(f"{rate_text(found[key]):>12}" for key in ("median", "min", "max"))
            lines.append(f"{name:<12}{numbers}  {text}")
    verdict = facts["verdict"]
    lines += ["", f"bound by {verdict['by']}: {verdict['text']}"]
    lines += [f"note: {facts['note']}"] if facts["note"] else []
    for change in verdict["changes"]:
        if change["typed"]:
            lines.append(f"  try  {_command(typed, change)}    # {change['why']}")
        else:
            lines.append(f"  try  {change['why']}")
    return lines


def _command(typed: Sequence[str], change: Mapping[str, str]) -> str:
    """What makes or measures a change: it takes the place of overrides for the same options."""
    paths = {word.partition("=")[0] for word in shlex.split(change["typed"])}
    kept = [typed[0], *(word for word in typed[1:] if word.partition("=")[0] not in paths)]
    return f"raycls {change['command']} {shlex.join(kept)} {change['typed']}"
