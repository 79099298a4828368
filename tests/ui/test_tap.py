"""How the console's process is put together."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

from hero.ui.tap import Options, console_service


class OptionsTests(SynchronousTestCase):
    """The command line and the environment."""

    def test_the_port_has_a_default_and_a_variable(self) -> None:
        """9001, HERO_PORT, --port: the later goes before the earlier."""
        options = Options({})
        self.assertEqual(options["port"], 9001)
        options = Options({"HERO_PORT": "9101"})
        self.assertEqual(options["port"], 9101)
        options.parseOptions(["--port", "9102"])
        self.assertEqual(options["port"], 9102)

    def test_what_is_no_port_is_refused(self) -> None:
        """With a usage error, not a traceback."""
        for text in ("0", "65536", "http", ""):
            with self.assertRaises(usage.UsageError):
                Options({}).parseOptions(["--port", text])


class ServiceTests(TestCase):
    """The doors of a real process."""

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.home)

    def options(self, port: int) -> Options:
        options = Options({"HERO_HOME": str(self.home)})
        options.parseOptions(["--port", str(port)])
        options.paths.ensure()
        return options

    def free_port(self) -> int:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return int(probe.getsockname()[1])

    async def test_both_doors_open_and_close(self) -> None:
        """The socket is there while the service runs; the port is on 127.0.0.1 alone."""
        options = self.options(self.free_port())
        service = console_service(reactor, options)
        service.privilegedStartService()
        service.startService()
        self.assertTrue(options.paths.ui_socket.is_socket())
        with socket.create_connection(("127.0.0.1", options["port"])):
            pass
        with self.assertRaises(OSError):
            socket.create_connection(("127.0.0.2", options["port"])).close()
        await service.stopService()
        self.assertFalse(options.paths.ui_socket.exists())

    def test_a_port_in_use_is_said_in_one_line(self) -> None:
        """The process ends with the port and the option that helps."""
        with socket.socket() as holder:
            holder.bind(("127.0.0.1", 0))
            holder.listen()
            port = holder.getsockname()[1]
            service = console_service(reactor, self.options(port))
            with self.assertRaises(SystemExit) as caught:
                service.privilegedStartService()
        self.assertIn(f"port {port} of 127.0.0.1", str(caught.exception))
        self.assertIn("--port", str(caught.exception))
