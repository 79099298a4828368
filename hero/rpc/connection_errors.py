"""What went wrong between us and a service, in words for people."""

from __future__ import annotations

import os
from collections.abc import Iterator

from OpenSSL import SSL
from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectionClosed,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
    UnknownHostError,
)

from hero.errors import HeroError, InternalError, Unavailable
from hero.identity.tls_errors import explain_failure


class ConnectionLost(Unavailable):
    """The connection ended before the answer. The call may have had an effect."""

    kind = "connection_lost"


def connection_error(error: Exception, url: str) -> HeroError:
    """What *error*, raised by Twisted's HTTP client while talking to *url*, means."""
    causes = list(_causes(error))
    for cause in causes:
        if isinstance(cause, HeroError):
            return cause
    for cause in causes:
        match cause:
            case DNSLookupError() | UnknownHostError():
                return Unavailable(f"{url}: the host name cannot be resolved", retry_after=5)
            case ConnectionRefusedError():
                return Unavailable(f"{url}: nobody listens there", retry_after=1)
            case TimeoutError():
                return Unavailable(f"{url}: the host does not answer", retry_after=5)
            case SSL.Error():
                return explain_failure(cause) or Unavailable(
                    f"{url}: the connection was closed during the TLS handshake"
                )
            case ConnectError():
                return Unavailable(f"{url}: {_os_reason(cause)}", retry_after=1)
    for cause in causes:
        if type(cause).__module__.startswith("service_identity"):
            return Unavailable(f"{url}: the server's certificate is for another name")
    if any(isinstance(cause, ConnectionClosed) for cause in causes):
        return ConnectionLost(f"{url}: the connection was lost before the answer", retry_after=1)
    if any(type(cause).__module__.startswith("twisted.web") for cause in causes):
        return ConnectionLost(f"{url}: the answer was cut off or is not HTTP", retry_after=1)
    return InternalError(f"{url}: {type(error).__name__}")


def was_cancelled(error: Exception) -> bool:
    """Whether *error* came of our own giving up."""
    return any(isinstance(cause, CancelledError) for cause in _causes(error))


def _causes(error: BaseException) -> Iterator[BaseException]:
    """*error*, and the ones that Twisted's HTTP client has wrapped in it."""
    yield error
    for reason in getattr(error, "reasons", ()):
        yield from _causes(reason.value)


def _os_reason(error: ConnectError) -> str:
    number = error.osError
    return os.strerror(number).lower() if isinstance(number, int) else "no connection"
