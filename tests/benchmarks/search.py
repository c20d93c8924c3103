"""What a search finds, what it costs, and whether it grows: `raycls search` with trials of one worker.

    python tests/benchmarks/search.py quality     # ASHA against random search on the digits
    python tests/benchmarks/search.py overhead    # slot-seconds per trial beside plain ray.tune
    python tests/benchmarks/search.py many        # memory, processes and files over 200 trials

Each part says in its own file (`search_quality.py`, `search_overhead.py`, `search_growth.py`) what it measures and why
so. All searches join one Ray that is started here; the commands are those that anybody would type.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import measure
import search_growth
import search_overhead
import search_quality
from searching import own_ray

PARTS = ("quality", "overhead", "many")


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    options = _options(argv)
    result = measure.begin("search")
    with tempfile.TemporaryDirectory(prefix="raycls-benchmark-") as scratch, own_ray() as ray_folder:
        folder = options.keep or Path(scratch)
        folder.mkdir(parents=True, exist_ok=True)
        for part in options.parts:
            (folder / part).mkdir()
            result[part] = _run(part, folder / part, ray_folder, options)
    return measure.finish(result, options.json)


def _run(part: str, folder: Path, ray_folder: Path, options: Any) -> dict[str, Any]:
    if part == "quality":
        return search_quality.quality(
            folder,
            seeds=range(options.first_seed, options.first_seed + options.repetitions),
            trials=options.trials,
            epochs=options.epochs,
            orders=options.orders,
        )
    if part == "overhead":
        return {
            **search_overhead.overhead(
                folder, trials=options.overhead_trials, rounds=options.rounds, fresh=options.fresh_trials
            ),
            "profile": search_overhead.profile(folder, trials=options.profiled_trials),
        }
    return search_growth.growth(folder, ray_folder, trials=options.many_trials, plain=not options.quick)


def _options(argv: Sequence[str] | None) -> Any:
    parser = measure.arguments((__doc__ or "").split("\n")[0])
    parser.add_argument("parts", nargs="+", choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="leave the search folders and logs there")
    quality = parser.add_argument_group("quality")
    quality.add_argument("--repetitions", type=int, default=5, help="pairs of searches, each with seeds of its own")
    quality.add_argument("--first-seed", type=int, default=100, help="of search.seed and run.seed; then one more each")
    quality.add_argument("--trials", type=int, default=24, help="of each search")
    quality.add_argument("--epochs", type=int, default=27, help="of a trial that is not stopped")
    quality.add_argument("--orders", type=int, default=100, help="orders of the trials that are played without Ray")
    overhead = parser.add_argument_group("overhead")
    overhead.add_argument("--rounds", type=int, default=5, help="in each, every variant runs once")
    overhead.add_argument("--overhead-trials", type=int, default=40, help="of a search, and of plain Tune")
    overhead.add_argument("--fresh-trials", type=int, default=8, help="of plain Tune with a process for each")
    overhead.add_argument("--profiled-trials", type=int, default=10, help="in this process, under cProfile")
    many = parser.add_argument_group("many")
    many.add_argument("--many-trials", type=int, default=200, help="of the one search")
    options = parser.parse_args(argv)
    if options.quick:
        options.repetitions, options.trials, options.epochs, options.orders = 1, 2, 2, 2
        options.rounds, options.overhead_trials, options.fresh_trials, options.profiled_trials = 1, 3, 0, 1
        options.many_trials = 3
    return options


if __name__ == "__main__":
    main()
