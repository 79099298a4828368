"""What the router forwards is read by others exactly as the router read it."""

from __future__ import annotations

import contextlib
import time

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from hero.identity.claims import Caller
from hero.router.body import ChunkedBody, LengthBody
from hero.router.errors import BadMessage, Rejection
from hero.router.forwarding import caller_fields
from hero.router.grammar import Malformed
from hero.router.head import Framing, RequestHead, parse_request_head, parse_response_head
from hero.router.ids import IdSource
from hero.router.limits import Limits
from hero.router.problem import prefers_html
from hero.router.request import read_request
from hero.router.target import Target

LIMITS = Limits()

tokens = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=12).map(str.encode)
values = (
    st.binary(max_size=20)
    .map(lambda b: bytes(c for c in b if c in b"\t " or 0x21 <= c <= 0x7E or c >= 0x80))
    .map(lambda b: b.strip(b" \t"))
)
bodies = st.binary(max_size=40)


def forward(wire: bytes) -> tuple[RequestHead, Target, bytes]:
    """What goes to the service for a request head."""
    request = read_request(wire, LIMITS)
    if request.target is None:
        assert request.refusal is not None
        raise request.refusal
    fields = caller_fields(Caller.anonymous(), address="192.0.2.1", scheme="https")
    return (
        request.head,
        request.target,
        request.wire + fields + IdSource().fields("r-1", None, given=True),
    )


def read_with_h11(wire: bytes) -> tuple[h11.Request, bytes]:
    """The request in *wire*, and its body; nothing may be left over."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(wire)
    request = connection.next_event()
    assert isinstance(request, h11.Request), request
    body = b""
    while not isinstance(event := connection.next_event(), h11.EndOfMessage):
        assert isinstance(event, h11.Data), event
        body += bytes(event.data)
    assert connection.trailing_data[0] == b""
    return request, body


class ForwardingAgreesWithH11Tests(SynchronousTestCase):
    @settings(max_examples=300, deadline=None)
    @given(
        method=tokens,
        path=st.text("abcZ09-._~!$&'()*+,;=:@/%[]|?\\#\x80 ", max_size=20),
        fields=st.lists(st.tuples(tokens, values), max_size=6),
        spoils=st.sampled_from(
            [b"", b"", b"", b" ", b"\r", b"\n", b"\x00", b":", b"\r\n ", b"\r\n\r\n"]
        ),
        at=st.integers(0, 200),
        body=bodies,
        chunked=st.booleans(),
    )
    def test_forwarded_request_is_read_alike(
        self,
        method: bytes,
        path: str,
        fields: list[tuple[bytes, bytes]],
        spoils: bytes,
        at: int,
        body: bytes,
        chunked: bool,
    ) -> None:
        """A request, spoilt or not, is refused, or reaches h11 as the router understood it."""
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % len(body)
        lines = [
            method + b" /demo/web/" + path.encode("latin-1") + b" HTTP/1.1",
            b"Host: a",
            framing,
            *(name + b": " + value for name, value in fields),
        ]
        wire = b"\r\n".join(lines)
        wire = wire[:at] + spoils + wire[at:] + b"\r\n\r\n"
        block = wire[: wire.index(b"\r\n\r\n") + 4]
        try:
            head, target, forwarded = forward(block)
        except Rejection:
            return
        if head.framing is Framing.CHUNKED:
            raw = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
            forwarded += ChunkedBody(raw=True).feed(raw)
        else:
            body = body[: head.length].ljust(head.length, b"x")
            forwarded += body
        if head.length > 1000:
            return
        request, read = read_with_h11(forwarded)
        self.assertEqual(read, body)
        self.assertEqual(request.method, head.method)
        self.assertEqual(request.target, target.rest)
        seen = list(request.headers)
        for name, value in ((b"x-hero-user", b"anonymous"), (b"x-hero-claims", b"")):
            self.assertEqual([v for n, v in seen if n == name], [value])
        own = {b"x-hero-user", b"x-hero-claims", b"x-hero-context"}
        hero = {n.replace(b"_", b"-") for n, _ in seen if n[:6].replace(b"_", b"-") == b"x-hero"}
        self.assertEqual(hero, own)
        self.assertEqual(len([n for n, _ in seen if n == b"host"]), 1)
        lengths = [n for n, _ in seen if n in (b"content-length", b"transfer-encoding")]
        self.assertLessEqual(len(lengths), 1)

    @settings(max_examples=300, deadline=None)
    @given(wire=st.binary(max_size=120))
    def test_no_input_is_more_than_refused(self, wire: bytes) -> None:
        """Whatever comes, the parser raises nothing but what becomes an answer."""
        for start in (b"", b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n"):
            with contextlib.suppress(BadMessage):
                parse_request_head(start + wire + b"\r\n\r\n", LIMITS)

    def test_white_space_within_a_value_costs_no_time(self) -> None:
        """A head that holds much of it is read, or refused, as fast as any other."""
        field = b"X: a" + b" " * 8000 + b"b\r\n"
        began = time.process_time()
        for _ in range(10):
            head = parse_request_head(
                b"GET / HTTP/1.1\r\nHost: a\r\n" + field * 4 + b"\r\n", LIMITS
            )
        self.assertLess(time.process_time() - began, 0.5)
        self.assertEqual(head.values(b"x")[0], b"a" + b" " * 8000 + b"b")


class ChunkedBodyTests(SynchronousTestCase):
    @settings(max_examples=200, deadline=None)
    @given(
        chunks=st.lists(st.binary(min_size=1, max_size=30), max_size=6),
        cuts=st.lists(st.integers(1, 7), min_size=1, max_size=50),
    )
    def test_cuts_do_not_matter(self, chunks: list[bytes], cuts: list[int]) -> None:
        """However the bytes are cut, the content is the same, and what follows is not touched."""
        wire = b"".join(b"%X;e=f\r\n%b\r\n" % (len(c), c) for c in chunks)
        wire += b"0\r\nX-T: 1\r\n\r\nNEXT"
        for raw in (False, True):
            body = ChunkedBody(raw=raw)
            out, left, index = b"", wire, 0
            while left and not body.done:
                size = cuts[index % len(cuts)]
                index += 1
                out += body.feed(left[:size])
                left = left[size:]
            self.assertTrue(body.done)
            self.assertEqual(body.rest + left, b"NEXT")
            if raw:
                again = ChunkedBody(raw=False)
                self.assertEqual(again.feed(out), b"".join(chunks))
            else:
                self.assertEqual(out, b"".join(chunks))

    @settings(max_examples=200, deadline=None)
    @given(wire=st.text("0123aAfF;\r\n :x", max_size=40).map(str.encode))
    def test_nonsense_is_refused_or_unfinished(self, wire: bytes) -> None:
        """Nothing but `Malformed` is raised."""
        body = ChunkedBody(raw=True)
        with contextlib.suppress(Malformed):
            body.feed(wire)

    def test_limit_is_on_the_content(self) -> None:
        body = ChunkedBody(raw=True)
        body.limit = 4
        body.feed(b"4\r\nabcd\r\n")
        self.assertRaises(Malformed, body.feed, b"1\r\na\r\n")

    def test_length_leaves_what_follows(self) -> None:
        body = LengthBody(3)
        self.assertEqual(body.feed(b"ab"), b"ab")
        self.assertEqual(body.feed(b"cGET"), b"c")
        self.assertEqual((body.done, body.rest), (True, b"GET"))


class ResponseTests(SynchronousTestCase):
    def parse(self, wire: bytes, method: bytes = b"GET") -> Framing:
        return parse_response_head(wire, method, LIMITS).framing

    def test_framing_follows_rfc_9112_section_6_3(self) -> None:
        ok = b"HTTP/1.1 200 OK\r\n"
        self.assertIs(self.parse(ok + b"\r\n"), Framing.UNTIL_CLOSE)
        self.assertIs(self.parse(ok + b"Content-Length: 1\r\n\r\n"), Framing.LENGTH)
        self.assertIs(self.parse(ok + b"Content-Length: 0\r\n\r\n"), Framing.NONE)
        self.assertIs(self.parse(ok + b"Transfer-Encoding: chunked\r\n\r\n"), Framing.CHUNKED)
        self.assertIs(self.parse(ok + b"Content-Length: 1\r\n\r\n", b"HEAD"), Framing.NONE)
        self.assertIs(self.parse(b"HTTP/1.1 304 \r\nContent-Length: 1\r\n\r\n"), Framing.NONE)
        self.assertIs(self.parse(b"HTTP/1.1 204\r\n\r\n"), Framing.NONE)


class AcceptTests(SynchronousTestCase):
    def test_html_where_it_is_named_first(self) -> None:
        self.assertTrue(prefers_html(b"text/html,application/xhtml+xml,*/*;q=0.8"))
        self.assertFalse(prefers_html(b"application/json, text/html"))
        self.assertFalse(prefers_html(b"*/*"))
        self.assertFalse(prefers_html(b""))
