"""Who may call what: every declared method, by every kind of caller.

A method that is new, or whose access changes, has to be put into `LEAST` here as well.
"""

from __future__ import annotations

import json
from typing import Any

from treq.testing import StubTreq
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.resource import Resource

from hero.compute.api import ComputeService
from hero.explorer.api import ExplorerService
from hero.router.api import RouterService
from hero.rpc.declare import Method, methods_of
from hero.rpc.server import RpcResource

DECLARATIONS = (ComputeService, ExplorerService, RouterService)

#: The least right that each method asks for.
LEAST = {
    "ComputeService": {
        "viewer": "node_status list_slices list_vms get_vm vm_stats vm_logs list_images "
        "list_operations get_operation",
        "operator": "deploy_vm start_vm stop_vm restart_vm pause_vm resume_vm delete_vm "
        "build_image cancel_operation",
    },
    "ExplorerService": {
        "public": "join renew_certificate redeem_login_code get_session end_session",
        "cluster": "create_login_code",
        "node": "heartbeat",
        "viewer": "list_nodes get_node cluster_status explain_placement",
        "admin": "create_join_token cordon_node activate_node remove_node create_token "
        "list_tokens revoke_token",
    },
    "RouterService": {
        "viewer": "list_services get_service stats",
        "admin": "list_connections",
    },
}


def headers(user: str, claims: str) -> dict[str, str]:
    """What the router sets."""
    return {"X-Hero-User": user, "X-Hero-Claims": claims}


#: Calls about the context root, by their headers.
CALLERS: dict[str, dict[str, str]] = {
    "a local process": {},
    "nobody": headers("anonymous", "anonymous"),
    "nobody with claims": headers("anonymous", "admin"),
    "claims without a user": {"X-Hero-Claims": "admin"},
    "a user without claims": headers("user:alice", ""),
    "a user with an unknown role": headers("user:alice", "owner, root, *"),
    "a viewer": headers("user:alice", "viewer@root"),
    "a viewer elsewhere": headers("user:alice", "viewer@dev"),
    "an operator": headers("user:alice", "operator@root"),
    "an operator elsewhere": headers("user:alice", "operator@dev"),
    "an administrator": headers("user:alice", "admin"),
    "an administrator elsewhere": headers("user:alice", "admin@dev"),
    "a node": headers("node:node-0123456789", "node"),
    "an explorer": headers("node:node-0123456789", "explorer, node"),
    "an explorer for a user": headers("node:node-0123456789", "explorer, node")
    | {"X-Hero-On-Behalf-Of": "user:alice"},
    "a node for a user": headers("node:node-0123456789", "node")
    | {"X-Hero-On-Behalf-Of": "user:alice"},
}

_NOBODY = {"nobody", "nobody with claims", "claims without a user"}
_ADMINISTRATORS = {"a local process", "an administrator"}
_NODES = {"a node", "a node for a user", "an explorer", "an explorer for a user"}

#: Who has each right.
ALLOWED = {
    "public": set(CALLERS),
    "cluster": set(CALLERS) - _NOBODY,
    "node": _ADMINISTRATORS | _NODES,
    "viewer": _ADMINISTRATORS | {"a viewer", "an operator"},
    "operator": _ADMINISTRATORS | {"an operator"},
    "admin": _ADMINISTRATORS,
}

#: Services that an explorer may call for users whose rights it has checked.
DELEGABLE = {"ComputeService"}


class Implementation:
    """Has every method; a call that gets to one is a failure of the test."""

    operations = object()

    def __getattr__(self, name: str) -> Any:
        async def reached(*args: Any, **kwargs: Any) -> None:
            raise AssertionError(f"{name} was reached")

        return reached


class AccessTests(SynchronousTestCase):
    def setUp(self) -> None:
        root = Resource()
        root.putChild(b"rpc", RpcResource({d: Implementation() for d in DECLARATIONS}))
        self.client = StubTreq(root)

    def outcome(self, method: Method, caller: str) -> tuple[int, str]:
        """The HTTP status, and the kind of error, of a call that is allowed and makes no sense."""
        call = {
            "jsonrpc": "2.0",
            "id": 1,
            "method": method.qualified_name,
            "params": {"no such parameter": 1},
        }
        response = self.successResultOf(
            self.client.post(
                "http://x/rpc",
                data=json.dumps(call).encode(),
                headers={"Content-Type": "application/json", **CALLERS[caller]},
            )
        )
        answer = json.loads(self.successResultOf(response.content()))
        return response.code, answer["error"]["data"]["kind"]

    def test_the_table_is_whole(self) -> None:
        for declaration in DECLARATIONS:
            stated = {
                name: least
                for least, names in LEAST[declaration.__name__].items()
                for name in names.split()
            }
            declared = {m.name: m.access.value for m in methods_of(declaration).values()}
            self.assertEqual(stated, declared)

    def test_every_method_by_every_caller(self) -> None:
        for declaration in DECLARATIONS:
            for least, names in LEAST[declaration.__name__].items():
                allowed = ALLOWED[least]
                if declaration.__name__ in DELEGABLE:
                    allowed = allowed | {"an explorer", "an explorer for a user"}
                for name in names.split():
                    method = methods_of(declaration)[name]
                    for caller in CALLERS:
                        expected = (
                            (200, "invalid_params")
                            if caller in allowed
                            else (401, "unauthenticated")
                            if caller in _NOBODY
                            else (403, "forbidden")
                        )
                        self.assertEqual(
                            self.outcome(method, caller), expected, f"{caller}: {name}"
                        )
