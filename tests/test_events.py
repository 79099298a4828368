"""`hero.events`, and the back-pressure of `hero.rpc.event_stream`."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.http_headers import Headers
from twisted.web.test.requesthelper import DummyRequest

from hero.events import RESET, Event, EventLog, Subscription
from hero.rpc import event_stream
from hero.rpc.event_stream import KEEP_ALIVE, EventsResource


class EventLogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clock.advance(1_700_000_000)
        self.log = EventLog(self.clock, size=3)

    def next(self, subscription: Subscription) -> Deferred[Event]:
        return Deferred.fromCoroutine(subscription.__anext__())

    def numbers(self, subscription: Subscription, count: int) -> list[Any]:
        events = [self.successResultOf(self.next(subscription)) for _ in range(count)]
        return [event.data.get("n", event.type) for event in events]

    def test_reader_gets_what_comes_after(self) -> None:
        self.log.publish("vm", {"n": 0})
        subscription = self.log.subscribe()
        waiting = self.next(subscription)
        self.assertNoResult(waiting)
        number = self.log.publish("vm", {"n": 1})
        self.assertEqual(self.successResultOf(waiting), Event(number, "vm", {"n": 1}))

    def test_every_reader_gets_every_event(self) -> None:
        readers = [self.log.subscribe() for _ in range(3)]
        waiting = [self.next(reader) for reader in readers]
        self.log.publish("vm", {"n": 1})
        self.log.publish("vm", {"n": 2})
        for reader, first in zip(readers, waiting, strict=True):
            self.assertEqual(self.successResultOf(first).data, {"n": 1})
            self.assertEqual(self.numbers(reader, 1), [2])

    def test_reader_resumes(self) -> None:
        first = self.log.publish("vm", {"n": 1})
        self.log.publish("vm", {"n": 2})
        self.assertEqual(self.numbers(self.log.subscribe(first), 1), [2])

    def test_reader_that_is_too_slow_is_reset_to_now(self) -> None:
        reader = self.log.subscribe()
        for n in range(4):
            self.log.publish("vm", {"n": n})
        self.assertEqual(self.numbers(reader, 1), [RESET])
        self.assertNoResult(self.next(reader))
        self.log.publish("vm", {"n": 4})

    def test_reader_of_the_whole_ring_is_not_reset(self) -> None:
        reader = self.log.subscribe()
        for n in range(3):
            self.log.publish("vm", {"n": n})
        self.assertEqual(self.numbers(reader, 3), [0, 1, 2])

    def test_position_of_an_earlier_process_is_reset(self) -> None:
        earlier = self.log.publish("vm", {})
        self.clock.advance(1)
        restarted = EventLog(self.clock)
        self.assertGreater(restarted.publish("vm", {}), earlier)
        self.assertEqual(self.numbers(restarted.subscribe(earlier), 1), [RESET])

    def test_position_in_the_future_is_reset(self) -> None:
        self.assertEqual(self.numbers(self.log.subscribe(10**18), 1), [RESET])

    def test_reset_in_an_empty_log_leads_to_the_first_event(self) -> None:
        reader = self.log.subscribe(5)
        self.assertEqual(self.numbers(reader, 1), [RESET])
        self.log.publish("vm", {"n": 1})
        self.assertEqual(self.numbers(reader, 1), [1])

    def test_cancelled_wait_loses_nothing(self) -> None:
        reader = self.log.subscribe()
        waiting = self.next(reader)
        waiting.cancel()
        self.failureResultOf(waiting)
        self.log.publish("vm", {"n": 1})
        self.assertEqual(self.numbers(reader, 1), [1])


class StreamTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.log = EventLog(self.clock, size=3)
        self.resource = EventsResource(self.log, self.clock)

    def follow(self) -> Any:
        request = DummyRequest([b"events"])
        request.method = b"GET"
        request.requestHeaders = Headers()
        request.registerProducer = lambda producer, streaming: setattr(
            request, "producer", producer
        )
        self.resource.render(request)
        request.written.clear()
        return request

    def test_slow_reader_is_not_written_to(self) -> None:
        request = self.follow()
        request.producer.pauseProducing()
        for n in range(10):
            self.log.publish("vm", {"n": n})
        self.clock.advance(KEEP_ALIVE)
        self.assertEqual(request.written, [])
        request.producer.resumeProducing()
        text = b"".join(request.written)
        self.assertIn(b"event: reset", text)

    def test_reader_that_stops_for_a_moment_loses_nothing(self) -> None:
        request = self.follow()
        request.producer.pauseProducing()
        self.log.publish("vm", {"n": 1})
        self.log.publish("vm", {"n": 2})
        request.producer.resumeProducing()
        self.assertEqual(b"".join(request.written).count(b"event: vm"), 2)

    def test_silence_is_filled_with_comments(self) -> None:
        request = self.follow()
        self.clock.advance(KEEP_ALIVE)
        self.assertEqual(request.written, [b": alive\n\n"])

    def test_nothing_is_left_of_a_reader_that_has_gone(self) -> None:
        request = self.follow()
        request.processingFailed(Failure(ConnectionDone()))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.log.publish("vm", {"n": 1})
        self.assertEqual(request.written, [])

    def test_readers_are_bounded(self) -> None:
        self.patch(event_stream, "MAX_READERS", 1)
        first = self.follow()
        second = self.follow()
        self.assertEqual(second.responseCode, 503)
        first.processingFailed(Failure(ConnectionDone()))
        self.assertIsNone(self.follow().responseCode)
