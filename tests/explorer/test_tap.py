"""``twistd hero-explorer``, where it cannot start."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from shutil import rmtree

from twisted.trial.unittest import SynchronousTestCase


class StartTests(SynchronousTestCase):
    def test_explorer_that_cannot_start_ends(self) -> None:
        """What supervises it learns of that, and need not look at its socket."""
        home = Path(tempfile.mkdtemp())
        self.addCleanup(rmtree, home)
        (home / "var/state").mkdir(parents=True)
        (home / "var/state/explorer.db").write_text("not a database")
        environment = {
            **os.environ,
            "HERO_HOME": str(home),
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        twistd = "from twisted.scripts.twistd import run; run()"
        ended = subprocess.run(
            [sys.executable, "-c", twistd, "-n", "--pidfile=", "hero-explorer"],
            env=environment,
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(ended.returncode, 1)
        self.assertIn("explorer.db cannot be used", ended.stdout + ended.stderr)
