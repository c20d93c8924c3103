"""The binary tree over the micro-batches of a global batch along which the exact reduction adds up."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["Node", "subtrees", "tree_sum"]

Node = tuple[int, int]
"""(level, index): the sub-tree over micro-batches `index * 2**level` up to `(index + 1) * 2**level`."""


def subtrees(owned: range, leaves: int) -> list[Node]:
    """The largest sub-trees whose leaves (of `0..leaves-1`) all lie in `owned`, from left to right."""
    nodes: list[Node] = []
    at = owned.start
    while at < owned.stop:
        level = 0
        while at % (2 << level) == 0 and min(at + (2 << level), leaves) <= owned.stop and at + (1 << level) < leaves:
            level += 1
        nodes.append((level, at >> level))
        at = min(at + (1 << level), leaves)
    return nodes


def tree_sum(node: Node, leaves: int, find: Callable[[Node], Tensor | None]) -> Tensor | None:
    """Add up the tree below `node`, in place into its leftmost part; None where it has no leaves."""
    level, index = node
    if index << level >= leaves:
        return None
    found = find(node)
    if found is not None:
        return found
    if level == 0:
        raise RuntimeError(f"micro-batch {index} is missing from the reduction")
    left = tree_sum((level - 1, 2 * index), leaves, find)
    right = tree_sum((level - 1, 2 * index + 1), leaves, find)
    return left if left is None or right is None else left.add_(right)
