"""The scripted tour: it works, it leaves nothing, and it fails when it should."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

TOUR = Path(__file__).parents[2] / "demo/tour.py"
PORT = 9993


def give_tour() -> subprocess.CompletedProcess[str]:
    """The tour, on a port of its own."""
    return subprocess.run(
        [sys.executable, TOUR],
        env={**os.environ, "HERO_DEMO_PORT": str(PORT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
    )


def homes() -> set[Path]:
    """What tours keep their nodes in."""
    return set(Path(tempfile.gettempdir()).glob("hero-tour-*"))


class TourTests(SynchronousTestCase):
    """``make demo``."""

    def test_shows_a_guest_on_the_worker_and_leaves_nothing(self) -> None:
        """The guest's own line is printed, the path is shown, and no file is left."""
        before = homes()
        done = give_tour()
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("hero micro: tour ready", done.stdout)
        self.assertIn(f"https://127.0.0.3:{PORT}/hero_compute/rpc", done.stdout)
        self.assertEqual(homes() - before, set())

    def test_fails_where_it_cannot_be_given(self) -> None:
        """A port in use is named, and the exit status says that nothing was shown."""
        with socket.socket() as holder:
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            holder.bind(("127.0.0.3", PORT))
            holder.listen()
            done = give_tour()
        self.assertEqual(done.returncode, 1)
        self.assertIn(f"port {PORT} of 127.0.0.3", done.stdout)
        self.assertNotIn("Traceback", done.stdout + done.stderr)
