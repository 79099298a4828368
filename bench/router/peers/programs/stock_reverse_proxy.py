"""``stock_reverse_proxy.py PLAIN-PORT TLS-PORT CERTIFICATE KEY SOCKET``: Twisted's own proxy.

It serves SOCKET as ``/bench/open/``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from twisted.internet import reactor, ssl
from twisted.web.proxy import ReverseProxyResource
from twisted.web.resource import Resource
from twisted.web.server import Site


class ToSocket:
    """A reactor whose TCP connections all lead to one UNIX socket."""

    def __init__(self, path: str) -> None:
        self._path = path

    def connectTCP(self, host: str, port: int, factory: Any) -> Any:
        """Connect *factory*."""
        return reactor.connectUNIX(self._path, factory)


def main(plain: str, tls: str, certificate: str, key: str, path: str) -> None:
    """Listen, and run."""
    top, bench = Resource(), Resource()
    top.putChild(b"bench", bench)
    bench.putChild(b"open", ReverseProxyResource("service", 80, b"", ToSocket(path)))
    # A limit on requests under way, or on idle time, would be in the way of the measures.
    site = Site(top, timeout=None)
    pem = Path(key).read_bytes() + Path(certificate).read_bytes()
    options = ssl.PrivateCertificate.loadPEM(pem).options()
    reactor.listenTCP(int(plain), site, interface="127.0.0.1", backlog=4096)
    reactor.listenSSL(int(tls), site, options, interface="127.0.0.1", backlog=4096)
    reactor.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
