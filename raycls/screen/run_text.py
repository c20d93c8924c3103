"""The words and numbers of a progress line: what a record, a header and an ending look like in print."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from raycls.config.names.metrics import CLASSIFICATION, Metric
from raycls.config.write import word
from raycls.quantities import bound_by, first_names, plural

if TYPE_CHECKING:
    from raycls.run.ledgers.sample_ledger import LedgerReport
    from raycls.run.outcome import Outcome

__all__ = [
    "STOPPING",
    "Record",
    "clock_text",
    "ending_lines",
    "epoch_text",
    "evaluation_text",
    "header_lines",
    "join",
    "ledger_lines",
    "number_text",
    "place",
    "speed_text",
    "train_text",
    "value_text",
]

Record = Mapping[str, Any]

STOPPING = "stopping: this step is finished, an evaluation left, and a checkpoint written; a second signal ends at once"
"""The answer to the first SIGINT or SIGTERM."""


def header_lines(info: Record) -> list[str]:
    """What the run is, in at most eight lines, and those about its first weights."""
    lines = [f"run        {info['folder']}"] if "folder" in info else []
    splits = info.get("splits") or {}
    data = [str(info["source"])] if "source" in info else []
    data += [f"{info['classes']} classes"] if info.get("classes") else []
    left_out = info.get("left_out") or {}
    out = {name: f" ({count} left out)" for name, count in left_out.items()}
    if info.get("cut_from_train"):
        out["val"] = f" (cut from its train by data.split){out.get('val', '')}"
    same = [name for name in splits if name != "train"] if info.get("overfit") else []
    data += [f"{count} {name}{out.get(name, '')}" for name, count in splits.items() if name not in same]
    data += [f"the same images as {' and '.join(same)} (train.overfit)"] if same else []
    model = [str(info["model"])] if "model" in info else []
    model += [f"{number_text(info['parameters'])} parameters"] if "parameters" in info else []
    lines += [f"data       {', '.join(data)}"] if data else []
    lines += [f"model      {', '.join(model)}"] if model else []
    lines += [f"{'' if number else 'weights':<11}{text}" for number, text in enumerate(info.get("weights", ()))]
    lines += [f"workers    {_workers(info)}"] if "workers" in info else []
    arithmetic = [f"{name} {info[name]}" for name in ("precision", "reduction") if name in info]
    if "batch_size" in info:
        parts = info.get("micro_batches")
        arithmetic.append(f"batch {info['batch_size']}" + (f" in {plural(parts, 'micro-batch')}" if parts else ""))
    lines += [f"arithmetic {', '.join(arithmetic)}"] if arithmetic else []
    if "total_steps" in info:
        steps = f"{info['total_steps']}"
        if info.get("steps_per_epoch"):
            steps += f", {info['steps_per_epoch']} per epoch"
        if info.get("start_step"):
            steps += f"; resumed at step {info['start_step']}"
        lines.append(f"steps      {steps}")
    lines += [f"Ray job    {info['dashboard']}"] if info.get("dashboard") else []
    return lines


def ending_lines(outcome: Outcome, info: Record) -> list[str]:
    """How the run ended and what to type next, in at most seven lines."""
    words = {
        "done": "done",
        "stopped": "stopped after a checkpoint" if outcome.step else "stopped before the first step",
        "early": "stopped early: no more improvement",
        "budget": "stopped: train.budget is used up",
        "already": "already done, nothing was trained",
    }.get(outcome.state, outcome.state)
    done = f"{plural(outcome.epochs, 'epoch')}, {plural(outcome.step, 'step')}"
    lines = [f"{words}: {done}, {clock_text(outcome.seconds)} in this start"]
    if outcome.kept:
        lines.append(f"kept       {_kept_text(outcome, outcome.kept, info)}")
    elif outcome.best:
        best = outcome.best
        lines.append(f"best       {_value_text(best, best, info)} at step {best.get('step')}")
    if outcome.final:
        metric = (outcome.best or {}).get("metric", "")
        lines.append(f"last       {evaluation_text(outcome.final, metric, info).removeprefix('| ')}")
    lines.append(f"run folder {outcome.folder}")
    folder = word(outcome.folder)
    typed = [part for part in info.get("command") or () if part != "--new"]  # which would start anew once more
    command = shlex.join(typed) if typed else f"raycls train {folder}/config.yaml"
    if outcome.state == "stopped":
        lines.append(f"next       {command}    # resumes from step {outcome.step}")
    elif outcome.state == "budget":
        lines.append(f"next       {command} train.budget=off    # or a larger one; resumes from step {outcome.step}")
    else:
        lines += _next_lines(folder, info)
    return lines


def _next_lines(folder: str, info: Record) -> list[str]:
    again = f"raycls train {folder}/config.yaml run.name=NAME"
    if info.get("overfit"):
        return [
            f"next       raycls eval {folder} --split train    # every split is the images that were trained on",
            f"           {again} train.overfit=off    # a training on all images",
        ]
    split = " --split test" if "test" in (info.get("splits") or {}) else ""
    return [f"next       raycls eval {folder}{split}", f"           {again} optim.lr=LR    # a variation"]


def _kept_text(outcome: Outcome, kept: Record, info: Record) -> str:
    """`best: step 240, val top1 0.9972 (last: step 300, 0.9944)`: what model/ holds, and what else there is."""
    best, final = outcome.best, outcome.final
    last = final if final is not None and final.get("step") == outcome.step else None
    metric = best or {"metric": _first(info)}
    if kept["name"] == "best":
        both = " and last" if kept["step"] == outcome.step else ""
        text = f"best{both}: step {kept['step']}, {_value_text(metric, best or {}, info)}"
        other = None if both else ("last", outcome.step, last)
    else:
        text = f"last: step {kept['step']}, {_value_text(metric, last, info) if last else 'not evaluated'}"
        text += f"; {kept['reason']}" if last and kept.get("asked") == "best" and "reason" in kept else ""
        other = ("best", best.get("step"), best) if best and best.get("step") != outcome.step else None
    if other is None:
        return text
    name, step, record = other
    value = _value_text(metric, record, info).rpartition(" ")[2] if record else "not evaluated"
    return f"{text} ({name}: step {step}, {value})"


def _value_text(best: Record, record: Record, info: Record) -> str:
    """`val top1 0.9972`: what `record` has of the metric that decides about the best one."""
    metric = str(best.get("metric", "metric"))
    value = record.get(metric, record.get("value"))
    shown = value_text(metric, value, _metrics(info)) if isinstance(value, (int, float)) else str(value)
    split = record.get("split") or best.get("split")
    return f"{split} {metric} {shown}" if split else f"{metric} {shown}"


def ledger_lines(report: LedgerReport, names: Callable[[int], str] = str) -> list[str]:
    """The verdict first, then the attempts, the samples that were left out, by `names`, and what is wrong."""
    seen = f"{report.steps} steps, {report.epochs} whole epochs of {report.samples} samples"
    but = ", but for those left out" if report.left_out else ""
    but += ", but for bad images" if report.skipped else ""
    each = "each sample exactly once per epoch"
    if report.classes is not None:
        each = f"each of {report.classes} classes drawn equally often, and the samples of a class in turn"
    if report.repeats > 1:
        each = f"each sample exactly {report.repeats} times in {report.repeats} epochs"
    verdict = f"exact: {seen}, {each}{but}"
    lines = [verdict if report.ok else f"not exact: {seen}, with these problems"]
    lines += [f"  {line}" for line in report.attempts]
    for step, ids in report.left_out.items():
        shown = ", ".join(map(names, ids[:20])) + (f" and {len(ids) - 20:,} more" if len(ids) > 20 else "")
        lines.append(f"  left out after step {step}: {plural(len(ids), 'sample')}: {shown}")
    if report.skipped:
        shown = first_names([names(index) for index in report.skipped[:5]], len(report.skipped))
        lines.append(f"  skipped as bad images: {plural(len(report.skipped), 'sample')}: {shown}")
    return lines + [f"  problem: {line}" for line in report.problems]


def place(record: Record, info: Record) -> str:
    """Where in the run a record is: `epoch 3.5/10  step 70/200`."""
    total = info.get("total_steps")
    step = f"step {record.get('step', 0)}" + (f"/{total}" if total else "")
    return f"epoch {epoch_text(record, info)}  {step}"


def epoch_text(record: Record, info: Record) -> str:
    """`3.5/10`, or `3.5` where the length of the run is not known."""
    total, per_epoch = info.get("total_steps"), info.get("steps_per_epoch")
    epoch = f"{float(record.get('epoch', 0)):.4g}"
    return f"{epoch}/{total / per_epoch:.4g}" if total and per_epoch else epoch


def train_text(record: Record, info: Record) -> str:
    """Loss of the training, what the task measured beside it, and the learning rate."""
    measured = info.get("measured", (_first(info),))
    return join(
        f"train loss {number(record['loss'])}" if "loss" in record else "",
        *(f"{name} {value_text(name, record[name], _metrics(info))}" for name in measured if name in record),
        f"lr {number(record['lr'])}" if "lr" in record else "",
    )


def evaluation_text(record: Record, metric: str, info: Record) -> str:
    """Loss and first metric of an evaluation, and the `metric` that decides, set off from the training's.

    The loss stands first in any case.
    """
    names = [name for name in dict.fromkeys((_first(info), metric)) if name != "loss" and name in record]
    numbers = join(
        f"loss {number(record['loss'])}" if "loss" in record else "",
        *(f"{name} {value_text(name, record[name], _metrics(info))}" for name in names),
    )
    split = f"{record.get('split', 'val')} " if numbers else ""
    return "| " + join(f"{split}{numbers}", "(best)" if record.get("best") is True else "")


def speed_text(record: Record) -> str:
    """Images per second over all workers, and the part of the time that was spent waiting for data."""
    return join(
        f"| {_rate(float(record['images_per_second']))} images/s" if "images_per_second" in record else "",
        _wait(float(record["data_wait"])) if "data_wait" in record else "",
    )


def _wait(share: float) -> str:
    """With the verdict of `raycls bench CONFIG` where the data is what bounds the run."""
    by = bound_by(share)
    return f"data-wait {share:.0%}" + (f" (bound by {by})" if by == "data" else "")


def _rate(speed: float) -> str:
    return f"{speed:.0f}" if speed >= 10 else f"{speed:.2g}"


def value_text(metric: str, value: Any, metrics: Mapping[str, Metric] = CLASSIFICATION) -> str:
    """A metric with the digits it deserves: shares with four decimals, others with four digits."""
    return f"{float(value):.4f}" if metric in metrics and metrics[metric].share else number(value)


def _metrics(info: Record) -> Mapping[str, Metric]:
    """Those of the task; without a header, as of a run that was done before, those of classification."""
    return info.get("metrics", CLASSIFICATION)


def _first(info: Record) -> str:
    """The metric that is shown beside the loss."""
    return next(iter(_metrics(info)))


def number(value: Any) -> str:
    """Four significant digits; history writes what is not finite as a text, which is shown as it is."""
    return value if isinstance(value, str) else f"{float(value):.4g}"


def number_text(count: int) -> str:
    """`11.7 M`, `412 k`, `900`."""
    for limit, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= limit:
            return f"{count / limit:.3g} {unit}"
    return str(count)


def clock_text(seconds: float | None) -> str:
    """`0:01:05`, with days where there are any."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return (f"{days}d " if days else "") + f"{hours}:{minutes:02d}:{rest:02d}"


def _workers(info: Record) -> str:
    count = int(info["workers"])
    threads = plural(int(info.get("threads", 1)), "thread")
    least, most = info.get("elastic") or (count, count)
    elastic = f" ({least} to {most}, as there is room)" if least < most else ""
    words = [f"in this process, no Ray, {threads}" if count == 0 else f"{count} on Ray{elastic}, {threads} each"]
    words += [str(info["device"])] if "device" in info else []
    if "executor" in info:
        why = f" ({info['executor_why']})" if info.get("executor_why") else ""
        words.append(f"executor {info['executor']}{', read ahead' if info.get('ahead') else ''}{why}")
    return ", ".join(words)


def join(*parts: str) -> str:
    """The parts that are not empty, two spaces apart."""
    return "  ".join(part for part in parts if part and part != "| ")
