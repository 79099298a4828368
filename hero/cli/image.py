"""``hero image``: what VMs start from."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import click

from hero.cli.command import HeroGroup, pass_session
from hero.cli.options import wait_options
from hero.cli.output import print_json, print_table, show, size, warn_unreachable
from hero.cli.session import Session

if TYPE_CHECKING:
    from hero.cli.target import Services
    from hero.operations import Operation


@click.group(cls=HeroGroup)
def image() -> None:
    """Look at and build the images that VMs start from."""


@image.command("list")
@click.option("--node", metavar="NODE", help="Only those on this node.")
@pass_session
def list_images(session: Session, node: str | None) -> None:
    """List images."""
    where = {} if node is None else {"node": node}
    page = session.with_services(lambda services: services.compute.list_images(**where))
    if session.json:
        print_json(page)
        return
    print_table(
        ["name", "state", "size", "node", "description"],
        ([i.name, i.state, size(i.size), i.node_sid, i.error or i.description] for i in page.items),
        empty="No images.",
    )
    warn_unreachable(page.unreachable)


@image.command()
@click.argument("name", default="micro")
@click.option("--node", metavar="NODE", help="On this node.")
@wait_options
@pass_session
def build(session: Session, name: str, node: str | None, wait: bool, timeout: float) -> None:
    """Build the built-in image NAME now, rather than for the first VM that needs it."""
    import msgspec

    from hero.cli.operation import print_operation
    from hero.cli.waiting import run_operation
    from hero.compute.model import Image

    where = {} if node is None else {"node": node}

    async def act(services: Services) -> Operation:
        start = functools.partial(services.compute.build_image, image=name, **where)
        return await run_operation(
            session, services, start, wait=wait, timeout=timeout, saying=f"building {name}"
        )

    operation = session.with_services(act)
    if not wait:
        print_operation(session, operation)
        return
    built = msgspec.convert(operation.result, Image)
    show(
        session,
        built,
        [
            ("name", built.name),
            ("state", built.state),
            ("size", size(built.size)),
            ("digest", built.digest),
            ("description", built.description),
        ],
    )
