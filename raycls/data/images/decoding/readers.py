"""Pillow's readers, with what they get wrong on whole files put right."""

from __future__ import annotations

import io
import threading

from PIL import ImageFile, TiffImagePlugin
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from raycls.data.images.decoding import tiff

__all__ = ["correct", "open_image", "uncovered"]

_READERS: dict[str, type[ImageFile.ImageFile]] = {
    "jpeg": JpegImageFile,
    "png": PngImageFile,
    "webp": WebPImageFile,
    "bmp": BmpImageFile,
    "tiff": TiffImageFile,
    "gif": GifImageFile,
}
_by_libtiff = threading.Lock()


def open_image(data: bytes, name: str, kind: str) -> ImageFile.ImageFile:
    """The image as its header describes it, no pixel decoded yet."""
    if kind != "tiff":
        return _READERS[kind](io.BytesIO(data), name)
    data = tiff.sound(data)
    found = tiff.read(data)
    if found is None or not found.misread:
        return TiffImageFile(io.BytesIO(data), name)
    # The lock: without it another thread could put the switch back in between.
    with _by_libtiff:
        before, TiffImagePlugin.READ_LIBTIFF = TiffImagePlugin.READ_LIBTIFF, True
        try:
            return TiffImageFile(io.BytesIO(data), name)
        finally:
            TiffImagePlugin.READ_LIBTIFF = before


def correct(image: Image, data: bytes, kind: str) -> None:
    """Put right what Pillow says about a loaded `image` besides its pixels; ValueError where those mean nothing."""
    if kind != "png":
        return
    depth = data[24]
    transparent = image.info.get("transparency")
    if image.mode == "L" and depth in (2, 4) and isinstance(transparent, int):
        image.info["transparency"] = transparent * 255 // (2**depth - 1)  # the pixels were scaled like this
    if image.mode == "P" and b"PLTE" not in data:
        raise ValueError("a palette image without its palette")


def uncovered(image: Image) -> tuple[int, int, int, int] | None:
    """The box (left, top, right, bottom) of a first GIF frame that leaves part of the canvas free, else None."""
    box = image.dispose_extent if isinstance(image, GifImageFile) else None
    return None if box is None or box == (0, 0, *image.size) else box
