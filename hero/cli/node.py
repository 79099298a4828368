"""``hero node``: the machines of the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from hero.cli.command import HeroGroup, pass_session
from hero.cli.output import ago, moment, print_details, print_json, print_table, show, size, warn
from hero.cli.session import Session
from hero.errors import HeroError

if TYPE_CHECKING:
    from hero.cli.target import Services
    from hero.compute.model import NodeStatus
    from hero.explorer.model import Node

#: Seconds for a node to say how it is, where the explorer's own knowledge would do.
_PATIENCE = 5.0


@click.group(cls=HeroGroup)
def node() -> None:
    """Look at and steer the machines of the cluster.

    NODE stands for a name or a sid.
    """


@node.command("list")
@pass_session
def list_nodes(session: Session) -> None:
    """List the nodes of the cluster."""
    page = session.with_services(lambda services: services.explorer.list_nodes())
    if session.json:
        print_json(page)
        return
    print_table(
        ["name", "sid", "state", "slices free", "vms", "load", "seen", "address"],
        (
            [
                n.name,
                n.sid,
                n.state,
                None if n.capacity is None else f"{n.capacity.slices_free}/{n.capacity.slices}",
                n.vms,
                None if n.load is None else f"{n.load:.2f}",
                ago(n.last_seen),
                n.advertise_address,
            ]
            for n in page.items
        ),
        empty="No nodes yet.",
    )


@node.command("show")
@click.argument("node")
@pass_session
def show_node(session: Session, node: str) -> None:
    """Show one node, with what it says of itself if it answers."""

    async def ask(services: Services) -> tuple[Node, NodeStatus | None]:
        found: Node = await services.explorer.get_node(node=node)
        try:
            return found, await services.compute.node_status(node=found.sid, timeout=_PATIENCE)
        except HeroError:
            return found, None

    found, status = session.with_services(ask)
    if session.json:
        import msgspec

        print_json({**msgspec.to_builtins(found), "status": status})
        return
    _print_node(session, found)
    if status is None:
        warn("the node does not answer at present")
        return
    runs = status.accelerator
    print_details(
        [
            ("hypervisor", status.hypervisor),
            ("accelerator", runs and f"{runs.name} ({runs.detail})"),
            ("problems", "; ".join(status.problems)),
        ]
    )


@node.command()
@click.argument("node")
@pass_session
def cordon(session: Session, node: str) -> None:
    """Place no new VM on a node. Those that it has run on."""
    _print_node(session, session.with_services(lambda s: s.explorer.cordon_node(node=node)))


@node.command()
@click.argument("node")
@pass_session
def activate(session: Session, node: str) -> None:
    """Allow new VMs on a node again."""
    _print_node(session, session.with_services(lambda s: s.explorer.activate_node(node=node)))


@node.command()
@click.argument("node")
@click.option("--force", is_flag=True, help="Even while it has VMs, as far as is known.")
@pass_session
def remove(session: Session, node: str, force: bool) -> None:
    """Forget a node, and refuse its certificate from now on."""
    _print_node(
        session, session.with_services(lambda s: s.explorer.remove_node(node=node, force=force))
    )


def _print_node(session: Session, found: Node) -> None:
    capacity: list[tuple[str, Any]] = []
    if found.capacity is not None:
        held = found.capacity
        capacity = [
            ("slices", f"{held.slices_free} free of {held.slices}"),
            ("slice", f"{size(held.slice_memory)} memory, {size(held.slice_disk)} disk"),
            ("memory", size(held.memory)),
            ("disk", size(held.disk)),
            ("vcpus", held.vcpus),
        ]
    show(
        session,
        found,
        [
            ("name", found.name),
            ("sid", found.sid),
            ("state", found.state),
            ("schedulable", "yes" if found.schedulable else "no"),
            ("address", found.advertise_address),
            ("version", found.version),
            *capacity,
            ("vms", found.vms),
            ("load", None if found.load is None else f"{found.load:.2f}"),
            ("joined", ago(found.joined_at)),
            ("seen", ago(found.last_seen)),
            ("certificate until", moment(found.certificate_expires)),
        ],
    )
