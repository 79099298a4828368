"""The nodes that were removed from the cluster, whose certificates count no longer."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
from twisted.logger import Logger

from hero.identity.files import Fingerprint, fingerprint, write_atomically

_log = Logger()


class RevokedNodes:
    """The sids in *path* (``var/state/revoked.json``), read again when the file changes.

    A file that cannot be read leaves what was known before, and a line in the log.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: Fingerprint | None = None
        self._sids: frozenset[str] = frozenset()

    def __contains__(self, node_sid: str) -> bool:
        return node_sid in self.sids()

    def sids(self) -> frozenset[str]:
        """The nodes that were removed."""
        seen = fingerprint(self._path)
        if seen != self._seen:
            self._seen = seen
            try:
                self._sids = frozenset(msgspec.json.decode(self._path.read_bytes(), type=list[str]))
            except FileNotFoundError:
                self._sids = frozenset()
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                _log.error(
                    "removed nodes not reloaded: {path}: {reason}",
                    path=self._path,
                    reason=str(error),
                )
        return self._sids

    def write(self, node_sids: Iterable[str]) -> None:
        """Replace the list."""
        write_atomically(self._path, msgspec.json.encode(sorted(set(node_sids))))

    def add(self, node_sid: str) -> None:
        """Refuse *node_sid* from now on."""
        self.write({*self.sids(), node_sid})
