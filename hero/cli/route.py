"""``hero route``: what the router found in the socket directory."""

from __future__ import annotations

import click

from hero.cli.command import HeroGroup, pass_session
from hero.cli.output import print_json, print_table
from hero.cli.session import Session


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
