"""``hero vm``: virtual machines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from hero.cli.command import HeroGroup, pass_session
from hero.cli.options import label_option, wait_options
from hero.cli.output import (
    ago,
    duration,
    label_words,
    print_json,
    print_table,
    show,
    size,
    warn_unreachable,
)
from hero.cli.session import Session

if TYPE_CHECKING:
    from hero.cli.target import Services
    from hero.compute.model import Vm
    from hero.operations import Operation

_STATES = ("requested", "provisioning", "stopped", "running", "paused", "failed", "deleting")
_PAGE = 500


@click.group(cls=HeroGroup)
def vm() -> None:
    """Make, look at and steer virtual machines.

    VM stands for a name or a sid. With an explorer in reach they are the whole cluster's; it never
    matters which node a VM is on.
    """


@vm.command()
@click.argument("name")
@click.option("--image", default="micro", show_default=True, help="What it boots.")
@click.option(
    "--slices",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="How many slices of memory and disk it takes.",
)
@click.option("--slice", "slice_sid", metavar="SID", help="Take this slice among them.")
@click.option(
    "--vcpus", type=click.IntRange(1, 256), default=1, show_default=True, help="Processors."
)
@label_option(help="A label for it; can be given again.")
@click.option("--node", metavar="NODE", help="Put it on this node (name or sid).")
@click.option("--start/--no-start", default=True, help="Start it (the default), or only make it.")
@wait_options
@pass_session
def create(session: Session, /, name: str, wait: bool, timeout: float, **wanted: Any) -> None:
    """Make a VM called NAME and start it.

    NAME has lower-case letters, digits and hyphens, as a host name does.
    """
    parameters = {k: v for k, v in wanted.items() if v is not None}
    _steer(session, "deploy_vm", f"making {name}", wait, timeout, name=name, **parameters)


@vm.command("list")
@click.option("--state", type=click.Choice(_STATES), help="Only those in this state.")
@click.option("--node", metavar="NODE", help="Only those on this node.")
@label_option(help="Only those with this label; can be given again.")
@click.option("--limit", type=click.IntRange(1), help="At most so many.")
@pass_session
def list_vms(session: Session, /, limit: int | None, **filters: Any) -> None:
    """List VMs, in order of name."""
    wanted = {k: v for k, v in filters.items() if v is not None}

    async def gather(services: Services) -> tuple[list[Vm], list[str]]:
        found: list[Vm] = []
        after: str | None = None
        while True:
            room = _PAGE if limit is None else min(_PAGE, limit - len(found))
            cursor = {} if after is None else {"after": after}
            page = await services.compute.list_vms(limit=room, **wanted, **cursor)
            found.extend(page.items)
            after = page.next
            if after is None or (limit is not None and len(found) >= limit):
                return found, page.unreachable

    vms, unreachable = session.with_services(gather)
    if session.json:
        print_json({"items": vms, "unreachable": unreachable})
        return
    print_table(
        ["name", "state", "image", "vcpus", "memory", "node", "age", "labels"],
        (
            [
                v.name,
                str(v.state) if v.reachable else "unreachable",
                v.image,
                v.vcpus,
                size(v.memory),
                v.node_name or v.node_sid,
                ago(v.created_at),
                label_words(v.labels),
            ]
            for v in vms
        ),
        empty="No VMs yet: hero vm create NAME makes one.",
    )
    warn_unreachable(unreachable)


@vm.command("show")
@click.argument("vm")
@pass_session
def show_vm(session: Session, vm: str) -> None:
    """Show everything known of one VM."""
    found = session.with_services(lambda services: services.compute.get_vm(vm=vm))
    _print_vm(session, found)


@vm.command()
@click.argument("vm")
@wait_options
@pass_session
def start(session: Session, vm: str, wait: bool, timeout: float) -> None:
    """Start a stopped VM."""
    _steer(session, "start_vm", f"starting {vm}", wait, timeout, done="running", vm=vm)


def _stopping(function: Any) -> Any:
    force = click.option("--force", is_flag=True, help="Pull the plug at once.")
    grace = click.option(
        "--grace",
        type=click.FloatRange(0, 3600),
        default=10.0,
        show_default=True,
        metavar="SECONDS",
        help="How long the guest may take to power off before the plug is pulled.",
    )
    return grace(force(function))


@vm.command()
@click.argument("vm")
@_stopping
@wait_options
@pass_session
def stop(session: Session, vm: str, grace: float, force: bool, wait: bool, timeout: float) -> None:
    """Stop a VM: ask the guest to power off, then pull the plug."""
    given = {"vm": vm, "grace": grace, "force": force}
    _steer(session, "stop_vm", f"stopping {vm}", wait, timeout, done="stopped", **given)


@vm.command()
@click.argument("vm")
@_stopping
@wait_options
@pass_session
def restart(
    session: Session, vm: str, grace: float, force: bool, wait: bool, timeout: float
) -> None:
    """Stop a VM and start it again."""
    given = {"vm": vm, "grace": grace, "force": force}
    _steer(session, "restart_vm", f"restarting {vm}", wait, timeout, done="running", **given)


@vm.command()
@click.argument("vm")
@wait_options
@pass_session
def pause(session: Session, vm: str, wait: bool, timeout: float) -> None:
    """Freeze a running VM; its memory stays in place."""
    _steer(session, "pause_vm", f"pausing {vm}", wait, timeout, done="paused", vm=vm)


@vm.command()
@click.argument("vm")
@wait_options
@pass_session
def resume(session: Session, vm: str, wait: bool, timeout: float) -> None:
    """Let a paused VM go on."""
    _steer(session, "resume_vm", f"resuming {vm}", wait, timeout, done="running", vm=vm)


@vm.command()
@click.argument("vm")
@click.option("--force", is_flag=True, help="Delete it even while it runs.")
@wait_options
@pass_session
def delete(session: Session, vm: str, force: bool, wait: bool, timeout: float) -> None:
    """Delete a VM and its disk, for good, and free its slices."""
    _steer(
        session, "delete_vm", f"deleting {vm}", wait, timeout, done="deleted", vm=vm, force=force
    )


@vm.command()
@click.argument("vm")
@click.option("-f", "--follow", is_flag=True, help="Go on printing until Ctrl-C.")
@click.option(
    "--limit",
    type=click.IntRange(1, 1048576),
    default=65536,
    show_default=True,
    metavar="BYTES",
    help="How much of the end to print first.",
)
@click.option("--offset", type=click.IntRange(0), help="Start at this byte of the console stream.")
@pass_session
def logs(session: Session, vm: str, follow: bool, limit: int, offset: int | None) -> None:
    """Print the serial console output of a VM.

    With --json each piece is one JSON object on a line of its own.
    """
    session.interrupted_message = "stopped following"

    async def copy(services: Services) -> None:
        start = {} if offset is None else {"offset": offset}
        piece = await services.compute.vm_logs(vm=vm, limit=limit, **start)
        _print_piece(session, piece)
        while follow:
            piece = await services.compute.vm_logs(vm=vm, offset=piece.next_offset, wait=20.0)
            _print_piece(session, piece)

    session.with_services(copy)


def _print_piece(session: Session, piece: Any) -> None:
    if session.json:
        import msgspec

        click.echo(msgspec.json.encode(piece).decode())
    else:
        sys.stdout.write(piece.data)
        sys.stdout.flush()


@vm.command()
@click.argument("vm")
@pass_session
def stats(session: Session, vm: str) -> None:
    """Show what a VM uses right now."""
    found = session.with_services(lambda services: services.compute.vm_stats(vm=vm))
    show(
        session,
        found,
        [
            ("vm", found.vm_sid),
            ("state", found.state),
            ("up", duration(found.uptime)),
            ("cpu", f"{found.cpu_seconds:.1f} s"),
            ("memory", f"{size(found.memory_resident)} of {size(found.memory)}"),
            ("disk", size(found.disk_used)),
        ],
    )


def _steer(
    session: Session,
    method: str,
    saying: str,
    wait: bool,
    timeout: float,
    *,
    done: str | None = None,
    **parameters: Any,
) -> None:
    import functools

    from hero.cli.waiting import run_operation

    async def act(services: Services) -> Operation:
        start = functools.partial(getattr(services.compute, method), **parameters)
        return await run_operation(
            session, services, start, wait=wait, timeout=timeout, saying=saying
        )

    operation = session.with_services(act)
    if wait:
        import msgspec

        from hero.compute.model import Vm

        found = msgspec.convert(operation.result, Vm)
        if done is None or session.json:
            _print_vm(session, found)
        else:
            click.echo(f"{found.name} ({found.sid}) is {done}.")
    else:
        from hero.cli.operation import print_operation

        print_operation(session, operation)


def _print_vm(session: Session, found: Vm) -> None:
    show(
        session,
        found,
        [
            ("name", found.name),
            ("sid", found.sid),
            ("state", found.state),
            ("wanted", None if str(found.wanted_state) == str(found.state) else found.wanted_state),
            ("reason", found.reason),
            ("image", found.image),
            ("vcpus", found.vcpus),
            ("memory", size(found.memory)),
            ("disk", size(found.disk)),
            ("slices", ", ".join(found.slices)),
            ("node", found.node_name or found.node_sid),
            ("labels", label_words(found.labels)),
            ("created", ago(found.created_at)),
            ("started", ago(found.started_at)),
            ("note", None if found.reachable else "its node does not answer at present"),
        ],
    )
