"""Twisted's own ``ReverseProxyResource`` in a ``Site``."""

from __future__ import annotations

from pathlib import Path

from bench.router.lab import OPEN, Lab
from bench.router.peers.peer import Command, Order, Peer, first_line

_PROGRAM = Path(__file__).parent / "programs" / "stock_reverse_proxy.py"


class StockTwisted(Peer):
    """It connects anew for each request, holds bodies in memory, and knows no WebSockets."""

    name = "twisted"
    streams = False
    websocket = False

    def __init__(self, lab: Lab) -> None:
        self._python = str(lab.hero.python)

    def version(self) -> str:
        script = "import twisted, platform; print('Twisted', twisted.__version__, 'on'"
        script += ", platform.python_implementation(), platform.python_version())"
        return first_line(self._python, "-c", script)

    def command(self, order: Order) -> Command:
        lab, ports = order.lab, order.ports
        argv = [self._python, str(_PROGRAM), str(ports.plain), str(ports.tls)]
        return Command(argv=[*argv, str(lab.certificate), str(lab.key), str(lab.socket(OPEN))])
