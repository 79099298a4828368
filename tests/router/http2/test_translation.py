"""What is written down as HTTP/1.1 is read as what was said over HTTP/2, or it is not written."""

from __future__ import annotations

import h11
from hypothesis import event, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from hero.router.errors import Rejection
from hero.router.head import parse_response_head
from hero.router.http2.translation import Asked, Pair, answer_pairs, write_request
from hero.router.limits import Limits
from hero.router.request import Request, read_request

LIMITS = Limits()

_NASTY = st.sampled_from(
    [b"a\r\nb: c", b"a\nb", b"a\rb", b"a\x00b", b" a", b"a ", b"\ta", b"", b"a b", b"\xe9", b"\x7f"]
)
_TEXT = st.text(alphabet='abz09-_./:;,=%?"', max_size=12).map(str.encode)
_VALUES = st.one_of(_TEXT, _TEXT, _TEXT, _NASTY, st.binary(max_size=8))
_NAMES = st.one_of(
    st.sampled_from(
        [b"accept", b"cookie", b"content-length", b"content_length", b"host", b"te", b"expect"]
    ),
    st.sampled_from(
        [b"connection", b"transfer-encoding", b"upgrade", b"x-hero-user", b"X-Name", b"x name"]
    ),
    st.sampled_from([b":path", b":status", b":", b"", b"x:y", b"sec-websocket-key"]),
    st.text(alphabet="abcz-09", min_size=1, max_size=8).map(str.encode),
    st.binary(max_size=6),
)
_LENGTHS = st.tuples(st.just(b"content-length"), st.integers(0, 20).map(b"%d".__mod__))
_FIELDS = st.lists(
    st.one_of(
        st.tuples(st.text(alphabet="abcz-", min_size=1, max_size=8).map(str.encode), _TEXT),
        st.tuples(_NAMES, _VALUES),
        st.tuples(st.just(b"cookie"), _TEXT),
        _LENGTHS,
    ),
    max_size=5,
)
_PSEUDO = st.tuples(
    st.one_of(st.sampled_from([b"GET", b"POST", b"HEAD", b"CONNECT", b"get"]), _VALUES),
    st.one_of(st.just(b"https"), _VALUES),
    st.one_of(st.just(b"a"), st.just(b"[::1]:80"), _VALUES),
    st.one_of(st.just(b"/demo/web/"), st.just(b"/demo/web/x?y=z"), _VALUES.map(b"/".__add__)),
    st.one_of(st.just(None), st.just(None), st.just(b"websocket"), _VALUES),
)


def _good_or_odd(pseudo: tuple[bytes | None, ...]) -> list[Pair]:
    names = (b":method", b":scheme", b":authority", b":path", b":protocol")
    return [(n, v) for n, v in zip(names, pseudo, strict=True) if v is not None]


class RequestProperty(TestCase):
    @given(_PSEUDO.map(_good_or_odd), _FIELDS, st.booleans())
    @settings(deadline=None, max_examples=400)
    def test_h11_reads_what_we_understood(
        self, pseudo: list[Pair], fields: list[Pair], ended: bool
    ) -> None:
        pairs = pseudo + fields
        try:
            asked = write_request(pairs, ended=ended, longest=LIMITS.head)
            request = read_request(asked.block, LIMITS)
        except Rejection as rejection:
            event(f"refused: {rejection.reason}")
            return
        event("accepted")
        self._check_read(asked, request, dict(pseudo), fields, ended=ended)

    @given(st.lists(st.tuples(_NAMES, _VALUES), max_size=8), st.booleans())
    @settings(deadline=None, max_examples=200)
    def test_nothing_else_than_a_rejection_is_raised(self, pairs: list[Pair], ended: bool) -> None:
        try:
            asked = write_request(pairs, ended=ended, longest=LIMITS.head)
        except Rejection:
            return
        self.assertTrue(asked.block.endswith(b"\r\n\r\n"))

    def _check_read(
        self,
        asked: Asked,
        request: Request,
        pseudo: dict[bytes, bytes],
        fields: list[Pair],
        *,
        ended: bool,
    ) -> None:
        head = request.head
        websocket = asked.key is not None
        method = b"GET" if websocket else pseudo[b":method"]
        hosts = [value for name, value in fields if name == b"host"]
        expected = [(b"host", pseudo.get(b":authority") or hosts[0])]
        hidden = {b"host", b"cookie", b"te"} | ({b"sec-websocket-key"} if websocket else set())
        expected += [(name, value) for name, value in fields if name not in hidden]
        crumbs = [value for name, value in fields if name == b"cookie"]
        read, body = self._h11(asked.block, head.length)
        seen = [(bytes(name), bytes(value)) for name, value in read.headers]
        if websocket:
            extra = [pair for pair in seen if pair not in expected or pair[0] == b"upgrade"]
            self.assertIn((b"upgrade", b"websocket"), extra)
            self.assertIn((b"sec-websocket-key", asked.key), extra)
            expected += [
                (b"connection", b"Upgrade"),
                (b"upgrade", b"websocket"),
                (b"sec-websocket-key", asked.key or b""),
            ]
        if crumbs:
            expected.append((b"cookie", b"; ".join(filter(None, crumbs))))
        if asked.chunked:
            expected.append((b"transfer-encoding", b"chunked"))
        self.assertEqual(seen, expected)
        self.assertEqual((read.method, read.target), (method, pseudo[b":path"]))
        self.assertEqual((head.method, head.target, head.host), (method, read.target, seen[0][1]))
        self.assertEqual(head.has_body, asked.chunked or head.length > 0)
        self.assertTrue(not ended or not head.has_body)
        self.assertEqual(body, b"x" * (3 if asked.chunked else head.length))

    def _h11(self, block: bytes, length: int) -> tuple[h11.Request, bytes]:
        """What h11 reads, and the body it finds; raises where it finds fault, or more."""
        parser = h11.Connection(h11.SERVER)
        parser.receive_data(block)
        read = parser.next_event()
        assert isinstance(read, h11.Request), read
        chunked = any(name == b"transfer-encoding" for name, _ in read.headers)
        parser.receive_data(b"3\r\nxxx\r\n0\r\n\r\n" if chunked else b"x" * length)
        body = b""
        while isinstance(found := parser.next_event(), h11.Data):
            body += found.data
        assert isinstance(found, h11.EndOfMessage), found
        self.assertEqual(parser.trailing_data[0], b"")
        return read, body


class AnswerTests(TestCase):
    def test_answer_is_a_field_list_in_small_letters(self) -> None:
        block = (
            b"HTTP/1.1 200 Fine\r\nServer: S\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n"
            b"Connection: close\r\nX-Hero-User: root\r\nContent-Length: 3\r\n\r\n"
        )
        pairs = answer_pairs(parse_response_head(block, b"GET", LIMITS), b"id-1")
        expected = [
            (b":status", b"200"),
            (b"server", b"S"),
            (b"set-cookie", b"a=1"),
            (b"set-cookie", b"b=2"),
            (b"content-length", b"3"),
            (b"x-request-id", b"id-1"),
        ]
        self.assertEqual(pairs, expected)

    def test_services_own_request_id_stands(self) -> None:
        block = b"HTTP/1.1 204 No Content\r\nX-Request-ID: theirs\r\n\r\n"
        pairs = answer_pairs(parse_response_head(block, b"GET", LIMITS), b"ours")
        self.assertEqual(pairs, [(b":status", b"204"), (b"x-request-id", b"theirs")])
