"""``hero up`` in the foreground: start the processes, say when they are ready, stop them."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import attrs
import psutil
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater

from hero.cli.instance import InstanceLock, read_state, router_urls, write_state
from hero.cli.readiness import what_is_missing
from hero.cli.startup import StartPlan, fell_back, save_settings
from hero.cli.supervisor import Supervisor, command_line
from hero.errors import HeroError, Timeout
from hero.paths import HeroPaths

#: Seconds for everything to be ready before the person is told what is not.
READY_WITHIN = 90.0

_POLL = 0.15
_ORPHAN_GRACE = 15.0


@attrs.frozen(kw_only=True)
class Ready:
    """A node that has started. ``fell_back``: the router may not listen on 443."""

    mode: str
    seconds: float
    router: list[str]
    console: str | None
    fell_back: bool


async def run_in_foreground(
    reactor: Any,
    plan: StartPlan,
    *,
    say: Callable[[str], None],
    ready: Callable[[Ready], None],
) -> None:
    """Run the node until this is cancelled. Raises `HeroError` when it cannot start."""
    plan.paths.ensure()
    lock = InstanceLock.acquire(plan.paths)
    try:
        await _run(reactor, plan, say, ready)
    finally:
        lock.release()


async def _run(
    reactor: Any, plan: StartPlan, say: Callable[[str], None], ready: Callable[[Ready], None]
) -> None:
    began = reactor.seconds()
    names = ", ".join(reversed(plan.processes))
    say(f"starting {names} ({plan.mode} mode); Ctrl-C stops them")
    end_orphans(plan.paths, say)
    save_settings(plan)
    (plan.paths.run / "router.json").unlink(missing_ok=True)
    state: dict[str, Any] = {"pid": os.getpid(), "mode": plan.mode, "started_at": time.time()}

    def record(phase: str | None = None, **members: Any) -> None:
        state.update(members)
        if phase is not None:
            state["state"] = phase
        state["processes"] = [attrs.asdict(r) for r in supervisor.records.values()]
        write_state(plan.paths, state)

    supervisor = Supervisor(reactor, log_directory=plan.paths.log, changed=record, say=say)
    for name in reversed(plan.processes):
        supervisor.add(name, command_line(os.getpid(), plan.arguments(name)), plan.environment)
    record("starting")
    signal.signal(signal.SIGUSR2, lambda *_: reactor.callFromThread(supervisor.replace, "router"))
    try:
        supervisor.startService()
        missing = await _wait_until_ready(reactor, plan, supervisor)
        supervisor.settle()
        if missing:
            problem = f"{', '.join(missing)} not ready after {READY_WITHIN:g} seconds"
            logs = ", ".join(str(plan.paths.log / f"{name}.log") for name in missing)
            record("degraded", error=Timeout(problem, hint=f"see {logs}").to_data())
            say(f"{problem}; see {logs}")
        else:
            urls = router_urls(plan.paths)
            started = Ready(
                mode=plan.mode,
                seconds=reactor.seconds() - began,
                router=urls,
                console=f"http://127.0.0.1:{plan.ui_port}" if "ui" in plan.processes else None,
                fell_back=fell_back(plan.listen, urls),
            )
            record("ready", ready=attrs.asdict(started))
            ready(started)
        await Deferred()
    except CancelledError:
        say("stopping; VMs run on")
        record("stopping")
    except HeroError as error:
        record("failed", error=error.to_data())
        raise
    finally:
        await supervisor.stop_in_order(plan.processes)
        if state["state"] != "failed":
            record("stopped")


async def _wait_until_ready(reactor: Any, plan: StartPlan, supervisor: Supervisor) -> list[str]:
    deadline = reactor.seconds() + READY_WITHIN
    missing = list(plan.processes)
    while missing and reactor.seconds() < deadline:
        await deferLater(reactor, _POLL)
        if supervisor.failed.called:
            await supervisor.failed
        missing = await what_is_missing(reactor, plan.paths, plan.processes)
    return missing


def end_orphans(paths: HeroPaths, say: Callable[[str], None]) -> None:
    """End what is left of a supervisor that was killed. Its processes end by themselves as a
    rule; this waits for them, and insists."""
    orphans = []
    for record in read_state(paths).get("processes", []):
        try:
            process = psutil.Process(record["pid"])
            if abs(process.create_time() - record["started_at"]) < 5:
                orphans.append(process)
        except (psutil.Error, KeyError, TypeError, ValueError):
            continue
    if not orphans:
        return
    say(f"ending {len(orphans)} processes that an earlier hero up left behind")
    for process in orphans:
        _signal(process.terminate)
    for process in psutil.wait_procs(orphans, timeout=_ORPHAN_GRACE)[1]:
        _signal(process.kill)
    psutil.wait_procs(orphans, timeout=2)


def _signal(send: Callable[[], None]) -> None:
    try:
        send()
    except psutil.NoSuchProcess:
        return
