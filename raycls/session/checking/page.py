"""The findings of a check with small pictures, as one HTML file that loads nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from raycls.errors import RayclsError
from raycls.progress import counted
from raycls.report.page.render import render
from raycls.session.checking.check import Checked
from raycls.session.checking.copies import Same
from raycls.session.checking.looked import shown
from raycls.session.setup import volumes_of
from raycls.session.trained.pictures import Picture, picture_of

__all__ = ["page"]

_FINDINGS, _IMAGES = 60, 8
"""Of one kind, and pictures of one finding, that are shown: the JSON file has all."""


@dataclass(frozen=True)
class _Finding:
    title: str
    places: tuple[int, ...]
    images: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(frozen=True)
class _Section:
    title: str
    words: str
    findings: list[_Finding]


def page(checked: Checked, rows: Sequence[tuple[str, str, bool]], about: str) -> bytes:
    """The page, UTF-8. `rows` are the lines of its table: a name, what was found, and whether it must be looked at."""
    sections = [section for section in _sections(checked) if section.findings]
    findings = [finding for section in sections for finding in section.findings]
    for finding in counted(findings, "making thumbnails", len(findings), "findings"):
        finding.images[:] = [_shown(checked, place) for place in finding.places[:_IMAGES]]
    table = [{"name": name, "found": found, "bad": bad} for name, found, bad in rows]
    title, made = "Check of a data set", "Written by raycls data check"
    return render("data_check.html", title=title, about=about, made=made, rows=table, sections=sections)


def _sections(checked: Checked) -> Iterator[_Section]:
    found = checked.copies
    yield _section(
        "Leaks between splits",
        "One picture in more than one split: what is measured there was trained on.",
        [_same(same) for same in found.leaks],
    )
    yield _section(
        "One picture under two labels",
        "Copies that are not mirrored, of which the labels differ.",
        [_same(same) for same in found.conflicts],
    )
    yield _section(
        "Groups in two splits",
        "Images of one group in more than one split that the data brought: "
        + ("a run trains on them." if checked.run.data.group is None else "a run refuses them."),
        [_Finding(f"{each.group}, {len(each.images):,} images", each.images) for each in checked.groups or ()],
    )
    if checked.judged is not None:
        judged, classes = checked.judged, checked.dataset.classes
        yield _section(
            "Doubtful labels",
            f"The most doubtful first; {judged.contradicted:,} are contradicted. A run that was trained on an image "
            "may know its label by heart.",
            [
                _Finding(
                    f"{classes[each.suggested]} {each.of_suggested:.1%}, its label {each.of_label:.1%}"
                    + (", trained on" if judged.trained_on[each.image] else ""),
                    (each.image,),
                )
                for each in judged.suspects
            ],
        )
    yield _section("Exact duplicates", "Files of the same bytes.", [_same(same) for same in found.exact])
    yield _section(
        "Near duplicates", "One picture in another size or encoding, or mirrored.", [_same(same) for same in found.near]
    )


def _section(title: str, words: str, findings: list[_Finding]) -> _Section:
    more = f" Shown are the first {_FINDINGS} of {len(findings):,}." if len(findings) > _FINDINGS else ""
    return _Section(title, words + more, findings[:_FINDINGS])


def _same(same: Same) -> _Finding:
    more = f", {len(same.images):,} images" if len(same.images) > _IMAGES else ""
    return _Finding(", ".join(same.kinds) + more, same.images)


def _shown(checked: Checked, place: int) -> dict[str, Any]:
    image, picture = checked.image(place), None
    try:
        picture = _picture(checked, place)
    except RayclsError:  # it could be read a moment ago
        picture = None
    return checked.entry(place) | {"split": image.split, "picture": picture}


def _picture(checked: Checked, place: int) -> Picture:
    image = checked.image(place)
    split = checked.dataset.splits[image.split]
    return picture_of(Image.fromarray(shown(split, image.row, volumes_of(checked.run))))
