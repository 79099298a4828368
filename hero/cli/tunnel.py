"""``hero tunnel``: bytes to and from a socket that speaks no HTTP."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from hero.cli.command import HeroCommand, pass_session
from hero.cli.output import print_json, warn
from hero.cli.session import Session
from hero.errors import Conflict, HeroError, InvalidConfiguration, Unavailable

if TYPE_CHECKING:
    from hero.cli.joined_streams import StreamEnd
    from hero.cli.tunnel_opening import TunnelOpener

_UNIX = "unix:"


@click.command(cls=HeroCommand)
@click.argument("socket", metavar="SERVICE/SOCKET")
@click.option(
    "--listen",
    metavar="ADDRESS",
    help="Accept connections at HOST:PORT (port 0 picks one) or unix:/PATH and tunnel each, until "
    "Ctrl-C. Whoever can connect there acts with your rights.",
)
@pass_session
def tunnel(session: Session, socket: str, listen: str | None) -> None:
    """Join standard input and output to a socket that speaks no HTTP.

    \b
    ssh -o ProxyCommand="hero tunnel web/ssh" host
    hero tunnel db/postgres --listen 127.0.0.1:5432

    Without --url it is the socket of this machine itself. A router takes tunnels to sockets with a
    manifest file that says so, from callers with the role operator or admin.
    """
    if listen is None:
        if session.token_file == "-":
            raise click.UsageError("standard input is the tunnel's: it cannot hold the token")
        session.run(lambda reactor: _join_standard_streams(session, reactor, socket))
    else:
        session.interrupted_message = "stopped listening"
        session.run(lambda reactor: _listen(session, reactor, socket, listen))


async def _join_standard_streams(session: Session, reactor: Any, name: str) -> None:
    from twisted.internet import stdio

    from hero.cli.joined_streams import StandardStreams
    from hero.cli.tunnel_opening import find_opener

    opener = await find_opener(session, reactor, name)
    remote = await opener.open()
    local = StandardStreams()
    streams: Any = stdio.StandardIO
    streams(local, sys.stdin.fileno(), sys.stdout.fileno(), reactor=reactor)
    local.join(remote)
    try:
        await _closed(local, remote)
    except Exception as error:
        if local.broken:
            raise BrokenPipeError from error
        raise Unavailable(f"{opener.where}: the tunnel was cut off") from error
    finally:
        remote.abort()


async def _closed(local: StreamEnd, remote: StreamEnd) -> None:
    """Wait until nothing goes either way any more; raises what broke off *remote*."""
    local.closed.addErrback(lambda _: None)  # whoever reads there knows it best
    await remote.closed
    await local.closed


async def _listen(session: Session, reactor: Any, name: str, listen: str) -> None:
    from twisted.internet.defer import Deferred, maybeDeferred

    from hero.cli.tunnel_opening import find_opener

    opener = await find_opener(session, reactor, name)
    forwarder = _Forwarder(opener)
    port, where = _open_port(reactor, listen, forwarder)
    if session.json:
        print_json({"listening": where})
    else:
        click.echo(f"listening on {where}")
    sys.stdout.flush()
    try:
        await Deferred()  # until Ctrl-C
    finally:
        await maybeDeferred(port.stopListening)
        forwarder.abort()


def _open_port(reactor: Any, listen: str, forwarder: _Forwarder) -> tuple[Any, str]:
    """Listen at *listen*; returns the port and where it is. Raises `HeroError`."""
    from twisted.internet.error import CannotListenError

    factory = forwarder.factory()
    try:
        if listen.startswith(_UNIX):
            path = listen.removeprefix(_UNIX)
            # Twisted sets the mode after it has bound.
            before = os.umask(0o177)
            try:
                return reactor.listenUNIX(path, factory, mode=0o600), listen
            finally:
                os.umask(before)
        host, port = _host_and_port(listen)
        opened = reactor.listenTCP(port, factory, interface=host)
        shown = f"[{host}]" if ":" in host else host
        return opened, f"{shown}:{opened.getHost().port}"
    except CannotListenError as error:
        raise Conflict(f"cannot listen at {listen}: {error.socketError}") from None


def _host_and_port(listen: str) -> tuple[str, int]:
    from twisted.internet.abstract import isIPAddress, isIPv6Address

    host, colon, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    host = "127.0.0.1" if host == "localhost" else host
    known = isIPAddress(host) or isIPv6Address(host)
    if not (colon and known and port.isascii() and port.isdigit() and int(port) < 65536):
        raise InvalidConfiguration(
            f"{listen!r} is no address to listen at",
            hint="write 127.0.0.1:2222, [::1]:2222 or unix:/path",
        )
    return host, int(port)


class _Forwarder:
    """Opens a tunnel for each connection that is accepted."""

    def __init__(self, opener: TunnelOpener) -> None:
        self._opener = opener
        self._ends: set[StreamEnd] = set()

    def factory(self) -> Any:
        """Builds what serves each connection."""
        from twisted.internet.protocol import Factory

        from hero.cli.joined_streams import StreamEnd

        forwarder = self

        class Accepted(StreamEnd):
            def connectionMade(self) -> None:
                super().connectionMade()
                forwarder.accepted(self)

        factory = Factory.forProtocol(Accepted)
        factory.noisy = False
        return factory

    def accepted(self, local: StreamEnd) -> None:
        """*local* is a new connection."""
        from twisted.internet.defer import Deferred

        self._ends.add(local)
        Deferred.fromCoroutine(self._carry(local)).addErrback(lambda _: None)

    def abort(self) -> None:
        """Break all of them off."""
        for end in list(self._ends):
            end.abort()

    async def _carry(self, local: StreamEnd) -> None:
        remote: StreamEnd | None = None
        try:
            remote = await self._opener.open()
            if not local.closed.called:
                self._ends.add(remote)
                local.join(remote)
                await _closed(local, remote)
        except HeroError as error:
            warn(error.detail)
        except Exception:
            warn(f"{self._opener.where}: a tunnel was cut off")
        finally:
            self._ends.discard(local)
            local.abort()
            if remote is not None:
                self._ends.discard(remote)
                remote.abort()
