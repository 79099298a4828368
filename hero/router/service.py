"""The service of the process that accepts connections."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort, IOpenSSLServerConnectionCreator
from twisted.logger import Logger

from hero.router.gateway import Gateway, GatewayFactory
from hero.router.listening import Listener
from hero.router.tls_listener import over_tls

_log = Logger()


class ListeningService(Service):
    """Accepts connections on *listeners* while it runs, and writes *state_file* to say where."""

    def __init__(
        self,
        reactor: Any,
        gateway: Gateway,
        listeners: Sequence[Listener],
        tls: IOpenSSLServerConnectionCreator | None,
        state_file: Path,
    ) -> None:
        self._reactor = reactor
        self._gateway = gateway
        self._listeners = listeners
        self._tls = tls
        self._state_file = state_file
        self._ports: list[IListeningPort] = []
        #: URLs, once listening.
        self.urls: list[str] = []

    def startService(self) -> None:
        """Begin to accept."""
        super().startService()  # type: ignore[no-untyped-call]
        self._gateway.start()
        Deferred.fromCoroutine(self._listen()).addErrback(self._failed)

    async def _listen(self) -> None:
        for listener in self._listeners:
            factory: Any = GatewayFactory(self._gateway, secure=listener.secure)
            if listener.secure:
                assert self._tls is not None
                factory = over_tls(self._tls, factory, self._reactor)
            port = await listener.endpoint(self._reactor).listen(factory)
            self._ports.append(port)
            url = _url(port, "https" if listener.secure else "http")
            self.urls.append(url)
            _log.info("hero-router: listening on {url}", url=url)
        content = json.dumps({"listening": self.urls, "pid": os.getpid()}) + "\n"
        temporary = self._state_file.with_suffix(".new")
        temporary.write_text(content)
        temporary.replace(self._state_file)

    def _failed(self, failure: Any) -> None:
        print(
            f"hero-router: cannot listen: {failure.getErrorMessage()}", file=sys.stderr, flush=True
        )
        # twistd has no other way to end with a status of one's own.
        self._reactor.addSystemEventTrigger("after", "shutdown", os._exit, 1)
        self._reactor.callWhenRunning(self._reactor.stop)

    def stopService(self) -> Deferred[None]:
        """Accept no more, and let requests under way finish."""
        super().stopService()  # type: ignore[no-untyped-call]
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._state_file.unlink(missing_ok=True)
        ports, self._ports = self._ports, []
        for port in ports:
            stopped = port.stopListening()
            if isinstance(stopped, Deferred):
                await stopped
        await self._gateway.stop()
        self._gateway.routes.close()


def _url(port: IListeningPort, scheme: str) -> str:
    address: Any = port.getHost()
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}"
