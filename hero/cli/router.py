"""``hero router``: restart this machine's router, or have it read its settings again."""

from __future__ import annotations

import json
import os
import signal
import time

import click

from hero.cli.command import HeroCommand, HeroGroup, pass_session
from hero.cli.output import print_json
from hero.cli.session import Session
from hero.errors import Timeout, Unavailable
from hero.paths import HeroPaths

_POLL = 0.1
_WITHIN = 60.0


@click.group(cls=HeroGroup)
def router() -> None:
    """Look after this machine's router."""


@router.command("restart", cls=HeroCommand, local=True)
@pass_session
def restart(session: Session) -> None:
    """Replace the router by a new process. No request fails by it.

    The new one takes the listening sockets over when it is ready, and the old one finishes what is
    under way. If the new one does not get ready, the old one goes on.
    """
    before = _signal(session.paths, signal.SIGUSR2)
    deadline = time.monotonic() + _WITHIN
    while (now := router_pid(session.paths)) in (before, None):
        if time.monotonic() > deadline:
            raise Timeout(
                f"no successor of the router (process {before}) is ready after {_WITHIN:g} seconds",
                hint="the router goes on as it was; its log says what became of the new one",
            )
        time.sleep(_POLL)
    if session.json:
        print_json({"before": before, "pid": now})
    else:
        click.echo(f"The router is process {now} now; process {before} finishes what it has begun.")


@router.command("reload", cls=HeroCommand, local=True)
@pass_session
def reload(session: Session) -> None:
    """Have the router read settings and certificates again. Its log says what came of it."""
    pid = _signal(session.paths, signal.SIGHUP)
    if session.json:
        print_json({"pid": pid})
    else:
        click.echo(f"The router (process {pid}) reads its settings again.")


def router_pid(paths: HeroPaths) -> int | None:
    """The process id of this machine's router; None where none runs."""
    try:
        return int(json.loads((paths.run / "router.json").read_text())["pid"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _signal(paths: HeroPaths, number: signal.Signals) -> int:
    pid = router_pid(paths)
    try:
        if pid is None:
            raise ProcessLookupError
        os.kill(pid, number)
    except ProcessLookupError:
        raise Unavailable(
            f"no router runs for {paths.home}", hint="hero up starts it, with the others"
        ) from None
    except PermissionError:
        raise Unavailable(
            f"the router (process {pid}) belongs to another user", hint="run this as that user"
        ) from None
    return pid
