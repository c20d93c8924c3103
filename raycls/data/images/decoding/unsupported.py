"""What a whole image is that raycls does not decode: named, so that nobody looks for damage that is not there."""

from __future__ import annotations

from raycls.data.images.decoding import tiff
from raycls.data.images.decoding.bare import jpeg_segments

__all__ = ["deep_colour", "unsupported", "unusable"]

_JPEG_FRAMES = {
    0xC5: "hierarchical",
    0xC6: "hierarchical",
    0xC7: "hierarchical",
    0xCB: "lossless with arithmetic coding",
    0xCD: "hierarchical",
    0xCE: "hierarchical",
    0xCF: "hierarchical",
    0xF7: "of the kind JPEG-LS",
}
"""Start-of-frame markers that libjpeg-turbo does not decode (ITU T.81, table B.1; T.87, C.1.1)."""


def unusable(data: bytes, kind: str) -> str | None:
    """Why an image of the format `kind` is refused although Pillow would give pixels; None where it is not."""
    if kind == "png" and data[24:26] == b"\x10\x02" and b"tRNS" in data[: data.find(b"IDAT")]:
        return "a PNG of 16 bits per colour with a transparent colour"  # Pillow compares it with the high bytes alone
    found = tiff.read(data) if kind == "tiff" else None
    return None if found is None else found.unusable()


def deep_colour(data: bytes, kind: str) -> str | None:
    """What an image is that has more than 8 bits in several bands, of which Pillow gives the high byte; else None."""
    if kind == "png" and data[24:25] == b"\x10" and data[25:26] != b"\0":
        return "a PNG of 16 bits per channel that is not grey alone: the low bytes would be lost"
    found = tiff.read(data) if kind == "tiff" else None
    if found is None or found.bands == 1 or max(found.bits, default=8) <= 8:
        return None
    return f"{found.describe()}: the low bytes would be lost"


def unsupported(data: bytes, kind: str, error: Exception, *, opened: bool) -> str | None:
    """What an image that Pillow failed on with `error` is, or None where it may be damaged.

    `opened`: Pillow understood the header and failed on the pixels.
    """
    if kind == "jpeg":
        return _jpeg(data)
    if kind == "png" and data[12:16] == b"CgBI":
        return "a PNG in Apple's own form (CgBI), as applications for iOS hold it"
    if (
        kind == "bmp"
        and str(error).startswith("Unsupported BMP")
        and 12 <= int.from_bytes(data[14:18], "little") <= 124
    ):
        return f"a BMP of a rare kind ({error})"
    if kind == "tiff":
        found = tiff.read(data)
        if found is not None and found.complete and not (opened and found.decoded):
            return found.describe()
    return None


def _jpeg(data: bytes) -> str | None:
    for at, end in jpeg_segments(data):
        marker = data[at + 1]
        frame = (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)) or marker in _JPEG_FRAMES
        if not frame or end - at < 10:
            continue
        bits, bands = data[at + 4], data[at + 9]
        words = [f"of {bits} bits per colour"] if bits != 8 else []
        words += [_JPEG_FRAMES[marker]] if marker in _JPEG_FRAMES else []
        words += [f"of {bands} bands"] if bands not in (1, 3, 4) else []
        return f"a JPEG {', '.join(words)}" if words else None
    return None
