"""Near duplicates: the same picture in another size, another encoding, or mirrored.

Images are compared by small pictures of them (`looked.small`), each shifted and scaled to mean 0 and standard deviation
1 of its brightness; the distance of two is the root mean square of their difference. Copies are close, but so are two
drawings of the same digit in 8 x 8 pixels. So a pair that is not closer than any two different pictures would be must
also stand out: it is in a group of its own, with hardly another image around it.

The first step is that of pHash (the low frequencies of a cosine transform of the small brightness), with the
coefficients themselves instead of one bit of each: a distance of these is never more than that of the small pictures,
so no copy is lost to a coefficient that is nearly zero, and no library of hashes is needed for a product of matrices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from raycls.progress import progress
from raycls.session.checking.looked import CHROMA, LUMA

__all__ = ["Pair", "near_duplicates"]

_COARSE = 8
"""The side of the brightness that all pairs are compared by."""
_FREQUENCIES = 5
"""Of a cosine transform, in each direction."""
_SURE = 0.05
"""Images that are this close are one picture. The closest two of the 1,797 digits are at 0.086."""
_NEAR, _NEAR_FINE = 0.25, 0.45
"""The largest distance of a pair that stands out, coarse and in all pixels that both have: a JPEG of quality 30 of a
32 x 32 image is at 0.15 and 0.39."""
_APART, _OTHERS, _GROUP = 2.7, 3, 60
"""A pair stands out where its images are in a group, of 60 at most, with at most 3 others within 2.7 times its radius:
of the digits, the one that comes closest to that has its fifth neighbour at 2.64 times the distance of the first."""
_CONTRAST, _MEAN, _COLOUR = 0.35, 12.0, 12.0
"""Differences that a copy may have: in the logarithm of the contrast, and in levels of 0 to 255."""
_FLAT = 1.0
"""The standard deviation, in levels, below which an image has nothing that could be compared."""
_BLOCK, _ROWS, _COLUMNS = 1024, 128, 4096
"""How much is compared at once: what fits into the cache of a core."""
_VIEWS = (("", slice(None), slice(None)), ("mirrored", slice(None), slice(None, None, -1)))
_FLIPPED = ("mirrored", slice(None, None, -1), slice(None))
_TURNED = ("turned by 180 degrees", slice(None, None, -1), slice(None, None, -1))


@dataclass(frozen=True)
class Pair:
    """Two images of one picture, by their positions, the first one first."""

    first: int
    second: int
    kind: str
    """`resized`, `re-encoded`, `mirrored` or `turned by 180 degrees`."""
    distance: float


@threadpool_limits.wrap(limits=1, user_api="blas")  # such small products gain nothing, and threads that spin cost much
def near_duplicates(small: np.ndarray, sizes: np.ndarray) -> list[Pair]:
    """Pairs of near duplicates among `N` different images, by their positions.

    `small` is `[N, 1152] uint8` as `looked.small` gives it, `sizes` their widths and heights `[N, 2]`. Images of one
    colour, and of less than 8 pixels in a direction, have no near duplicates.
    """
    luma = small[:, : LUMA * LUMA].reshape(-1, LUMA, LUMA)
    coarse, deviation = _standard(_averaged(luma, _COARSE))
    textured = np.flatnonzero((deviation >= _FLAT) & (sizes.min(1) >= _COARSE))
    found: dict[tuple[int, int], Pair] = {}
    context = _Context(small, sizes, coarse[textured])
    views = (*_VIEWS, _FLIPPED, _TURNED)
    for number, (kind, rows, columns) in enumerate(views):
        pairs = [np.zeros((0, 2), np.int64)]
        for done, some in _close(coarse[textured], rows, columns):
            progress("comparing the images", (number * len(textured) + done) // len(views), len(textured), "images")
            pairs.append(some)
        for first, second, distance in context.kept(np.concatenate(pairs), textured, rows, columns):
            name = kind or ("re-encoded" if (sizes[first] == sizes[second]).all() else "resized")
            pair = Pair(first, second, name, distance)
            before = found.get((first, second))
            if before is None or distance < before.distance:  # a symmetrical picture is its own mirror image
                found[first, second] = pair
    return [found[key] for key in sorted(found)]


def _averaged(luma: np.ndarray, side: int) -> np.ndarray:
    """`[N, 32, 32]` -> `[N, side, side] float32`."""
    step = LUMA // side
    return luma.reshape(-1, side, step, side, step).mean((2, 4), dtype=np.float32)


def _standard(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each picture with mean 0 and standard deviation 1, `[N, S, S]`, and what its deviation was, `[N]`."""
    deviation = values.std((1, 2))
    centred = values - values.mean((1, 2), keepdims=True)
    return centred / np.maximum(deviation, _FLAT)[:, None, None], deviation


def _cosines() -> np.ndarray:
    """The first orthonormal cosines over `_COARSE` points, `[_FREQUENCIES, _COARSE]`."""
    points, frequencies = np.arange(_COARSE) + 0.5, np.arange(_FREQUENCIES)[:, None]
    table = np.cos(np.pi / _COARSE * points * frequencies) * np.sqrt(2 / _COARSE)
    table[0] /= np.sqrt(2)
    return table.astype(np.float32)


def _close(coarse: np.ndarray, rows: slice, columns: slice) -> Iterator[tuple[int, np.ndarray]]:
    """How many images are done, and pairs `[n, 2]` of which one is near this view of the other in low frequencies.

    All of these views undo themselves, so a pair is looked for one way.
    """
    there, view = _features(coarse), _features(coarse[:, rows, columns])
    sharpest = int(there.var(0).argmax()) if len(there) else 0
    order = np.argsort(there[:, sharpest], kind="stable")  # near ones are near in each coefficient, so in this one
    there, view = there[order], view[order]
    key, mine = there[:, sharpest].copy(), view[:, sharpest]
    # |a - b|^2 in one product of matrices
    left = np.column_stack([-2 * view, np.ones(len(view)), (view**2).sum(1)]).astype(np.float32)
    right = np.column_stack([there, (there**2).sum(1), np.ones(len(there))]).astype(np.float32)
    for start in range(0, len(order), _ROWS):
        stop = min(start + _ROWS, len(order))
        low = max(start, int(np.searchsorted(key, mine[start:stop].min() - _NEAR)))
        high = int(np.searchsorted(key, mine[start:stop].max() + _NEAR, side="right"))
        for begin in range(low, high, _COLUMNS):
            close = left[start:stop] @ right[begin : min(begin + _COLUMNS, high)].T <= _NEAR**2
            if np.count_nonzero(close):
                first, second = np.nonzero(close)
                once = first + start < second + begin
                yield (
                    start,
                    np.sort(np.stack([order[start + first[once]], order[begin + second[once]]], axis=1), axis=1),
                )
        yield stop, np.zeros((0, 2), np.int64)


def _features(coarse: np.ndarray) -> np.ndarray:
    """The low frequencies of pictures `[N, 8, 8]`, scaled so that a distance of them is one of the pictures at most."""
    table = _cosines()
    return (table @ coarse @ table.T).reshape(-1, _FREQUENCIES**2)[:, 1:] / _COARSE


@dataclass(frozen=True)
class _Context:
    small: np.ndarray
    sizes: np.ndarray
    coarse: np.ndarray
    """Of the images that are not flat, `[M, 8, 8]`."""

    def kept(
        self, pairs: np.ndarray, textured: np.ndarray, rows: slice, columns: slice
    ) -> Iterator[tuple[int, int, float]]:
        """Of `pairs` of textured images those that are one picture, as positions among all images, and how close."""
        for start in range(0, len(pairs), _BLOCK):
            some = pairs[start : start + _BLOCK]
            a, b = self.coarse[some[:, 0]][:, rows, columns], self.coarse[some[:, 1]]
            distances = np.sqrt(((a - b) ** 2).mean((1, 2)))
            first, second = textured[some[:, 0]], textured[some[:, 1]]
            fine = self._fine(first, second, rows, columns)
            likely = np.flatnonzero(
                (distances <= _NEAR) & (fine <= _NEAR_FINE) & self._alike(first, second, rows, columns)
            )
            sure = np.maximum(distances, fine) <= _SURE
            unsure = likely[~sure[likely]]
            alone = np.zeros(len(some), bool)
            alone[unsure] = self._alone(some[unsure], distances[unsure])
            for row in likely[sure[likely] | alone[likely]].tolist():
                yield int(first[row]), int(second[row]), round(float(max(distances[row], fine[row])), 4)

    def _luma(self, which: np.ndarray) -> np.ndarray:
        return self.small[which, : LUMA * LUMA].reshape(-1, LUMA, LUMA)

    def _fine(self, first: np.ndarray, second: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """The distances in as many pixels as the smaller image of each pair has, up to 32 x 32."""
        found = np.zeros(len(first), np.float32)
        least = np.minimum(self.sizes[first].min(1), self.sizes[second].min(1))
        for side in (_COARSE, 2 * _COARSE, LUMA):
            which = np.flatnonzero((least >= side) & ((least < 2 * side) | (side == LUMA)))
            if len(which):
                a, _ = _standard(_averaged(self._luma(first[which]), side))
                b, _ = _standard(_averaged(self._luma(second[which]), side))
                found[which] = np.sqrt(((a[:, rows, columns] - b) ** 2).mean((1, 2)))
        return found

    def _alike(self, first: np.ndarray, second: np.ndarray, rows: slice, columns: slice) -> np.ndarray:
        """Whether brightness, contrast and colours agree: a red square is no copy of a blue one."""
        a, b = (_averaged(self._luma(which), _COARSE) for which in (first, second))
        contrast = np.abs(np.log(np.maximum(a.std((1, 2)), _FLAT) / np.maximum(b.std((1, 2)), _FLAT)))
        mean = np.abs(a.mean((1, 2)) - b.mean((1, 2)))
        x, y = (self._colours(which) for which in (first, second))
        colour = np.abs(x[..., rows, columns] - y).mean((1, 2, 3))
        return (contrast <= _CONTRAST) & (mean <= _MEAN) & (colour <= _COLOUR)

    def _colours(self, which: np.ndarray) -> np.ndarray:
        """`[n, 2, 4, 4]`: JPEG has fewer pixels of colour than of brightness."""
        both = self.small[which, LUMA * LUMA :].reshape(-1, 2, CHROMA // 2, 2, CHROMA // 2, 2)
        return both.mean((3, 5), dtype=np.float32)

    def _alone(self, pairs: np.ndarray, distances: np.ndarray) -> np.ndarray:
        """Whether both images of a pair are in a group of their own, `[n] bool`: around the images that are as near as
        the other one, or somewhat farther, is a gap with hardly an image in it, in any view."""
        flat = self.coarse.reshape(len(self.coarse), -1)
        alone = np.ones(len(pairs), bool)
        most = min(_GROUP + _OTHERS + 2, len(flat))
        for side in (0, 1):
            for start in range(0, len(pairs), _BLOCK // 8):
                some = pairs[start : start + _BLOCK // 8, side]
                squared = np.full((len(some), len(flat)), np.inf, np.float32)
                for _, rows, columns in (*_VIEWS, _FLIPPED, _TURNED):
                    view = self.coarse[some][:, rows, columns].reshape(len(some), -1)
                    np.minimum(squared, 2 - 2 / flat.shape[1] * (view @ flat.T), out=squared)
                squared[np.arange(len(some)), some] = np.inf
                squared.partition(most - 1, axis=1)
                near = np.sqrt(np.maximum(np.sort(squared[:, :most], axis=1), 0))
                near = np.pad(near, ((0, 0), (0, _OTHERS + 1)), constant_values=np.inf)
                inner, outer = near[:, : -_OTHERS - 1], near[:, _OTHERS + 1 :]
                reached = inner >= distances[start : start + len(some), None] - 1e-4
                alone[start : start + len(some)] &= (reached & (inner <= _NEAR) & (outer >= _APART * inner)).any(1)
        return alone
