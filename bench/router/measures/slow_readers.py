"""Ten clients that read 100 MB each at 200 kB a second: what the proxy holds for them."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Mapping
from contextlib import ExitStack

from bench.router.generators.wrk import ask
from bench.router.lab import MEDIUM_FILE
from bench.router.measures.measure import Figure, Measure, Take, Target
from bench.router.peers.peer import Peer, Proxy

_CLIENTS = 10
_BYTES_PER_SECOND = 200_000
_TICK = 0.05
#: Times the length of a turn: a proxy that buffers has long begun to; to the end it takes 500 s.
_TURNS = 4


def _take(tls: bool) -> Take:
    def take(proxy: Proxy, seconds: float) -> Mapping[str, float]:
        ask(proxy, 1, tls=tls)  # what it needs anyway it has now
        before = most = proxy.session.memory()
        with ExitStack() as stack:
            clients = [stack.enter_context(_asking(proxy, tls)) for _ in range(_CLIENTS)]
            end = time.monotonic() + _TURNS * seconds
            while time.monotonic() < end:
                for client in clients:
                    client.recv(int(_BYTES_PER_SECOND * _TICK))
                most = max(most, proxy.session.memory())
                time.sleep(_TICK)
        return {"growth": (most - before) / 2**20}

    return take


def _asking(proxy: Proxy, tls: bool) -> socket.socket:
    client = socket.create_connection(("127.0.0.1", proxy.port(tls=tls)), 10)
    if tls:
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        client = context.wrap_socket(client)
    head = f"GET /{proxy.peer.route}/{MEDIUM_FILE} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    client.sendall(head.encode())
    return client


def _suits(peer: Peer) -> bool:
    return not peer.variant


def _measure(*, tls: bool) -> Measure:
    return Measure(
        name="slow-readers" + ("-tls" if tls else ""),
        title=f"Ten slow readers of 100 MB each, {'TLS' if tls else 'plain'}",
        figures=(Figure(name="growth", title="MiB more in memory", form="{:.1f}"),),
        take=_take(tls),
        suits=_suits,
        most_rounds=1,
        targets=(Target(figure="growth", bound=4, at_least=False),),
    )


MEASURES = (_measure(tls=False), _measure(tls=True))
