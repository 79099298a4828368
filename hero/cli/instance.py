"""The one ``hero up`` of a node: its lock, and the file that says how it is."""

from __future__ import annotations

import fcntl
import json
import os
from pathlib import Path
from typing import Any

import attrs

from hero.errors import Conflict
from hero.paths import HeroPaths


def lock_file(paths: HeroPaths) -> Path:
    """Locked by a running ``hero up``; holds its process id."""
    return paths.run / "hero.pid"


def state_file(paths: HeroPaths) -> Path:
    """What a running ``hero up`` says of itself, in JSON."""
    return paths.run / "hero.json"


@attrs.define
class InstanceLock:
    """Held for as long as a supervisor runs; the kernel lets go of it when the process dies."""

    _descriptor: int

    @classmethod
    def acquire(cls, paths: HeroPaths) -> InstanceLock:
        """Take the lock. Raises `Conflict` where another ``hero up`` has it."""
        descriptor = os.open(lock_file(paths), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise Conflict(
                f"hero up is running already for {paths.home} (process {pid or 'unknown'})",
                hint="hero status shows it, hero down stops it",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        return cls(descriptor)

    def release(self) -> None:
        """Let another ``hero up`` run."""
        os.ftruncate(self._descriptor, 0)
        os.close(self._descriptor)


def running_pid(paths: HeroPaths) -> int | None:
    """The process id of the running ``hero up``, or None where there is none."""
    try:
        descriptor = os.open(lock_file(paths), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(descriptor)
    return None


def read_state(paths: HeroPaths) -> dict[str, Any]:
    """What the last ``hero up`` said of itself; empty where none ran."""
    try:
        state = json.loads(state_file(paths).read_text())
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(paths: HeroPaths, state: dict[str, Any]) -> None:
    """Replace what is said, in one step."""
    fresh = state_file(paths).with_suffix(".new")
    fresh.write_text(json.dumps(state, indent=1))
    fresh.replace(state_file(paths))


def router_urls(paths: HeroPaths) -> list[str]:
    """Where this node's router says that it listens; empty where it does not run."""
    try:
        said = json.loads((paths.run / "router.json").read_text())
        return [str(url) for url in said["listening"]]
    except (OSError, ValueError, KeyError, TypeError):
        return []
