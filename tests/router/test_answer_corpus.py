"""What services answer that they should not, and what comes of it: ``corpus/answers``."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, ClassVar

import attrs

from tests.router.backend import ScriptedService
from tests.router.memory import Cut, MemoryCase, pieces, whole
from tests.router.reading import Answer, read_answers
from tests.router.test_corpus import unescape

_CORPUS = Path(__file__).with_name("corpus") / "answers"
_GET = b"GET /demo/web/ HTTP/1.1\r\nHost: a\r\n\r\n"
_SECOND = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond"


@attrs.define
class Case:
    """One entry of the corpus."""

    name: str
    request: bytes = b""
    answer: bytes = b""
    #: What the service does after its answer: `closes`, `resets`, or nothing.
    then: str | None = None
    idle: bool = False
    late: bool = False
    statuses: list[int] = attrs.field(factory=list)
    reason: str | None = None
    broken: bool = False
    reused: bool = False
    body: bytes | None = None
    has: dict[bytes, list[bytes]] = attrs.field(factory=dict)
    lacks: list[bytes] = attrs.field(factory=list)


def read_corpus(text: str) -> list[Case]:
    """The cases in a corpus file."""
    cases: list[Case] = []
    for number, line in enumerate(text.splitlines(), 1):
        word, _, rest = line.partition(" ")
        data = rest.encode("latin-1")
        case = cases[-1] if cases else Case("none")
        match word:
            case "==":
                cases.append(Case(rest.strip()))
            case ">":
                case.request += _line(data)
            case "|":
                case.answer += _line(data)
            case "closes" | "resets":
                case.then = word
            case "idle" | "late" | "broken" | "reused":
                setattr(case, word, True)
            case "<":
                status, *reason = rest.split()
                case.statuses.append(int(status))
                case.reason = reason[0] if reason else None
            case "has":
                name, _, value = unescape(data).partition(b":")
                case.has.setdefault(name, []).append(value.strip(b" \t"))
            case "lacks":
                case.lacks.append(data)
            case "body":
                case.body = unescape(data)
            case _ if line.strip() and not line.startswith("#"):
                raise ValueError(f"line {number}: {line!r} begins with no word of the README")
    return cases


def _line(data: bytes) -> bytes:
    return unescape(data) + (b"" if data.endswith(b"\\z") else b"\r\n")


class AnswerCorpusTests(MemoryCase):
    """Each answer, whole and byte after byte, gives the client what the entry says.

    Then a second client asks, and gets the answer to what it asked.
    """

    cases: ClassVar[dict[str, Case]] = {}

    def play(self, cut: Cut) -> None:
        case = self.cases[self._testMethodName]
        service = self.service_of(case)
        self.begin(service, cut=cut)
        if case.idle:
            # The connection on which the manifest was asked for.
            service.connections[0].transport.write(case.answer)
            self.network.settle()
        else:
            client = self.talk(case.request or _GET)
            if case.late:
                self.pass_time(self.limits.answer_time + self.limits.stall_time)
            self.check(case, client)
            self.hang_up(client)
        connections = len(service.connections)
        second = self.talk(_GET.replace(b"/web/", b"/web/second"))
        (answer,) = read_answers(second.received, [_GET], closed=second.closed).answers
        self.assertEqual((answer.status, answer.body, answer.whole), (200, b"second", True))
        reused = len(service.connections) == connections
        self.assertEqual(reused, case.reused, "was the connection to the service used again?")

    def service_of(self, case: Case) -> ScriptedService:
        """A service that gives the answer of *case* first, and good ones from then on."""
        answers = [_SECOND] if case.idle else [case.answer, _SECOND]

        def script(connection: Any, data: bytes) -> None:
            if b" HTTP/1.1\r\n" not in data:
                return  # it is the request's body
            transport, first = connection.transport, len(answers) > 1
            transport.write(answers.pop(0) if first else answers[0])
            if first and case.then == "closes":
                transport.loseConnection()
            elif first and case.then == "resets":
                transport.abortConnection()

        return ScriptedService(script)

    def pass_time(self, seconds: float) -> None:
        for _ in range(int(seconds) + 2):
            self.clock.advance(1)
            self.network.settle()

    def check(self, case: Case, client: Any) -> None:
        request = case.request or _GET
        reading = read_answers(client.received, [request], closed=client.closed and client.clean)
        self.assertLessEqual(len(reading.answers), 1)
        answer = reading.answers[0] if reading.answers else Answer()
        received = client.received
        if case.broken:
            # Refused, or begun and not completed: nobody may take it for the whole answer.
            if answer.status != 502:
                self.assertFalse(answer.whole, received)
                self.assertTrue(client.closed, received)
            return
        self.assertEqual([*answer.interim, answer.status], case.statuses, received)
        self.assertTrue(answer.whole, received)
        self.assertEqual(reading.error, None, received)
        if case.reason is not None:
            self.assertIn(f'"reason": "{case.reason}"'.encode(), answer.body)
        if answer.status == 101:
            answer.body = reading.rest
        else:
            self.assertEqual(reading.rest, b"")
        if case.body is not None:
            self.assertEqual(answer.body, case.body)
        for name, values in case.has.items():
            self.assertEqual(answer.values(name), values, received)
        for name in case.lacks:
            self.assertEqual(answer.values(name), [], received)


def _add_tests() -> None:
    for path in sorted(_CORPUS.glob("*.txt")):
        for case in read_corpus(path.read_text("latin-1")):
            for how, cut in (("whole", whole), ("bytewise", pieces(1 + len(case.answer) // 2000))):
                words = f"{path.stem} {case.name} {how}"
                name = "test_" + re.sub(r"\W+", "_", words).strip("_")
                assert name not in AnswerCorpusTests.cases, f"two entries are called {words!r}"
                AnswerCorpusTests.cases[name] = case

                def test(self: AnswerCorpusTests, cut: Cut = cut) -> None:
                    self.play(cut)

                test.__name__ = name
                test.__doc__ = f"{case.name}, {how}"
                setattr(AnswerCorpusTests, name, test)


_add_tests()
