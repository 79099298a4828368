"""Requests that must be refused, and some that must not: see ``corpus/README.md``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import ClassVar

import attrs
from twisted.internet.defer import Deferred

from tests.router.backend import H11Service
from tests.router.harness import RouterCase
from tests.router.memory import MemoryCase, pieces

_CORPUS = Path(__file__).with_name("corpus")
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|[rntz\\]|\*(\d+)(?:\{([^}]*)\}|(.)))", re.DOTALL)
_SIMPLE = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\", b"z": b""}
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")
_CLOSE = b"\r\nConnection: close\r\n"


@attrs.define
class Case:
    """One entry of the corpus."""

    name: str
    wire: bytes = b""
    statuses: list[int] = attrs.field(factory=list)
    reasons: list[str] = attrs.field(factory=list)
    seen: int | None = None
    first: bytes | None = None
    has: dict[bytes, list[bytes]] = attrs.field(factory=dict)
    lacks: list[bytes] = attrs.field(factory=list)
    body: bytes | None = None
    limits: dict[str, int] = attrs.field(factory=dict)

    @property
    def expected_seen(self) -> int:
        """How many requests reach the service."""
        return self.statuses.count(200) if self.seen is None else self.seen


def read_corpus(text: str) -> list[Case]:
    """The cases in a corpus file."""
    cases: list[Case] = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.partition(" ")
        data = rest.encode("latin-1")
        match word:
            case "==":
                cases.append(Case(rest.strip()))
            case ">":
                end = b"" if data.endswith(b"\\z") else b"\r\n"
                cases[-1].wire += unescape(data) + end
            case "<":
                status, *reason = rest.split()
                cases[-1].statuses.append(int(status))
                cases[-1].reasons += reason
            case "seen":
                cases[-1].seen = int(rest)
            case "as":
                cases[-1].first = data
            case "has":
                name, _, value = unescape(data).partition(b":")
                cases[-1].has.setdefault(name, []).append(value.strip(b" \t"))
            case "lacks":
                cases[-1].lacks.append(data)
            case "body":
                cases[-1].body = unescape(data)
            case "limit":
                limit, value_text = rest.split()
                cases[-1].limits[limit] = int(value_text)
            case _ if line.strip() and not line.startswith("#"):
                raise ValueError(f"line {number}: {line!r} begins with no word of the README")
    return cases


def unescape(line: bytes) -> bytes:
    """The bytes that *line* stands for."""

    def replace(found: re.Match[bytes]) -> bytes:
        code = found[1]
        if code.startswith(b"x"):
            return bytes([int(code[1:], 16)])
        if code.startswith(b"*"):
            many = found[4] if found[3] is None else unescape(found[3])
            return many * int(found[2])
        return _SIMPLE[code]

    return _ESCAPE.sub(replace, line)


def statuses(received: bytes) -> list[int]:
    """The statuses of the answers in *received*."""
    return [int(status) for status in _STATUS.findall(received)]


class CorpusCase(RouterCase):
    """A test for each entry of the corpus."""

    cases: ClassVar[dict[str, Case]] = {}

    def setUp(self) -> None:
        self.case = self.cases[self._testMethodName]
        self.limits = attrs.evolve(self.limits, **self.case.limits)
        super().setUp()

    def check(self, service: H11Service, received: bytes, *, closed: bool) -> None:
        """The client got the answers that the entry names, and *service* no more than it says."""
        case = self.case
        self.assertEqual(statuses(received), case.statuses, received)
        self.assertEqual(closed, _CLOSE in received, received)
        for reason in case.reasons:
            self.assertIn(f'"reason": "{reason}"'.encode(), received)
        self.assertEqual(service.errors, [])
        seen = [request for request in service.seen if request.whole]
        self.assertEqual(len(seen), case.expected_seen, seen)
        self.assertEqual([request.trailers for request in seen], [[]] * len(seen))
        if not seen:
            return
        last = seen[-1]
        if case.first is not None:
            self.assertEqual(last.method + b" " + last.target, case.first)
        if case.body is not None:
            self.assertEqual(last.body, case.body)
        for name, values in case.has.items():
            self.assertEqual(last.values(name), values, last.headers)
        for name in case.lacks:
            self.assertEqual(last.values(name), [], last.headers)


class SocketCorpusTests(CorpusCase):
    """Each entry as a client sends it, at once, through real sockets."""

    async def play(self) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        wire = await self.connect()
        wire.send(self.case.wire)
        expected = len(self.case.statuses)
        await wire.until(lambda w: len(statuses(w.received)) >= expected)
        if _CLOSE in wire.received:
            await wire.rest()
        else:
            await self.pause(0.005)
        self.check(service, bytes(wire.received), closed=wire.closed)


class BytewiseCorpusTests(CorpusCase, MemoryCase):
    """Each entry byte after byte, on a route that is known and has a connection."""

    async def play(self) -> None:
        service = H11Service()
        self.begin(service)
        # Pieces of more than a byte where there are so many that it would take long.
        client = self.talk(self.case.wire, cut=pieces(1 + len(self.case.wire) // 2000))
        self.check(service, client.received, closed=client.closed)


def _add_tests() -> None:
    for path in sorted(_CORPUS.glob("*.txt")):
        for case in read_corpus(path.read_text("latin-1")):
            name = "test_" + re.sub(r"\W+", "_", f"{path.stem} {case.name}").strip("_")
            assert name not in CorpusCase.cases, f"two entries are called {case.name!r}"
            CorpusCase.cases[name] = case
            for tests in (SocketCorpusTests, BytewiseCorpusTests):

                def test(self: SocketCorpusTests) -> Deferred[None]:
                    return Deferred.fromCoroutine(self.play())

                test.__name__ = name
                test.__doc__ = case.name
                setattr(tests, name, test)


_add_tests()
