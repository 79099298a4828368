"""Files that are whole or absent, whatever happens in between."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

from hero.errors import InvalidConfiguration, Unavailable

#: Seconds between two tries; holders need some milliseconds.
_LOCK_POLL = 0.005


def write_atomically(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replace *path* by *content*: a reader, or a crash, sees the old file or the new one.

    The content is on the disk when this returns.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.rename(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(directory: Path) -> None:
    """Make the names in *directory* survive a power cut."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked(directory: Path, *, timeout: float = 10.0) -> Iterator[None]:
    """Hold *directory* against every other process and thread that also asks for it.

    The kernel lets go when the holder dies. Not reentrant. Raises `Unavailable` when somebody
    else holds it for *timeout* seconds, `InvalidConfiguration` when this user may not.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(directory / ".lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise InvalidConfiguration(
            f"this user may not write to {directory}", hint="run it as the user that owns it"
        ) from error
    try:
        _wait_for_lock(descriptor, directory, timeout)
        yield
    finally:
        os.close(descriptor)


def _wait_for_lock(descriptor: int, directory: Path, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Unavailable(
                    f"another process has been busy with {directory} for {timeout:g} s",
                    hint=f"fuser -v {directory / '.lock'} names it",
                ) from None
            time.sleep(_LOCK_POLL)
        else:
            return


#: What tells one version of a set of files from another.
Fingerprint = tuple[tuple[int, int, int] | None, ...]


def fingerprint(*paths: Path) -> Fingerprint:
    """A value that changes when one of *paths* is replaced, comes or goes."""
    marks: list[tuple[int, int, int] | None] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            marks.append(None)
        else:
            marks.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(marks)
