"""The socket directory is the registry: finding out what is in it.

`scan` looks once; `Discovery` keeps looking, told by inotify(7), with a periodic rescan as a
safety net for what inotify can miss.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet import inotify
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.python.filepath import FilePath

from hero.paths import MAX_SOCKET_PATH
from hero.router.target import NAME

_SUFFIX = ".sock"
_EVENTS = (
    inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_ATTRIB
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
)
#: Events come in bursts; one look serves those within this time.
_GATHER = 0.005

#: A service's name and a socket's; the second is empty for a refused directory.
Key = tuple[str, str]

_log = Logger()


@attrs.frozen(kw_only=True)
class Found:
    """An entry: its socket, or why it is ``refused``. ``identity`` tells one socket from another
    that took its name."""

    path: Path
    identity: tuple[int, int, int] | None = None
    refused: str | None = None


def scan(directory: Path, owners: frozenset[int]) -> dict[Key, Found]:
    """What *directory* holds. Sockets belong to one of *owners* (user ids) or are refused.

    Names that start with a dot are not looked at: sockets are made under such a name first.
    """
    found: dict[Key, Found] = {}
    for entry in _entries(directory):
        why = _why_no_service(entry, owners)
        if why is not None:
            found[_text(entry.name), ""] = Found(path=Path(_text(entry.path)), refused=why)
            continue
        for inner in _entries(Path(entry.path)):
            name = _text(inner.name).removesuffix(_SUFFIX)
            found[entry.name, name] = _look(inner, owners)
    return found


def _text(name: str) -> str:
    """A file's *name* as it can be shown: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _entries(directory: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(directory) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []  # it went, or it is not for us


def _why_no_service(entry: os.DirEntry[str], owners: frozenset[int]) -> str | None:
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return "it cannot be looked at"
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "it is not the directory of a service"
    if status.st_uid not in owners:
        return f"it belongs to user {status.st_uid}"
    if not NAME.fullmatch(entry.name):
        return f"its name does not match {NAME.pattern}"
    return None


def _look(entry: os.DirEntry[str], owners: frozenset[int]) -> Found:
    path = Path(entry.path)
    try:
        status = entry.stat(follow_symlinks=False)
    except OSError:
        return Found(path=path, refused="it cannot be looked at")
    why = None
    if stat.S_ISLNK(status.st_mode):
        why = "it is a symbolic link"
    elif not stat.S_ISSOCK(status.st_mode):
        why = "it is not a socket"
    elif status.st_uid not in owners:
        why = f"it belongs to user {status.st_uid}"
    elif not entry.name.endswith(_SUFFIX):
        why = f"its name does not end in {_SUFFIX}"
    elif not NAME.fullmatch(entry.name.removesuffix(_SUFFIX)):
        why = f"its name does not match {NAME.pattern}"
    elif len(os.fsencode(entry.path)) > MAX_SOCKET_PATH:
        why = f"its path is longer than the {MAX_SOCKET_PATH} bytes of a socket address"
    if why is not None:
        path = Path(_text(entry.path))
    return Found(
        path=path, identity=(status.st_dev, status.st_ino, status.st_ctime_ns), refused=why
    )


class _Notifier(inotify.INotify):
    """One inotify descriptor for many directories, any of which may go.

    Twisted's own closes itself when any directory that it watches is deleted.
    """

    def _rmWatch(self, wd: int) -> None:
        self._inotify.remove(self._fd, wd)
        watch = self._watchpoints.pop(wd, None)
        if watch is not None:
            self._watchpaths.pop(watch.path, None)

    def loseConnection(self) -> None:
        """Stay; `close` closes."""

    def close(self) -> None:
        super().loseConnection()  # type: ignore[no-untyped-call]


class Discovery(Service):
    """Calls *changed* with what *directory* holds: at the start, and after each change.

    *rescan* is the period, in seconds, of the look that needs no event.
    """

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        changed: Callable[[dict[Key, Found]], None],
        *,
        owners: frozenset[int] | None = None,
        rescan: float = 5.0,
    ) -> None:
        self._reactor = reactor
        self._directory = directory
        self._changed = changed
        self._owners = owners if owners is not None else frozenset({0, os.geteuid()})
        self._rescan = rescan
        self._notifier: _Notifier | None = None
        self._watched: set[Path] = set()
        self._pending: Any = None
        self._looping = LoopingCall(self.look)
        self._looping.clock = reactor
        self._last: dict[Key, Found] | None = None

    def startService(self) -> None:
        """Look, and keep looking."""
        super().startService()  # type: ignore[no-untyped-call]
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._notifier = _Notifier(self._reactor)  # type: ignore[no-untyped-call]
            self._notifier.startReading()  # type: ignore[no-untyped-call]
        except OSError as error:
            self._notifier = None
            _log.warn("no inotify ({reason}): new sockets take longer", reason=str(error))
        self._looping.start(self._rescan)

    def stopService(self) -> None:
        """Stop looking."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._looping.running:
            self._looping.stop()
        if self._pending is not None:
            self._pending.cancel()
            self._pending = None
        if self._notifier is not None:
            self._notifier.close()
            self._notifier = None
        self._watched.clear()

    def look(self) -> None:
        """Look now. A change that no event told of means that events, and watches, were lost."""
        before = self._last
        self._look()
        if before is not None and self._last != before:
            for path in list(self._watched):
                self._unwatch(path)
            self._look()

    def _look(self) -> None:
        # The watches come first, so that what appears during the look is not missed.
        self._watch()
        found = scan(self._directory, self._owners)
        if found == self._last:
            return
        self._last = found
        for (service, socket), entry in found.items():
            if entry.refused is not None:
                _log.debug(
                    "not routed: {service}/{socket}: {reason}",
                    service=service,
                    socket=socket,
                    reason=entry.refused,
                )
        self._changed(found)

    def _watch(self) -> None:
        notifier = self._notifier
        if notifier is None:
            return
        wanted = {self._directory}
        wanted |= {
            Path(e.path) for e in _entries(self._directory) if e.is_dir(follow_symlinks=False)
        }
        for path in self._watched - wanted:
            self._unwatch(path)
        for path in wanted:
            self._add_watch(notifier, path)

    def _add_watch(self, notifier: _Notifier, path: Path) -> None:
        if path in self._watched:
            return
        try:
            notifier.watch(FilePath(os.fsencode(path)), mask=_EVENTS, callbacks=[self._event])  # type: ignore[no-untyped-call]
        except (OSError, inotify.INotifyError) as error:
            _log.warn("cannot watch {path}: {reason}", path=str(path), reason=str(error))
        else:
            self._watched.add(path)

    def _unwatch(self, path: Path) -> None:
        self._watched.discard(path)
        assert self._notifier is not None
        with contextlib.suppress(KeyError):
            self._notifier.ignore(FilePath(os.fsencode(path)))  # type: ignore[no-untyped-call]

    def _event(self, ignored: Any, path: FilePath[bytes], mask: int) -> None:
        itself = Path(os.fsdecode(path.path))
        if mask & inotify.IN_DELETE_SELF:
            self._watched.discard(itself)  # the kernel has taken the watch away
        elif mask & inotify.IN_MOVE_SELF:
            self._unwatch(itself)
        if self._pending is None:
            self._pending = self._reactor.callLater(_GATHER, self._gathered)

    def _gathered(self) -> None:
        self._pending = None
        self._look()
