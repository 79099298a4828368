"""``hero up`` and ``hero down``: this machine's services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from hero.cli.command import HeroCommand, pass_session
from hero.cli.output import print_json
from hero.cli.session import Session

_F = TypeVar("_F", bound=Callable[..., Any])

_NO_PORTS = (
    "{option} is gone: no service has a port of its own. Each has a UNIX socket in the socket "
    "directory, and the router serves them all on its one TLS port: set that with --listen "
    "ssl:PORT, and call https://host:PORT/{route}"
)
_ROUTES = {
    "--rpc-port": "hero_compute/rpc/api/root/cloud/rpc",
    "--explorer-port": "hero_compute/explorer_rpc/api/root/explorer/rpc",
}


def _replaced(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value is not None:
        option = parameter.opts[0]
        raise click.UsageError(_NO_PORTS.format(option=option, route=_ROUTES[option]), ctx)


def _replaced_option(name: str) -> Callable[[_F], _F]:
    return click.option(
        name, hidden=True, is_eager=True, expose_value=False, callback=_replaced, metavar="PORT"
    )


@click.command(cls=HeroCommand, local=True)
@click.option(
    "--mode",
    type=click.Choice(["local", "master", "worker"]),
    help="local: everything for this one machine. master: the same, and others may join. "
    "worker: what a machine that joined runs.  [default: as last time, else local]",
)
@click.option("-d", "--detach", is_flag=True, help="Run in the background; return when ready.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="The web console's port on 127.0.0.1.  [default: 9001]",
)
@click.option(
    "--listen",
    multiple=True,
    metavar="ENDPOINT",
    help="Where the router listens, such as ssl:8443 or ssl:443:interface=10.0.0.5; can be given "
    "again.  [default: ssl:443, or ssl:9998 where 443 is not permitted]",
)
@click.option(
    "--advertise-address",
    metavar="URL",
    help="How other machines reach this one's router: https://host:port.",
)
@click.option(
    "--node-name", metavar="NAME", help="What this node is called.  [default: its host name]"
)
@click.option(
    "--hypervisor",
    type=click.Choice(["qemu", "memory"]),
    help="What runs VMs; memory only pretends to.  [default: qemu]",
)
@click.option("--slice-memory", metavar="SIZE", help="Memory of a slice.  [default: 4 GiB]")
@click.option(
    "--access",
    type=click.Choice(["cluster", "public"]),
    help="Who may call routes whose service does not say.  [default: cluster]",
)
@click.option(
    "--explorer-addresses",
    metavar="URLS",
    help="The explorers that this node reports to, comma-separated.",
)
@click.option(
    "--heartbeat-interval", metavar="SECONDS", help="Between a node's heartbeats.  [default: 5]"
)
@_replaced_option("--rpc-port")
@_replaced_option("--explorer-port")
@pass_session
def up(session: Session, /, detach: bool, listen: tuple[str, ...], **options: Any) -> None:
    """Run this machine's services.

    They run in the foreground until Ctrl-C (or in the background with -d); what dies is started
    again. VMs are not stopped with them. The options are kept in cfg/hero.env: the next hero up
    needs none. systemd units are another way to run the same services.
    """
    from hero.cli.startup import plan_start

    given = {name.replace("_", "-"): str(v) for name, v in options.items() if v is not None}
    stored = stored_settings(session)
    start(session, plan_start(session.environ, stored, given, listen), detach=detach)


def stored_settings(session: Session) -> dict[str, str]:
    """What the node's ``hero.env`` holds."""
    from hero.settings import effective_environment

    # Only what says where the file is, so that what comes back is the file's content.
    where = {k: v for k, v in session.environ.items() if k == "HERO_HOME"}
    content = effective_environment(where)
    return {name: value for name, value in content.items() if name not in where}


def start(session: Session, plan: Any, *, detach: bool) -> None:
    """Run what *plan* says, in the foreground or not."""
    if detach:
        from hero.cli.background import start_in_background

        state = start_in_background(plan)
        announce(session, state["ready"], pid=state["pid"])
        return

    import attrs

    from hero.cli.foreground import Ready, run_in_foreground

    def say(line: str) -> None:
        click.echo(f"hero: {line}", err=True)

    def ready(started: Ready) -> None:
        announce(session, attrs.asdict(started), pid=None)

    session.run(lambda reactor: run_in_foreground(reactor, plan, say=say, ready=ready))


def announce(session: Session, ready: dict[str, Any], *, pid: int | None) -> None:
    """Say where to look, and what to try first."""
    if session.json:
        print_json({**ready, "pid": pid} if pid else ready)
        return
    lines = [f"Hero is up ({ready['mode']} mode, {ready['seconds']:.1f} s)."]
    why = "  (443 is not permitted to this user)" if ready["fell_back"] else ""
    lines.append(f"  router    {', '.join(ready['router'])}{why}")
    if ready["console"]:
        lines.append(f"  console   {ready['console']}  (hero ui prints a link that logs in)")
        lines.append("  try       hero vm create demo && hero vm logs -f demo")
        if ready["mode"] == "master":
            lines.append("  grow      hero token create prints what another machine joins with")
    else:
        lines.append("  try       hero status")
    if pid:
        lines.append("  stop      hero down")
    click.echo("\n".join(lines))


@click.command(cls=HeroCommand, local=True)
@pass_session
def down(session: Session) -> None:
    """Stop this machine's services. VMs run on, and are found again by the next hero up."""
    from hero.cli.background import stop_running

    pid = stop_running(session.paths)
    if session.json:
        print_json({"stopped": pid is not None, "pid": pid})
    elif pid is None:
        click.echo("Hero was not running here.")
    else:
        click.echo("Hero is down. VMs run on.")
