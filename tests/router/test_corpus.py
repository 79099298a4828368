"""Requests that must be refused, and a few that must not: see ``corpus/README.md``."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
from twisted.internet.defer import Deferred

from tests.router.backend import H11Service
from tests.router.harness import RouterCase

_CORPUS = Path(__file__).with_name("corpus")
_ESCAPE = re.compile(rb"\\(x[0-9a-f]{2}|[rntz\\]|\*\d+(.))")
_SIMPLE = {b"r": b"\r", b"n": b"\n", b"t": b"\t", b"\\": b"\\"}
_STATUS = re.compile(rb"HTTP/1\.1 (\d{3})")


@attrs.define
class Case:
    """One entry of the corpus."""

    name: str
    wire: bytes = b""
    statuses: list[int] = attrs.field(factory=list)
    reasons: list[str] = attrs.field(factory=list)
    seen: int | None = None


def read_corpus(text: str) -> list[Case]:
    """The cases in a corpus file."""
    cases: list[Case] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("== "):
            cases.append(Case(line[3:].strip()))
        elif line.startswith(">"):
            cases[-1].wire += _unescape(line[2:].encode("latin-1"))
        elif line.startswith("< "):
            status, *reason = line[2:].split()
            cases[-1].statuses.append(int(status))
            cases[-1].reasons += reason
        elif line.startswith("seen "):
            cases[-1].seen = int(line[5:])
        elif line.strip() and not line.startswith("#"):
            raise ValueError(f"line {number}: {line!r} is neither >, <, seen, == nor a comment")
    return cases


def _unescape(line: bytes) -> bytes:
    end = b"\r\n"
    if line.endswith(b"\\z"):
        line, end = line[:-2], b""

    def replace(found: re.Match[bytes]) -> bytes:
        code = found[1]
        if code.startswith(b"x"):
            return bytes([int(code[1:], 16)])
        if code.startswith(b"*"):
            return found[2] * int(code[1:-1])
        return _SIMPLE[code]

    return _ESCAPE.sub(replace, line) + end


class CorpusTests(RouterCase):
    """Each entry gets the answers it names, and no more requests reach the service than it says."""

    async def _play(self, case: Case) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        wire = await self.connect()
        wire.send(case.wire)
        expected = len(case.statuses)
        await wire.until(lambda w: len(_STATUS.findall(w.received)) >= expected)
        await self.pause()
        statuses = [int(status) for status in _STATUS.findall(wire.received)]
        self.assertEqual(statuses, case.statuses, wire.received)
        self.assertEqual(service.errors, [])
        for reason in case.reasons:
            self.assertIn(f'"reason": "{reason}"'.encode(), wire.received)
        if case.seen is not None:
            self.assertEqual(len(service.seen), case.seen, service.seen)
        elif 200 not in case.statuses:
            self.assertEqual(service.seen, [])


def _add_tests() -> None:
    for path in sorted(_CORPUS.glob("*.txt")):
        for case in read_corpus(path.read_text("latin-1")):
            name = "test_" + re.sub(r"\W+", "_", f"{path.stem} {case.name}").strip("_")
            assert not hasattr(CorpusTests, name), f"two entries are called {case.name!r}"

            def test(self: CorpusTests, case: Case = case) -> Deferred[None]:
                return Deferred.fromCoroutine(self._play(case))

            test.__name__ = name
            test.__doc__ = case.name
            setattr(CorpusTests, name, test)


_add_tests()
