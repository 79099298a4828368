"""gunicorn, uvicorn and Jupyter Server, each on its socket, behind a router that is alone."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import socket
import ssl
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import trustme
from twisted.trial.unittest import SynchronousTestCase
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.functional.apps import Router, page_command, page_manifest
from tests.functional.cluster import eventually, once

MIB = 1 << 20
JUPYTER_TOKEN = "only-for-this-test"

#: Answers with the SHA-256 of what was uploaded, or with as many bytes as the query asks for.
BULK = """
import hashlib

def application(environ, start_response):
    size = int(environ["QUERY_STRING"] or 0)
    if size:
        start_response("200 OK", [("Content-Length", str(size))])
        block = bytes(range(256)) * 256
        return (block[: min(len(block), size - sent)] for sent in range(0, size, len(block)))
    digest = hashlib.sha256()
    while block := environ["wsgi.input"].read(65536):
        digest.update(block)
    body = digest.hexdigest().encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""


def start() -> Router:
    """A router for those with a token, with the apps of the page and one for large bodies."""
    router = Router()
    router.start("web", page_command("gunicorn"))
    router.start("chat", page_command("uvicorn"))
    # The tests may run as root, which Jupyter does not do unasked; a token spares the XSRF cookie.
    router.environment["JUPYTER_TOKEN"] = JUPYTER_TOKEN
    router.describe("lab", page_manifest("lab"))
    router.start("lab", f"{page_command('jupyter')} --allow-root")
    (router.home / "bulk.py").write_text(BULK)
    gunicorn = f"gunicorn --bind unix:{router.sockets}/demo/bulk.sock --timeout 120"
    router.start("bulk", f"{gunicorn} bulk:application")
    for name in ("web", "chat", "lab", "bulk"):
        router.wait_for(name)
    return router


def token() -> str:
    """A token for alice."""
    return make_token(once(start), "alice")


def make_token(router: Router, user: str) -> str:
    """A token that *router* accepts, made as the page says."""
    made = router.hero(*page_command("hero token admin").replace("alice", user).split()[1:])
    if made.returncode != 0:
        raise AssertionError(made.stderr)
    return made.stdout.strip()


def pattern(size: int) -> bytes:
    """What the app for large bodies sends."""
    return (bytes(range(256)) * (size // 256 + 1))[:size]


class AppCase(SynchronousTestCase):
    """The router and its apps, started once."""

    def setUp(self) -> None:
        self.router = once(start)
        self.identity = {"Authorization": f"Bearer {once(token)}"}

    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.router.home / "hero/cfg/tls/ca.crt"))

    def connection(self, *, tls: bool = False) -> http.client.HTTPConnection:
        url = urlsplit(self.router.tls_url if tls else self.router.url)
        made: http.client.HTTPConnection
        if tls:
            made = http.client.HTTPSConnection(url.netloc, timeout=60, context=self.tls())
        else:
            made = http.client.HTTPConnection(url.netloc, timeout=60)
        self.addCleanup(made.close)
        return made

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        *,
        tls: bool = False,
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """One request on a connection of its own; the answer and its body, once the app is up."""

        def once_up() -> tuple[http.client.HTTPResponse, bytes] | None:
            connection = self.connection(tls=tls)
            connection.request(method, path, body, {**self.identity, **(headers or {})})
            answer = connection.getresponse()
            content = answer.read()
            return None if answer.status == 503 else (answer, content)

        answered: tuple[http.client.HTTPResponse, bytes] = eventually(path, once_up)
        return answered

    def websocket(
        self,
        path: str,
        *,
        tls: bool = False,
        headers: Mapping[str, str] | None = None,
        origin: Any = None,
    ) -> ClientConnection:
        base = self.router.tls_url if tls else self.router.url
        opened = connect(
            f"ws{base.removeprefix('http')}{path}",
            ssl=self.tls() if tls else None,
            open_timeout=60,
            max_size=None,
            additional_headers={**self.identity, **(headers or {})},
            origin=origin,
        )
        self.addCleanup(opened.close)
        return opened


class GunicornTests(AppCase):
    """WSGI."""

    def test_app_learns_who_asks_and_where_it_is(self) -> None:
        answer, body = self.ask("GET", "/demo/web/some/page")
        self.assertEqual((answer.status, answer.getheader("Server")), (200, "gunicorn"))
        self.assertEqual(body, b"hello user:alice, this is http:/demo/web/some/page\n")

    def test_app_learns_that_the_client_spoke_tls(self) -> None:
        _, body = self.ask("GET", "/demo/web/", tls=True)
        self.assertEqual(body, b"hello user:alice, this is https:/demo/web/\n")

    def test_nobody_can_pose_as_the_router(self) -> None:
        """The app believes the headers, in any spelling that CGI folds into the same name."""
        forged = {"X-Hero-User": "user:root", "X_Hero_User": "user:root", "X-Forwarded-Prefix": "/"}
        _, body = self.ask("GET", "/demo/web/", headers=forged)
        self.assertEqual(body, b"hello user:alice, this is http:/demo/web/\n")

    def test_large_bodies_arrive_whole(self) -> None:
        """Up with a length and in chunks, and down, in clear and over TLS."""
        size = 24 * MIB
        content = pattern(size)
        expected = hashlib.sha256(content).hexdigest().encode()

        def chunks() -> Iterator[bytes]:
            for begin in range(0, size, 100_000):
                yield content[begin : begin + 100_000]

        for tls in (False, True):
            self.assertEqual(self.ask("POST", "/demo/bulk/", content, tls=tls)[1], expected)
            self.assertEqual(self.ask("POST", "/demo/bulk/", chunks(), tls=tls)[1], expected)
            _, received = self.ask("GET", f"/demo/bulk/?{size}", tls=tls)
            self.assertEqual(hashlib.sha256(received).hexdigest().encode(), expected)


class IdentityTests(AppCase):
    """Tokens without an explorer."""

    def test_nobody_gets_to_the_app_without_a_token(self) -> None:
        self.identity = {}
        for secret in (None, "Bearer hero_wrong"):
            headers = {"Authorization": secret} if secret else {}
            answer, _ = self.ask("GET", "/demo/web/", headers=headers)
            self.assertEqual(answer.status, 401)
            self.assertIn("Bearer", answer.getheader("WWW-Authenticate") or "")
        self.assertEqual(
            self.assertRaises(InvalidStatus, self.websocket, "/demo/chat/").response.status_code,
            401,
        )

    def test_revoked_token_ends_at_once(self) -> None:
        """While the router runs, and without disturbing those of others."""
        self.identity = {"Authorization": f"Bearer {make_token(self.router, 'mallory')}"}
        self.assertIn(b"user:mallory", self.ask("GET", "/demo/web/")[1])
        listed = self.router.hero("--json", "token", "list", "--local")
        [sid] = [t["sid"] for t in json.loads(listed.stdout)["items"] if "mallory" in t["user"]]
        self.router.hero("token", "revoke", "--local", sid)
        self.assertEqual(self.ask("GET", "/demo/web/")[0].status, 401)

    def test_certificate_makes_its_bearer_known(self) -> None:
        """A person needs no token then, in a browser for example."""
        command = page_command("hero certificate").split()[1:]
        made = self.router.hero("--json", *command)
        self.assertEqual(made.returncode, 0, made.stderr)
        context = self.tls()
        context.load_cert_chain(self.router.home / json.loads(made.stdout)["file"])
        self.identity = {}
        self.tls = lambda: context
        for _ in range(2):
            _, body = self.ask("GET", "/demo/web/", tls=True)
            self.assertEqual(body, b"hello user:alice, this is https:/demo/web/\n")

    def test_file_beside_the_socket_opens_one_app(self) -> None:
        """For as long as it is there, and no other app."""
        self.identity = {}
        manifest = self.router.sockets / "demo/web.json"

        def answers(status: int) -> None:
            eventually(f"{status}", lambda: self.ask("GET", "/demo/web/")[0].status == status)

        answers(401)
        self.router.describe("web", page_manifest("web"))
        self.addCleanup(manifest.unlink, missing_ok=True)
        answers(200)
        self.assertEqual(self.ask("GET", "/demo/chat/")[0].status, 401)
        manifest.unlink()
        answers(401)

    def test_routes_are_listed_beside_the_router(self) -> None:
        """With no other process of Hero's about."""
        listed = self.router.hero("route", "list")
        self.assertEqual(listed.returncode, 0, listed.stderr)
        for name in ("web", "chat", "lab", "bulk"):
            self.assertIn(f"/demo/{name}", listed.stdout)


class OwnCertificateTests(SynchronousTestCase):
    """TLS by a name of one's own."""

    def setUp(self) -> None:
        self.authority = trustme.CA()
        self.directory = Path(tempfile.mkdtemp(dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.directory)
        self.renew()

    def renew(self) -> None:
        """Write a new certificate, and its key, over those that are there."""
        issued = self.authority.issue_cert("www.example.org")
        for name, content in (
            ("fullchain.pem", b"".join(pem.bytes() for pem in issued.cert_chain_pems)),
            ("privkey.pem", issued.private_key_pem.bytes()),
        ):
            draft = self.directory / "new"
            draft.write_bytes(content)
            draft.chmod(0o600)
            draft.rename(self.directory / name)

    def router(self, *options: str) -> Router:
        router = Router(
            f"--certificate={self.directory}/fullchain.pem",
            f"--key={self.directory}/privkey.pem",
            *options,
        )
        self.addCleanup(router.destroy)
        return router

    def serial(self, router: Router) -> str:
        """The number of the certificate that is shown to those who call by its name."""
        context = ssl.create_default_context()
        self.authority.configure_trust(context)
        address = urlsplit(router.tls_url)
        with (
            socket.create_connection((address.hostname, address.port), timeout=60) as tcp,
            context.wrap_socket(tcp, server_hostname="www.example.org") as wire,
        ):
            wire.sendall(b"GET /hero_router/rpc/health HTTP/1.0\r\nHost: www.example.org\r\n\r\n")
            self.assertIn(b" 200 OK", wire.recv(100))
            return str((wire.getpeercert() or {})["serialNumber"])

    def test_renewed_certificate_is_served_with_nothing_restarted(self) -> None:
        """By each of several processes."""
        router = self.router("--workers=2")
        first = self.serial(router)
        self.renew()
        eventually(
            "the renewed certificate",
            lambda: first not in [self.serial(router) for _ in range(8)],
        )

    def test_name_by_which_nodes_call_is_refused(self) -> None:
        """The router says so, rather than keep other nodes out."""
        refused = self.assertRaises(
            AssertionError,
            self.router,
            "--mode=master",
            "--advertise-address=https://www.example.org",
        )
        self.assertIn("--certificate is for www.example.org", str(refused))
        self.assertNotIn("Traceback", str(refused))


class UvicornTests(AppCase):
    """ASGI."""

    def test_app_sees_its_whole_path_and_the_client(self) -> None:
        _, body = self.ask("GET", "/demo/chat/room", tls=True)
        self.assertEqual(body, b"this is https:/demo/chat/room, you are 127.0.0.1\n")

    def test_websocket_carries_text_and_bytes_of_any_size(self) -> None:
        self.ask("GET", "/demo/chat/")
        for tls in (False, True):
            with self.websocket("/demo/chat/room", tls=tls) as opened:
                for message in ("hello", b"\0\xff", "", pattern(5 * MIB), "still there"):
                    opened.send(message)
                    self.assertEqual(opened.recv(timeout=60), message)

    def test_websocket_is_closed_in_order(self) -> None:
        self.ask("GET", "/demo/chat/")
        opened = self.websocket("/demo/chat/room")
        opened.close(1000, "enough")
        self.assertEqual(opened.protocol.close_code, 1000)


class JupyterTests(AppCase):
    """Jupyter Server, whose token counts besides what the router wants."""

    def jupyter(self, method: str, path: str, **options: Any) -> Any:
        answer, body = self.ask(method, f"/demo/lab{path}?token={JUPYTER_TOKEN}", **options)
        self.assertIn(answer.status, (200, 201, 204), body)
        return json.loads(body) if body else None

    def test_pages_lead_back_through_the_router(self) -> None:
        """Redirects, links and cookies are below the prefix."""
        answer, _ = self.ask("GET", "/demo/lab/files/notebook")
        self.assertEqual(answer.status, 302)
        location = answer.getheader("Location") or ""
        self.assertTrue(location.startswith("/demo/lab/login?"), location)
        answer, page = self.ask("GET", location)
        self.assertIn("Path=/demo/lab/", answer.getheader("Set-Cookie") or "")
        self.assertIn(b'href="/demo/lab/static/', page)

    def kernel(self) -> str:
        """The path of a new kernel's WebSocket."""
        sid = self.jupyter("POST", "/api/kernels", body=b"{}", tls=True)["id"]
        self.addCleanup(self.jupyter, "DELETE", f"/api/kernels/{sid}")
        return f"/demo/lab/api/kernels/{sid}/channels"

    def cookie(self) -> str:
        """What a browser sends once it has been at the address with the token."""
        answer, _ = self.ask("GET", f"/demo/lab/api/kernels?token={JUPYTER_TOKEN}", tls=True)
        cookies = answer.headers.get_all("Set-Cookie") or []
        return "; ".join(cookie.partition(";")[0] for cookie in cookies)

    def test_kernel_computes_over_its_websocket(self) -> None:
        """As a notebook in a browser does it, over TLS."""
        with self.websocket(
            self.kernel(),
            tls=True,
            origin=self.router.tls_url,
            headers={"Cookie": self.cookie()},
        ) as opened:
            opened.send(json.dumps(execute("1 + 1")))

            def result() -> str | None:
                message = json.loads(opened.recv(timeout=60))
                if message["msg_type"] != "execute_result":
                    return None
                return str(message["content"]["data"]["text/plain"])

            self.assertEqual(eventually("the sum", result), "2")

    def test_page_of_another_origin_gets_no_kernel(self) -> None:
        """Host passes the router unchanged, so that Jupyter can tell."""
        refused = self.assertRaises(
            InvalidStatus,
            self.websocket,
            self.kernel(),
            tls=True,
            origin="https://elsewhere.example",
            headers={"Cookie": self.cookie()},
        )
        self.assertEqual(refused.response.status_code, 403)


def execute(code: str) -> dict[str, Any]:
    """A message of Jupyter's protocol that asks to execute *code*."""
    header = {
        "msg_id": uuid.uuid4().hex,
        "msg_type": "execute_request",
        "session": uuid.uuid4().hex,
        "username": "",
        "version": "5.3",
    }
    return {
        "header": header,
        "parent_header": {},
        "metadata": {},
        "channel": "shell",
        "content": {"code": code, "silent": False, "store_history": True},
    }
