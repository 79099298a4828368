"""A thread that writes lines to a file, so that no slow disk holds up the reactor."""

from __future__ import annotations

from queue import SimpleQueue
from threading import Thread
from typing import Protocol

#: Bytes that wait for the file. More are lost.
_BOUND = 16 * 1024 * 1024
#: For the last lines to be written, in seconds. A disk that hangs must not keep a process alive.
_PATIENCE = 5.0


class LineFile(Protocol):
    """Where lines go. All of it is called in the writer's thread, and may block."""

    def write(self, lines: bytes) -> None:
        """Append whole *lines*. Raises `OSError`."""

    def reopen(self) -> None:
        """Open the file by its name again. Raises `OSError`."""

    def close(self) -> None:
        """Be done with the file."""


class LineWriter:
    """Writes to *file* what `put` is given. At most *bound* bytes wait.

    The thread starts with the first lines: a process that becomes a daemon has forked by then.
    """

    def __init__(self, file: LineFile, *, bound: int = _BOUND) -> None:
        self._file = file
        self._bound = bound
        self._queue: SimpleQueue[tuple[bytes, int] | bool] = SimpleQueue()
        self._thread: Thread | None = None
        # Each of these is changed by one thread only, so that they need no lock.
        self._given = self._rejected = 0
        self._taken = self._failed = 0
        self._full = False
        self._error: str | None = None

    @property
    def lost(self) -> int:
        """Lines that were not written, so far."""
        return self._rejected + self._failed

    @property
    def busy(self) -> bool:
        """Whether lines wait to be written."""
        return self._given > self._taken

    @property
    def trouble(self) -> str | None:
        """Why lines are lost at present; None where they are not."""
        return self._error or ("it is written too slowly" if self._full else None)

    def put(self, lines: bytes, count: int) -> None:
        """Write *lines*, *count* of them, soon."""
        self._full = self._given - self._taken + len(lines) > self._bound
        if self._full:
            self._rejected += count
            return
        self._given += len(lines)
        self._tell((lines, count))

    def reopen(self) -> None:
        """Open the file by its name again, after what was put before."""
        self._tell(True)

    def close(self) -> None:
        """Wait, for some seconds at most, until all is written; nothing can be put afterwards."""
        if self._thread is None:
            self._file.close()
        else:
            self._tell(False)
            self._thread.join(_PATIENCE)

    def _tell(self, item: tuple[bytes, int] | bool) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, name="access log", daemon=True)
            self._thread.start()
        self._queue.put(item)

    def _run(self) -> None:
        while (item := self._queue.get()) is not False:
            lines, count = (b"", 0) if item is True else item
            try:
                if item is True:
                    self._file.reopen()
                else:
                    self._file.write(lines)
            except OSError as error:
                self._failed += count
                self._error = str(error)
            else:
                self._error = None
            self._taken += len(lines)
        self._file.close()
