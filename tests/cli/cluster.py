"""A made-up node to run commands against: real sockets and real RPC, with answers from memory."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import msgspec
from click.testing import CliRunner, Result
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.internet.threads import blockingCallFromThread, deferToThread
from twisted.trial.unittest import TestCase

from hero.cli.main import main
from hero.cli.session import Session
from hero.compute.api import ComputeService
from hero.compute.model import (
    Capacity,
    Image,
    ImagePage,
    Vm,
    VmLog,
    VmPage,
    VmState,
    VmStats,
    WantedState,
)
from hero.errors import Conflict, HeroError, NameTaken, NotFound
from hero.explorer.api import ExplorerService
from hero.explorer.model import (
    ApiToken,
    ApiTokenPage,
    ClusterStatus,
    JoinToken,
    LoginCode,
    Node,
    NodePage,
    NodeState,
)
from hero.operations import Operation, OperationPage, OperationState
from hero.paths import HeroPaths
from hero.router.api import RouterService
from hero.router.model import Route, RoutePage, RouteState
from hero.rpc.declare import Call, Method, methods_of
from hero.rpc.site import Health, UnixService, service_site

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Ledger:
    """Operations in memory. ``stuck`` ones are never done."""

    def __init__(self) -> None:
        self.known: dict[str, Operation] = {}
        self.by_request: dict[str, str] = {}
        self.stuck = False
        self.requests = self

    async def once(
        self, call: Call, digest: str, act: Callable[[], Awaitable[Any]], *, secret: bool = False
    ) -> Any:
        return msgspec.to_builtins(await act())

    async def run(
        self,
        call: Call,
        method: Method,
        params: dict[str, Any],
        work: Callable[[Any], Awaitable[Any]],
        *,
        target: str | None = None,
        wait: bool = True,
        timeout: float = 60.0,
    ) -> Operation:
        assert call.request_id is not None
        sid = self.by_request.setdefault(call.request_id, f"op-{len(self.known):010d}")
        if sid in self.known:
            return self.known[sid]
        operation = Operation(
            sid=sid,
            kind=method.name,
            context=call.context,
            user=call.caller.user,
            state=OperationState.RUNNING,
            created_at=NOW,
            updated_at=NOW,
        )
        self.known[sid] = operation
        if not self.stuck:
            try:
                result = msgspec.to_builtins(await work(None))
                state, error = OperationState.SUCCEEDED, None
            except HeroError as problem:
                state, error, result = OperationState.FAILED, problem.to_data(), None
            self.known[sid] = attrs.evolve(operation, state=state, result=result, error=error)
        return operation


def make_vm(name: str, **members: Any) -> Vm:
    """A VM that runs, or what *members* make of it."""
    return Vm(
        **{
            "sid": f"vm-{name:0<10.10}".replace("-", "0").replace("vm0", "vm-", 1),
            "name": name,
            "context": "root",
            "image": "micro",
            "state": VmState.RUNNING,
            "wanted_state": WantedState.RUNNING,
            "slices": ["slice-1"],
            "vcpus": 1,
            "memory": 4 * 1024**3,
            "disk": 1024**3,
            "created_at": NOW,
            "node_name": "alpha",
            **members,
        }
    )


class _Implementation:
    """Answers for all methods of `declaration`; those not written down refuse."""

    declaration: type

    def __init__(self) -> None:
        self.operations = Ledger()
        self.calls: list[tuple[str, dict[str, Any], Call]] = []

    def __getattr__(self, name: str) -> Any:
        if name not in methods_of(self.declaration):
            raise AttributeError(name)

        async def refuse(call: Call, **parameters: Any) -> Any:
            raise Conflict(f"{name} is not made up")

        return refuse


class FakeCompute(_Implementation):
    """VMs that are records."""

    declaration = ComputeService

    def __init__(self) -> None:
        super().__init__()
        self.vms = {"web": make_vm("web", labels={"tier": "front"})}
        self.problems: list[str] = []
        self.unreachable: list[str] = []
        self.console = "one\ntwo\n"

    async def deploy_vm(self, call: Call, *, name: str, **wanted: Any) -> Vm:
        self.calls.append(("deploy_vm", {"name": name, **wanted}, call))
        if name in self.vms:
            raise NameTaken(f"a VM named {name} exists", hint="choose another name")
        self.vms[name] = make_vm(name, image=wanted["image"], labels=wanted["labels"] or {})
        return self.vms[name]

    async def list_vms(self, call: Call, *, limit: int, after: str | None, **wanted: Any) -> VmPage:
        self.calls.append(("list_vms", wanted, call))
        names = sorted(name for name in self.vms if after is None or name > after)
        page = [self.vms[name] for name in names[:limit]]
        more = page[-1].name if len(names) > limit else None
        return VmPage(items=page, next=more, unreachable=self.unreachable)

    async def get_vm(self, call: Call, *, vm: str) -> Vm:
        if vm not in self.vms:
            raise NotFound(f"there is no VM {vm!r}")
        return self.vms[vm]

    async def stop_vm(self, call: Call, *, vm: str, grace: float, force: bool) -> Vm:
        self.calls.append(("stop_vm", {"vm": vm, "grace": grace, "force": force}, call))
        found = await self.get_vm(call, vm=vm)
        return attrs.evolve(found, state=VmState.STOPPED, wanted_state=WantedState.STOPPED)

    async def vm_stats(self, call: Call, *, vm: str) -> VmStats:
        return VmStats(
            vm_sid=vm,
            state=VmState.RUNNING,
            cpu_seconds=1.5,
            memory_resident=1024**2,
            memory=1024**3,
            disk_used=512,
            uptime=75.0,
        )

    async def vm_logs(
        self, call: Call, *, vm: str, offset: int | None, limit: int, wait: float
    ) -> VmLog:
        start = max(len(self.console) - limit, 0) if offset is None else offset
        if offset is not None and start >= len(self.console):
            raise NotFound(f"{vm} is gone")
        data = self.console[start : start + limit]
        return VmLog(vm_sid=vm, offset=start, next_offset=start + len(data), data=data)

    async def list_images(self, call: Call, *, node: str | None) -> ImagePage:
        return ImagePage(items=[Image(name="micro", state="ready", description="tiny", size=2048)])

    async def build_image(self, call: Call, *, image: str, node: str | None) -> Image:
        return Image(name=image, state="ready", description="tiny", size=2048)

    async def list_operations(self, call: Call, **wanted: Any) -> OperationPage:
        return OperationPage(items=list(self.operations.known.values()))

    async def get_operation(self, call: Call, *, sid: str, wait: float) -> Operation:
        if sid not in self.operations.known:
            raise NotFound(f"there is no operation {sid}")
        if self.operations.stuck and wait:
            await deferLater(reactor, 0.01)
        return self.operations.known[sid]


class FakeExplorer(_Implementation):
    """A cluster of one node that is there and one that is not."""

    declaration = ExplorerService

    def __init__(self) -> None:
        super().__init__()
        self.nodes = {
            "alpha": _make_node("alpha", NodeState.ONLINE),
            "beta": _make_node("beta", NodeState.UNREACHABLE),
        }

    async def list_nodes(self, call: Call) -> NodePage:
        return NodePage(items=list(self.nodes.values()))

    async def get_node(self, call: Call, *, node: str) -> Node:
        if node not in self.nodes:
            raise NotFound(f"there is no node {node!r}")
        return self.nodes[node]

    async def cordon_node(self, call: Call, *, node: str) -> Node:
        return attrs.evolve(self.nodes[node], state=NodeState.CORDONED, schedulable=False)

    async def cluster_status(self, call: Call) -> ClusterStatus:
        return ClusterStatus(
            cluster_id="c-1",
            version="1",
            mode="master",
            nodes=2,
            nodes_online=1,
            unreachable=["beta"],
            vms=1,
            vms_running=1,
            slices=4,
            slices_free=3,
            heartbeat_interval=5,
            explorer_addresses=[],
        )

    async def create_join_token(self, call: Call, *, lifetime: float) -> JoinToken:
        self.calls.append(("create_join_token", {"lifetime": lifetime}, call))
        return JoinToken(sid="jt-1", token="hero-join-1.abc", expires_at=NOW)

    async def create_token(self, call: Call, **wanted: Any) -> ApiToken:
        self.calls.append(("create_token", wanted, call))
        return _make_token(token="hero_secret")

    async def list_tokens(self, call: Call) -> ApiTokenPage:
        return ApiTokenPage(items=[_make_token()])

    async def create_login_code(self, call: Call) -> LoginCode:
        return LoginCode(code="c" * 20, expires_in=120)


class FakeRouter(_Implementation):
    """A router with a route that is up and an entry that it refuses."""

    declaration = RouterService

    async def list_services(self, call: Call) -> RoutePage:
        return RoutePage(
            items=[
                _make_route("web", RouteState.UP),
                _make_route("odd", RouteState.REFUSED, reason="is a symbolic link"),
            ]
        )


def _make_node(name: str, state: NodeState) -> Node:
    return Node(
        sid=f"node-{name:0<10}",
        name=name,
        state=state,
        schedulable=state is NodeState.ONLINE,
        advertise_address=f"https://{name}:443",
        version="1",
        joined_at=NOW,
        last_seen=NOW,
        capacity=Capacity(
            memory=8 * 1024**3,
            disk=1024**4,
            vcpus=8,
            slice_memory=4 * 1024**3,
            slice_disk=1024**3,
            slices=2,
            slices_free=1,
        ),
        load=0.5,
    )


def _make_token(token: str | None = None) -> ApiToken:
    return ApiToken(
        sid="token-1",
        user="user:admin",
        claims="admin",
        context="root",
        created_at=NOW,
        token=token,
    )


def _make_route(name: str, state: RouteState, reason: str | None = None) -> Route:
    return Route(
        service=name,
        socket="rpc",
        prefix=f"/{name}/rpc",
        path=f"/s/{name}/rpc.sock",
        state=state,
        access="cluster",
        reason=reason,
    )


class CliTestCase(TestCase):
    """Runs the command line in a thread, its services and its reactor work in this one."""

    timeout = 30

    def setUp(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="hero-", dir="/tmp"))
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.environ = {"HERO_HOME": str(self.home), "PATH": "/usr/bin:/bin"}
        self.paths = HeroPaths.from_environment(self.environ)
        self.paths.ensure()
        self.compute = FakeCompute()
        self.explorer = FakeExplorer()
        self.router = FakeRouter()

    def serve_explorer(self) -> None:
        """Let this machine have an explorer."""
        self._serve(
            self.paths.explorer_socket,
            {
                "cloud": {ComputeService: self.compute},
                "explorer": {ExplorerService: self.explorer},
            },
        )

    def serve_compute(self) -> None:
        """Let this machine have a compute service."""
        self._serve(
            self.paths.compute_socket, {"cloud": {ComputeService: self.compute}}, self._health
        )

    def serve_router(self) -> None:
        """Let this machine have a router's management API."""
        self._serve(self.paths.router_socket, {"router": {RouterService: self.router}})

    async def _health(self) -> dict[str, Any]:
        return {"problems": self.compute.problems}

    def _serve(
        self, path: Path, rpc: dict[str, dict[type, object]], health: Health | None = None
    ) -> None:
        site = service_site(
            reactor=reactor,
            name="fake",
            description="made up",
            access="cluster",
            rpc=rpc,
            health=health,
        )
        service = UnixService(reactor, path, site)
        service.startService()
        self.addCleanup(service.stopService)

    async def hero(self, *arguments: str, stdin: str = "", **environ: str) -> Result:
        """What ``hero`` does with *arguments*."""
        session = Session.from_environment({**self.environ, **environ}, run=_run_here)
        return await deferToThread(
            CliRunner().invoke, main, arguments, obj=session, input=stdin, env=self.environ
        )

    async def hero_json(self, *arguments: str, **environ: str) -> Any:
        """The JSON that ``hero --json`` prints with *arguments*, which must be well."""
        result = await self.hero(*arguments, "--json", **environ)
        self.assertEqual(result.exit_code, 0, result.output)
        return json.loads(result.stdout)

    def assert_fails(self, result: Result, code: int, *words: str) -> None:
        """That *result* failed with *code*, said *words* on stderr, and showed no traceback."""
        self.assertEqual(result.exit_code, code, result.output)
        self.assertNotIn("Traceback", result.output)
        for word in words:
            self.assertIn(word, result.stderr)


def _run_here(work: Callable[[Any], Awaitable[Any]]) -> Any:
    async def act() -> Any:
        return await work(reactor)

    return blockingCallFromThread(reactor, lambda: Deferred.fromCoroutine(act()))
