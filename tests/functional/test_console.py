"""The web console of a running node, on its port and behind the router."""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.functional.cluster import Node, once

PORT = 9131
HOST = f"127.0.0.1:{PORT}"
UI = "/hero_compute/ui"


def start_node() -> Node:
    """A node that pretends to run its guests: the console knows no difference."""
    node = Node("console", "127.0.0.31")
    node.up("local", "--hypervisor", "memory", "--port", str(PORT))
    return node


def ask(
    method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
) -> tuple[http.client.HTTPResponse, bytes]:
    """One request to the console's own port."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
    try:
        payload = None if body is None else json.dumps(body)
        connection.request(
            method, path, payload, {"Content-Type": "application/json", **(headers or {})}
        )
        answer = connection.getresponse()
        return answer, answer.read()
    finally:
        connection.close()


class ConsoleTests(SynchronousTestCase):
    """What a browser and its visitor get."""

    def setUp(self) -> None:
        self.node = once(start_node)

    def login(self) -> dict[str, str]:
        """The headers of a browser that has opened the link of ``hero ui``."""
        link: str = self.node.hero("ui")["url"]
        base, _, code = link.partition("/#login=")
        self.assertEqual(base, f"http://{HOST}")
        answer, _ = ask("POST", "/login", {"code": code}, {"Origin": base})
        self.assertEqual(answer.status, 200)
        cookie = answer.headers["Set-Cookie"].partition(";")[0]
        again, _ = ask("POST", "/login", {"code": code}, {"Origin": base})
        self.assertEqual(again.status, 401, "the link worked twice")
        return {"Cookie": cookie}

    def overview(self, headers: Mapping[str, str]) -> Any:
        answer, body = ask("GET", "/overview", headers=headers)
        self.assertEqual(answer.status, 200, body)
        return json.loads(body)

    def test_shows_the_node_and_its_vms_to_who_signed_in(self) -> None:
        """The link signs in once; the cookie shows nodes and VMs; signing out ends that."""
        answer, _ = ask("GET", "/overview")
        self.assertEqual(answer.status, 401)
        visitor = self.login()
        self.node.hero("vm", "create", "shown")
        self.addCleanup(self.node.hero, "vm", "delete", "shown", "--force")
        seen = self.overview(visitor)
        self.assertEqual([node["name"] for node in seen["nodes"]], ["console"])
        self.assertIn(("shown", "running"), [(vm["name"], vm["state"]) for vm in seen["vms"]])
        answer, _ = ask("POST", "/logout", {}, visitor)
        self.assertEqual(answer.status, 200)
        answer, _ = ask("GET", "/overview", headers=visitor)
        self.assertEqual(answer.status, 401)

    def test_says_at_once_what_happens(self) -> None:
        """A VM that is made while the page is open is announced on its stream."""
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=30)
        self.addCleanup(connection.close)
        connection.request("GET", "/events", headers=self.login())
        stream = connection.getresponse()
        self.assertEqual(stream.headers["Content-Type"], "text/event-stream")
        self.node.hero("vm", "create", "announced")
        self.addCleanup(self.node.hero, "vm", "delete", "announced", "--force")
        for line in stream:
            if line.startswith(b"data:") and b'"announced"' in line:
                return
        self.fail("the stream ended without a word of the VM")

    def test_answers_behind_the_router_too(self) -> None:
        """Below its prefix the page is the same; a bearer token counts there, no header does."""
        status, _, page = self.node.http("GET", f"{UI}/")
        self.assertEqual(status, 200)
        self.assertIn(f'<base href="{UI}/">'.encode(), page)
        for path in ("static/console.js", "static/console.css"):
            self.assertEqual(self.node.http("GET", f"{UI}/{path}")[0], 200)
        forged = {"X-Hero-User": "local", "X-Hero-Claims": "admin"}
        self.assertIn(self.node.http("GET", f"{UI}/overview", headers=forged)[0], (400, 401))
        token = self.node.hero("token", "admin")["token"]
        status, _, body = self.node.http(
            "GET", f"{UI}/overview", headers={"Authorization": f"Bearer {token}"}
        )
        self.assertEqual((status, json.loads(body)["visitor"]["session"]), (200, False))

    def test_a_name_that_points_here_opens_nothing(self) -> None:
        """A request for another host is misdirected, cookie or not."""
        answer, _ = ask("GET", "/overview", headers={**self.login(), "Host": "evil.example:9131"})
        self.assertEqual(answer.status, 421)
