"""``hero node``, ``hero token``, ``hero route``, ``hero ui`` and ``hero status``."""

from __future__ import annotations

import stat

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import load_pkcs12

from hero.cli.instance import write_state
from hero.identity.claims import Claim
from hero.identity.node import ensure_master_identity
from hero.identity.tokens import TokenFile
from hero.identity.user_certificates import read_user
from tests.cli.cluster import CliTestCase


class ClusterTests(CliTestCase):
    """Commands about the cluster."""

    def setUp(self) -> None:
        super().setUp()
        self.serve_explorer()
        self.serve_router()

    async def test_nodes(self) -> None:
        """Nodes are listed with what matters first."""
        lines = (await self.hero("node", "list")).stdout.splitlines()
        self.assertEqual(len(lines), 3)
        self.assertIn("unreachable", lines[2])
        self.assertIn("1/2", lines[1])

    async def test_node(self) -> None:
        """One node is shown, and cordoned."""
        self.assertIn("https://alpha:443", (await self.hero("node", "show", "alpha")).stdout)
        self.assertIn("cordoned", (await self.hero("node", "cordon", "alpha")).stdout)
        self.assert_fails(await self.hero("node", "show", "x"), 3, "there is no node 'x'")

    async def test_join_token(self) -> None:
        """Only the token is on stdout, for a script to take."""
        result = await self.hero("token", "create", "--lifetime", "30m")
        self.assertEqual(result.stdout, "hero-join-1.abc\n")
        self.assertIn("hero join", result.stderr)
        self.assertEqual(self.explorer.calls[0][1], {"lifetime": 1800.0})

    async def test_lifetime_that_is_none(self) -> None:
        """A length of time is checked before anything is asked."""
        for wrong in ("soon", "-1", "0", "nan", "5y"):
            result = await self.hero("token", "create", f"--lifetime={wrong}")
            self.assert_fails(result, 2, "length of time")

    async def test_bearer_token(self) -> None:
        """Only the secret is on stdout; how to use it is said beside it."""
        result = await self.hero("token", "admin", "--role", "viewer", "--context", "lab")
        self.assertEqual(result.stdout, "hero_secret\n")
        self.assertIn("HERO_URL", result.stderr)
        self.assertNotIn("hero_secret", result.stderr)
        wanted = self.explorer.calls[0][1]
        self.assertEqual((wanted["role"], wanted["context"]), ("viewer", "lab"))

    async def test_tokens(self) -> None:
        """Tokens are listed without their secrets."""
        self.assertIn("token-1", (await self.hero("token", "list")).stdout)

    async def test_refusal(self) -> None:
        """What the service refuses is the command's failure."""
        self.assert_fails(await self.hero("token", "revoke", "x"), 6, "is not made up")

    async def test_routes(self) -> None:
        """Entries that are not routed are listed with the reason."""
        self.assertIn("is a symbolic link", (await self.hero("route", "list")).stdout)
        self.assertEqual(len((await self.hero_json("route", "list"))["items"]), 2)

    async def test_ui(self) -> None:
        """The code is in the fragment, which goes to no server."""
        result = await self.hero("ui", HERO_PORT="9100")
        self.assertEqual(result.stdout, f"http://127.0.0.1:9100/#login={'c' * 20}\n")


class RouterAloneTests(CliTestCase):
    """A machine where nothing runs but a router, or nothing yet."""

    async def test_tokens_need_no_service(self) -> None:
        """They are made, listed and revoked in the router's own file."""
        made = await self.hero("token", "admin", "--local", "--user", "alice", "--role", "viewer")
        secret = made.stdout.strip()
        self.assertIn("Authorization: Bearer", made.stderr)
        self.assertNotIn(secret, made.stderr)
        found = TokenFile(self.paths.own_tokens_file).lookup(secret)
        assert found is not None
        self.assertEqual((found.user, found.claims), ("user:alice", "viewer@root"))
        self.assertIn(found.sid, (await self.hero("token", "list", "--local")).stdout)
        self.assertIn("alice", (await self.hero("token", "revoke", "--local", found.sid)).stdout)
        self.assertEqual(await self.hero_json("token", "list", "--local"), {"items": []})

    async def test_tokens_of_the_cluster_need_an_explorer(self) -> None:
        """The refusal names the way that needs none."""
        self.serve_router()
        result = await self.hero("token", "admin")
        self.assert_fails(result, 5, "this machine's router", "--local")

    async def test_certificate_is_made_for_scripts_and_for_a_browser(self) -> None:
        """Both files are their owner's alone, and nothing that is there is written over."""
        ensure_master_identity(self.paths, [])
        arguments = ("certificate", "alice", "--role", "admin", "--to", str(self.home))
        made = await self.hero_json(*arguments)
        for_scripts, for_browsers = self.home / "alice.pem", self.home / "alice.p12"
        self.assertEqual(
            (made["file"], made["browser_file"]), (str(for_scripts), str(for_browsers))
        )
        pem = for_scripts.read_bytes()
        [mine, _] = x509.load_pem_x509_certificates(pem)
        key = load_pem_private_key(pem, None)
        self.assertEqual(read_user(mine).claims, {Claim("admin")})
        self.assertEqual(key.public_key(), mine.public_key())
        browser = load_pkcs12(for_browsers.read_bytes(), made["browser_password"].encode())
        self.assertEqual(browser.cert.certificate, mine)
        for file in (for_scripts, for_browsers):
            self.assertEqual(stat.S_IMODE(file.stat().st_mode), 0o600)
        self.assert_fails(await self.hero(*arguments), 6, "exists already")

    async def test_certificate_needs_the_authority(self) -> None:
        result = await self.hero("certificate", "alice", "--to", str(self.home))
        self.assert_fails(result, 1, "holds no certificate authority")

    async def test_routes_are_listed(self) -> None:
        self.serve_router()
        self.assertIn("/web/rpc", (await self.hero("route", "list")).stdout)

    async def test_guests_need_a_compute_service(self) -> None:
        self.serve_router()
        self.assert_fails(await self.hero("vm", "list"), 5, "only this machine's router")


class StatusTests(CliTestCase):
    """``hero status``."""

    async def test_nothing_runs(self) -> None:
        """Nothing here is an answer, with an exit code of its own."""
        result = await self.hero("status")
        self.assertEqual(result.exit_code, 5)
        self.assertIn("hero up", result.stdout)

    async def test_services_without_supervisor(self) -> None:
        """Services that systemd runs are seen by their sockets."""
        self.serve_explorer()
        status = await self.hero_json("status")
        self.assertTrue(status["running"])
        self.assertIsNone(status["pid"])
        self.assertEqual(status["sockets"]["explorer"], "up")
        self.assertEqual(status["sockets"]["compute"], "down")
        self.assertEqual(status["cluster"]["nodes"], 2)

    async def test_complaints_of_services(self) -> None:
        """What a service says is wrong with it is shown, whatever else is well."""
        self.compute.problems = ["the disk is full"]
        self.serve_explorer()
        self.serve_compute()
        result = await self.hero("status")
        self.assertIn("compute: the disk is full", result.stderr)
        status = await self.hero_json("status")
        self.assertEqual(status["problems"], ["compute: the disk is full"])

    async def test_state_of_the_dead(self) -> None:
        """What a supervisor that was killed last said of itself is not believed."""
        write_state(self.paths, {"pid": 1, "mode": "master", "state": "ready"})
        status = await self.hero("status", "--json")
        self.assertEqual(status.exit_code, 5)
        self.assertIn('"pid": null', status.stdout)

    async def test_down_when_nothing_runs(self) -> None:
        """To stop what does not run is no error."""
        result = await self.hero("down")
        self.assertEqual(result.exit_code, 0)
        self.assertIn("not running", result.stdout)
