"""`raycls search`: a board of trials, played by Ray Tune, from the first check to `best.yaml`."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass

from raycls.cluster.connection import Cluster, running_cluster
from raycls.cluster.environment import changed
from raycls.config import load as config
from raycls.config.write import word
from raycls.errors import EXIT_DONE, LaunchError, RayclsError
from raycls.launch.starting.warming import warm_workers
from raycls.launch.stopping import StopRequest, exit_code
from raycls.launch.trainer import connecting
from raycls.progress import progress
from raycls.quantities import plural
from raycls.screen.search import SearchDisplay
from raycls.screen.search_text import end_text, search_lines, start_text, stop_text
from raycls.search.board import Move, Task
from raycls.search.confirm import pair
from raycls.search.results import write_csv
from raycls.session.setup import device_of
from raycls.train.reasons import Reason
from raycls.tune.donors import kept
from raycls.tune.plan import Search, open_search
from raycls.tune.results import BEST, write_front_of, write_results
from raycls.tune.room import Room

__all__ = ["SearchOutcome", "search"]

_TABLE_SECONDS = 2.0
"""How often `trials.csv` is written while the search is under way."""
_TUNE = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",  # three files per trial that nobody reads: the run folder has them
    "TUNE_DISABLE_SIGINT_HANDLER": "1",  # signals are ours: they end trials at a step boundary
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",  # its snapshot forgets rungs and suggestions; the ledger does not
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
}


@dataclass(frozen=True)
class SearchOutcome:
    """How a search ended: `done`, `stopped` (by a signal) or `budget`."""

    state: str
    folder: str
    best: str | None
    """The winner's trial."""
    value: float | None
    exit_code: int


def search(
    loaded: config.Loaded, *, new: bool = False, command: Sequence[str] = (), display: SearchDisplay
) -> SearchOutcome:
    """Search the space of a config, or go on with a search, and wait for its end. Writes the search folder.

    Raises ConfigError and DataError before Ray is started, LaunchError where no trial can ever start or all fail.
    """
    warm_workers()
    with StopRequest(display.abandon) as stop, ExitStack() as stack:
        plan = stack.enter_context(open_search(loaded, new=new, command=command, say=display.event))
        interrupted = Reason.NONE
        if not plan.is_done:
            display.event(connecting())
            progress(connecting())
            with running_cluster() as cluster:
                interrupted = _Play(plan, cluster, stop, display).run()
        lines = search_lines(plan.board.ledger, plan.metric, plan.mode)
        # A signal after the last trial has ended interrupts nothing.
        interrupted = Reason.NONE if plan.is_done else interrupted or stop.asked()
        winner = write_results(plan, interrupted, display.event)
        lines += [] if interrupted else write_front_of(plan, display.event)
        display.finish([*lines, *_ending(plan, interrupted, winner)])
    value = None if winner is None else plan.board.ledger.trials[winner].value(plan.metric, plan.mode)
    state = {Reason.NONE: "done", Reason.BUDGET: "budget"}.get(interrupted, "stopped")
    code = exit_code(interrupted) if interrupted else EXIT_DONE
    return SearchOutcome(state, plan.folder.store.describe(), winner, value, code)


class _Play:
    """One start of a search on a cluster."""

    def __init__(self, plan: Search, cluster: Cluster, stop: StopRequest, display: SearchDisplay) -> None:
        from raycls.launch.gauges import job_page
        from raycls.launch.mailbox import make_mailbox
        from raycls.tune.hooks import Groups

        self.plan, self.cluster, self.stop, self.display = plan, cluster, stop, display
        self.board, self.ledger = plan.board, plan.board.ledger
        self.device = device_of(plan.run, cluster.gpus)
        self.room = Room(plan, cluster, self.device, display.event)
        self.began = time.monotonic()
        self.groups, self.mailbox = Groups(), make_mailbox()
        self.dashboard = job_page()
        self.interrupted = Reason.NONE
        """A signal or the budget, once the search is to pause."""
        self.told = Reason.NONE
        self._tabled = 0.0
        self.confirming = False
        self.full = ""
        """What a trial said that could not write its files."""

    def run(self) -> Reason:
        """Play until there is nothing left to do, or until what is returned: a signal, or the end of the budget."""
        from raycls.launch.node_checks import Sight, marked

        plan = self.plan
        if not self.room.wait(lambda: bool(self.stop.asked())) or self.stop.asked():
            return self.stop.asked()
        self.began = time.monotonic()
        with marked(plan.folder) as mark:
            Sight(plan.run, mark, self.cluster, self.device, self.display.event).check()
        self.board.start()
        header = plan.header(self.room.text)
        self.display.start([*header, *([f"Ray job    {self.dashboard}"] if self.dashboard else [])])
        self._tune(self.board.next)
        self._refuse_full_storage()
        if self.interrupted and not self.board.is_played:
            self.ledger.pause(self.interrupted)
            return self.interrupted
        self._refuse_forgotten(trial.id for trial in self.board.searched)
        if self.board.over == "failed":
            raise _all_failed(plan)
        self.ledger.end_search(self.board.over)
        self._confirm()
        if self.interrupted and not plan.is_done:
            self.ledger.pause(self.interrupted)
        return self.interrupted

    def _confirm(self) -> None:
        """Train the two best anew, each with several seeds."""
        from raycls.launch.mailbox import make_mailbox

        seeds = self.plan.run.search.confirm.seeds
        if isinstance(seeds, str) or self.interrupted:
            return
        chosen = pair(self.ledger, self.plan.metric, self.plan.mode)
        # The seed of the search itself chose the winner: the models that are compared have other ones.
        base = self.plan.run.run.seed
        tasks = [self.board.confirm(trial.id, base + k) for k in range(1, seeds + 1) for trial in chosen]
        left = [task for task in tasks if task is not None]
        if left:
            # Where a target was reached, every trial was told to stop: those that confirm are not meant.
            self.confirming, self.told, self.mailbox = True, Reason.NONE, make_mailbox()
            self.display.event(f"training the best {len(chosen)} on {seeds} seeds each, for the test split")
            meant = [task.trial for task in left]
            self._tune(lambda: left.pop(0) if left else None)
            self._refuse_full_storage()
            self._refuse_forgotten(meant)

    def _tune(self, take: Callable[[], Task | None]) -> None:
        from ray import tune

        from raycls.tune.hooks import Judge, Lost, Supply
        from raycls.tune.trial import Shared, TrialProcess

        plan = self.plan
        shared = Shared(
            config=config.to_dict(plan.run),
            dataset=plan.dataset,
            record=plan.record,
            trials=plan.trials,
            device=self.device,
            workdir=os.getcwd(),
            command=tuple(plan.command),
            mailbox=self.mailbox,
            dashboard=self.dashboard,
        )
        judge = Judge(
            self.board,
            self.groups,
            tick=self._tick,
            changed=self._changed,
            interrupted=lambda: bool(self.interrupted or self.full),
            donated=self._donated,
            full=self._is_full,
            most=self.room.most,
            note=self.display.event,
        )
        wanted: Callable[[], Task | None] = lambda: None if self._leaving() else take()  # noqa: E731
        process = tune.with_resources(tune.with_parameters(TrialProcess, shared=shared), self.room.slots.resources())
        with _tunes_folder(self.room.most()) as folder:
            tuner = tune.Tuner(
                process,
                tune_config=tune.TuneConfig(
                    search_alg=Supply(wanted, lambda: self.room.look() + len(judge.paused), self._started),
                    scheduler=judge,
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="trials",
                    storage_path=folder,
                    verbose=0,
                    failure_config=tune.FailureConfig(max_failures=plan.run.search.max_failures),
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    callbacks=[Lost(self.board, self.groups, say=self.display.event, changed=self._changed)],
                ),
            )
            progress("training trials")
            try:
                tuner.fit()
            except Exception as error:
                if (own := _own(error)) is not None:  # of the ledger, which Tune wraps in words of its own
                    raise own from error
                raise
            finally:
                self.groups.close()
                self.room.close()
                self._table()  # also where the search ends with an error

    def _tick(self) -> None:
        """Several times a second: whether all trials are to end."""
        budget = self.plan.budget_seconds
        if budget and not self.interrupted and self.ledger.seconds + time.monotonic() - self.began >= budget:
            self.interrupted = Reason.BUDGET
        self.interrupted = self.stop.asked() or self.interrupted  # a signal is in more of a hurry
        self.room.ask(confirming=self.confirming)
        if not self._leaving():
            return
        # A signal leaves evaluations too; what the search ends by itself has time for them.
        reason = self.interrupted if self.interrupted.signal else Reason.SEARCH
        if not self.told:
            self.display.event("stopping: every trial finishes its step and writes a checkpoint")
        if self.told != reason:
            self.told = reason
            self.mailbox.stop.remote(reason)

    def _leaving(self) -> bool:
        over = not self.confirming and self.board.leaving
        return bool(self.interrupted) or bool(self.full) or over

    def _is_full(self, trial: str, error: str) -> None:
        self.full = self.full or error
        self.display.event(f"trial {trial} could not write its files")

    def _refuse_full_storage(self) -> None:
        if self.full:
            with suppress(RayclsError):  # no room for this line either
                self.ledger.pause("full")
            raise LaunchError(
                "the run folders of the trials cannot be written, so the search was stopped",
                where=self.plan.trials,
                found=self.full,
                fix="make room there, then rerun the command to resume the search",
            )

    def _refuse_forgotten(self, names: Iterable[str]) -> None:
        """Tune gives a trial up without a word where its process cannot be used again."""
        left = [name for name in names if self.ledger.trials[name].state == "running"]
        if left and not self._leaving():
            raise LaunchError(
                f"{plural(len(left), 'trial')} did not come to an end, and nothing runs any more",
                where=self.plan.trials,
                found=", ".join(left),
                fix="rerun the command to resume them",
            )

    def _started(self, task: Task) -> str:
        from raycls.tune.trial import set_aside_other

        trial = self.ledger.trials[task.trial]
        if not trial.results and (moved := set_aside_other(self.plan.run, task, self.plan.trials)):
            self.display.event(
                f"trial {task.trial} begins anew: its line in the ledger was lost, its run is now {moved}"
            )
        again = ", resuming" if trial.results else ""
        self.display.event(start_text(trial) + again)
        self.display.update(self.ledger, self.plan.metric, self.plan.mode)
        return self._donated(task) if task.exploits else ""

    def _donated(self, task: Task) -> str:
        """Where a trial finds the weights that it goes on from."""
        newest = self.ledger.trials[task.trial].exploits[-1]
        place = self.plan.folder.store.sub(kept(task.trial, task.exploits))
        self.display.event(f"trial {task.trial} continues from trial {newest.donor} at step {newest.step}")
        return json.dumps({"checkpoint": place.uri, "step": newest.step, "count": task.exploits})

    def _changed(self, name: str, move: Move | None) -> None:
        trial, metric, mode = self.ledger.trials[name], self.plan.metric, self.plan.mode
        if move is not None and move.stop and trial.results:
            self.display.event(stop_text(trial, metric, mode, trial.results[-1].cutoff))
        elif move is None:
            if trial.state != "stopped":
                self.display.event(end_text(trial, metric, mode))
            if time.monotonic() - self._tabled > _TABLE_SECONDS:  # the ledger is exact at every moment, the table soon
                self._table()
        self.display.update(self.ledger, metric, mode)

    def _table(self) -> None:
        self._tabled = time.monotonic()
        plan = self.plan
        write_csv(plan.folder.store, self.ledger, plan.space.paths, plan.metric, plan.mode)


@contextmanager
def _tunes_folder(places: int) -> Iterator[str]:
    """Where Tune keeps what it must: nothing of it is read again. It is quiet for that long.

    With fewer trials waiting than `places` Tune throws processes away while they start: it hands a trial that waits for
    one to the process of a trial that has just ended.
    """
    wanted = {**_TUNE, "TUNE_MAX_PENDING_TRIALS_PG": str(places)}
    folder = tempfile.mkdtemp(prefix=f"raycls-{os.getpid()}-tune")  # the next start sweeps it up after a kill
    logger = logging.getLogger("ray.tune")
    level = logger.level
    logger.setLevel(logging.CRITICAL)  # what happens to trials is told by us, and stands in the ledger
    try:
        with changed(wanted):
            yield folder
    finally:
        logger.setLevel(level)
        shutil.rmtree(folder, ignore_errors=True)


def _own(error: BaseException | None) -> RayclsError | None:
    """The error of ours that led to `error`."""
    while error is not None and not isinstance(error, RayclsError):
        error = error.__cause__ or error.__context__
    return error


def _ending(plan: Search, interrupted: Reason, winner: str | None) -> list[str]:
    folder = plan.folder.store.describe()
    if interrupted:
        why = "search.budget is used up: raise it and" if interrupted is Reason.BUDGET else "stopped:"
        return [f"{why} rerun the command to resume the search", f"search     {folder}"]
    lines = [f"search     {folder}"]
    if winner is None:
        return lines
    best = f"{folder}/{BEST}"
    local = plan.folder.store.is_local
    return [
        *lines,
        f"next       raycls train {word(best)}" if local else f"next       copy {best} here and train it",
    ]


def _all_failed(plan: Search) -> LaunchError:
    failed = next(trial for trial in plan.board.ledger.trials.values() if trial.state == "failed")
    return LaunchError(
        "the first trials all failed, so the search was ended",
        where=plan.folder.store.describe(f"trials/{failed.id}"),
        found=f"trial {failed.id}: {failed.error}",
        fix="correct what the error names; the base config alone runs with raycls train; begin anew with --new",
    )
