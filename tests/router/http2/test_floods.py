"""What a client must not make the router do or hold."""

from __future__ import annotations

from h2.errors import ErrorCodes
from hpack import Encoder

from hero.router.limits import Limits
from tests.router.backend import H11Service, ScriptedService
from tests.router.http2.client import Http2Case, Http2Client, request


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 section 4.1"""
    return (
        len(payload).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big") + payload
    )


class FloodTests(Http2Case):
    limits = Limits(linger_time=0.5, stop_time=1.0, head=4096)

    async def _calmed(self, client: Http2Client, reason: str) -> None:
        await client.rest()
        self.assertEqual([code for _, code in client.goaways], [ErrorCodes.ENHANCE_YOUR_CALM])
        self.assertEqual(self.metrics.rejections[reason], 1)

    async def test_rapid_reset(self) -> None:
        """CVE-2023-44487"""
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        client = await self.http2()
        for _ in range(300):
            number = client.h2.get_next_available_stream_id()
            client.h2.send_headers(number, request(b"GET", b"/demo/web/"), end_stream=True)
            client.h2.reset_stream(number, ErrorCodes.CANCEL)
        client.flush()
        await self._calmed(client, "http2_rapid_reset")
        self.assertLess(len(service.connections), 5)

    async def test_rapid_reset_in_many_pieces(self) -> None:
        service = ScriptedService(lambda connection, data: None)
        self.serve(service)
        client = await self.http2()
        while not client.closed:
            number = client.get()
            await self.pause(0)
            client.h2.reset_stream(number, ErrorCodes.CANCEL)
            client.flush()
        await self._calmed(client, "http2_rapid_reset")

    async def test_resets_that_the_client_provokes(self) -> None:
        """CVE-2025-8671: the router resets, for a window that grows too large."""
        self.serve(ScriptedService(lambda connection, data: None))
        client = await self.http2()
        await client.until(lambda wire: wire.events)
        for _ in range(300):
            number = client.h2.get_next_available_stream_id()
            client.h2.send_headers(number, request(b"GET", b"/demo/web/"), end_stream=True)
            client.send(client.h2.data_to_send() + frame(8, 0, number, b"\x7f\xff\xff\xff"))
            await self.pause(0)
            if client.closed:
                break
        await self._calmed(client, "http2_rapid_reset")

    async def test_page_that_is_left_is_no_flood(self) -> None:
        self.serve(ScriptedService(lambda connection, data: None))
        client = await self.http2()
        await client.until(lambda wire: wire.events)
        for number in [client.get() for _ in range(100)]:
            client.h2.reset_stream(number, ErrorCodes.CANCEL)
        client.flush()
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")

    async def _flood(self, wire: bytes) -> None:
        self.serve(ScriptedService(lambda connection, data: None))
        client = await self.http2()
        client.ask(request(b"POST", b"/demo/web/"), end=False)
        for _ in range(20):
            client.send(wire * 100)
            await self.pause(0)
        await self._calmed(client, "http2_flood")

    async def test_pings(self) -> None:
        await self._flood(frame(6, 0, 0, bytes(8)))

    async def test_settings(self) -> None:
        await self._flood(frame(4, 0, 0))

    async def test_priorities(self) -> None:
        await self._flood(frame(2, 0, 1, b"\x00\x00\x00\x03\x10"))

    async def test_window_updates(self) -> None:
        await self._flood(frame(8, 0, 0, b"\x00\x00\x00\x01"))

    async def test_empty_data(self) -> None:
        await self._flood(frame(0, 0, 1))

    async def test_unknown_frames(self) -> None:
        await self._flood(frame(0xBE, 0, 0))

    async def test_empty_continuations(self) -> None:
        client = await self.http2()
        client.send(frame(1, 0, 1, b"\x82") + frame(9, 0, 1) * 2000)
        await client.rest()
        self.assertEqual(client.goaways[0][1] in (ErrorCodes.ENHANCE_YOUR_CALM, 1), True)

    async def test_header_block_that_is_too_long_as_it_comes(self) -> None:
        client = await self.http2()
        client.send(frame(1, 0, 1, b"\x82" * 6000) + frame(9, 0, 1, b"\x82" * 6000))
        await self._calmed(client, "http2_flood")

    async def test_header_block_that_unpacks_to_too_much(self) -> None:
        """A field of 4 kB, then one octet for each time it comes again."""
        client = await self.http2()
        block = Encoder().encode([(b"x", b"y" * 4000)], huffman=False)
        client.send(frame(1, 4, 1, block + b"\xbe" * 2000))
        await self._calmed(client, "http2_flood")

    async def test_frame_longer_than_allowed_is_not_waited_for(self) -> None:
        client = await self.http2()
        client.send(b"\xff\xff\xff\x00\x00\x00\x00\x00\x01")
        await client.rest()
        self.assertEqual([code for _, code in client.goaways], [ErrorCodes.FRAME_SIZE_ERROR])

    async def test_head_that_is_somewhat_too_long_is_a_431(self) -> None:
        client = await self.http2()
        number = client.get(b"/demo/web/", (b"x", b"y" * 3000), (b"z", b"y" * 1500))
        self.assertEqual((await client.answer(number)).status, b"431")
        self.assertEqual((await client.answer(client.get(b"/no/where"))).status, b"404")

    async def test_more_streams_than_allowed(self) -> None:
        self.serve(ScriptedService(lambda connection, data: None))
        client = await self.http2()
        client.h2.remote_settings.max_concurrent_streams = 1000
        client.h2.remote_settings.acknowledge()
        for number in range(1, 203, 2):
            client.h2.send_headers(number, request(b"GET", b"/demo/web/"), end_stream=True)
        client.flush()
        await client.rest()
        self.assertEqual(len(client.goaways), 1)

    async def test_large_download_with_small_window_updates_is_no_flood(self) -> None:
        size = 10_000_000
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + b"x" * size
        self.serve(ScriptedService(lambda connection, data: connection.transport.write(answer)))
        client = await self.http2()
        number = client.get()
        sent = 0
        while not client.answers[number].over:
            await client.until(lambda wire: wire.answers[number].over or wire.events)
            for event in client.events:
                if hasattr(event, "flow_controlled_length"):
                    client.send(frame(6, 0, 0, bytes(8)) * 2)
                    sent += 2
            client.events.clear()
            await self.pause(0)
        self.assertGreater(sent, 1000)
        self.assertEqual(len(client.answers[number].body), size)
        self.assertEqual(client.goaways, [])

    async def test_header_table_as_large_as_the_client_wishes_is_not_kept(self) -> None:
        self.serve(H11Service({"access": "public"}))
        client = await self.http2()
        client.send(frame(4, 0, 0, b"\x00\x01\xff\xff\xff\xff"))
        client.h2.decoder.max_allowed_table_size = 2**32 - 1
        for _ in range(3):
            self.assertEqual((await client.answer(client.get())).status, b"200")
        self.assertEqual(client.h2.decoder.header_table_size, 0)
