"""The router alone before apps of others, started by the commands that the documentation gives."""

from __future__ import annotations

import atexit
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.functional.cluster import eventually

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/how-to/router-in-front-of-your-app.md"
TWISTD = [sys.executable, "-c", "from twisted.scripts.twistd import run; run()"]


def page_files() -> dict[str, str]:
    """The programs on the page, by the name that their first line gives."""
    blocks = re.findall(
        r"^```(?:python|js)\n(?:#|//) (\S+)\n(.*?)^```", PAGE.read_text(), re.S | re.M
    )
    return dict(blocks)


def page_command(program: str) -> str:
    """The one command on the page that starts with *program*."""
    [command] = re.findall(rf"^\$ ({re.escape(program)} .*)$", PAGE.read_text(), re.M)
    return str(command)


def page_manifest(name: str) -> str:
    """The manifest that the page has beside the socket *name*."""
    pattern = rf"^\$ echo '(.*)' > \$HERO_SOCKET_DIR/demo/{name}\.json$"
    [content] = re.findall(pattern, PAGE.read_text(), re.M)
    return str(content)


class Router:
    """A router with a home and a socket directory of its own, and the apps in front of which it is.

    *options* are those of ``twistd hero-router`` besides where it listens.
    """

    def __init__(self, *options: str) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hero-apps-", dir="/tmp"))
        self.sockets = self.home / "sockets"
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        atexit.register(self.destroy)
        environ = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("HERO_", "EXPLORER_", "JUPYTER"))
        }
        self.environment = environ | {
            "HOME": str(self.home),
            "HERO_HOME": str(self.home / "hero"),
            "HERO_SOCKET_DIR": str(self.sockets),
            "PATH": f"{Path(sys.executable).parent}:{environ.get('PATH', '/usr/bin:/bin')}",
            "PYTHONPATH": str(ROOT),
        }
        for name, content in page_files().items():
            (self.home / name).write_text(content)
        listen = ["tcp:0:interface=127.0.0.1", "ssl:0:interface=127.0.0.1"]
        router = [*TWISTD, "-n", "--pidfile=", "hero-router", "--sockets", str(self.sockets)]
        self._start("router", [*router, *(f"--listen={spec}" for spec in listen), *options])
        self.url, self.tls_url = eventually("the router to listen", self._listening)

    def _listening(self) -> list[str]:
        self._check("router")
        state = self.home / "hero/var/run/router.json"
        urls: list[str] = json.loads(state.read_text())["listening"] if state.exists() else []
        return urls

    def _start(self, name: str, command: list[str]) -> None:
        with (self.home / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                command,
                cwd=self.home,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._processes[name] = process

    def start(self, name: str, command: str) -> None:
        """Run the shell command *command*, which is to make the socket ``demo/<name>.sock``."""
        (self.sockets / "demo").mkdir(exist_ok=True)
        self._start(name, ["sh", "-c", f"exec {command}"])

    def describe(self, name: str, manifest: str) -> None:
        """Put *manifest* beside the socket that the app *name* will make."""
        (self.sockets / "demo").mkdir(exist_ok=True)
        (self.sockets / f"demo/{name}.json").write_text(manifest)

    def wait_for(self, name: str) -> None:
        """Return once there is the socket of the app *name*."""

        def made() -> bool:
            self._check(name)
            return (self.sockets / f"demo/{name}.sock").exists()

        eventually(f"{name} to listen", made)

    def _check(self, name: str) -> None:
        if self._processes[name].poll() is not None:
            raise AssertionError(f"{name} has ended\n{(self.home / f'{name}.log').read_text()}")

    def hero(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """``hero *arguments`` beside this router."""
        return subprocess.run(
            [sys.executable, "-m", "hero.cli.main", *arguments],
            env=self.environment,
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def destroy(self) -> None:
        """Stop everything and remove the files; again does nothing."""
        for process in reversed(self._processes.values()):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        shutil.rmtree(self.home, ignore_errors=True)
