"""What a search leaves in its folder when it ends: the table, the plots, the front, and the winner's config."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from raycls.config import load as config
from raycls.config.space.check import apply
from raycls.progress import progress
from raycls.quantities import plural
from raycls.report.plots.front import FRONT, front_plot
from raycls.report.plots.search import plots
from raycls.screen.search_text import front_lines
from raycls.search.front import front, priced, write_front
from raycls.search.results import best, measured, write_csv
from raycls.train.reasons import Reason
from raycls.tune.model_cost import DECIDED_BY
from raycls.tune.plan import Search

__all__ = ["BEST", "write_front_of", "write_results"]

BEST = "best.yaml"


def write_results(plan: Search, interrupted: Reason, say: Callable[[str], None]) -> str | None:
    """The table, the plots, and the winner's config. Returns the winner."""
    progress("writing the results")
    ledger, store = plan.board.ledger, plan.folder.store
    write_csv(store, ledger, plan.space.paths, plan.metric, plan.mode)
    if not interrupted:
        drawn, left_out = plots(
            list(ledger.trials.values()), plan.space.paths, plan.metric, plan.mode, rungs=plan.rungs_in_epochs()
        )
        for name, data in drawn.items():
            store.write_bytes(name, data)
        for line in left_out:
            say(line)
    winner = best(ledger, plan.metric, plan.mode)
    if winner is None:
        return None
    store.write_bytes(BEST, _best_yaml(plan, winner.chosen, winner.id, bool(winner.exploits)).encode())
    return winner.id


def write_front_of(plan: Search, say: Callable[[str], None]) -> list[str]:
    """The front of accuracy against operations, where the trials differ in these; lines about it."""
    if not any(path.startswith(DECIDED_BY) for path in plan.space.paths):
        return []
    points, uncounted = priced(plan.board.ledger, plan.metric, plan.mode, plan.cost)
    if len({point.flops for point in points}) < 2:
        return []
    found, store, limit = front(points, plan.mode), plan.folder.store, plan.run.search.max_flops
    store.write_bytes(FRONT, front_plot(points, found, plan.metric, None if isinstance(limit, str) else limit))
    write_front(store, found, plan.space.paths, plan.metric)
    if uncounted:
        say(f"{FRONT} leaves out {plural(uncounted, 'trial')}: the operations of these networks cannot be counted")
    return front_lines(found, len(points), plan.metric, plan.mode)


def _best_yaml(plan: Search, chosen: Mapping[str, Any], trial: str, evolved: bool) -> str:
    values = config.to_dict(apply(plan.run, chosen))
    values["run"] |= {"name": f"{plan.run.run.name}-best", "storage": plan.run.run.storage}
    value = plan.board.ledger.trials[trial].value(plan.metric, plan.mode)
    count = len(measured(plan.board.ledger, plan.metric, plan.mode))
    lines = [
        f"# Trial {trial} of the search {plan.folder.store.describe()}: {plan.metric} {value} at its best evaluation,",
        f"# optimistic, because it was selected from {count} trials by this very value.",
    ]
    if evolved:
        lines += [
            "# Its values changed while it trained (search.scheduler.name: pbt): these are the last ones, and a run",
            "# that has them from the start is another run.",
        ]
    return "\n".join(lines) + "\n" + config.to_yaml(config.from_dict(values))
