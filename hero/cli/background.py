"""``hero up -d`` and ``hero down``: a supervisor without a terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from hero.cli.instance import InstanceLock, read_state, running_pid
from hero.cli.startup import StartPlan, save_settings
from hero.errors import HeroError, Timeout, Unavailable
from hero.paths import HeroPaths

_POLL = 0.1
_START_WITHIN = 120.0
_STOP_WITHIN = 90.0
_LOG_LIMIT = 8 * 1024 * 1024


def start_in_background(plan: StartPlan) -> dict[str, Any]:
    """Start the supervisor in a session of its own and wait until the node is ready.

    Returns what ``var/run/hero.json`` then says. Raises the error for which it did not start.
    """
    plan.paths.ensure()
    InstanceLock.acquire(plan.paths).release()
    save_settings(plan)
    log = plan.paths.log / "hero.log"
    if log.exists() and log.stat().st_size > _LOG_LIMIT:
        log.replace(log.with_suffix(".log.1"))
    environment = {**plan.environment, **plan.settings, "HERO_LISTEN": " ".join(plan.listen)}
    with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "wb") as output:
        began = output.tell()
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "hero.cli.main", "up"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_WITHIN
    while time.monotonic() < deadline:
        ended = process.poll() is not None
        state = read_state(plan.paths)
        if state.get("pid") == process.pid:
            if state["state"] == "ready":
                return state
            if "error" in state and (ended or state["state"] == "degraded"):
                raise HeroError.from_data(state["error"])
        if ended:
            with log.open("rb") as said:
                said.seek(began)
                words = said.read(4096).decode(errors="replace").strip()
            raise Unavailable(f"hero up ended before it was ready: {words}", hint=f"see {log}")
        time.sleep(_POLL)
    raise Timeout(
        f"the node is not ready after {_START_WITHIN:g} seconds",
        hint="it goes on starting; hero status shows how far it is",
    )


def stop_running(paths: HeroPaths) -> int | None:
    """Stop the running supervisor and wait until it has ended.

    Returns its process id, None where none runs. Raises `Timeout`.
    """
    pid = running_pid(paths)
    if pid is None:
        return None
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_WITHIN
    while running_pid(paths) == pid:
        if time.monotonic() > deadline:
            raise Timeout(
                f"hero up (process {pid}) has not ended after {_STOP_WITHIN:g} seconds",
                hint=f"see {paths.log / 'hero.log'}",
            )
        time.sleep(_POLL)
    return pid
