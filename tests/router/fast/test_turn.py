"""Writes that wait for the end of a turn do what those do that are sent at once."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import SynchronousTestCase

from hero.router.fast import eager
from hero.router.fast.turn import CanFlush, Turn
from tests.router.fast import test_router, test_transports
from tests.router.fast.test_lean_reactor import run


class Crowded(Turn):
    """A turn that others always share, and that ends soon after each write."""

    def __init__(self) -> None:
        super().__init__()
        self.shared = True
        self.waiting = _Waiting(self)

    def end(self) -> None:
        waiting, self.waiting = self.waiting, _Waiting(self)
        for connection in waiting:
            connection.flush()


class _Waiting(list[CanFlush]):
    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    def append(self, connection: CanFlush) -> None:
        if not self:
            reactor.callLater(0, self._turn.end)  # type: ignore[attr-defined]
        super().append(connection)


class InCrowds:
    """Every connection that is made in the test shares its turns."""

    patch: Any

    def setUp(self) -> None:
        self.patch(eager, "NO_TURN", Crowded())
        super().setUp()  # type: ignore[misc]


class TcpTests(InCrowds, test_transports.EagerTcpTests):
    """TCP."""


class UnixTests(InCrowds, test_transports.EagerUnixTests):
    """A client of a UNIX socket."""


class TlsTests(InCrowds, test_transports.EagerTlsTests):
    """TLS."""


class AnswerTests(InCrowds, test_router.EagerAnswerTests):
    """The router, on such connections."""


class UpgradeTests(InCrowds, test_router.EagerUpgradeTests):
    """The router's tunnels, on such connections."""


class Connection:
    """Notes when it is flushed."""

    def __init__(self, flushed: list[Any]) -> None:
        self._flushed = flushed

    def flush(self) -> None:
        self._flushed.append(self)


class TurnTests(SynchronousTestCase):
    def test_what_waits_is_flushed_once_in_order(self) -> None:
        turn, flushed = Turn(), list[Any]()
        first, second = Connection(flushed), Connection(flushed)
        turn.shared = True
        turn.waiting += [first, second]
        turn.end()
        turn.end()
        self.assertEqual(flushed, [first, second])
        self.assertFalse(turn.shared)


class ReactorTests(SynchronousTestCase):
    def test_writes_of_one_turn_leave_together(self) -> None:
        """Two clients ask in one turn: both are read before either is answered."""
        done = run(_TWO_IN_A_TURN)
        self.assertEqual(done.stdout, "['read', 'read', 'sent', 'sent']\n", done.stderr)


_TWO_IN_A_TURN = """
import socket
from hero.router.fast.lean_reactor import install
install()
from twisted.internet import protocol, reactor
from hero.router.fast import eager
from hero.router.fast.port import listen_on
said = []
class Echo(protocol.Protocol):
    def connectionMade(self):
        send = self.transport._send
        def sending(data):
            said.append("sent")
            return send(data)
        self.transport._send = sending
    def dataReceived(self, data):
        said.append("read")
        self.transport.write(data)
sock = socket.create_server(("127.0.0.1", 0))
listen_on(reactor, sock, protocol.Factory.forProtocol(Echo), tls=None)
clients = [socket.create_connection(sock.getsockname()) for _ in range(2)]
def ask():
    for client in clients:
        client.sendall(b"x")
    reactor.callLater(0.2, reactor.stop)
reactor.callLater(0.1, ask)
reactor.run()
assert [client.recv(9) for client in clients] == [b"x", b"x"]
print(said)
"""
