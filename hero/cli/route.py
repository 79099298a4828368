"""``hero route``: what the router found in the socket directory."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from hero.cli.command import HeroGroup, pass_session
from hero.cli.output import print_json, print_table, size, state_style, warn
from hero.cli.session import Session
from hero.errors import Timeout, Unavailable

if TYPE_CHECKING:
    from hero.cli.route_changes import Change
    from hero.cli.target import Services
    from hero.router.model import Durations, Route, RouterStats


@click.group(cls=HeroGroup)
def route() -> None:
    """Look at the routes: one for each socket in the socket directory."""


@route.command("list")
@pass_session
def list_routes(session: Session) -> None:
    """List every entry of the socket directory: its route, or why it has none."""
    page = session.with_services(lambda services: services.router.list_services())
    if session.json:
        print_json(page)
        return
    print_table(
        ["prefix", "state", "access", "requests", "service", "reason"],
        (
            [r.prefix, r.state, r.access, r.requests, r.description or r.name, r.reason]
            for r in page.items
        ),
        empty="The socket directory is empty.",
    )


@route.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="Between two looks. What comes and goes in between is not seen.",
)
@pass_session
def watch(session: Session, interval: float) -> None:
    """Show the routes, and then what happens to them, a line for each, until Ctrl-C.

    A route is present, appeared, vanished, is up, down or refused now, was replaced by another
    socket of the same name, or changed who may call it. While the router is away the watch goes on.
    With --json each line is one JSON object.
    """
    session.interrupted_message = "stopped watching"

    async def look(services: Services) -> None:
        from hero.cli.route_changes import Change, by_prefix, changes

        known = by_prefix((await services.router.list_services()).items)
        for route in known.values():
            _print_change(session, Change("present", route))
        away = False
        while True:
            await _sleep(services, interval)
            page = await _ask(services.router.list_services)
            if page is None:
                if not away:
                    warn("the router does not answer")
                away = True
                continue
            away = False
            now = by_prefix(page.items)
            for change in changes(known, now):
                _print_change(session, change)
            known = now

    session.with_services(look)


@route.command()
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 3600),
    metavar="SECONDS",
    help="Go on showing them, each time with the rates since the last, until Ctrl-C.",
)
@click.option("--count", type=click.IntRange(1), metavar="N", help="With --interval: N times.")
@pass_session
def stats(session: Session, interval: float | None, count: int | None) -> None:
    """Show requests, rates, errors and latencies of each route that was used.

    Counts and latencies are since the router started; so are the rates, without --interval. With
    --interval and --json each time is one JSON object, on a line of its own.
    """
    if count is not None and interval is None:
        raise click.UsageError("--count needs --interval")
    session.interrupted_message = "stopped watching"

    async def look(services: Services) -> None:
        from hero.cli.route_changes import rates

        before = None
        now = await services.router.stats()
        for number in itertools.count(1):
            if now is None:
                warn("the router does not answer")
            else:
                _print_stats(session, now, rates(before, now), once=interval is None)
                before = now
            if interval is None or number == count:
                return
            await _sleep(services, interval)
            now = await _ask(services.router.stats)

    session.with_services(look)


async def _ask(question: Any) -> Any:
    """The answer; None where the router is away, as while it is started anew."""
    try:
        return await question()
    except (Unavailable, Timeout):
        return None


async def _sleep(services: Services, seconds: float) -> None:
    from twisted.internet.task import deferLater

    await deferLater(services.reactor, seconds)


def _print_change(session: Session, change: Change) -> None:
    now, route = datetime.now(UTC), change.route
    if session.json:
        _print_line({"time": now, "event": change.event, "route": route})
        return
    event = click.style(f"{change.event:<9}", fg=state_style(change.event))
    state = click.style(f"{route.state:<8}", fg=state_style(route.state))
    line = f"{now:%H:%M:%S}  {event} {state} {_name(route):<32} {route.reason or ''}"
    click.echo(line.rstrip())


def _name(route: Route) -> str:
    return f"{route.prefix} ({route.access})"


def _print_stats(
    session: Session, now: RouterStats, rate: Mapping[str, float], *, once: bool
) -> None:
    import msgspec

    if session.json:
        value = msgspec.to_builtins(now)
        for route in value["per_route"]:
            route["rate"] = round(rate[route["prefix"]], 3)
        (print_json if once else _print_line)(value)
        return
    if not once and sys.stdout.isatty():
        click.clear()
    print_table(
        ["prefix", "requests", "per s", "errors", "active", "p50", "p99", "in", "out"],
        (
            [
                r.prefix,
                r.requests,
                f"{rate[r.prefix]:.1f}",
                r.errors,
                r.active,
                _milliseconds(r.total, "p50"),
                _milliseconds(r.total, "p99"),
                size(r.bytes_in),
                size(r.bytes_out),
            ]
            for r in now.per_route
        ),
        empty="Nobody has used a route since the router started.",
    )


def _milliseconds(durations: Durations | None, share: str) -> str | None:
    return None if durations is None else f"{getattr(durations, share) * 1000:.1f} ms"


def _print_line(value: Any) -> None:
    import msgspec

    click.echo(msgspec.json.encode(value).decode())
