"""``twistd hero-ui``: the web console, on its socket and on 127.0.0.1."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twisted.application.internet import TCPServer
from twisted.application.service import IService, MultiService
from twisted.internet.error import CannotListenError

from hero.errors import HeroError
from hero.rpc.site import ServiceSite, UnixService, service_site
from hero.rpc.tree import Tree
from hero.settings import EnvironmentOptions
from hero.ui.console import Console
from hero.ui.door import LoopbackDoor, RouterDoor
from hero.ui.explorer import SocketExplorer
from hero.ui.relay import EventRelay

DEFAULT_PORT = 9001


def port_number(text: str) -> int:
    """The TCP port that *text* names."""
    port = int(text)
    if not 0 < port < 65536:
        raise ValueError("a TCP port is between 1 and 65535")
    return port


class Options(EnvironmentOptions):
    """The options of ``twistd hero-ui``."""

    optParameters = [  # noqa: RUF012
        ["port", "p", DEFAULT_PORT, "The TCP port on 127.0.0.1", port_number],
    ]


class ConsoleService(MultiService):
    """Both doors. Where one cannot be opened, the process ends with a line that says why."""

    def privilegedStartService(self) -> None:
        """Open the port."""
        with _said_plainly():
            super().privilegedStartService()  # type: ignore[no-untyped-call]

    def startService(self) -> None:
        """Open the socket."""
        with _said_plainly():
            super().startService()  # type: ignore[no-untyped-call]


@contextmanager
def _said_plainly() -> Iterator[None]:
    try:
        yield
    except CannotListenError as error:
        raise SystemExit(
            f"hero-ui: port {error.port} of {error.interface} cannot be used: "
            f"{error.socketError.strerror}; choose another with --port"
        ) from None
    except HeroError as error:
        hint = f"; {error.hint}" if error.hint else ""
        raise SystemExit(f"hero-ui: {error.detail}{hint}") from None


def makeService(options: Options) -> IService:
    """The console as *options* want it."""
    from twisted.internet import reactor

    with _said_plainly():
        options.paths.ensure()
    return console_service(reactor, options)


def console_service(reactor: Any, options: Options) -> IService:
    """The console on *reactor*."""
    explorer = SocketExplorer(reactor, options.paths.explorer_socket)
    events = EventRelay.on_socket(reactor, options.paths.explorer_socket)
    port = options["port"]
    behind_router = Console(
        door=RouterDoor(), explorer=explorer, events=events, now=reactor.seconds
    )
    on_loopback = Console(
        door=LoopbackDoor(port), explorer=explorer, events=events, now=reactor.seconds
    )
    site = service_site(
        reactor=reactor,
        name="hero-ui",
        description="The web console",
        access="public",
        rpc={},
        extra=behind_router.resources(),
    )
    root = Tree()
    for name, resource in on_loopback.resources().items():
        root.putChild(name, resource)
    service = ConsoleService()  # type: ignore[no-untyped-call]
    service.addService(UnixService(reactor, options.paths.ui_socket, site))  # type: ignore[no-untyped-call]
    service.addService(  # type: ignore[no-untyped-call]
        TCPServer(port, ServiceSite(root, reactor), interface="127.0.0.1", reactor=reactor)
    )
    return service
