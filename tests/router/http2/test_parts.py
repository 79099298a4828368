"""The parts of HTTP/2 that need no connection."""

from __future__ import annotations

import struct

from h2.config import H2Configuration
from h2.connection import H2Connection
from hpack import Decoder, Encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import TestCase

from hero.router.http2.budget import Budget
from hero.router.http2.encoder import StatelessEncoder
from hero.router.http2.frames import MAX_FRAME, Flood, FrameTooLong, FrameWatch
from hero.router.http2.outbox import Outbox, Outgoing
from hero.router.http2.websocket import accepts

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind: int, flags: int = 0, payload: bytes = b"", stream: int = 0) -> bytes:
    """RFC 9113 section 4.1"""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


GOAWAY = frame(7, payload=bytes(8))


class BudgetTests(TestCase):
    def test_burst_is_spent_and_comes_back(self) -> None:
        budget = Budget(2, 1, now=0)
        self.assertEqual([budget.spend(0) for _ in range(3)], [True, True, False])
        self.assertEqual([budget.spend(1) for _ in range(2)], [True, False])

    def test_long_wait_gives_no_more_than_the_burst(self) -> None:
        budget = Budget(2, 1, now=0)
        budget.spend(0)
        self.assertEqual([budget.spend(1000) for _ in range(3)], [True, True, False])

    def test_what_is_earned_is_kept_up_to_a_bound(self) -> None:
        budget = Budget(1, 1, now=0)
        for _ in range(10):
            budget.earn(1, most=4)
        self.assertEqual([budget.spend(0) for _ in range(5)], [True] * 4 + [False])


class FrameWatchTests(TestCase):
    def test_frames_pass_as_they_came(self) -> None:
        wire = PREFACE + frame(4) + frame(1, 4, b"head", 1) + frame(0, 1, b"body", 1)
        watch = FrameWatch(100, 0)
        self.assertIs(watch.feed(wire, 0), wire)

    @given(st.lists(st.integers(1, 40), max_size=30))
    @settings(deadline=None, max_examples=60)
    def test_farewell_is_cut_out_however_it_comes(self, pieces: list[int]) -> None:
        before, after = frame(4), frame(6, payload=bytes(8))
        wire = PREFACE + before + GOAWAY + after + frame(7, payload=bytes(8) + b"why") + before
        watch = FrameWatch(100, 0)
        passed = b""
        for size in pieces:
            passed += watch.feed(wire[:size], 0)
            wire = wire[size:]
        passed += watch.feed(wire, 0)
        self.assertEqual(passed, PREFACE + before + after + before)
        self.assertTrue(watch.leaving)

    @given(st.lists(st.integers(1, 20), max_size=30))
    @settings(deadline=None, max_examples=60)
    def test_head_is_open_until_its_last_byte(self, pieces: list[int]) -> None:
        wire = PREFACE + frame(1, 0, b"head", 1) + frame(9, 0, b"more", 1) + frame(9, 4, b"end", 1)
        watch = FrameWatch(100, 0)
        begun, left = len(PREFACE) + 9, len(wire)
        for size in [*pieces, len(wire)]:
            watch.feed(wire[:size], 0)
            wire = wire[size:]
            came = left - len(wire)
            self.assertEqual(watch.in_head, begun <= came < left)

    def test_frame_too_long_is_refused_by_its_header(self) -> None:
        watch = FrameWatch(100, 0)
        watch.feed(PREFACE + frame(4), 0)
        with self.assertRaises(FrameTooLong):
            watch.feed((MAX_FRAME + 1).to_bytes(3, "big") + bytes(6), 0)

    def test_header_block_too_long_is_refused_by_its_frames_headers(self) -> None:
        watch = FrameWatch(100, 0)
        watch.feed(PREFACE + frame(1, 0, b"x" * 60, 1), 0)
        with self.assertRaises(Flood):
            watch.feed(frame(9, 0, b"x" * 60, 1)[:9], 0)

    def test_answers_pay_for_window_updates(self) -> None:
        watch = FrameWatch(100, 0)
        watch.feed(PREFACE, 0)
        update = frame(8, payload=b"\0\0\0\1")
        for _ in range(2000):
            watch.answered()
            watch.feed(update * 2, 0)
        with self.assertRaises(Flood):
            watch.feed(update * 20_000, 0)


class EncoderTests(TestCase):
    NAMES = st.sampled_from([b":status", b"date", b"x-y", b"content-length"]) | st.binary(
        min_size=1
    )
    PAIRS = st.lists(st.tuples(NAMES, st.binary(max_size=700)), min_size=1, max_size=20)

    @given(st.lists(PAIRS, min_size=1, max_size=4))
    @settings(deadline=None, max_examples=80)
    def test_library_reads_what_was_written(self, lists: list[list[tuple[bytes, bytes]]]) -> None:
        encoder, decoder = StatelessEncoder(), Decoder()
        for pairs in lists:
            block = encoder.encode(pairs)
            self.assertEqual([tuple(pair) for pair in decoder.decode(block, raw=True)], pairs)

    def test_smaller_table_is_acknowledged(self) -> None:
        encoder, decoder = StatelessEncoder(), Decoder()
        decoder.decode(encoder.encode([(b"a", b"b")]), raw=True)
        decoder.max_allowed_table_size = 10
        encoder.header_table_size = 10
        self.assertEqual(encoder.encode([(b"a", b"b")])[:1], b"\x20")
        self.assertIsInstance(encoder, Encoder)


class _Sender:
    def __init__(self, number: int) -> None:
        self.number = number
        self.outgoing = Outgoing()
        self.in_turn = False
        self.counts: list[tuple[int, bool]] = []

    def sent(self, count: int, *, last: bool) -> None:
        self.counts.append((count, last))


class OutboxTests(TestCase):
    def setUp(self) -> None:
        self.client = H2Connection(H2Configuration(client_side=True))
        self.server = H2Connection(H2Configuration(client_side=False))
        self.client.initiate_connection()
        self.server.initiate_connection()
        self._exchange()
        self.outbox = Outbox(self.server)

    def _exchange(self) -> None:
        self.server.receive_data(self.client.data_to_send())
        self.client.receive_data(self.server.data_to_send())

    def _sender(self) -> _Sender:
        number = self.client.get_next_available_stream_id()
        asked = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", "a")]
        self.client.send_headers(number, asked, end_stream=True)
        self._exchange()
        self.server.send_headers(number, [(":status", "200")])
        return _Sender(number)

    @given(st.lists(st.binary(min_size=1, max_size=50), min_size=1), st.integers(1, 60))
    @settings(deadline=None, max_examples=60)
    def test_pieces_are_taken_whole_and_in_order(self, pieces: list[bytes], most: int) -> None:
        outgoing, taken = Outgoing(), b""
        for piece in pieces:
            outgoing.put(piece)
        while outgoing.size:
            part = outgoing.take(most)
            self.assertTrue(0 < len(part) <= most)
            taken += part
        self.assertEqual(taken, b"".join(pieces))

    def test_streams_take_turns_frame_by_frame(self) -> None:
        senders = [self._sender(), self._sender()]
        for sender in senders:
            sender.outgoing.put(b"x" * 20_000)
            self.outbox.add(sender)
        self.outbox.pump()
        for sender in senders:
            self.assertEqual(sender.counts, [(16384, False), (3616, False)])

    def test_end_is_sent_once(self) -> None:
        sender = self._sender()
        sender.outgoing.ended = True
        self.outbox.add(sender)
        self.outbox.add(sender)
        self.assertFalse(self.outbox.pump())
        self.outbox.add(sender)
        self.assertFalse(self.outbox.pump())
        self.assertEqual(sender.counts, [(0, True)])

    def test_nothing_is_sent_past_the_window(self) -> None:
        sender = self._sender()
        sender.outgoing.put(b"x" * 70_000)
        self.outbox.add(sender)
        self.outbox.pump()
        self.assertEqual(sum(count for count, _ in sender.counts), 65535)
        self.assertEqual(sender.outgoing.size, 70_000 - 65535)


class WebSocketTests(TestCase):
    def test_example_of_the_standard(self) -> None:
        """RFC 6455 section 1.3"""
        key = b"dGhlIHNhbXBsZSBub25jZQ=="
        good = (b"sec-websocket-accept", b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        self.assertTrue(accepts([good], key))
        self.assertFalse(accepts([good, good], key))
        self.assertFalse(accepts([], key))
        self.assertFalse(accepts([(*good[:2], good[2].lower())], key))
