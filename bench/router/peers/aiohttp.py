"""A streaming reverse proxy of aiohttp on uvloop, written as its documentation suggests."""

from __future__ import annotations

from pathlib import Path

from bench.router.installation import SCRIPTS
from bench.router.lab import OPEN, TALK
from bench.router.peers.peer import Command, Order, Peer, first_line

_PROGRAM = Path(__file__).parent / "programs" / "streaming_aiohttp.py"


class Aiohttp(Peer):
    """One process: aiohttp leaves several to others."""

    name = "aiohttp"

    def version(self) -> str:
        script = "import aiohttp, platform, uvloop as u; "
        script += "print('aiohttp', aiohttp.__version__, 'on uvloop', u.__version__, 'and'"
        script += ", platform.python_implementation(), platform.python_version())"
        return first_line(str(SCRIPTS / "python"), "-c", script)

    def command(self, order: Order) -> Command:
        lab, ports = order.lab, order.ports
        argv = [str(SCRIPTS / "python"), str(_PROGRAM), str(ports.plain), str(ports.tls)]
        argv += [str(lab.certificate), str(lab.key)]
        argv += [f"/{name}/={lab.socket(name)}" for name in (OPEN, TALK)]
        return Command(argv=argv)
