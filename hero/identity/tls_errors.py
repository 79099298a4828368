"""TLS failures in words: why a peer was refused, or why a peer refused us."""

from __future__ import annotations

from cryptography import x509
from OpenSSL import SSL
from twisted.python.failure import Failure

from hero.errors import HeroError, Unavailable
from hero.identity.errors import PeerRefused

# X509_V_ERR_* of OpenSSL's x509_vfy.h.
_NOT_YET_VALID = 9
_EXPIRED = 10
_WRONG_PURPOSE = 26
#: A bad signature, self-signed, no issuer known.
_UNTRUSTED = {7, 18, 19, 20, 21, 27}

#: What the other side's alert (RFC 8446 section 6.2) says of our certificate.
_ALERTS = {
    "unknown ca": "our certificate is not from its cluster",
    "certificate expired": "our certificate has expired",
    "certificate revoked": "our certificate has been revoked",
    "bad certificate": "our certificate is not acceptable to it",
    "certificate unknown": "our certificate is not acceptable to it",
    "unsupported certificate": "our certificate is not acceptable to it",
    "certificate required": "it wants a certificate, and we have none",
    "decrypt error": "our key is not that of our certificate",
    "access denied": "we have no access",
}
_NOT_TLS = ("wrong version number", "http request", "packet length too long", "record layer")


def explain_verification(error: int, cluster_id: str | None, certificate: x509.Certificate) -> str:
    """Why OpenSSL's verification *error* makes *certificate* no good."""
    if error == _EXPIRED:
        return f"its certificate expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    if error == _NOT_YET_VALID:
        return (
            "its certificate is not valid before "
            f"{certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC; one of the clocks is wrong"
        )
    if error == _WRONG_PURPOSE:
        return "its certificate is not made for this use"
    if error in _UNTRUSTED:
        whose = f" (it names {cluster_id})" if cluster_id else ""
        return f"its certificate was not issued by our cluster's CA{whose}"
    return f"its certificate is not valid (OpenSSL verification error {error})"


def explain_failure(error: BaseException | Failure) -> HeroError | None:
    """What *error*, from a TLS connection or an HTTP request over one, means to a caller.

    Looks into the ``reasons`` of `twisted.web` errors. None where TLS is not the matter.
    """
    pending: list[BaseException | Failure] = [error]
    while pending:
        current = pending.pop(0)
        exception = current.value if isinstance(current, Failure) else current
        if isinstance(exception, PeerRefused):
            return exception
        if isinstance(exception, SSL.Error):
            return _explain_openssl(exception)
        pending.extend(getattr(exception, "reasons", None) or [])
    return None


def _explain_openssl(error: SSL.Error) -> HeroError:
    queue = error.args[0] if error.args and isinstance(error.args[0], list) else []
    text = "; ".join(str(entry[-1]) for entry in queue) or type(error).__name__
    if "alert" in text:
        for alert, meaning in _ALERTS.items():
            if alert in text:
                return PeerRefused(f"the other side refused us: {meaning}")
    if any(sign in text for sign in _NOT_TLS):
        return Unavailable(
            "the other side does not speak TLS there", hint="check the address and the port"
        )
    return Unavailable(f"no TLS connection: {text}")
