"""A log file that is appended to, follows its name, and is rotated when it has grown."""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

#: Bytes after which a log begins anew.
LOG_SIZE = 64 * 1024 * 1024
#: Old logs that are kept: ``.1`` is the newest.
LOGS_KEPT = 5

# Without O_NONBLOCK a named pipe that nobody reads would hold up the process when it starts.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK


class OpenFile:
    """Lines to the descriptor *file*, such as standard output; implements `LineFile`."""

    def __init__(self, file: int) -> None:
        self._file = file
        self._torn = False

    def write(self, lines: bytes) -> None:
        """See `LineFile`. After an error a part of *lines* may have been written."""
        # What follows a line that was written in part begins on a line of its own.
        left = b"\n" + lines if self._torn else lines
        while left:
            written = os.write(self._file, left)
            self._torn = left[written - 1 : written] != b"\n"
            left = left[written:]

    def reopen(self) -> None:
        """See `LineFile`. It has no name to be opened by."""

    def close(self) -> None:
        """See `LineFile`."""
        os.close(self._file)


class LogFile(OpenFile):
    """Appends to *path*, which only its owner may read. Several processes may do so at once.

    Where the file was moved or removed, what is written next goes into a new one, so that nothing
    is lost whoever rotates, and whenever. At *size* bytes it is rotated here; where the directory
    does not allow that, it is left to others.
    """

    def __init__(self, path: Path, *, size: int = LOG_SIZE, kept: int = LOGS_KEPT) -> None:
        self._path = path
        self._size = size
        self._kept = kept
        self._may_rotate = True
        super().__init__(_open(path))

    def write(self, lines: bytes) -> None:
        """See `LineFile`."""
        if not self._is_current():
            self.reopen()
        elif self._may_rotate and self._is_full():
            self._rotate()
        super().write(lines)

    def reopen(self) -> None:
        """See `LineFile`. After an error the file that was open still is."""
        before, self._file = self._file, _open(self._path)
        os.close(before)
        self._torn = False
        self._may_rotate = True

    def _is_current(self) -> bool:
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def _is_full(self) -> bool:
        status = os.fstat(self._file)
        return stat.S_ISREG(status.st_mode) and status.st_size >= self._size

    def _rotate(self) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            # Another process may have done it while this one waited.
            if self._is_current():
                self._shift()
        except OSError:
            self._may_rotate = False
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        if self._may_rotate:
            self.reopen()

    def _shift(self) -> None:
        for number in range(self._kept, 0, -1):
            newer = self._numbered(number - 1)
            if newer.exists():
                newer.replace(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _open(path: Path) -> int:
    file = os.open(path, _FLAGS, 0o600)
    os.set_blocking(file, True)
    return file
