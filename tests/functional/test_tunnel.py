"""SSH through the router: OpenSSH's own client and server, with ``hero tunnel`` between them."""

from __future__ import annotations

import getpass
import hashlib
import os
import shlex
import socketserver
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.internet.threads import deferToThread

from tests.cli.test_tunnel import HERO, ROOT, CommandCase

SSHD = "/usr/sbin/sshd"
_CONFIGURATION = """\
HostKey {directory}/host
AuthorizedKeysFile {directory}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
PermitRootLogin prohibit-password
"""


class SshServer(socketserver.ThreadingUnixStreamServer):
    """Starts ``sshd -i`` for each connection to a socket, as systemd and inetd do."""

    daemon_threads = True

    def __init__(self, path: Path, directory: Path) -> None:
        self.directory = directory
        super().__init__(str(path), _Handler)


class _Handler(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        directory = self.server.directory  # type: ignore[attr-defined]
        with (directory / "sshd.log").open("ab") as log:
            subprocess.run(
                [SSHD, "-i", "-e", "-f", str(directory / "sshd_config")],
                stdin=self.request,
                stdout=self.request,
                stderr=log,
                check=False,
            )


class SshTests(CommandCase):
    timeout = 60

    def setUp(self) -> None:
        super().setUp()
        if os.geteuid() == 0:
            # sshd of root gives up its rights in there.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self.keys = self.directory / "keys"
        self.keys.mkdir(mode=0o700)
        for name in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.keys / name)],
                check=True,
            )
        configuration = _CONFIGURATION.format(directory=self.keys)
        (self.keys / "sshd_config").write_text(configuration)
        host_key = (self.keys / "host.pub").read_text()
        (self.keys / "known_hosts").write_text(f"web {host_key}")
        self.write_manifest(self.manifest)
        server = SshServer(self.directory / "demo/ssh.sock", self.keys)
        Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(deferToThread, server.shutdown)
        self.look()

    async def ssh(self, command: str, stdin: bytes = b"", token: str = "hero_operator") -> Any:
        """Run *command* on the other side."""
        environ = {
            "HERO_HOME": str(self.home),
            "HERO_URL": await self.url(),
            "HERO_TOKEN": token,
            "PYTHONPATH": str(ROOT),
            "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        }
        options = {
            "ProxyCommand": f"{shlex.join(HERO)} tunnel demo/ssh",
            "UserKnownHostsFile": str(self.keys / "known_hosts"),
            "IdentityFile": str(self.keys / "user"),
            "IdentitiesOnly": "yes",
            "BatchMode": "yes",
        }
        arguments = ["ssh", "-F", "none", "-T"]
        for name, value in options.items():
            arguments += ["-o", f"{name}={value}"]
        return await deferToThread(
            subprocess.run,
            [*arguments, f"{getpass.getuser()}@web", command],
            input=stdin,
            env=environ,
            capture_output=True,
            check=False,
            timeout=50,
        )

    def said(self, result: Any) -> str:
        log = self.keys / "sshd.log"
        return f"{result.stderr.decode()}\n{log.read_text() if log.exists() else ''}"

    async def test_command_with_input_and_output(self) -> None:
        content = os.urandom(4 * 1024 * 1024)
        result = await self.ssh("sha256sum", content)
        self.assertEqual(result.returncode, 0, self.said(result))
        self.assertEqual(result.stdout.split()[0].decode(), hashlib.sha256(content).hexdigest())
        result = await self.ssh(f"{sys.executable} -c 'print(\"x\" * 4194304); exit(3)'")
        self.assertEqual((result.returncode, len(result.stdout)), (3, 4194305), self.said(result))
        await self.happens(lambda: len(self.log) == 2)
        self.assertEqual([line["status"] for line in self.log], [101, 101])

    async def test_viewer_does_not_get_as_far_as_the_host_key(self) -> None:
        result = await self.ssh("true", token="hero_viewer")
        self.assertEqual(result.returncode, 255)
        self.assertIn(b"needs the role operator", result.stderr)
        self.assertFalse((self.keys / "sshd.log").exists())
