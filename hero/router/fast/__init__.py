"""Transports and a reactor that do the same as Twisted's with fewer system calls.

Each part stands behind Twisted's plain interfaces, and its plain twin can take its place in a line:

===============  ============================================  =====================================
part             what it saves                                 plain twin
===============  ============================================  =====================================
`eager`          a trip through the reactor for each write     `twisted.internet.tcp.Server`
`tls`            the memory BIOs between TLS and the socket    `hero.router.tls_listener.over_tls`
`port`           nothing: it accepts for the two above         ``AdoptedStreamServerEndpoint``
`connector`      two turns of the reactor for each connection  ``UNIXClientEndpoint``
`lean_reactor`   a log context around each event               ``EPollReactor``
`turn`           waking the other side for each message        `hero.router.fast.turn.NO_TURN`
===============  ============================================  =====================================

A protocol cannot tell a part from its twin, except that bytes leave earlier.
"""
