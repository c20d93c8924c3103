"""What `raycls data check` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from raycls.quantities import aligned, bytes_text, plural
from raycls.screen.predictions import visible

__all__ = ["check_lines", "check_rows"]

_NAMED = 5
"""Findings of one kind that are named; the JSON file has all."""
_SUSPECTS = 30
_SOUND = "none"

Facts = Mapping[str, Any]
Row = tuple[str, str, bool]


def check_lines(facts: Facts) -> list[str]:
    """`facts` as `Checked.facts` has them: the splits, what was checked, and the first findings by name."""
    table = [("split", "images", "classes", "largest", "smallest")]
    for name, split in facts["splits"].items():
        counts = sorted(split["class_counts"].items(), key=lambda item: -item[1])
        most, least = (f"{count:,} of {visible(of)}" for of, count in (counts[0], counts[-1])) if counts else ("-", "-")
        there = sum(count > 0 for _, count in counts)
        table.append((name, f"{split['images']:,}", f"{there:,}", most, least))
    rows = check_rows(facts)
    width = max(len(name) for name, _, _ in rows)
    return [
        *aligned(table, numbers=range(1, 3)),
        "",
        *(f"{name:<{width}}  {found}{'  <- look at it' if bad else ''}" for name, found, bad in rows),
        *_named(facts),
    ]


def check_rows(facts: Facts) -> list[Row]:
    """What was checked, what was found, and whether it must be looked at."""
    sizes, turned = facts["sizes"], sum(facts["exif_orientation"].values())
    formats = ", ".join(f"{name} {count:,}" for name, count in facts["formats"].items()) or "-"
    rows: list[Row] = [
        ("images", f"{facts['images']:,}, {bytes_text(facts['bytes'])}", False),
        ("formats", formats, False),
        ("width x height", _sizes(sizes) if sizes else "-", False),
        ("turned by EXIF", f"{plural(turned, 'image')}, decoded upright" if turned else _SOUND, False),
    ]
    listed = facts["unreadable"]
    rows.append(("unreadable", plural(len(listed), "image") if listed else _SOUND, bool(listed)))
    exact = facts["exact_duplicates"]
    extra = sum(len(each["images"]) - 1 for each in exact)
    rows.append(("exact duplicates", f"{extra:,} of {plural(len(exact), 'image')}" if exact else _SOUND, bool(exact)))
    near = facts["near_duplicates"] or ()
    kinds = {kind: sum(each["kinds"] == [kind] for each in near) for kind in dict.fromkeys(e["kinds"][0] for e in near)}
    told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(kinds.items()))
    none = _SOUND if facts["near_duplicates"] is not None else "not looked for in volumes"
    rows.append(("near duplicates", f"{plural(len(near), 'pair')}: {told}" if near else none, bool(near)))
    for name, entry in (("under two labels", "label_conflicts"), ("in two splits", "leaks")):
        found = facts[entry]
        rows.append((name, plural(len(found), "picture") if found else _SOUND, bool(found)))
    if (groups := facts["groups_in_two_splits"]) is not None:
        rows.append(("groups in two splits", plural(len(groups), "group") if groups else _SOUND, bool(groups)))
    if facts["labels"] is not None:
        found = facts["labels"]["contradicted"]
        rows.append(("contradicted labels", plural(found, "image") if found else _SOUND, bool(found)))
    return rows


def _sizes(sizes: Facts) -> str:
    low, middle, high = (f"{sizes[name][0]:g}x{sizes[name][1]:g}" for name in ("min", "median", "max"))
    return f"all {low}" if sizes["different"] == 1 else f"{low} to {high}, median {middle}"


def _named(facts: Facts) -> Iterator[str]:
    yield from _section("unreadable", [f"{_name(e)}: {e['what']}: {e['found']}" for e in facts["unreadable"]])
    yield from _section("exact duplicates", [_together(each) for each in facts["exact_duplicates"]])
    yield from _section(
        "near duplicates", [f"{each['kinds'][0]}: {_together(each)}" for each in facts["near_duplicates"] or ()]
    )
    yield from _section("under two labels", [_together(each, labels=True) for each in facts["label_conflicts"]])
    yield from _section("in two splits", [_together(each) for each in facts["leaks"]])
    groups = facts["groups_in_two_splits"] or ()
    yield from _section(
        "groups in two splits", [f"{visible(each['group'])}: {_together(each, between=', ')}" for each in groups]
    )
    if facts["labels"] is not None:
        labels = facts["labels"]
        told = [
            f"{_name(e)}: {visible(e['label'])} {e['probability_of_label']:.1%}, "
            f"rather {visible(e['suggested'])} {e['probability_of_suggested']:.1%}"
            + (" (trained on)" if e["trained_on"] else "")
            for e in labels["suspects"]
        ]
        yield from _section("doubtful labels, the most doubtful first", told, _SUSPECTS)
        if labels["trained_on"]:
            yield ""
            yield (
                f"{labels['trained_on']:,} of {plural(facts['images'], 'image')} were judged by a run that was trained "
                "on them, and may know a wrong label by heart"
            )


def _section(title: str, lines: Sequence[str], most: int = _NAMED) -> Iterator[str]:
    if lines:
        yield ""
        yield f"{title}:"
        yield from (f"  {line}" for line in lines[:most])
        if len(lines) > most:
            yield f"  and {len(lines) - most:,} more"


def _name(entry: Facts) -> str:
    return f"{visible(entry['key'])} ({entry['split']})"


def _together(same: Facts, *, labels: bool = False, between: str = " = ") -> str:
    images: Sequence[Facts] = same["images"]
    shown = [f"{visible(each['label'])}: {_name(each)}" if labels else _name(each) for each in images[:_NAMED]]
    return between.join(shown) + (f" and {len(images) - _NAMED:,} more" if len(images) > _NAMED else "")
