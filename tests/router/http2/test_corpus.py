"""HTTP/2 messages that must be refused, and some that must not: see ``corpus/README.md``."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from pathlib import Path

import attrs
from h2.errors import ErrorCodes
from hpack import Decoder, Encoder
from twisted.internet.defer import Deferred

from tests.router.backend import H11Service
from tests.router.harness import Wire
from tests.router.http2.client import Http2Case, Pair, request
from tests.router.test_corpus import unescape

_CORPUS = Path(__file__).with_name("corpus")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _GOAWAY, _CONTINUATION = 0, 1, 3, 4, 7, 9
_END_STREAM, _END_HEADERS = 1, 4
_FRAME = 16384


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 section 4.1"""
    length = struct.pack(">I", len(payload))[1:]
    return length + struct.pack(">BBI", kind, flags, stream) + payload


@attrs.define
class Case:
    """One entry of the corpus."""

    name: str
    fields: list[Pair] = attrs.field(factory=list)
    #: Called with whether it is the last one, each gives a frame.
    frames: list[Callable[[bool], bytes]] = attrs.field(factory=list)
    open: bool = False
    preface: bytes = _PREFACE
    outcome: str = ""
    reason: str | None = None
    seen: int | None = None
    first: bytes | None = None
    has: list[Pair] = attrs.field(factory=list)
    lacks: list[bytes] = attrs.field(factory=list)
    body: bytes | None = None

    def wire(self) -> bytes:
        """What the client sends."""
        frames = list(self.frames)
        if self.fields:
            frames.insert(0, _block(self.fields))
        last = len(frames) - 1
        sent = [make(index == last and not self.open) for index, make in enumerate(frames)]
        return self.preface + frame(_SETTINGS, 0, 0) + b"".join(sent)


def read_corpus(text: str) -> list[Case]:
    """The cases in a corpus file."""
    cases: list[Case] = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.partition(" ")
        data = rest.encode("latin-1")
        case = cases[-1] if cases else Case("")
        match word:
            case "==":
                cases.append(Case(rest.strip()))
            case "request":
                method, _, path = data.partition(b" ")
                case.fields += request(unescape(method), unescape(path))
            case ">":
                case.fields.append(_pair(data))
            case "data":
                case.frames.append(_data(unescape(data)))
            case "trailer":
                case.frames.append(_block([_pair(data)]))
            case "frame":
                case.frames.append(_frame(*rest.split()))
            case "open":
                case.open = True
            case "preface":
                case.preface = unescape(data)
            case "<":
                case.outcome, _, reason = rest.partition(" ")
                case.reason = reason or None
            case "seen":
                case.seen = int(rest)
            case "as":
                case.first = data
            case "has":
                case.has.append(_pair(data))
            case "lacks":
                case.lacks.append(data)
            case "body":
                case.body = unescape(data)
            case _ if line.strip() and not line.startswith("#"):
                raise ValueError(f"line {number}: {word!r} is no word of this format")
    return cases


def _pair(data: bytes) -> Pair:
    name, _, value = data.partition(b" ")
    return unescape(name), unescape(value)


def _block(pairs: list[Pair]) -> Callable[[bool], bytes]:
    block = Encoder().encode(pairs, huffman=False)
    first, *more = [block[at : at + _FRAME] for at in range(0, len(block), _FRAME)]

    def make(last: bool) -> bytes:
        flags = (_END_STREAM if last else 0) | (0 if more else _END_HEADERS)
        wire = frame(_HEADERS, flags, 1, first)
        for index, part in enumerate(more, 1):
            wire += frame(_CONTINUATION, _END_HEADERS if index == len(more) else 0, 1, part)
        return wire

    return make


def _data(content: bytes) -> Callable[[bool], bytes]:
    return lambda last: frame(_DATA, _END_STREAM if last else 0, 1, content)


def _frame(kind: str, flags: str, stream: str, payload: str = "") -> Callable[[bool], bytes]:
    wire = frame(int(kind), int(flags, 16), int(stream), bytes.fromhex(payload))
    return lambda last: wire


class _RawClient(Wire):
    """Sends bytes, and notes what came on stream 1 and what the end was."""

    def __init__(self) -> None:
        super().__init__()
        self.status: bytes | None = None
        self.content = b""
        self.reset: str | None = None
        self.goaway: str | None = None
        self.second: bytes | None = None
        self._decoder = Decoder()
        self._buffer = b""

    def dataReceived(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= 9:
            length = int.from_bytes(self._buffer[:3], "big")
            if len(self._buffer) < 9 + length:
                break
            kind, stream = self._buffer[3], int.from_bytes(self._buffer[5:9], "big")
            payload, self._buffer = self._buffer[9 : 9 + length], self._buffer[9 + length :]
            self._frame(kind, stream, payload)
        super().dataReceived(data)

    def _frame(self, kind: int, stream: int, payload: bytes) -> None:
        if kind == _HEADERS:
            status = dict(self._decoder.decode(payload, raw=True))[b":status"]
            if stream == 1:
                self.status = status
            else:
                self.second = status
        elif kind == _DATA and stream == 1:
            self.content += payload
        elif kind == _RST_STREAM and stream == 1:
            self.reset = ErrorCodes(int.from_bytes(payload, "big")).name
        elif kind == _GOAWAY:
            self.goaway = ErrorCodes(int.from_bytes(payload[4:8], "big")).name

    def outcome(self, expected: str) -> str | None:
        """What came, seen as what is expected."""
        if expected == "goaway":
            return self.goaway
        return self.reset if expected == "reset" else (self.status or b"").decode()


class CorpusTests(Http2Case):
    """Each entry has the outcome that it names, and nothing else reaches the service."""

    async def _play(self, case: Case) -> None:
        service = H11Service({"access": "public"})
        self.serve(service)
        wire: _RawClient = await self.speaking([b"h2"], _RawClient())
        wire.send(case.wire())
        await wire.until(lambda w: w.outcome(case.outcome) or w.goaway)
        if case.outcome == "goaway":
            self.assertEqual(wire.goaway, case.reason)
            await wire.rest()
        else:
            self.assertIsNone(wire.goaway)
            # The connection is none the worse for it.
            again = Encoder().encode(request(b"GET", b"/no/where"), huffman=False)
            wire.send(frame(_HEADERS, _END_HEADERS | _END_STREAM, 99, again))
            await wire.until(lambda w: w.second)
            self.assertEqual(wire.second, b"404")
        if case.outcome == "reset":
            self.assertEqual(wire.reset, case.reason)
        elif case.outcome != "goaway":
            self.assertEqual((wire.status or b"").decode(), case.outcome, wire.content)
            if case.reason is not None:
                self.assertIn(f'"reason": "{case.reason}"'.encode(), wire.content)
        self._check_seen(case, service)

    def _check_seen(self, case: Case, service: H11Service) -> None:
        self.assertEqual(service.errors, [])
        expected = case.seen if case.seen is not None else int(case.outcome == "200")
        # The beginning of a request may have got there before its end turned out to be bad.
        whole = [seen for seen in service.seen if seen.whole]
        self.assertEqual(len(whole), expected, service.seen)
        for seen in service.seen:
            if case.first is not None:
                self.assertEqual(seen.method + b" " + seen.target, case.first)
            for name, value in case.has:
                self.assertEqual(seen.values(name), [value])
            for name in case.lacks:
                self.assertEqual(seen.values(name), [])
            if case.body is not None:
                self.assertEqual(seen.body, case.body)


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
