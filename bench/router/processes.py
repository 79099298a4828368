"""Processes pinned to cores, and what they use, from ``/proc`` (proc(5))."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import attrs

#: The core that belongs to the proxy under test, and the one for everything else.
PROXY_CORE = 0
LOAD_CORE = 1

#: Descriptors that each process may have: as many as we may give.
OPEN_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)[1]

_TICKS = os.sysconf("SC_CLK_TCK")


class NotStarted(Exception):
    """A process ended, or did not listen in time. The text has the end of its log."""


def pinned(argv: Sequence[str], cores: str) -> list[str]:
    """The command line that runs *argv* on *cores* ("0", "0-1") with enough descriptors."""
    return ["prlimit", f"--nofile={OPEN_FILES}:{OPEN_FILES}", "taskset", "-c", cores, *argv]


@attrs.frozen
class Usage:
    """What the processes of a `Session` have used: processor seconds, by process id."""

    by_process: Mapping[int, float]

    def since(self, before: Usage) -> dict[int, float]:
        """Seconds used after *before*, by process."""
        return {
            pid: seconds - before.by_process.get(pid, 0.0)
            for pid, seconds in self.by_process.items()
        }

    def total_since(self, before: Usage) -> float:
        """Seconds used after *before* by all processes together."""
        return sum(self.since(before).values())


class Session:
    """A process, and all that it starts: they share a session id of their own."""

    def __init__(
        self,
        argv: Sequence[str],
        *,
        cores: str,
        log: Path,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                pinned(argv, cores),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environ,
                cwd=directory,
                start_new_session=True,
            )

    def wait_for_port(self, port: int, seconds: float = 20.0) -> None:
        """Return once something accepts on *port* of 127.0.0.1. Raises `NotStarted`."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise NotStarted(f"{self.process.args!r} does not listen on {port}\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of what its processes printed."""
        return self.log.read_text(errors="replace")[-2000:]

    def usage(self) -> Usage:
        """Processor time so far."""
        return Usage(dict(_processor_seconds(self.process.pid)))

    def memory(self) -> int:
        """Bytes resident now; what processes share is counted once."""
        return sum(_proportional_memory(pid) for pid, _ in _members(self.process.pid))

    def stop(self) -> None:
        """End all processes of the session: asked to, then killed."""
        for number, seconds in ((signal.SIGTERM, 3.0), (signal.SIGKILL, 5.0)):
            for pid, _ in list(_members(self.process.pid)):
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                self.process.poll()
                if not list(_members(self.process.pid)):
                    return
                time.sleep(0.02)


def _members(session: int) -> Iterator[tuple[int, list[str]]]:
    """Process ids of *session*, each with the fields of its ``stat`` from the state on."""
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text()
        except OSError:
            continue
        fields = stat[stat.rindex(")") + 2 :].split()
        if int(fields[3]) == session and fields[0] != "Z":
            yield int(entry), fields


def _processor_seconds(session: int) -> Iterator[tuple[int, float]]:
    for pid, fields in _members(session):
        yield pid, (int(fields[11]) + int(fields[12])) / _TICKS


def _proportional_memory(pid: int) -> int:
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def free_port() -> int:
    """A TCP port of 127.0.0.1 that nobody uses now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port
