"""Speaking to a router elsewhere: the token, and the CA that its certificate is checked against.

The CA comes from ``--ca``; or by ``--ca-sha256``, which is checked against what the router
presents and then remembered under ``cfg/remotes``; or from there; or is this node's own.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hero.cli.session import Session
from hero.cli.target import base_url, read_token
from hero.errors import InvalidConfiguration

DEFAULT_PORT = 443


async def remote_options(session: Session, reactor: Any) -> tuple[str, dict[str, Any]]:
    """The base URL of the router that *session* names, and the options of `RpcClient` for it."""
    base = base_url(session.url or "")
    parts = urlsplit(base)
    options: dict[str, Any] = {"token": read_token(session)}
    if parts.scheme == "https":
        from hero.identity.tls import bearer_client_policy

        pem = await ca_for(session, reactor, parts.hostname or "", parts.port or DEFAULT_PORT)
        options["tls"] = bearer_client_policy(ca_pem=pem)
    return base, options


async def ca_for(session: Session, reactor: Any, host: str, port: int) -> str:
    """The CA certificate (PEM) to know the router at *host*:*port* by."""
    remembered = remembered_ca(session, host, port)
    if session.ca:
        return Path(session.ca).read_text()  # noqa: ASYNC240
    if session.ca_sha256:
        from hero.identity.files import write_atomically
        from hero.identity.pinning import fetch_ca

        pem = await fetch_ca(reactor, host, port, normalized_sha256(session.ca_sha256))
        remembered.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(remembered, pem.encode(), 0o644)
        return pem
    for known in (remembered, session.paths.tls / "ca.crt"):
        if known.exists():
            return known.read_text()
    raise InvalidConfiguration(
        f"the CA of the cluster at {host}:{port} is not known here",
        hint="give --ca-sha256 once (hero token admin prints it on a master), or --ca FILE",
    )


def remembered_ca(session: Session, host: str, port: int) -> Path:
    """Where the CA certificate of the cluster behind *host*:*port* is kept."""
    name = re.sub(r"[^A-Za-z0-9.-]", "_", host)
    return session.paths.env_file.parent / "remotes" / f"{name}_{port}.crt"


def normalized_sha256(text: str) -> str:
    """*text* without colons and in lower case. Raises `InvalidConfiguration`."""
    plain = text.replace(":", "").strip().lower()
    if not re.fullmatch(r"[0-9a-f]{64}", plain):
        raise InvalidConfiguration(
            "--ca-sha256 is not a SHA-256", hint="it has 64 hexadecimal digits"
        )
    return plain
