"""TIFF: all pages of a file, or which of them is damaged."""

import struct
from contextlib import suppress
from typing import NamedTuple

from braintumor.images import NOT_WHOLE, decode_page, first_damaged_page

import numpy as np

# how a file writes its numbers, by its first two bytes
BYTE_ORDERS = {b"II": "<", b"MM": ">"}
BIG_TIFF = 43  # the version of files whose offsets have 64 bits


class _Layout(NamedTuple):
    """Where a TIFF file keeps its directories, one a page.

    Attributes:
        start: Where the offset of the first directory stands.
        offset: How offsets are written, for ``struct``.
        entries: How the number of entries of a directory is written.
        entry_size: Bytes of an entry.
    """

    start: int
    offset: str
    entries: str
    entry_size: int


def read_pages(content: np.ndarray) -> tuple[list[np.ndarray], str]:
    """Read all pages of a TIFF file.

    OpenCV says nothing of damage in later pages, so each is decoded as a first one.

    Args:
        content: The bytes of the file, uint8.

    Returns:
        The pages, gray uint8 (height, width); and which is damaged, or "". With a
        problem there are no pages.
    """
    content = content.copy()
    layout = _layout(content)
    offsets = _directories(content, layout)
    pages: list[np.ndarray] = []
    for offset in offsets:
        struct.pack_into(layout.offset, content, layout.start, offset)
        pixels, problem = decode_page(content)
        if pixels is None:
            return [], _of_page(problem, len(pages), len(offsets))
        pages.append(pixels)
    if not pages:
        return [], NOT_WHOLE
    struct.pack_into(layout.offset, content, layout.start, offsets[0])
    damaged = first_damaged_page(content, len(pages))
    if damaged is not None:
        return [], _of_page(NOT_WHOLE, damaged, len(offsets))
    return pages, ""


def _of_page(problem: str, page: int, pages: int) -> str:
    """A problem, with the number of the page if there are several."""
    return problem if pages == 1 else f"page {page + 1}: {problem}"


def _layout(content: np.ndarray) -> _Layout:
    """The layout of a TIFF or BigTIFF file."""
    order = BYTE_ORDERS[content[:2].tobytes()]
    (version,) = struct.unpack_from(order + "H", content, 2)
    if version == BIG_TIFF:
        return _Layout(8, order + "Q", order + "Q", 20)
    return _Layout(4, order + "I", order + "H", 12)


def _directories(content: np.ndarray, layout: _Layout) -> list[int]:
    """Where the directories begin; the last may lie outside of a file that was cut."""
    offsets: dict[int, None] = {}  # in order, and quick to search
    place = layout.start
    with suppress(struct.error, OverflowError):  # outside of the file
        while True:
            (offset,) = struct.unpack_from(layout.offset, content, place)
            if offset == 0 or offset in offsets:  # the end, or round in circles
                break
            offsets[offset] = None
            (entries,) = struct.unpack_from(layout.entries, content, offset)
            entries_start = offset + struct.calcsize(layout.entries)
            place = entries_start + entries * layout.entry_size
    return list(offsets)
