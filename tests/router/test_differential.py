"""The router against h11: what one of them reads in a stream, the other must not read otherwise.

Clients and services say valid, nearly valid and hostile things, in one piece and in many. Whatever
the router lets through, h11 must read there as it reads it where it came from, once, and with
nothing left over.
"""

from __future__ import annotations

import re
from typing import Any

import attrs
import h11
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from tests.router.backend import H11Service, ScriptedService, Seen
from tests.router.memory import Client, Cut, MemoryCase, cuts, pieces, whole
from tests.router.reading import Answer, Reading, read_answers

_PREFIX = b"/demo/web"
_SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"

#: What the router says of a request, and nobody else.
_OURS = {
    b"x-forwarded-for": [b"127.0.0.1"],
    b"x-forwarded-proto": [b"http"],
    b"x-forwarded-prefix": [_PREFIX],
    b"x-hero-user": [b"anonymous"],
    b"x-hero-claims": [b""],
    b"x-hero-context": [b"root"],
}
_POSING = re.compile(rb"x[^a-z0-9](hero|forwarded)[^a-z0-9].*|forwarded|x[^a-z0-9]real[^a-z0-9]ip")
#: White space before a chunk extension, which RFC 9112 section 7.1.1 allows and h11 does not.
_NOT_FOR_H11 = re.compile(rb"[0-9A-Fa-f][ \t]+;")
_ONE_HOP = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate",
    b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade",
    b"http2-settings",
}  # fmt: skip
#: Fields that are compared otherwise, or that the router may make anew.
_OTHERWISE = {
    b"host", b"content-length", b"expect", b"x-request-id", b"traceparent", b"tracestate",
    b"hero-on-behalf-of", b"via",
}  # fmt: skip


# What is said.

_SPOILS = [
    b" ", b"\t", b"\r", b"\n", b"\x00", b"\x0b", b"\x7f", b"\xa0", b":", b";", b",", b'"', b"\\",
    b"0", b"-", b"+", b"_", b"%", b"/", b"..", b"\r\n", b"\r\n ", b"\r\n\r\n", b"\n\n", b"\r\r\n",
    b"Content-Length: 3\r\n", b"\r\nTransfer-Encoding: chunked", b"0\r\n\r\n",
    b"X-Hero-User: a\r\n",
    b"GET /demo/web/smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
]  # fmt: skip
_names = st.sampled_from(
    [
        b"X", b"Accept", b"Cookie", b"cookie", b"X-Hero-User", b"x_hero_claims", b"X.Hero-Admin",
        b"X-Forwarded-For", b"X-Forwarded_Host", b"Forwarded", b"X-Real-IP", b"Hero-On-Behalf-Of",
        b"Connection", b"Keep-Alive", b"TE", b"Trailer", b"Upgrade", b"Expect", b"Content-Length",
        b"Transfer-Encoding", b"Content_Length", b"Host", b"X-Request-ID", b"traceparent",
        b"Authorization", b"Range", b"Max-Forwards", b"Proxy-Authorization",
    ]
)  # fmt: skip
_tokens = st.text("!#$%&'*+-.^_`|~abcXYZ019", min_size=1, max_size=8).map(str.encode)
_values = st.one_of(
    st.sampled_from(
        [
            b"", b"a", b"a b", b"\ta", b"close", b"keep-alive", b"x, cookie", b"X-Hero-User",
            b"upgrade", b"websocket", b"h2c", b"100-continue", b"chunked", b"CHUNKED",
            b"gzip, chunked", b"0", b"3", b"+3", b"3, 3", b"admin", b"user:root", b"\xe4\xff",
        ]
    ),
    st.text("abc019 \t,;=:\"\\\x80\xff", max_size=10).map(lambda text: text.encode("latin-1")),
)  # fmt: skip
_fields = st.lists(st.tuples(st.one_of(_names, _tokens), _values), max_size=5).map(
    lambda fields: b"".join(b"%b:%b\r\n" % field for field in fields)
)
_contents = st.one_of(
    st.binary(max_size=20),
    st.sampled_from([b"0\r\n\r\n", b"GET /demo/web/smuggled HTTP/1.1\r\nHost: a\r\n\r\n", b"\r\n"]),
)
_extensions = st.sampled_from([b"", b"", b";a", b"; a=b", b';a="b;c"', b";\xff"])
_trailers = st.sampled_from([b"", b"", b"X-Sum: 1\r\n", b"Content-Length: 9\r\nX-Hero-User: a\r\n"])


@st.composite
def _chunked(draw: Any) -> bytes:
    parts = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=3))
    chunks = b"".join(b"%x%b\r\n%b\r\n" % (len(p), draw(_extensions), p) for p in parts)
    return chunks + b"0" + draw(_extensions) + b"\r\n" + draw(_trailers) + b"\r\n"


@st.composite
def _bodies(draw: Any) -> tuple[bytes, bytes]:
    """Framing fields, and a body that goes with them."""
    kind = draw(st.sampled_from(["none", "length", "chunked", "chunked"]))
    if kind == "none":
        return b"", b""
    if kind == "length":
        content = draw(_contents)
        return b"Content-Length: %d\r\n" % len(content), content
    return b"Transfer-Encoding: chunked\r\n", draw(_chunked())


@st.composite
def _spoilt(draw: Any, message: bytes) -> bytes:
    """*message*, as it is more often than not, or with something put in, left out or doubled."""
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 1, 2]))):
        at = draw(st.integers(0, len(message)))
        until = min(len(message), at + draw(st.sampled_from([0, 0, 0, 1, 2, 5])))
        put = draw(st.one_of(st.sampled_from(_SPOILS), st.just(message[at:until] * 2)))
        message = message[:at] + put + message[until:]
    return message


@st.composite
def _requests(draw: Any) -> bytes:
    method = draw(st.sampled_from([b"GET", b"GET", b"POST", b"PUT", b"HEAD", b"DELETE", b"get"]))
    target = draw(
        st.one_of(
            st.just(_PREFIX + b"/"),
            st.text("abZ09-._~!$&'()*+,;=:@/%2fe?#[]|\\", max_size=12).map(
                lambda text: _PREFIX + b"/" + text.encode()
            ),
            st.sampled_from(
                [_PREFIX, b"/nobody/here/", b"/", b"*", b"http://a/demo/web/x", b"//demo/web/"]
            ),
        )
    )
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    framing, body = draw(_bodies())
    head = b"%b %b HTTP/%b\r\nHost: a\r\n" % (method, target, version)
    return draw(_spoilt(head + framing + draw(_fields) + b"\r\n" + body))


@st.composite
def _answers(draw: Any) -> bytes:
    interim = draw(st.sampled_from([b"", b"", b"", b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"]))
    version = draw(st.sampled_from([b"1.1", b"1.1", b"1.1", b"1.0"]))
    status = draw(st.sampled_from([b"200 OK", b"200 OK", b"204 ", b"304", b"404 \xe4", b"599 a b"]))
    framing, body = draw(_bodies())
    after = draw(st.sampled_from([b"", b"", b"", b"\r\n", b"evil", _SECOND]))
    head = b"HTTP/%b %b\r\n" % (version, status)
    return draw(_spoilt(interim + head + framing + draw(_fields) + b"\r\n" + body)) + after


_sizes = st.lists(st.sampled_from([1, 2, 3, 7, 40, 200]), min_size=1, max_size=8)


# What h11 makes of it.


def read_requests(wire: bytes) -> list[Seen]:
    """The requests in *wire*; the last one is not ``whole`` if h11 cannot read on from there."""
    seen: list[Seen] = []
    while wire:
        # RFC 9112 section 2.2; h11 does not know that rule.
        wire = wire.removeprefix(b"\r\n")
        if not wire:
            break
        connection = h11.Connection(h11.SERVER)
        connection.receive_data(wire)
        request: Seen | None = None
        try:
            while (event := connection.next_event()) not in (h11.NEED_DATA, h11.PAUSED):
                if isinstance(event, h11.Request):
                    request = Seen(event.method, event.target, list(event.headers))
                    seen.append(request)
                elif isinstance(event, h11.Data) and request is not None:
                    request.body += bytes(event.data)
                elif isinstance(event, h11.EndOfMessage) and request is not None:
                    request.whole = True
                    break
        except h11.RemoteProtocolError as error:
            assume(request is None or not _of_trailers(str(error)))
            break
        if request is None or not request.whole:
            break
        wire = bytes(connection.trailing_data[0])
    return seen


def _of_trailers(error: str) -> bool:
    """Whether h11, which had read a head, objects to framing fields in the trailers: there they
    mean nothing (RFC 9110 section 6.5.1), and the router does not look at them."""
    return "Content-Length" in error or "Transfer-Encoding" in error


def passed_on(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Those of *headers* that are neither for one hop, nor ours, nor compared otherwise.

    Sorted by name: only the order among fields of one name means something (RFC 9110 section 5.3).
    """
    options = {
        option.strip().lower()
        for name, value in headers
        if name == b"connection"
        for option in value.split(b",")
    }
    dropped = _ONE_HOP | _OTHERWISE | options
    passed = [field for field in headers if field[0] not in dropped]
    return sorted(
        (field for field in passed if _POSING.fullmatch(field[0]) is None),
        key=lambda field: field[0],
    )


def rest_of(target: bytes) -> bytes | None:
    """What a service below the prefix sees of *target*; None where it sees nothing of it."""
    path = target.removeprefix(b"http://a")
    if path.startswith(_PREFIX + b"/"):
        return path[len(_PREFIX) :]
    if path == _PREFIX or path.startswith(_PREFIX + b"?"):
        return b"/" + path[len(_PREFIX) :]
    return None


class Counting(H11Service):
    """Numbers its answers, framed in turn by a length and in chunks."""

    def answer(self, request: Seen) -> bytes:
        if request.target == b"/.well-known/heroservice.json":
            return super().answer(request)
        number = b"%d" % sum(seen.whole for seen in self.seen)
        if request.method == b"HEAD":
            return b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"
        if len(self.seen) % 2:
            return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number)
        return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (
            len(number),
            number,
        )


@attrs.define
class Outcome:
    """What came of a client's stream: at the service, and to the client."""

    seen: list[Seen]
    reading: Reading
    closed: bool

    @property
    def statuses(self) -> list[int]:
        return [answer.status for answer in self.reading.answers]

    @property
    def final(self) -> bool:
        """Whether nothing could follow the last answer."""
        answers = self.reading.answers
        return bool(answers) and answers[-1].values(b"connection") == [b"close"]


class RequestDifferentialTests(MemoryCase):
    """From a client's stream to what the service reads."""

    def outcome(self, wire: bytes, cut: Cut) -> Outcome:
        """Send *wire* to a new router; check what reached its service, and what came back."""
        service = Counting()
        self.begin(service)
        client = self.talk(wire, cut=cut)
        sent = read_requests(wire)
        heads = [b"%b / HTTP/1.1\r\nHost: a" % request.method for request in sent]
        closed = client.closed and client.clean
        reading = read_answers(client.received, [*heads, b"GET / HTTP/1.1"], closed=closed)
        self.network.cut()
        self.assertEqual(service.errors, [])
        outcome = Outcome([], reading, closed)
        if not (outcome.final and outcome.statuses[-1] >= 400):
            # A HEAD request that is malformed may be refused in so many words; and where h11 reads
            # no request, what the refusal answers is open.
            self.assertEqual((reading.error, reading.rest), (None, b""), client.received)
        seen = [request for request in service.seen if request.whole]
        for request in seen:
            self.check_fields(request)
        self.check_same(seen, sent, reading.answers)
        outcome.seen = seen
        return outcome

    def check_fields(self, request: Seen) -> None:
        """What only the router may say, it says, and says once; framing is beyond doubt."""
        posing = [name for name, _ in request.headers if _POSING.fullmatch(name)]
        host = request.values(b"host")
        ours = {**_OURS, b"x-forwarded-host": host}
        if b"x-forwarded-host" not in posing:  # HTTP/1.0 without a host
            del ours[b"x-forwarded-host"]
            host = [b"hero"]
        context = request.values(b"x-hero-context")
        self.assertEqual({name: request.values(name) for name in posing}, ours)
        self.assertEqual((len(posing), len(host), len(context)), (len(ours), 1, 1))
        for name in (b"x-request-id", b"traceparent"):
            self.assertEqual(len(request.values(name)), 1)
        self.assertEqual(request.values(b"via")[-1].partition(b" ")[2], b"hero")
        framing = request.values(b"content-length") + request.values(b"transfer-encoding")
        self.assertLessEqual(len(framing), 1)
        self.assertIn(request.values(b"connection"), ([], [b"close"], [b"Upgrade"]))
        self.assertEqual(request.trailers, [])

    def check_same(self, seen: list[Seen], sent: list[Seen], answers: list[Answer]) -> None:
        """The service saw, in order, what h11 reads in the client's stream, or less of it.

        What it did not see, the router answered itself.
        """
        left = iter(zip(sent, answers, strict=False))
        for number, request in enumerate(seen, 1):
            original, answer = next(left, (None, None))
            while answer is not None and answer.status >= 300:
                original, answer = next(left, (None, None))
            if original is None or answer is None:
                self.fail(f"the service saw {request}, the client sent {sent}")
            self.assertEqual(answer.status, 200)
            self.assertTrue(original.whole, request)
            self.assertEqual(request.method, original.method)
            self.assertEqual(request.target, rest_of(original.target))
            self.assertEqual(request.body, original.body)
            self.assertEqual(
                passed_on(request.headers), passed_on(original.headers), original.headers
            )
            self.assertTrue(answer.whole)
            if request.method != b"HEAD":
                self.assertEqual(answer.body, b"%d" % number)
        self.assertNotIn(200, [answer.status for answer in answers[len(sent) :]])
        self.assertEqual([a.status for a in answers].count(200), len(seen))

    @settings(max_examples=150, deadline=None)
    @given(requests=st.lists(_requests(), min_size=1, max_size=3), sizes=_sizes)
    def test_the_service_reads_what_the_client_said(
        self, requests: list[bytes], sizes: list[int]
    ) -> None:
        """However a stream is spoilt or cut, nothing in it is read in two ways."""
        wire = b"".join(requests)
        assume(_NOT_FOR_H11.search(wire) is None)
        at_once = self.outcome(wire, whole)
        for cut in (pieces(1), cuts(sizes)):
            self.check_agree(at_once, self.outcome(wire, cut))

    def check_agree(self, one: Outcome, other: Outcome) -> None:
        """The same came of both, or of one of them less, because its connection was closed.

        A body that has not come yet when its request is refused is not waited for.
        """
        shorter, longer = sorted((one, other), key=lambda outcome: len(outcome.statuses))
        last = len(shorter.statuses) - 1
        if last < len(longer.statuses) - 1:
            self.assertTrue(shorter.final, (shorter, longer))
        self.assertEqual(shorter.statuses[:last], longer.statuses[:last])
        if last >= 0 and shorter.statuses[last] != longer.statuses[last]:
            # Which fault of a refused request is seen first may differ.
            self.assertTrue(shorter.final, (shorter, longer))
            self.assertGreaterEqual(min(shorter.statuses[last], longer.statuses[last]), 300)
        for mine, theirs in zip(one.seen, other.seen, strict=False):
            self.assertEqual(
                (mine.method, mine.target, mine.body), (theirs.method, theirs.target, theirs.body)
            )
            self.assertEqual(passed_on(mine.headers), passed_on(theirs.headers))


class AnswerDifferentialTests(MemoryCase):
    """From a service's answer to what the client reads."""

    def outcome(self, wire: bytes, request: bytes, cut: Cut, *, closes: bool) -> Answer:
        """Give *wire* as the answer to *request*; check what the client reads, and a second one."""
        answers = [wire]

        def script(connection: Any, data: bytes) -> None:
            first = bool(answers)
            connection.transport.write(answers.pop() if first else _SECOND)
            if first and closes:
                connection.transport.loseConnection()

        service = ScriptedService(script)
        self.begin(service, cut=cut)
        client = self.talk(request)
        answer = self.read(client, request)
        self.hang_up(client)
        second = self.talk(b"GET /demo/web/second HTTP/1.1\r\nHost: a\r\n\r\n")
        other = self.read(second, b"GET / HTTP/1.1")
        self.assertEqual((other.status, other.body, other.whole), (200, b"second", True))
        self.network.cut()
        self.check_same(answer, wire, request, closes=closes)
        return answer

    def read(self, client: Client, request: bytes) -> Answer:
        """The one answer that *client* got, if it got any."""
        closed = client.closed and client.clean
        reading = read_answers(client.received, [request], closed=closed)
        self.assertEqual(reading.rest, b"", client.received)
        self.assertLessEqual(len(reading.answers), 1)
        if reading.answers and reading.answers[0].whole:
            self.assertEqual(reading.error, None)
        return reading.answers[0] if reading.answers else Answer()

    def check_same(self, answer: Answer, wire: bytes, request: bytes, *, closes: bool) -> None:
        """The client read what h11 reads in *wire*, or cannot take what it read for whole."""
        if not answer.whole or answer.status == 502:
            return
        if not wire:
            # It closed without a word, so it was asked again.
            self.assertTrue(closes)
            self.assertNotIn(b"POST", request)
            return
        direct = read_answers(wire, [request], closed=closes)
        if not direct.answers:
            # Where there is no body, the router does not ask how it would have been framed.
            self.assertIn("Transfer-Encoding", direct.error or "")
            self.assertEqual((answer.body, answer.values(b"transfer-encoding")), (b"", []))
            return
        (original,) = direct.answers
        assume(direct.error is None or not _of_trailers(direct.error))
        self.assertTrue(original.whole, wire)
        self.assertEqual((answer.status, answer.body), (original.status, original.body))
        self.assertEqual(answer.interim, original.interim)
        # Those that would have to be in the head are left out.
        self.assertEqual([t for t in original.trailers if t in answer.trailers], answer.trailers)
        made_here = {b"x-request-id", b"date"}
        mine, theirs = (
            [field for field in passed_on(a.headers) if field[0] not in made_here]
            for a in (answer, original)
        )
        self.assertEqual(mine, theirs)

    @settings(max_examples=150, deadline=None)
    @given(
        wire=_answers(),
        method=st.sampled_from([b"GET", b"GET", b"POST", b"HEAD"]),
        closes=st.booleans(),
        sizes=_sizes,
    )
    @example(wire=b"", method=b"GET", closes=True, sizes=[1])
    def test_the_client_reads_what_the_service_said(
        self, wire: bytes, method: bytes, closes: bool, sizes: list[int]
    ) -> None:
        """However an answer is spoilt or cut, the client reads the same, or knows that it broke."""
        assume(_NOT_FOR_H11.search(wire) is None)
        request = method + b" /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n"
        at_once = self.outcome(wire, request, whole, closes=closes)
        for cut in (pieces(1), cuts(sizes)):
            other = self.outcome(wire, request, cut, closes=closes)
            good = [a.whole and a.status != 502 for a in (at_once, other)]
            self.assertEqual(good[0], good[1])
            if good[0]:
                self.assertEqual((at_once.status, at_once.body), (other.status, other.body))
