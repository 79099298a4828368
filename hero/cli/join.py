"""``hero join``: making this machine a worker of a cluster."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hero.cli.command import HeroCommand, pass_session
from hero.cli.output import print_json
from hero.cli.session import Session

if TYPE_CHECKING:
    from hero.cli.joining import Joined


@click.command(cls=HeroCommand, local=True)
@click.argument("token")
@click.option(
    "--name",
    "--node-name",
    "node_name",
    metavar="NAME",
    help="What the node is called.  [default: its host name]",
)
@click.option(
    "--advertise-address",
    metavar="URL",
    help="How other machines reach this one's router.  [default: worked out]",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="ENDPOINT",
    help="Where the router listens, as for hero up.",
)
@click.option(
    "--start/--no-start",
    default=True,
    help="Start the node's services in the background (the default), or only join.",
)
@pass_session
def join(
    session: Session,
    token: str,
    node_name: str | None,
    advertise_address: str | None,
    listen: tuple[str, ...],
    start: bool,
) -> None:
    """Join the cluster that TOKEN, from hero token create, names.

    TOKEN can be - to read it from standard input, where no other user of this machine sees it.
    Joining can be repeated after a failure at any point, with the same token.
    """
    from hero.cli.joining import join_cluster

    text = sys.stdin.read() if token == "-" else token

    def say(line: str) -> None:
        if not session.json:
            click.echo(line, err=True)

    async def act(reactor: Any) -> Joined:
        return await join_cluster(
            reactor,
            session.environ,
            text,
            name=node_name,
            advertise_address=advertise_address,
            listen=listen,
            say=say,
        )

    joined: Joined = session.run(act)
    if start:
        _start(session)
    elif not session.json:
        click.echo("Joined. hero up starts the node.")
    if session.json:
        import attrs

        print_json({**attrs.asdict(joined), "started": start})


def _start(session: Session) -> None:
    from hero.cli.background import start_in_background
    from hero.cli.instance import running_pid
    from hero.cli.startup import plan_start
    from hero.cli.up import announce, stored_settings

    if running_pid(session.paths) is not None:
        if not session.json:
            click.echo("Hero is running here already; it reports to the cluster from now on.")
        return
    plan = plan_start(session.environ, stored_settings(session), {"mode": "worker"})
    state = start_in_background(plan)
    if not session.json:
        announce(session, state["ready"], pid=state["pid"])
