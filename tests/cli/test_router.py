"""``hero router``: with a process that stands for the router."""

from __future__ import annotations

import json
import signal
import subprocess
import sys

from twisted.internet import reactor
from twisted.internet.task import deferLater

from tests.cli.cluster import CliTestCase

#: Writes on SIGUSR2 that another process is the router, and on SIGHUP what it was told.
ROUTER = """
import json, os, pathlib, signal, sys
state = pathlib.Path(sys.argv[1])
say = lambda pid: state.write_text(json.dumps({"pid": pid, "listening": []}))
signal.signal(signal.SIGUSR2, lambda *_: say(4194304))
signal.signal(signal.SIGHUP, lambda *_: state.with_name("hup").touch())
say(os.getpid())
while True:
    signal.pause()
"""


class RouterTests(CliTestCase):
    """`hero.cli.router`."""

    def setUp(self) -> None:
        super().setUp()
        self.state = self.paths.run / "router.json"

    async def start(self) -> int:
        process = self.run_process()
        while not (self.state.exists() and self.state.read_text()):
            await deferLater(reactor, 0.02)
        return process.pid

    def run_process(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen([sys.executable, "-c", ROUTER, str(self.state)])
        self.addCleanup(process.wait)
        self.addCleanup(process.send_signal, signal.SIGKILL)
        return process

    async def test_restart_waits_for_the_successor(self) -> None:
        pid = await self.start()
        result = await self.hero("router", "restart", "--json")
        self.assertEqual(result.exit_code, 0, result.stderr)
        self.assertEqual(json.loads(result.stdout), {"before": pid, "pid": 4194304})

    async def test_reload_sends_a_signal(self) -> None:
        pid = await self.start()
        result = await self.hero("router", "reload")
        self.assertIn(f"process {pid}", result.stdout)
        while not (self.state.parent / "hup").exists():
            await deferLater(reactor, 0.02)

    async def test_no_router_is_said(self) -> None:
        for verb in ("restart", "reload"):
            self.assert_fails(await self.hero("router", verb), 5, "no router runs")
