"""inotify(7) for many directories, any of which may go.

Twisted's own closes itself when a directory that it watches is deleted, and says nothing when the
kernel's queue overflows.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Callable
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.python.failure import Failure

IN_ATTRIB = 0x4
IN_CLOSE_WRITE = 0x8
IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
IN_MOVE_SELF = 0x800
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
_IN_ONLYDIR = 0x1000000
_IN_DONT_FOLLOW = 0x2000000

#: ``struct inotify_event``: wd, mask, cookie, len; then ``len`` bytes of a name.
_EVENT = struct.Struct("=iIII")
_READ = 65536

_libc = ctypes.CDLL(None, use_errno=True)


class Inotify(FileDescriptor):
    """Calls *happened* with (watch, mask, name) for each event.

    ``name`` is the entry of the watched directory that the event is about, or empty for the
    directory itself; ``watch`` is -1 when events were lost. Raises `OSError` where the user has no
    inotify instance left.
    """

    def __init__(self, reactor: Any, happened: Callable[[int, int, str], None]) -> None:
        super().__init__(reactor)
        self._happened = happened
        self._fd = _checked(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        self.connected = True

    def fileno(self) -> int:
        return self._fd

    def watch(self, directory: str, mask: int) -> int:
        """Watch *directory* for the events in *mask*; returns the number of the watch.

        The same directory again is the same number; another one that took its name has another.
        Raises `OSError`; a symbolic link is no directory.
        """
        flags = mask | _IN_ONLYDIR | _IN_DONT_FOLLOW
        return _checked(_libc.inotify_add_watch(self._fd, os.fsencode(directory), flags))

    def forget(self, watch: int) -> None:
        """Watch no more. The kernel may have forgotten it before."""
        _libc.inotify_rm_watch(self._fd, watch)

    def doRead(self) -> Exception | None:
        """Take what the kernel has queued."""
        try:
            data = os.read(self._fd, _READ)
        except BlockingIOError:
            return None
        except OSError as error:
            return error
        at = 0
        while at < len(data):
            watch, mask, _, length = _EVENT.unpack_from(data, at)
            at += _EVENT.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            self._happened(watch, mask, name)
        return None

    def close(self) -> None:
        """Give the descriptor, and with it every watch, back."""
        self.stopReading()  # type: ignore[no-untyped-call]
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def connectionLost(self, reason: Failure) -> None:
        """The reactor shuts down, or could not read."""
        super().connectionLost(reason)  # type: ignore[no-untyped-call]
        self.close()


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
