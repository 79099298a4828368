"""The socket directory is the registry: keeping up with what is in it.

inotify(7) says which entries changed, and only those are looked at again; a periodic sweep over
everything is the safety net for what inotify can miss. Both work off one queue in small portions,
so that no connection waits for a directory of thousands.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from hero.router import inotify
from hero.router.entries import Found, Key, ServiceDirectory, names_in, scan

__all__ = ["Discovery", "Found", "Key", "scan"]

_EVENTS = (
    inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_ATTRIB
    | inotify.IN_CLOSE_WRITE
    | inotify.IN_DELETE_SELF
    | inotify.IN_MOVE_SELF
)
#: Events come in bursts; one look serves those within this time.
_GATHER = 0.005
#: Seconds of looking after which others have their turn.
_PORTION = 0.002

_log = Logger()

#: Called with all that is found, not to be kept or changed, and the keys that are new in it, gone
#: from it, or different.
Changed = Callable[[Mapping[Key, Found], set[Key]], None]


class Discovery(Service):
    """Calls *changed* with what *directory* holds: at the start, and after each change.

    *rescan* is the period, in seconds, of the sweep that needs no event.
    """

    def __init__(
        self,
        reactor: Any,
        directory: Path,
        changed: Changed,
        *,
        owners: frozenset[int] | None = None,
        rescan: float = 5.0,
    ) -> None:
        self._reactor = reactor
        self._directory = os.fspath(directory)
        self._changed = changed
        self._owners = owners if owners is not None else frozenset({0, os.geteuid()})
        self._rescan = rescan
        self._inotify: inotify.Inotify | None = None
        self._watches: dict[str, int] = {}
        self._watched: dict[int, str] = {}
        self._unwatchable: set[str] = set()
        self._services: dict[str, ServiceDirectory] = {}
        self._found: dict[Key, Found] = {}
        #: Entries of services' directories to look at; None for the whole directory.
        self._named: dict[str, set[str] | None] = {}
        #: Services that a sweep has still to look at.
        self._sweep: deque[str] = deque()
        self._working: Any = None
        self._looping = LoopingCall(self._begin_sweep)
        self._looping.clock = reactor

    def startService(self) -> None:
        """Look, and keep looking."""
        super().startService()  # type: ignore[no-untyped-call]
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        try:
            self._inotify = inotify.Inotify(self._reactor, self._event)
            self._inotify.startReading()  # type: ignore[no-untyped-call]
        except OSError as error:
            _log.warn("no inotify ({reason}): new sockets take longer", reason=str(error))
        self.look()
        self._looping.start(self._rescan, now=False)

    def stopService(self) -> None:
        """Stop looking."""
        super().stopService()  # type: ignore[no-untyped-call]
        if self._looping.running:
            self._looping.stop()
        if self._working is not None:
            self._working.cancel()
            self._working = None
        if self._inotify is not None:
            self._inotify.close()
            self._inotify = None
        self._watches.clear()
        self._watched.clear()

    def look(self) -> None:
        """Look at everything, now and at once."""
        self._list_services()
        self._work(portion=None)

    def _begin_sweep(self) -> None:
        self._list_services()
        self._work()

    def _list_services(self) -> None:
        """Plan to look at each service, those that are gone included."""
        # The watch comes first, so that what appears during the look is not missed.
        self._watch("")
        self._sweep = deque({*names_in(self._directory), *self._services})

    def _event(self, watch: int, mask: int, name: str) -> None:
        """Something happened to an entry; look at it when those beside it have been told of."""
        service = self._watched.get(watch)
        if mask & inotify.IN_Q_OVERFLOW:
            _log.info("too many changes at once in {path}: looking at it all", path=self._directory)
            self._list_services()
        elif service is None:
            return  # a watch that was given up, whose last events were on their way
        elif mask & inotify.IN_IGNORED:
            self._unwatch(service)
            return
        elif not service:
            if name:
                self._look_later(name, None)
            elif mask & (inotify.IN_DELETE_SELF | inotify.IN_MOVE_SELF):
                self._unwatch("")
                self._list_services()
        else:
            self._look_later(service, name or None)
        if self._working is None and (self._named or self._sweep):
            self._working = self._reactor.callLater(_GATHER, self._work)

    def _look_later(self, service: str, name: str | None) -> None:
        """Plan to look at the entry *name* of *service*, or at all of it."""
        if service.startswith(".") or (name is not None and name.startswith(".")):
            return
        if name is None:
            self._named[service] = None
        else:
            names = self._named.setdefault(service, set())
            if names is not None:
                names.add(name)

    def _work(self, portion: float | None = _PORTION) -> None:
        """Look at what is planned, for *portion* seconds or to the end; then tell."""
        if self._working is not None and self._working.active():
            self._working.cancel()
        self._working = None
        until = self._reactor.seconds() + portion if portion is not None else None
        changed: set[Key] = set()
        while self._named or self._sweep:
            if self._named:
                service, names = self._named.popitem()
            else:
                service, names = self._sweep.popleft(), None
            self._look(service, names, changed)
            if until is not None and self._reactor.seconds() >= until:
                break
        if changed:
            self._changed(self._found, changed)
        if self._named or self._sweep:
            self._working = self._reactor.callLater(0, self._work)

    def _look(self, name: str, names: set[str] | None, changed: set[Key]) -> None:
        """Look at *names* in the service *name*, or at all of it; note what changed."""
        service = self._services.get(name)
        if service is None:
            service = ServiceDirectory(os.path.join(self._directory, name), self._owners)
            names = None
        if names is None:
            self._watch(name)
            keys = service.look()
        else:
            keys = {key for entry in names for key in service.look_at(entry)}
        if service or name in self._watches:
            self._services[name] = service
        else:
            self._services.pop(name, None)
        for key in keys:
            entry = service.get(key)
            if entry == self._found.get(key):
                continue
            changed.add(key)
            if entry is None:
                del self._found[key]
                continue
            self._found[key] = entry
            if entry.refused is not None:
                _log.debug(
                    "not routed: {service}/{socket}: {reason}",
                    service=key[0],
                    socket=key[1],
                    reason=entry.refused,
                )

    def _watch(self, name: str) -> None:
        """Watch the service *name*'s directory, or with no name the socket directory itself.

        A directory that took the place of another is found out here: its watch is a new one.
        """
        if self._inotify is None:
            return
        path = os.path.join(self._directory, name) if name else self._directory
        try:
            watch = self._inotify.watch(path, _EVENTS)
        except (FileNotFoundError, NotADirectoryError):
            self._unwatch(name)
            self._unwatchable.discard(name)
            return
        except OSError as error:
            self._unwatch(name)
            if name not in self._unwatchable:
                self._unwatchable.add(name)
                _log.warn("cannot watch {path}: {reason}", path=path, reason=str(error))
            return
        if self._watches.get(name) == watch:
            return
        self._unwatch(name)
        renamed = self._watched.get(watch)
        if renamed is not None:
            del self._watches[renamed]
        self._watches[name] = watch
        self._watched[watch] = name

    def _unwatch(self, name: str) -> None:
        watch = self._watches.pop(name, None)
        if watch is not None and self._inotify is not None:
            self._watched.pop(watch, None)
            self._inotify.forget(watch)
