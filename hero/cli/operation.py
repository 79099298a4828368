"""``hero operation``: work under way or done."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hero.cli.command import HeroGroup, pass_session
from hero.cli.options import DEFAULT_WAIT
from hero.cli.output import ago, print_json, print_table, show, warn_unreachable
from hero.cli.session import Session

if TYPE_CHECKING:
    from hero.cli.target import Services
    from hero.operations import Operation

_STATES = ("pending", "running", "succeeded", "failed", "cancelled")


@click.group(cls=HeroGroup)
def operation() -> None:
    """Look at work under way or done.

    Whatever may take longer than a second is an operation: it has a sid, it can be waited for from
    anywhere, and it goes on when the one who asked for it has gone.
    """


@operation.command("list")
@click.option("--target", metavar="SID", help="Only those that act on this VM.")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@pass_session
def list_operations(session: Session, /, limit: int, **filters: Any) -> None:
    """List operations, newest first."""
    wanted = {k: v for k, v in filters.items() if v is not None}
    page = session.with_services(
        lambda services: services.compute.list_operations(limit=limit, **wanted)
    )
    if session.json:
        print_json(page)
        return
    print_table(
        ["sid", "kind", "target", "state", "progress", "user", "age", "message"],
        (
            [
                o.sid,
                o.kind,
                o.target,
                o.state,
                f"{o.progress:.0%}",
                o.user,
                ago(o.created_at),
                (o.error or {}).get("detail") or o.message,
            ]
            for o in page.items
        ),
        empty="No operations.",
    )
    warn_unreachable(page.unreachable)


@operation.command("show")
@click.argument("sid")
@click.option("--wait", is_flag=True, help="Wait until it has ended; fail if it failed.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0),
    default=DEFAULT_WAIT,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait.",
)
@pass_session
def show_operation(session: Session, sid: str, wait: bool, timeout: float) -> None:
    """Show one operation."""

    async def find(services: Services) -> Operation:
        from hero.cli.waiting import follow

        found: Operation = await services.compute.get_operation(sid=sid)
        if wait:
            found = await follow(services, found, timeout=timeout, saying=f"waiting for {sid}")
        return found

    print_operation(session, session.with_services(find))


@operation.command("cancel")
@click.argument("sid")
@pass_session
def cancel_operation(session: Session, sid: str) -> None:
    """Stop an operation where it can still be undone."""
    print_operation(
        session, session.with_services(lambda services: services.compute.cancel_operation(sid=sid))
    )


def print_operation(session: Session, found: Operation) -> None:
    """Print *found* as the session asks."""
    show(
        session,
        found,
        [
            ("operation", found.sid),
            ("kind", found.kind),
            ("target", found.target),
            ("state", found.state),
            ("progress", f"{found.progress:.0%}"),
            ("message", found.message),
            ("error", (found.error or {}).get("detail")),
            ("hint", (found.error or {}).get("hint")),
            ("user", found.user),
            ("created", ago(found.created_at)),
            ("node", found.node_sid),
        ],
    )
