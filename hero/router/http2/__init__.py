"""HTTP/2 to clients, HTTP/1.1 to services (RFC 9113).

A TLS client that chose ``h2`` by ALPN gets an `hero.router.http2.connection.Http2Connection`
instead of a `hero.router.front.Front`. What comes passes `hero.router.http2.frames` and
`hero.router.http2.budget`, which refuse floods before they cost anything, then the state machine
of the library `h2`. Each request is a `hero.router.http2.stream.Stream`: it is written down as
an HTTP/1.1 head by `hero.router.http2.translation`, and from there takes the same way as any other
(`hero.router.request`, `hero.router.gateway`). A WebSocket (RFC 8441) becomes an HTTP/1.1 upgrade
in `hero.router.http2.websocket`. Answers leave through `hero.router.http2.outbox`, each stream in
its turn, and `hero.router.http2.encoder`.

Trailers are passed on in neither direction: few HTTP/1.1 services read or send any.
"""
