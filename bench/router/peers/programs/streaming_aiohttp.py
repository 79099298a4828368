"""``streaming_aiohttp.py PLAIN-PORT TLS-PORT CERTIFICATE KEY PREFIX=SOCKET…``: a reverse proxy.

Streams bodies both ways, keeps connections to the services, relays WebSockets.
"""

from __future__ import annotations

import asyncio
import ssl
import sys
from collections.abc import Mapping

import uvloop
from aiohttp import (
    ClientSession,
    ClientTimeout,
    ClientWebSocketResponse,
    UnixConnector,
    WSMsgType,
    web,
)
from multidict import CIMultiDict

#: RFC 9110 section 7.6.1.
_HOP_BY_HOP = ("connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade")
_NO_LIMIT = ClientTimeout(total=None)


class Proxy:
    """Passes requests on by the prefix of their paths, which is stripped."""

    def __init__(self, sessions: dict[str, ClientSession]) -> None:
        self._sessions = sessions

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Pass *request* on."""
        for prefix, session in self._sessions.items():
            if request.raw_path.startswith(prefix):
                url = "http://service/" + request.raw_path[len(prefix) :]
                if request.headers.get("Upgrade", "").lower() == "websocket":
                    return await self._relay(request, session, url)
                return await self._forward(request, session, url)
        raise web.HTTPNotFound

    async def _forward(
        self, request: web.Request, session: ClientSession, url: str
    ) -> web.StreamResponse:
        headers = _end_to_end(request.headers)
        headers["X-Forwarded-For"] = request.remote or ""
        headers["X-Forwarded-Proto"] = request.scheme
        async with session.request(
            request.method,
            url,
            headers=headers,
            data=request.content if request.can_read_body else None,
            allow_redirects=False,
        ) as answer:
            response = web.StreamResponse(
                status=answer.status, reason=answer.reason, headers=_end_to_end(answer.headers)
            )
            await response.prepare(request)
            async for part in answer.content.iter_any():
                await response.write(part)
            await response.write_eof()
            return response

    async def _relay(
        self, request: web.Request, session: ClientSession, url: str
    ) -> web.StreamResponse:
        client = web.WebSocketResponse(compress=False)
        await client.prepare(request)
        async with session.ws_connect(url, compress=0) as service:
            await asyncio.gather(_copy(client, service), _copy(service, client))
        return client


async def _copy(
    source: web.WebSocketResponse | ClientWebSocketResponse,
    sink: web.WebSocketResponse | ClientWebSocketResponse,
) -> None:
    async for message in source:
        if message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
    await sink.close()


def _end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    kept = CIMultiDict(headers)
    for name in _HOP_BY_HOP:
        kept.popall(name, None)
    return kept


async def serve(
    plain: int, tls: int, certificate: str, key: str, routes: list[tuple[str, str]]
) -> None:
    """Listen until the process is ended."""
    proxy = Proxy(
        {
            prefix: ClientSession(
                connector=UnixConnector(path=path, limit=0),
                auto_decompress=False,
                timeout=_NO_LIMIT,
            )
            for prefix, path in routes
        }
    )
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(certificate, key)
    runner = web.ServerRunner(
        web.Server(proxy.handle, access_log=None, keepalive_timeout=600, tcp_keepalive=False)
    )
    await runner.setup()
    for port, security in ((plain, None), (tls, context)):
        site = web.TCPSite(runner, "127.0.0.1", port, ssl_context=security, backlog=4096)
        await site.start()
    await asyncio.Event().wait()


if __name__ == "__main__":
    _, first, second, *files = sys.argv
    where = [(prefix, path) for prefix, _, path in (text.partition("=") for text in files[2:])]
    uvloop.run(serve(int(first), int(second), files[0], files[1], where))
