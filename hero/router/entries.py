"""What the socket directory may hold, and what of it is routed.

``<service>/<socket>.sock`` is a socket; ``<service>/<socket>.json`` beside it is its manifest, for
a program that cannot serve one itself. `scan` looks once, at everything.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import attrs

from hero.paths import MAX_SOCKET_PATH
from hero.router.target import NAME

_SUFFIX = ".sock"
_MANIFEST_SUFFIX = ".json"

#: A service's name and a socket's; the second is empty for a refused directory.
Key = tuple[str, str]

#: What tells one file from another that took its name, or from itself before it was changed.
Identity = tuple[int, int, int]


@attrs.frozen(kw_only=True)
class Found:
    """An entry: its socket, or why it is ``refused``. ``identity`` tells one socket from another
    that took its name; ``manifest`` is the file beside it, if there is one, and its identity."""

    path: Path
    identity: Identity | None = None
    refused: str | None = None
    manifest: tuple[Path, Identity] | None = None


def scan(directory: Path, owners: frozenset[int]) -> dict[Key, Found]:
    """What *directory* holds. Files belong to one of *owners* (user ids) or are refused.

    Names that start with a dot are not looked at: sockets are made under such a name first.
    """
    found: dict[Key, Found] = {}
    for name in names_in(os.fspath(directory)):
        service = ServiceDirectory(os.path.join(directory, name), owners)
        for key in service.look():
            entry = service.get(key)
            if entry is not None:
                found[key] = entry
    return found


def names_in(directory: str) -> list[str]:
    """The names in *directory* that do not start with a dot; none where it cannot be read."""
    try:
        return [name for name in os.listdir(directory) if not name.startswith(".")]
    except OSError:
        return []  # it went, or it is not for us


class ServiceDirectory:
    """What one entry of the socket directory, at *path*, holds: sockets, if it is a service's.

    `look` and `look_at` return the keys for which `get` may now say something else.
    """

    def __init__(self, path: str, owners: frozenset[int]) -> None:
        self.path = path
        self.name = _text(os.path.basename(path))
        self._owners = owners
        self._refused: str | None = None
        self._files: dict[str, Found] = {}
        self._manifests: dict[str, Found] = {}

    def __bool__(self) -> bool:
        """Whether there is anything to tell of."""
        return self._refused is not None or bool(self._files)

    def look(self) -> set[Key]:
        """Look at the directory and everything in it."""
        before = set(self._keys())
        files, manifests = self._files, self._manifests
        self._files, self._manifests = {}, {}
        try:
            status = os.lstat(self.path)
        except FileNotFoundError:
            self._refused = None
            return before
        except OSError:
            self._refused = "it cannot be looked at"
        else:
            self._refused = _why_no_service(status, self.name, self._owners)
        if self._refused is None:
            for name in names_in(self.path):
                self._keep(name, (manifests if _is_manifest(name) else files).get(_text(name)))
        return before.union(self._keys())

    def look_at(self, name: str) -> set[Key]:
        """Look at the one entry *name*, in a directory that is a service's."""
        if self._refused is not None:
            return set()
        text = _text(name)
        kept = self._manifests if _is_manifest(name) else self._files
        self._keep(name, kept.pop(text, None))
        return {(self.name, text.removesuffix(_SUFFIX).removesuffix(_MANIFEST_SUFFIX))} | {
            (self.name, text.removesuffix(_SUFFIX))
        }

    def get(self, key: Key) -> Found | None:
        """What there is of *key*."""
        _, socket = key
        if not socket:
            if self._refused is None:
                return None
            return Found(path=Path(_text(self.path)), refused=self._refused)
        found = self._files.get(socket + _SUFFIX)
        if found is None or found.refused is not None:
            other = self._files.get(socket) if not socket.endswith(_SUFFIX) else None
            return found or other
        manifest = self._manifests.get(socket + _MANIFEST_SUFFIX)
        if manifest is None:
            return found
        if manifest.refused is not None:
            why = f"its manifest {manifest.path.name} cannot be used: {manifest.refused}"
            return attrs.evolve(found, refused=why)
        assert manifest.identity is not None
        return attrs.evolve(found, manifest=(manifest.path, manifest.identity))

    def _keys(self) -> Iterator[Key]:
        if self._refused is not None:
            yield self.name, ""
        for text in self._files:
            yield self.name, text.removesuffix(_SUFFIX)

    def _keep(self, name: str, before: Found | None) -> None:
        """Take the entry *name* down as it is; *before* is what was known of it."""
        path = os.path.join(self.path, name)
        text = _text(name)
        is_manifest = _is_manifest(name)
        kept = self._manifests if is_manifest else self._files
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return
        except OSError:
            kept[text] = Found(path=Path(_text(path)), refused="it cannot be looked at")
            return
        identity = (status.st_dev, status.st_ino, status.st_ctime_ns)
        if before is not None and before.identity == identity:
            kept[text] = before  # as its owner and kind could not change without this
            return
        if is_manifest:
            why = _why_no_manifest(status, self._owners)
        else:
            why = _why_no_socket(status, name, path, self._owners)
        kept[text] = Found(
            path=Path(path if why is None else _text(path)), identity=identity, refused=why
        )


def _is_manifest(name: str) -> bool:
    return name.endswith(_MANIFEST_SUFFIX)


def _text(name: str) -> str:
    """A file's *name* as it can be shown: bytes that are no UTF-8 are written as escapes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def _why_no_service(status: os.stat_result, name: str, owners: frozenset[int]) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISDIR(status.st_mode):
        return "it is not the directory of a service"
    if status.st_uid not in owners:
        return f"it belongs to user {status.st_uid}"
    if not NAME.fullmatch(name):
        return f"its name does not match {NAME.pattern}"
    return None


def _why_no_socket(
    status: os.stat_result, name: str, path: str, owners: frozenset[int]
) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISSOCK(status.st_mode):
        return "it is not a socket"
    if status.st_uid not in owners:
        return f"it belongs to user {status.st_uid}"
    if not name.endswith(_SUFFIX):
        return f"its name does not end in {_SUFFIX}"
    if not NAME.fullmatch(name.removesuffix(_SUFFIX)):
        return f"its name does not match {NAME.pattern}"
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        return f"its path is longer than the {MAX_SOCKET_PATH} bytes of a socket address"
    return None


def _why_no_manifest(status: os.stat_result, owners: frozenset[int]) -> str | None:
    if stat.S_ISLNK(status.st_mode):
        return "it is a symbolic link"
    if not stat.S_ISREG(status.st_mode):
        return "it is not a file"
    if status.st_uid not in owners:
        return f"it belongs to user {status.st_uid}"
    return None
