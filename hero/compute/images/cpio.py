"""Writing cpio archives in the "newc" format, which Linux unpacks as its first file system.

The format is described in the kernel's ``driver-api/early-userspace/buffer-format``.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from typing import BinaryIO

import attrs


@attrs.frozen
class Entry:
    """One thing in an archive. *mode* has the type bits, as in `stat`; a link's data is its target.

    *device* is the major and minor number of a device node.
    """

    path: str
    mode: int
    data: bytes = b""
    device: tuple[int, int] = (0, 0)


def directory(path: str) -> Entry:
    """A directory that everybody may read."""
    return Entry(path, stat.S_IFDIR | 0o755)


def file(path: str, data: bytes, permissions: int = 0o644) -> Entry:
    """An ordinary file."""
    return Entry(path, stat.S_IFREG | permissions, data)


def link(path: str, target: str) -> Entry:
    """A symbolic link."""
    return Entry(path, stat.S_IFLNK | 0o777, target.encode())


def character_device(path: str, major: int, minor: int) -> Entry:
    """A device node that only root may use."""
    return Entry(path, stat.S_IFCHR | 0o600, b"", (major, minor))


def write_archive(entries: Iterable[Entry], output: BinaryIO) -> None:
    """Write *entries*, owned by root and without times, so that equal content is equal bytes."""
    for inode, entry in enumerate(entries, start=1):
        output.write(_record(inode, entry))
    output.write(_record(0, Entry("TRAILER!!!", 0)))


def _record(inode: int, entry: Entry) -> bytes:
    name = entry.path.encode() + b"\0"
    fields = (
        inode,
        entry.mode,
        0,  # owner
        0,  # group
        1,  # links
        0,  # time of change
        len(entry.data),
        0,  # device of the file itself, major
        0,  # and minor
        *entry.device,
        len(name),
        0,  # checksum, unused in this format
    )
    header = b"070701" + b"".join(b"%08x" % field for field in fields)
    return _padded(header + name) + _padded(entry.data)


def _padded(data: bytes) -> bytes:
    return data + b"\0" * (-len(data) % 4)
