"""What one worker writes down while it trains: history, ledger, checkpoints, and the end of the run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from types import TracebackType
from typing import Any

import torch

from raycls.config.errors import dotted
from raycls.config.names.metrics import Metric
from raycls.config.sections.run import Run
from raycls.config.write import leaves, to_dict
from raycls.data.slices import Slice, micro_rows
from raycls.data.source import Dataset
from raycls.errors import RayclsError
from raycls.progress import progress
from raycls.report.plots.curves import svg
from raycls.run.checkpoint import Writer
from raycls.run.folder import RunFolder
from raycls.run.history import History, read, write_csv
from raycls.run.kept import best_weights
from raycls.run.ledgers.sample_ledger import SampleLedger
from raycls.run.model_file import write_model
from raycls.run.profiler import Profiler
from raycls.run.snapshot import snapshot
from raycls.run.trackers.trackers import Trackers, open_trackers
from raycls.session.data.preprocessing import preprocessing_of
from raycls.session.job import Decide
from raycls.session.messages import Evaluated, Event, Message, Post, Trained
from raycls.session.setup import together
from raycls.train.plan import Plan
from raycls.train.ranks import Ranks
from raycls.train.reasons import Reason
from raycls.train.state import TrainState

__all__ = ["Judged", "Recorder"]


class Recorder:
    """History and checkpoints on rank 0, a ledger on every rank. A context manager: leaving it closes all.

    `metrics`: those of the task. `gauge` is told every line of the history. `curves`: whether `finish` draws
    `curves.svg`.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        folder: RunFolder,
        ranks: Ranks,
        attempt: int,
        post: Post,
        dataset: Dataset,
        metrics: Mapping[str, Metric],
        *,
        gauge: Callable[[dict[str, Any]], None],
        curves: bool = True,
    ) -> None:
        self.run, self.plan, self.folder, self.ranks = run, plan, folder, ranks
        self.attempt, self.post, self.dataset, self.metrics = attempt, post, dataset, metrics
        first = ranks.rank == 0
        self.history = History(folder, attempt) if first else None
        self.writer = Writer(folder, run.checkpoint.keep) if first else None
        kept = run.train.ledger
        self.ledger = None if kept == "off" else SampleLedger(folder, attempt, ranks.rank, pixels=kept == "pixels")
        self.profiler = Profiler(run.train.profile, folder, attempt, ranks.rank)
        self.curves = curves
        self.gauge = gauge
        self._trackers = Trackers([], self.tell)
        self._best_to_keep: dict[str, Any] | None = None
        self._mark = time.monotonic()
        self._waited = 0.0

    def __enter__(self) -> Recorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with ExitStack() as stack:  # each is closed, whatever another one raises
            if error is not None:
                stack.enter_context(suppress(RayclsError))  # what ends the run is told, not what follows from it
            failed = isinstance(error, Exception)
            stack.callback(
                self._trackers.end, "FAILED" if failed else "KILLED", {"error": str(error)} if failed else {}
            )
            for opened in (self.profiler, self.writer, self.history, self.ledger):
                if opened is not None:
                    stack.callback(opened.close)

    def track(self, search: str, dashboard: str) -> None:
        """Start the trackers of the config, on rank 0. See `open_trackers` for `search` and `dashboard`."""
        if self.ranks.rank == 0:
            progress("starting the trackers")
            self._trackers = open_trackers(
                self.run.track,
                self.folder,
                attempt=self.attempt,
                name=self.run.run.name,
                group=search,
                parameters={dotted(path): value for path, value in leaves(to_dict(self.run))},
                dashboard=dashboard,
                tell=self.tell,
            )

    def pending_error(self) -> RayclsError | None:
        """A checkpoint that could not be written."""
        return self.writer.error if self.writer is not None else None

    def seen(self, step: int, batch: Slice, parts: list[tuple[int, int, int]]) -> None:
        """Write the slice of `step` (from 0) to the ledger, whose steps count from 1; one line per micro-batch."""
        self.profiler.seen(step)
        if self.ledger is None:
            return
        pixels = self.run.train.ledger == "pixels"
        whole = micro_rows(self.plan.order, step, self.ranks.rank, self.ranks.world) if batch.bad else parts
        for (micro, start, stop), (_, first, last) in zip(parts, whole, strict=True):
            shas = batch.digests(start, stop) if pixels else None
            skipped = [bad.id for bad in batch.bad or () if first <= bad.place < last]
            self.ledger.write(batch.position.epoch, step + 1, micro, batch.ids[start:stop].tolist(), shas, skipped)

    def note(self, kind: str, step: int, text: str, **facts: object) -> None:
        """On rank 0 a line on the screen, and `facts` of `step` (from 1) in the history."""
        if self.history is not None:
            epoch = self.plan.epochs(step)
            self.history.write({"kind": kind, "attempt": self.attempt, "step": step, "epoch": epoch, **facts})
        self.tell(text)

    def tell(self, text: str) -> None:
        """A line on the screen, on rank 0."""
        if self.ranks.rank == 0:
            self.post(Event(text))

    def settle(self) -> None:
        """Wait until every checkpoint is written; on all ranks an error where one could not be."""
        writer = self.writer
        together(self.ranks, lambda: writer.wait() if writer is not None else None)

    def log(self, state: TrainState, norm: float, waited: float, compiled: float = 0.0) -> None:
        """A line of training: means since the last one; `compiled` of these seconds went into compiling."""
        images = state.meter.count
        now = time.monotonic()
        seconds = max(1e-9, now - self._mark - compiled)
        record = {
            **self._where("train", state),
            **state.meter.take(),
            "lr": max(group["lr"] for group in state.optimizer.param_groups),
            "grad_norm": norm,
            "images_per_second": images / seconds,
            "data_wait": min(1.0, (waited - self._waited) / seconds),
        }
        if compiled:
            record["compile_seconds"] = compiled
            self.tell(f"compiled for {compiled:.1f} s up to step {state.step}")
        if state.scaler.is_enabled():
            record["loss_scale"] = state.scaler.get_scale()
        self._mark, self._waited = now, waited
        self._write(record, Trained(record, self.plan.evaluates_after(state.step)))

    def evaluated(self, state: TrainState, improved: bool, *, seconds: float, waited: float) -> None:
        """Note the newest evaluation of `state`, and whether it `improved` on the best one before.

        It took `seconds`, `waited` of them for data: neither counts as training.
        """
        self._mark += seconds
        self._waited += waited
        if improved:
            self._best_to_keep = state.best
        record = {**self._where("evaluate", state), **(state.last or {}), "best": improved, "elapsed": state.elapsed}
        self._write(record, Evaluated(record, self.run.evaluate.metric))

    def save(self, state: TrainState) -> None:
        """Take a copy of the state and let a thread write it; the ledger up to here is on disk before."""
        if self.ledger is not None:
            self.ledger.flush()
            self.ranks.check()  # rank 0 must not be ahead of the others' ledgers
        if self.writer is not None and self.history is not None:
            # The thread brings the history to a remote store first: it must not lack the lines before a checkpoint.
            self.writer.submit(snapshot(state.step, state.trees()), best=self._best_to_keep, hold=state.good)
        self._best_to_keep = None

    def finish(self, state: TrainState, reason: Reason, seconds: float) -> dict[str, Any]:
        """Wait for the checkpoints and, unless a signal ended the run, write the model and the summary.

        `seconds`: of training, over all starts. The same on every rank, except for `kept`: which weights the model is
        of.
        """
        self.settle()
        kept = None if reason.stopped else self._keep(state)
        result = {
            "state": "stopped" if reason.stopped else reason,
            "reason": reason,
            "step": state.step,
            "epochs": self.plan.epochs(state.step),
            "best": state.best,
            "final": state.last,
            "kept": kept,
            "seconds": seconds,
        }
        if self.ranks.rank == 0:
            progress("writing the curves")
            self.folder.write_json(RunFolder.RESULT, result)
            if not reason.moves:
                self._draw()
        ended = "KILLED" if reason.stopped or reason is Reason.BUDGET else "FINISHED"
        progress("telling the trackers")
        if self.history is not None:
            self.history.flush()  # they read it
        self._trackers.end(ended, result, moves=reason.moves)
        return result

    def _draw(self) -> None:
        """The curves and the table: made from the history, and no reason to fail a run that is done."""
        try:
            if self.history is not None:
                self.history.close()
            write_csv(self.folder)
            if self.curves:
                self.folder.store.write_bytes(RunFolder.CURVES, svg(read(self.folder), self.metrics))
        except (OSError, RayclsError) as error:
            text = f"warning: history.csv or curves.svg could not be written: {str(error).splitlines()[0]}"
            self.tell(text)

    def _keep(self, state: TrainState) -> dict[str, Any] | None:
        """Write `model/` on rank 0, with the weights that `evaluate.keep` names; which ones these are, and why."""
        if self.ranks.rank != 0:
            return None
        progress("writing the model")
        best, wanted = state.best, self.run.evaluate.keep
        name, step, tensors = "last", state.step, state.evaluated_model.state_dict()
        reason = "evaluate.keep: last" if wanted == "last" else "no evaluation gave a best one"
        if wanted == "best" and best is not None:
            found = tensors if best["step"] == step else best_weights(self.folder, int(best["step"]))
            if isinstance(found, str):
                reason = found
                self.tell(f"warning: {found}; model/ holds the weights after the last step instead")
            else:
                name, step, tensors = "best", int(best["step"]), found
                reason = f"the best {self.run.evaluate.split} {best['metric']}, {best['value']:.6g}"
        weights = {"name": name, "step": step, "reason": reason}
        self._write_model(tensors, weights)
        return {"asked": wanted, **weights}

    def _write_model(self, tensors: Mapping[str, torch.Tensor], weights: dict[str, Any]) -> None:
        run = self.run
        write_model(
            self.folder,
            tensors,
            classes=self.dataset.classes,
            preprocessing=preprocessing_of(run),
            config=run.model.model_dump(mode="json"),
            weights=weights,
        )

    def _where(self, kind: str, state: TrainState) -> dict[str, Any]:
        return {
            "kind": kind,
            "attempt": self.attempt,
            "step": state.step,
            "epoch": self.plan.epochs(state.step),
            "time": time.time(),
        }

    def _write(self, record: dict[str, Any], message: Message) -> None:
        """The `record` into the history, and the `message` about it to the driver."""
        if self.history is not None:
            self.history.write(record)
            self._trackers.wrote()
            self.gauge(record)
            self.post(message)


class Judged:
    """Hands every evaluation to the search that this run is a trial of, at the step boundary that follows it.

    By then its checkpoint is under way too; a verdict that comes after it is on the disk can rely on it.
    `decide` is asked on rank 0 alone, and None where nobody judges.
    """

    def __init__(
        self, decide: Decide | None, stop_requested: Callable[[], Reason], state: TrainState, recorder: Recorder
    ) -> None:
        self._decide, self._stop_requested = decide, stop_requested
        self._state, self._recorder = state, recorder
        self._judged = state.last["step"] if state.last is not None else 0

    def stop_requested(self) -> Reason:
        """The verdict on the newest evaluation, else whatever else asks the run to stop."""
        return self.verdict() or self._stop_requested()

    def verdict(self) -> Reason:
        """After the last step it changes nothing any more."""
        state, writer = self._state, self._recorder.writer
        if self._decide is None or state.last is None or state.last["step"] <= self._judged:
            return Reason.NONE
        self._judged = state.last["step"]
        if writer is not None:
            writer.settle()
        return self._decide({**state.last, "seconds": state.elapsed})
