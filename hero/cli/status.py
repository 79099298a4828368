"""``hero status``: how this machine's services are, and the cluster at a glance."""

from __future__ import annotations

import functools
import time
from typing import TYPE_CHECKING, Any

import click

from hero.cli.command import HeroCommand, pass_session
from hero.cli.exit_codes import ExitCode
from hero.cli.output import duration, print_details, print_json, print_table, warn
from hero.cli.session import Session
from hero.errors import HeroError

if TYPE_CHECKING:
    from hero.cli.target import Services
    from hero.explorer.model import ClusterStatus


@click.command(cls=HeroCommand)
@pass_session
def status(session: Session) -> int:
    """Show this machine's services and the cluster.

    With --url only the cluster. The exit code is 5 where nothing runs here.
    """
    if session.url:
        summary = _cluster(session)
        if session.json:
            print_json({"cluster": summary})
        else:
            _print_cluster(summary)
        return ExitCode.OK
    here = _this_machine(session)
    cluster, problems = None, []
    if "up" in here["sockets"].values():
        cluster, problems = session.run(functools.partial(_ask, session, here["sockets"]))
    running = here["pid"] is not None or "up" in here["sockets"].values()
    if session.json:
        print_json({**here, "running": running, "problems": problems, "cluster": cluster})
    elif not running:
        click.echo("Hero is not running here: hero up starts it.")
    else:
        _print_machine(here)
        if cluster is not None:
            click.echo()
            _print_cluster(cluster)
        for problem in problems:
            warn(problem)
    return ExitCode.OK if running else ExitCode.UNAVAILABLE


def _this_machine(session: Session) -> dict[str, Any]:
    from hero.cli.instance import read_state, router_urls, running_pid
    from hero.cli.readiness import socket_of
    from hero.cli.startup import MODE, PROCESSES
    from hero.cli.target import answers

    paths = session.paths
    pid = running_pid(paths)
    state = read_state(paths) if pid else {}
    mode = state.get("mode") or session.settings.get(MODE)
    names = PROCESSES.get(str(mode), PROCESSES["local"])
    sockets = {name: "up" if answers(socket_of(name, paths)) else "down" for name in names}
    return {
        "mode": mode,
        "pid": pid,
        "state": state.get("state"),
        "home": str(paths.home),
        "socket_directory": str(paths.sockets),
        "router": router_urls(paths) if sockets.get("router") == "up" else [],
        "ca_sha256": ca_fingerprint(paths.tls / "ca.crt"),
        "sockets": {"explorer": "down", **sockets},
        "processes": state.get("processes", []),
    }


def ca_fingerprint(path: Any) -> str | None:
    """The SHA-256 of the first certificate in the PEM file *path*; None where there is none."""
    import hashlib
    import re
    import ssl

    try:
        pem = re.search(r"-----BEGIN CERT.*?END CERTIFICATE-----", path.read_text(), re.DOTALL)
        return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.group() if pem else "")).hexdigest()
    except (OSError, ValueError):
        return None


async def _ask(
    session: Session, sockets: dict[str, str], reactor: Any
) -> tuple[ClusterStatus | None, list[str]]:
    """The cluster, where an explorer answers, and what the services here complain of."""
    from hero.cli.readiness import health_of, socket_of
    from hero.cli.target import open_services

    cluster, problems = None, []
    for name in (name for name, state in sockets.items() if state == "up"):
        health = await health_of(reactor, socket_of(name, session.paths))
        if health is None:
            problems.append(f"{name} does not answer on its socket")
        else:
            problems += [f"{name}: {problem}" for problem in health.get("problems", [])]
    if sockets["explorer"] == "up":
        try:
            async with open_services(session, reactor) as services:
                cluster = await services.explorer.cluster_status(timeout=10.0)
        except HeroError as error:
            problems.append(error.detail)
    return cluster, problems


def _cluster(session: Session) -> ClusterStatus:
    async def ask(services: Services) -> Any:
        return await services.explorer.cluster_status(timeout=10.0)

    return session.with_services(ask)  # type: ignore[no-any-return]


def _print_machine(here: dict[str, Any]) -> None:
    supervised = f"hero up, process {here['pid']}, {here['state']}" if here["pid"] else "no hero up"
    print_details(
        [
            ("mode", here["mode"]),
            ("supervisor", supervised),
            ("router", ", ".join(here["router"])),
            ("sockets", here["socket_directory"]),
            ("CA SHA-256", here["ca_sha256"]),
        ]
    )
    click.echo()
    known = {record["name"]: record for record in here["processes"]}
    rows = []
    for name, state in here["sockets"].items():
        record = known.get(name, {})
        if not record and state == "down" and known:
            continue
        since = record.get("started_at")
        rows.append(
            [
                name,
                state,
                record.get("pid"),
                duration(time.time() - since) if since else None,
                max(record.get("starts", 1) - 1, 0),
                record.get("last_exit"),
                record.get("log"),
            ]
        )
    print_table(
        ["process", "socket", "pid", "up for", "restarts", "last exit", "log"], rows, empty=""
    )


def _print_cluster(found: ClusterStatus) -> None:
    print_details(
        [
            ("cluster", found.cluster_id),
            ("version", found.version),
            ("mode", found.mode),
            ("nodes", f"{found.nodes_online} of {found.nodes} online"),
            ("unreachable", ", ".join(found.unreachable)),
            ("vms", f"{found.vms_running} of {found.vms} running"),
            ("slices", f"{found.slices_free} of {found.slices} free"),
        ]
    )
