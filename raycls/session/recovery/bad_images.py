"""What a run does with bad images where `data.on_bad_image` is `skip`: counts them, writes them down, or stops."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import floor

import torch

from raycls.config.sections.run import Run
from raycls.config.write import override
from raycls.data.making.bad import Bad
from raycls.data.order import Order
from raycls.data.slices import Slice
from raycls.data.source import Dataset
from raycls.errors import DataError
from raycls.quantities import first_names, plural
from raycls.run.folder import RunFolder
from raycls.run.ledgers import bad_images
from raycls.session.recovery.alone import Alone, refuse_alone
from raycls.session.setup import together
from raycls.train.plan import Plan
from raycls.train.ranks import Ranks

__all__ = ["BadImages", "Met", "note_bad", "skipping", "too_many"]

_FRACTION = "data.max_bad_fraction"


def too_many(run: Run, split: str, paths: Sequence[str], count: int, where: str) -> DataError | None:
    """An error where the bad images `paths` are more than `data.max_bad_fraction` of the `count` samples of `split`."""
    allowed = floor(run.data.max_bad_fraction * count + 1e-9)
    if len(paths) <= allowed:
        return None
    twice = min(0.99, -(-2000 * len(paths) // count) / 1000)  # more may come
    return DataError(
        f"too many bad images in the split {split}",
        where=where,
        found=f"{len(paths)} of {plural(count, 'sample')} so far: {first_names(paths)}",
        valid=f"at most {allowed}, {_FRACTION} is {run.data.max_bad_fraction:g}",
        fix=f"replace these files, or add {override(_FRACTION, twice)} to the command to resume without them",
    )


def note_bad(
    run: Run, folder: RunFolder, split: str, count: int, bad: Sequence[Bad], tell: Callable[[str], None]
) -> None:
    """Write down and tell what was left out of `split`; DataError where it is too much of its `count` samples."""
    known = {(line["split"], line["path"]) for line in bad_images.read(folder)}
    _write(folder, split, [each for each in bad if (split, each.path) not in known], tell)
    if error := too_many(run, split, [each.path for each in bad], count, folder.store.describe(bad_images.NAME)):
        raise error


def _write(folder: RunFolder, split: str, fresh: Sequence[Bad], tell: Callable[[str], None]) -> None:
    if not fresh:
        return
    lines = [{"path": bad.path, "split": split, "reason": bad.reason, "bytes": bad.bytes} for bad in fresh]
    bad_images.append(folder, lines)
    names = first_names([bad.path for bad in fresh])
    tell(f"{plural(len(fresh), 'bad image')} of the split {split} skipped ({bad_images.NAME}): {names}")


@dataclass
class Met:
    """The bad images among the evaluated slices that pass, with the numbers of their batches."""

    found: list[tuple[int, Bad]] = field(default_factory=list[tuple[int, Bad]])

    def watch(self, slices: Iterable[Slice]) -> Iterator[Slice]:
        """`slices`, looked at on their way."""
        self.found.clear()
        for made in slices:
            self.found += [(made.position.index, bad) for bad in made.bad or ()]
            yield made

    def gathered(self, ranks: Ranks) -> list[tuple[int, Bad]]:
        """Those of all ranks, in the order of the rows of the split; a collective call."""
        together = [each for found in ranks.gather(self.found) for each in found]
        return sorted(together, key=lambda each: (each[0], each[1].place))


class BadImages:
    """The bad images of a training, the same on every rank.

    `counts` are the samples of each split. Every method is a collective call.
    """

    def __init__(
        self,
        run: Run,
        plan: Plan,
        folder: RunFolder,
        ranks: Ranks,
        counts: Mapping[str, int],
        tell: Callable[[str], None],
        alone: Alone,
    ) -> None:
        """`alone` says why the network cannot be trained on a single image in an epoch; None where it can."""
        self._alone = alone
        self._run, self._plan, self._folder, self._ranks = run, plan, folder, ranks
        self._counts, self._tell = counts, tell
        lines = ranks.first(together(ranks, lambda: bad_images.read(folder) if ranks.rank == 0 else []))
        self._known: dict[tuple[str, str], None] = dict.fromkeys((line["split"], line["path"]) for line in lines)
        self.met = Met()

    def there(self, batch: Slice) -> Order:
        """The order of the step of `batch`, without the samples that any rank found to be no images."""
        order, step = self._plan.order, batch.position.step
        start = order.bounds(step, order.owned(self._ranks.rank, self._ranks.world).start).start
        found = torch.zeros(order.rows(step), dtype=torch.int32)
        for bad in batch.bad or ():
            found[start + bad.place] = 1
        holes = self._ranks.sum(found).nonzero().flatten().tolist() if len(found) else []
        if holes:
            own = [(start + bad.place, bad) for bad in batch.bad or ()]
            self._note("train", sorted(each for found in self._ranks.gather(own) for each in found))
            refuse_alone(order.without(tuple(holes)), step, self._alone)  # every rank knows all
        return order.without(tuple(holes))

    def evaluated(self, split: str) -> None:
        """Note what the slices that `met` watched had; after each whole evaluation."""
        self._note(split, self.met.gathered(self._ranks))

    def _note(self, split: str, found: Sequence[tuple[int, Bad]]) -> None:
        fresh = {(split, bad.path): bad for _, bad in found if (split, bad.path) not in self._known}
        if not fresh:
            return
        self._known.update(dict.fromkeys(fresh))
        rank, tell = self._ranks.rank, self._tell
        together(self._ranks, lambda: None if rank else _write(self._folder, split, list(fresh.values()), tell))
        paths = [path for of, path in self._known if of == split]
        where = self._folder.store.describe(bad_images.NAME)
        if error := too_many(self._run, split, paths, self._counts[split], where):
            raise error


def skipping(
    run: Run,
    dataset: Dataset,
    plan: Plan,
    folder: RunFolder,
    ranks: Ranks,
    tell: Callable[[str], None],
    alone: Alone,
) -> BadImages | None:
    """None where a bad image is an error."""
    if run.data.on_bad_image == "error":
        return None
    counts = {name: len(split) for name, split in dataset.splits.items()}
    return BadImages(run, plan, folder, ranks, counts, tell, alone)
