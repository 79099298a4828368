"""What the console asks of a real socket."""

from __future__ import annotations

import shutil
import socket
import tempfile
from pathlib import Path

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from hero.errors import Unavailable
from hero.ui.explorer import SocketExplorer
from hero.ui.visitor import Visitor


class SocketExplorerTests(TestCase):
    """The explorer of this machine, or none."""

    async def test_an_explorer_that_is_not_there(self) -> None:
        """The visitor is told what does not answer, not by which file it was asked."""
        home = Path(tempfile.mkdtemp(dir="/tmp"))
        self.addCleanup(shutil.rmtree, home)
        stale = home / "explorer.sock"
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(stale))
        for path in (home / "none.sock", stale):
            explorer = SocketExplorer(reactor, path)
            asked = Deferred.fromCoroutine(explorer.overview(Visitor(user="user:ada", claims="")))
            error = await self.assertFailure(asked, Unavailable)
            self.assertIn("explorer", error.detail)
            self.assertNotIn(str(home), f"{error.detail} {error.hint}")
