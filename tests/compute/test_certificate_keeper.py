"""A node's certificate is renewed before it ends."""

from __future__ import annotations

import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

from twisted.internet.defer import execute
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from hero.compute.membership import CertificateKeeper
from hero.errors import Unavailable
from hero.explorer.model import Certificate
from hero.identity.authority import Authority
from hero.identity.node import (
    NodeIdentity,
    ensure_master_identity,
    install_certificate,
    make_key_and_csr,
)
from hero.paths import HeroPaths

SOON_OVER = timedelta(seconds=1)


class FakeExplorer:
    """Renews certificates with *authority*, or is away where there is none."""

    def __init__(self, authority: Authority | None) -> None:
        self.authority = authority

    async def renew_certificate(self, *, certificate: str, csr: str) -> Certificate:
        if self.authority is None:
            raise Unavailable("away")
        peer = self.authority.check_renewal(certificate, csr)
        issued = self.authority.issue(csr, node_sid=peer.node_sid, addresses=["127.0.0.1"])
        ends = datetime(2030, 1, 1, tzinfo=UTC)
        return Certificate(certificate=issued, ca=self.authority.ca_pem, expires_at=ends)


class KeeperTests(SynchronousTestCase):
    """`CertificateKeeper` with explorers in memory and certificates in files."""

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.home)
        self.authority = Authority.create(self.home / "authority")
        self.paths = HeroPaths.from_environment({"HERO_HOME": str(self.home)})

    def join(self, lifetime: timedelta) -> NodeIdentity:
        issued = self.authority.issue(
            make_key_and_csr(self.paths.tls),
            node_sid="node-0000000001",
            addresses=["127.0.0.1"],
            lifetime=lifetime,
        )
        return install_certificate(self.paths.tls, issued, self.authority.ca_pem)

    def look(self, *explorers: FakeExplorer) -> CertificateKeeper:
        """Let a keeper look at the certificate once."""
        keeper = CertificateKeeper(
            clock=Clock(), paths=self.paths, explorers=explorers, in_thread=execute
        )
        keeper.startService()
        keeper.stopService()
        return keeper

    def test_young_certificate(self) -> None:
        """It is left alone."""
        before = self.join(timedelta(days=7))
        self.look(FakeExplorer(self.authority))
        self.assertEqual(NodeIdentity.load(self.paths.tls).not_after, before.not_after)

    def test_old_certificate(self) -> None:
        """A new one for the same key comes from the first explorer that answers."""
        before = self.join(SOON_OVER)
        keeper = self.look(FakeExplorer(None), FakeExplorer(self.authority))
        after = NodeIdentity.load(self.paths.tls)
        self.assertGreater(after.not_after, before.not_after)
        self.assertEqual(after.node_sid, before.node_sid)
        self.assertIsNone(keeper.problem)

    def test_nobody_renews(self) -> None:
        """The certificate stays, and the node says what is wrong."""
        before = self.join(SOON_OVER)
        keeper = self.look(FakeExplorer(None))
        self.assertIn("away", keeper.problem or "")
        self.assertEqual(NodeIdentity.load(self.paths.tls).not_after, before.not_after)

    def test_machine_with_the_authority(self) -> None:
        """It renews its certificate itself."""
        before = ensure_master_identity(self.paths, ["10.0.0.7"], lifetime=SOON_OVER)
        self.look()
        after = NodeIdentity.load(self.paths.tls)
        self.assertGreater(after.not_after, before.not_after)
        self.assertIn("10.0.0.7", after.addresses)
