"""One fault after another, each in a run of its own on a cluster of two nodes and a head, at a random moment.

`python tests/faults/campaign.py --rounds 100` says after each round what happened and how long it took to recover,
and at the end median and worst by kind. A round is wrong, and the script fails, unless it ends with the weights of a
run that nobody disturbed, every sample trained once per epoch, and the right number of epochs. README.md beside this
file has the figures.

A run has two workers on nodes of one CPU, or one or two where it is elastic (every other round); checkpoints are seven
steps apart. Recovery is the time from the fault to the first step that had not been done before. A node that is lost
comes back when the round is over, so that the run has to go on without it; `driver` is followed by the same command at
once, as a scheduler would.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import signal
import statistics
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import networks
from harness.clusters import joined, notify, standing, state
from harness.jobs import weights
from harness.networks import Network, network
from harness.processes import Command, titled
from harness.runs import Foreign, Site
from harness.sites import make_site

from raycls.run.folder import RunFolder
from raycls.run.ledgers import sample_ledger as ledgers

__all__ = ["FAULTS", "Bed", "Round", "bed", "play"]

FAULTS = ("worker", "segfault", "node", "store", "driver", "notice", "late", "pause", "freeze", "cut")
"""A worker is killed, or its memory access fails; a node is killed, or only its raylet, in which its object store is;
the driver is killed and started again; a node has a notice and goes 10 seconds later, or after one, too soon for a
checkpoint; all processes of a node stand still for 5 seconds, or for good; its network is cut, and healed when the run
has recovered."""
_NODES = 2
_EPOCHS = 5
_DEADLINES, _PAUSE = {"notice": 10, "late": 1}, 5
_PATIENCE = 400.0


@dataclass
class Round:
    """What came of one fault."""

    fault: str
    elastic: bool
    step: int
    """The last step that was logged when it struck."""
    seconds: float = 0.0
    """Until a step was done that had not been done before."""
    repeated: int = 0
    """Steps that were done again."""
    attempts: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass
class Bed:
    """A head without CPUs, where drivers run, and nodes that come and go."""

    site: Site
    net: Network | None
    cluster: Foreign
    nodes: dict[int, tuple[ExitStack, Command]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict[str, str])
    """Ray's ids of the nodes by name, known before the fault: to ask for one takes longer than some runs have left."""
    gone: set[str] = field(default_factory=set[str])
    """The ids of nodes that were lost."""

    def fill(self) -> None:
        """Bring back the nodes that are gone."""
        for number in range(1, _NODES + 1):
            if number not in self.nodes:
                own = ExitStack()
                where: dict[str, Any] = {"name": f"node-{number}"}
                if self.net is not None:
                    where |= {"inside": self.net.inside(number), "address": self.net.node(number)}
                self.nodes[number] = own, own.enter_context(joined(self.cluster, 1, **where))
        end = time.monotonic() + _PATIENCE
        while not self._are_known():
            if time.monotonic() > end:
                raise SystemExit("the nodes did not come back")
            time.sleep(0.5)

    def _are_known(self) -> bool:
        """Whether Ray knows the nodes, and no more those that had their names before."""
        self.ids = state(self.cluster.environment)["nodes"]
        return {f"node-{number}" for number in self.nodes} <= set(self.ids) and not self.gone & set(self.ids.values())

    def lose(self, number: int) -> None:
        """The node is gone for good."""
        own, node = self.nodes.pop(number)
        self.gone.add(self.ids.get(f"node-{number}", ""))
        node.kill_all()
        own.close()

    def empty(self) -> None:
        for number in list(self.nodes):
            self.lose(number)

    def workers(self) -> list[Any]:
        """The processes that train."""
        every = [process for _, node in self.nodes.values() for process in node.processes()]
        return titled(every, "ray::RayTrainWorker")


def bed(stack: ExitStack, site: Site) -> Bed:
    """A cluster for `play`, whose network can be cut where this machine allows it."""
    net = None if networks.missing() else stack.enter_context(network(_NODES))
    made = Bed(site, net, stack.enter_context(standing(0, address=net.address if net else "127.0.0.1")))
    stack.callback(made.empty)
    return made


def play(made: Bed, fault: str, name: str, *, elastic: bool) -> Round:
    """One run with one fault at a random moment."""
    site = made.site
    made.fill()
    site.slow(True)
    workers = "[1, 2]" if elastic else "2"
    words = ("train", "small.yaml", f"run.name={name}", f"scale.workers={workers}", "scale.resize_every=2s")
    words = words if elastic else words[:-1]
    with ExitStack() as stack:

        def start(log: str) -> Command:
            return stack.enter_context(site.raycls(*words, name=log, env=made.cluster.environment))

        round_ = Round(fault, elastic, 0)
        try:
            command = start(name)
            command.until(lambda: site.step(name) >= 1, _PATIENCE)
            time.sleep(random.uniform(0, 6))
            round_.step = site.step(name)
            struck = time.monotonic()
            after = _strike(made, fault, command)
            if fault == "driver":
                command = start(f"{name}-again")
            if fault == "late":  # until the node went, the run went on
                struck, round_.step = time.monotonic(), site.step(name)
            command.until(lambda: site.step(name) > round_.step and _is_new(site, name, round_), _PATIENCE)
            round_.seconds = time.monotonic() - struck
            after()
            site.slow(False)
            code = command.wait(_PATIENCE)
            round_.wrong += [f"exit {code}\n{command.said()}"] if code else []
        except AssertionError as error:
            round_.wrong.append(str(error))
    if not round_.wrong:
        _examine(site, name, round_)
    return round_


def _strike(made: Bed, fault: str, command: Command) -> Callable[[], None]:
    """Do it. Returns what is put right when the run has recovered."""
    number = random.choice(list(made.nodes))
    if fault in ("worker", "segfault"):
        random.choice(made.workers()).send_signal(signal.SIGKILL if fault == "worker" else signal.SIGSEGV)
    elif fault == "node":
        made.lose(number)
    elif fault == "store":
        for raylet in titled(made.nodes[number][1].processes(), "raylet/raylet"):
            raylet.kill()
        return lambda: made.lose(number)
    elif fault == "driver":
        command.kill()
    elif fault in _DEADLINES:
        notify(made.cluster.environment, made.ids[f"node-{number}"], _DEADLINES[fault])
        taken = threading.Timer(_DEADLINES[fault], made.lose, [number])
        taken.start()
        if fault == "notice":
            return taken.join
        taken.join()
    elif fault in ("pause", "freeze"):
        still = made.nodes[number][1].processes()
        for process in still:
            process.suspend()
        if fault == "freeze":
            return lambda: made.lose(number)
        time.sleep(_PAUSE)
        for process in still:
            process.resume()
    elif made.net is not None:
        net = made.net
        net.cut(number)

        def heal() -> None:
            net.heal(number)
            made.lose(number)  # Ray has declared it dead: it does not come back as it was

        return heal
    return lambda: None


def _is_new(site: Site, name: str, round_: Round) -> bool:
    """Whether somebody trains who did not before: the fault may have spared the workers."""
    return len(site.attempts(name)) > 1 or site.step(name) > round_.step + 25


def _examine(site: Site, name: str, round_: Round) -> None:
    """What the run promises, from its folder."""
    folder = RunFolder(str(site.run(name)))
    attempts = site.attempts(name)
    round_.attempts = len(attempts)
    done = {one["attempt"]: one["step"] for one in map(json.loads, site.history(name)) if one["kind"] == "train"}
    for before, after in itertools.pairwise(attempts):
        round_.repeated += max(0, done.get(before["attempt"], 0) - after["step"])
    report = ledgers.check(folder)
    round_.wrong += [] if report.ok else list(report.problems)
    round_.wrong += [] if report.epochs == _EPOCHS else [f"{report.epochs} epochs"]
    if weights(site.run(name)) != weights(site.run("reference")):
        round_.wrong.append("other weights than the run that nobody disturbed")


def _table(rounds: list[Round]) -> list[str]:
    lines = ["| fault | rounds | wrong | recovered after, median (worst) | steps repeated, median (worst) |"]
    lines += ["|---|---|---|---|---|"]
    for fault in [*FAULTS, "all"]:
        of = [one for one in rounds if fault in (one.fault, "all")]
        if of:
            seconds, steps = [one.seconds for one in of], [one.repeated for one in of]
            wrong = sum(bool(one.wrong) for one in of)
            lines.append(
                f"| {fault} | {len(of)} | {wrong} | {statistics.median(seconds):.0f} s ({max(seconds):.0f} s) "
                f"| {statistics.median(steps):g} ({max(steps)}) |"
            )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=14)
    parser.add_argument("--seed", type=int, default=None, help="of the moments and of who is struck")
    parser.add_argument("--faults", default=",".join(FAULTS))
    parser.add_argument("--json", type=Path, help="where every round is written as it ends")
    options = parser.parse_args()
    random.seed(options.seed)
    faults = options.faults.split(",")
    if networks.missing() and "cut" in faults:
        print(f"without cut: {networks.missing()}", flush=True)
        faults.remove("cut")
    rounds: list[Round] = []
    with TemporaryDirectory(prefix="raycls-campaign-") as folder, ExitStack() as stack:
        made = bed(stack, make_site(Path(folder)))
        for number in range(options.rounds):
            fault = faults[number % len(faults)]
            one = play(made, fault, f"round-{number}", elastic=number // len(faults) % 2 == 1)
            rounds.append(one)
            print(f"round {number + 1}: {json.dumps(asdict(one))}", flush=True)
            if options.json:
                options.json.write_text(json.dumps([asdict(one) for one in rounds], indent=1))
    print("\n".join(_table(rounds)))
    if any(one.wrong for one in rounds):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
