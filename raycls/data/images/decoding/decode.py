"""Bytes of an image file -> 8-bit RGB, or grey of 8 or 16 bits, by rules that hold for every format.

What a file is follows from its content, never from its name. Its header is checked against the allowed
formats and the largest size before any pixel is decoded. A file that cannot be decoded whole is an error:
a damaged image is never filled up with grey.

How other images become RGB:

- Grey and 1-bit images repeat their value. 16 bits of grey are divided by 257 and rounded; 12 bits are scaled by
  255/4095. Of 16 bits per colour channel the high byte is kept.
- Transparency (alpha, palette or one transparent colour) is laid over white.
- CMYK, YCbCr and LAB are converted by Pillow. ICC profiles are ignored.
- The EXIF orientation is applied. One that cannot be read counts as none.
- Asked for grey, RGB becomes what Pillow's `convert("L")` makes of it. Asked for 16 bits, 16-bit grey stays as it is,
  12 bits are scaled by 65535/4095 and 8 bits by 257; more than 8 bits of colour or beside alpha, of which Pillow gives
  the high byte, are refused then.
- Of an animation or a file of several pages, the first image is taken; what a first GIF frame leaves free is white.
- Asked for other numbers of channels, arrays of numpy (`npy`) give theirs, and 8-bit RGBA its four.
- Floating-point images have no defined white and are refused. So are TIFF files with bands that are neither a colour
  nor alpha, and those whose first image is a preview of another.

What is whole but of a kind that is not decoded is said to be that, not damaged. Metadata that Pillow stumbles over
(large, broken) decides nothing: the image is then decoded without it, the orientation apart.
"""

from __future__ import annotations

import os
import shlex
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import PIL.Image
from PIL import ImageFile
from PIL.Image import Image, Transpose, fromarray

from raycls.data.images.decoding import npy, turbo
from raycls.data.images.decoding.bare import bare
from raycls.data.images.decoding.convert import UnusableError, converted
from raycls.data.images.decoding.readers import correct, open_image, uncovered
from raycls.data.images.decoding.unsupported import deep_colour, unsupported, unusable
from raycls.data.images.planes import RGB, Planes, held
from raycls.data.making.bad import BadImageError
from raycls.errors import DataError

__all__ = ["Pixels", "decode", "decoded"]

Pixels = Image | np.ndarray
"""A Pillow image of mode RGB or L, or an array, as `raycls.data.images.planes` has it: `[H, W, 3] uint8`."""


def _silence() -> None:
    """Pillow reports odd metadata as warnings, which say nothing about the pixels: they are never shown.

    A filter is set, because `warnings.catch_warnings` is not safe in threads.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")


_silence()

_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")  # the last two are BigTIFF
_IMAGES = (
    (b"8BPS", "a Photoshop document", True),
    (b"\0\0\0\x0cjP  ", "a JPEG 2000 image", True),
    (b"\xff\x4f\xff\x51", "a JPEG 2000 image (a bare codestream)", True),
    (b"\0\0\0\x0cJXL ", "a JPEG XL image", False),
    (b"\xff\x0a", "a JPEG XL image (a bare codestream)", False),
    (b"II\xbc", "a JPEG XR image", False),
    (b"\x76\x2f\x31\x01", "an OpenEXR image", False),
    (b"#?RADIANCE", "a Radiance HDR image", False),
    (b"SIMPLE  =", "a FITS image", False),
    (b"qoif", "a QOI image", True),
    (b"\0\0\1\0", "an icon (ICO)", True),
    *((b"P%d" % kind + end, "a Netpbm image (PBM, PGM or PPM)", True) for kind in range(1, 7) for end in (b"\n", b" ")),
)
"""Images of other kinds: how they begin, their name, and whether Pillow can convert them."""
_OTHERS = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"version https://git-lfs", "a Git LFS pointer instead of the file it stands for"),
)
_ORIENTATION = 0x0112
_TURNS = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}


def decoded(data: bytes, name: str, *, formats: Sequence[str], max_pixels: int, planes: Planes = RGB) -> Pixels:
    """The image in `data` as `decode` gives it, or as `planes` has it: an array where that is had without Pillow, and
    faster."""
    found = turbo.pixels(data, max_pixels) if data.startswith(_JPEG) and "jpeg" in formats else None
    if found is not None and planes != RGB:
        found = held(found, planes)
    return _sized(data, name, formats, max_pixels, planes) if found is None else found


def decode(data: bytes, name: str, *, formats: Sequence[str], max_pixels: int) -> Image:
    """The image in `data` as a Pillow image of mode RGB, 8 bits per channel.

    `name` is what an error calls it, `formats` the allowed ones (of jpeg, png, webp, bmp, tiff, gif, npy) and
    `max_pixels` the largest width times height. BadImageError names the file and the reason; DataError where there is
    not the memory to decode it.
    """
    found = _sized(data, name, formats, max_pixels, RGB)
    return fromarray(found) if isinstance(found, np.ndarray) else found


def _sized(data: bytes, name: str, formats: Sequence[str], max_pixels: int, planes: Planes) -> Pixels:
    try:
        return _decode(data, name, formats, max_pixels, planes)
    except BadImageError as error:
        error.size = len(data)
        raise


def _decode(data: bytes, name: str, formats: Sequence[str], max_pixels: int, planes: Planes) -> Pixels:
    kind = _kind(data)
    if kind is None:
        raise _refuse_other(data, name, formats)
    if kind not in formats:
        raise _refuse(name, f"this is {kind}", "an image format that is not allowed", formats)
    if kind == "npy":
        return _array(data, name, formats, max_pixels, planes)
    if kind == "webp":  # Pillow's reader may reserve memory for the canvas before its size can be asked for
        _check_size(name, _webp_size(data), max_pixels)
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # another library may have asked Pillow for grey instead of errors
    if PIL.Image.MAX_IMAGE_PIXELS is not None and max_pixels > PIL.Image.MAX_IMAGE_PIXELS:
        PIL.Image.MAX_IMAGE_PIXELS = max_pixels  # the limit of this run counts, not that of Pillow
    if reason := unusable(data, kind) or (planes.bits == 16 and deep_colour(data, kind)):
        raise _not_supported(name, reason, formats)
    try:
        try:
            return _pixels(data, name, kind, max_pixels, planes)
        except Warning:  # whoever set filters after us wants warnings as errors; metadata must not decide about pixels
            _silence()
            return _pixels(data, name, kind, max_pixels, planes)
        except (DataError, UnusableError, _UnsupportedError):
            raise
        except Exception:  # noqa: BLE001 - metadata must not decide about pixels; what is damaged fails again
            pixels, info = bare(data, kind)
            return _pixels(pixels, name, kind, max_pixels, planes, info)
    except DataError:
        raise
    except UnusableError as error:
        wanted = "RGB" if planes == RGB else planes.words
        raise _refuse(name, str(error), f"an image without a defined conversion to {wanted}", formats) from error
    except _UnsupportedError as error:
        raise _not_supported(name, str(error), formats) from error
    except Exception as error:  # on damaged files Pillow raises nearly every kind there is
        if _lacks_memory(error):
            raise _no_memory(name, len(data)) from error
        raise _refuse(name, f"{_reason(error)} (as {kind})", "a damaged image", formats) from error


def _array(data: bytes, name: str, formats: Sequence[str], max_pixels: int, planes: Planes) -> np.ndarray:
    try:
        header = npy.header_of(data)
        if len(header[0]) >= 2:
            _check_size(name, (header[0][1], header[0][0]), max_pixels)
        return npy.values_of(data, header, planes)
    except DataError:
        raise
    except Exception as error:  # a header is an expression of Python, and what is damaged fails in many ways
        if _lacks_memory(error):
            raise _no_memory(name, len(data)) from error
        text = " ".join(str(error).split())
        raise _refuse(name, text, f"an array that is not {planes.words}", formats) from error


def _pixels(
    data: bytes, name: str, kind: str, max_pixels: int, planes: Planes, info: dict[str, Any] | None = None
) -> Pixels:
    image: Image | None = None
    try:
        image = open_image(data, name, kind)
        _check_size(name, image.size, max_pixels)
        image.load()
        correct(image, data, kind)
    except DataError:
        raise
    except Exception as error:
        if what := unsupported(data, kind, error, opened=image is not None):
            raise _UnsupportedError(what) from error
        raise
    image.info.update(info or {})
    box = uncovered(image)
    return converted(_upright(image) if box is None else image, box, planes)


class _UnsupportedError(Exception):
    """The image is whole, as far as its header tells, but of a kind that is not decoded."""


def _kind(data: bytes) -> str | None:
    if data.startswith(_JPEG):
        return "jpeg"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "png"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(_TIFF):
        return "tiff"
    if data.startswith(npy.MAGIC):
        return "npy"
    return "bmp" if data.startswith(b"BM") else None


def _refuse_other(data: bytes, name: str, formats: Sequence[str]) -> BadImageError:
    for signature, text, convertible in _IMAGES:
        if data.startswith(signature):
            return _not_supported(name, text, formats, convertible=convertible)
    brand = data[8:12] if data[4:8] == b"ftyp" else b""
    if brand in (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1"):
        avif = brand in (b"avif", b"avis")
        return _not_supported(name, f"an {'AVIF' if avif else 'HEIC'} image", formats, convertible=avif)
    return _refuse(name, f"this is {_describe(data)}", "not an image", formats)


def _not_supported(name: str, kind: str, formats: Sequence[str], *, convertible: bool = False) -> BadImageError:
    """The error about an image that is whole, and not of a kind that is decoded."""
    error = _refuse(name, f"this is {kind}", "an image of a kind that is not supported", formats)
    error.fix = "convert it to an 8-bit RGB or grey PNG, which may keep the name of the file"
    if convertible and os.path.isfile(name):
        script = "import sys; from PIL import Image; Image.open(sys.argv[1]).save(sys.argv[1], 'PNG')"
        error.fix = (
            f'convert it to PNG in its place, python -c "{script}" {shlex.quote(os.path.abspath(name))} does that'
        )
    return error


def _describe(data: bytes) -> str:
    if not data:
        return "an empty file (0 bytes)"
    for signature, text in _OTHERS:
        if data.startswith(signature):
            return text
    if data[4:8] == b"ftyp":
        return "a film, or an image of its kind"
    head = data[:512]
    if head.strip(b"\0") == b"":
        return "a file of zero bytes, such as an unfinished download leaves"
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<!doctype html", b"<html")):
        return "an HTML page"
    if start.startswith((b"<?xml", b"<svg")):
        return "an XML or SVG text"
    if all(byte >= 0x20 or byte in b"\t\r\n\f" for byte in head):
        return f"text, it begins {head[:24].decode('utf-8', 'replace')!r}"
    return f"of an unknown kind, it begins with the bytes {head[:8].hex(' ')}"


def _refuse(name: str, found: str, what: str, formats: Sequence[str]) -> BadImageError:
    return BadImageError(
        f"a sample is {what}",
        where=name,
        found=found,
        valid=f"whole images in one of: {', '.join(formats)}",
        fix="replace the file",
    )


def _lacks_memory(error: Exception) -> bool:
    """Whether it says nothing about the file: another process has the memory."""
    return isinstance(error, MemoryError) or str(error).startswith("out of memory")


def _no_memory(name: str, size: int) -> DataError:
    return DataError(
        "an image was not decoded: there is not enough memory",
        where=name,
        found=f"a file of {size:,} bytes",
        fix="free memory, set data.processes to fewer processes, or lower data.max_pixels",
    )


def _check_size(name: str, size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise BadImageError(
            "an image is larger than allowed and was not decoded",
            where=name,
            found=f"{width} x {height} = {width * height / 1e6:.1f} million pixels",
            valid=f"at most {max_pixels / 1e6:g} million pixels",
            fix="make the image smaller, or raise data.max_pixels if you trust its origin",
        )


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height in the first chunk (RFC 9649, sections 2.5 to 2.7); (0, 0) leaves the error to Pillow."""
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return 0, 0
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        return int.from_bytes(body[6:8], "little") & 0x3FFF, int.from_bytes(body[8:10], "little") & 0x3FFF
    return 0, 0


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split())
    if "truncated" in text.lower() or isinstance(error, EOFError):
        return f"the file ends too early: {text}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _upright(image: Image) -> Image:
    """Apply the EXIF orientation. Pillow has done so already for TIFF, and says so by removing the tag."""
    info = image.info
    if not ("exif" in info or "xmp" in info or "Raw profile type exif" in info or "XML:com.adobe.xmp" in info):
        return image
    try:
        turn = _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001  a damaged EXIF block ends in any kind; by the module's rules it counts as none
        return image
    return image if turn is None else _keep_info(image.transpose(turn), info)


def _keep_info(image: Image, info: dict) -> Image:
    if "transparency" in info:
        image.info["transparency"] = info["transparency"]
    return image
