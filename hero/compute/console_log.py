"""A guest's console output in a file that keeps only its latest part.

The file is as long as the whole stream ever was, and its older part is a hole that takes no room:
a position in the file is a position in the stream, the writer never notices, and nothing that is
written meanwhile gets lost.
"""

from __future__ import annotations

import ctypes
import errno
import os
from pathlib import Path

import attrs

#: How much console output is kept for each guest, at least.
KEPT = 4 * 1024 * 1024

#: Where the hole is made: once this much more than `KEPT` has come together.
_SLACK = 4 * 1024 * 1024

#: The unit in which holes are made, a multiple of every usual file system block.
_BLOCK = 64 * 1024

# fallocate(2)
_KEEP_SIZE = 0x01
_PUNCH_HOLE = 0x02


@attrs.frozen
class ConsolePiece:
    """Bytes of the stream from *offset*; *next_offset* is where to go on."""

    offset: int
    next_offset: int
    data: bytes


def read_console(path: Path, offset: int | None, limit: int) -> ConsolePiece:
    """Up to *limit* bytes of the stream in *path* from *offset*; the last ones without it.

    An *offset* whose bytes are gone gives the oldest that are left, one past the end gives
    nothing, and an absent file is an empty stream.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ConsolePiece(0, 0, b"")
    try:
        size = os.fstat(descriptor).st_size
        start = max(size - limit, 0) if offset is None else min(offset, size)
        start = max(start, _first_offset(descriptor, size))
        data = os.pread(descriptor, limit, start)
        return ConsolePiece(start, start + len(data), data)
    finally:
        os.close(descriptor)


def trim_console(path: Path, kept: int = KEPT, slack: int = _SLACK) -> None:
    """Give the room of the older output back once there is more than *kept* and *slack* of it.

    On a file system without holes the file is emptied instead, and its offsets start again.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(descriptor).st_size
        if size - _first_offset(descriptor, size) <= kept + slack:
            return
        _punch_hole(descriptor, (size - kept) // _BLOCK * _BLOCK)
    finally:
        os.close(descriptor)


def _first_offset(descriptor: int, size: int) -> int:
    """Where the hole at the start of the file ends."""
    if size == 0:
        return 0
    try:
        return os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno == errno.ENXIO:
            return size
        raise


def _punch_hole(descriptor: int, length: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.fallocate.argtypes = [ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64]
    if libc.fallocate(descriptor, _KEEP_SIZE | _PUNCH_HOLE, 0, length) == 0:
        return
    number = ctypes.get_errno()
    if number != errno.EOPNOTSUPP:
        raise OSError(number, os.strerror(number))
    os.ftruncate(descriptor, 0)
