"""Being started by systemd: the sockets that it passes (sd_listen_fds(3)), and telling it how we
are (sd_notify(3))."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Mapping, MutableMapping, Sequence

import attrs

from hero.errors import InvalidConfiguration

_FIRST = 3
_DOMAINS = {"INET": socket.AF_INET, "INET6": socket.AF_INET6, "UNIX": socket.AF_UNIX}
_HOW = (
    "write systemd:name=NAME (FileDescriptorName= of the socket unit) or systemd:index=0, "
    "and after it, if need be, :domain=INET, :tls=no or :tls=yes"
)


@attrs.frozen
class Inherited:
    """A socket that systemd passed, and its FileDescriptorName."""

    name: str
    sock: socket.socket


def inherited_sockets(environ: MutableMapping[str, str]) -> list[Inherited]:
    """The sockets that were passed to this process, in order. They are taken out of *environ*, so
    that no child of ours takes them for its own."""
    pid = environ.pop("LISTEN_PID", "")
    count = environ.pop("LISTEN_FDS", "")
    names = environ.pop("LISTEN_FDNAMES", "").split(":")
    if pid != str(os.getpid()) or not count.isdigit():
        return []
    passed = []
    for index in range(int(count)):
        try:
            sock = socket.socket(fileno=_FIRST + index)
        except OSError:
            continue  # a FIFO or a file
        sock.setblocking(False)
        sock.set_inheritable(False)
        name = names[index] if index < len(names) else ""
        passed.append(Inherited(name=name or "unknown", sock=sock))
    return passed


def inherited_socket(spec: str, passed: Sequence[Inherited]) -> tuple[socket.socket, bool]:
    """The socket of *passed* that *spec* names, and whether TLS is spoken on it.

    ``systemd:name=https``, ``systemd:index=0`` or both (the index then counts those of that name);
    ``domain`` must be that of the socket; ``tls`` is ``yes``, unless said otherwise, for a
    TCP socket, and always ``no`` for a UNIX socket.
    Raises `InvalidConfiguration`.
    """
    options = _options(spec)
    if not passed:
        raise InvalidConfiguration(
            f"{spec!r} names no socket, as systemd passed none",
            hint="start the socket unit, systemctl start hero-router.socket, not only the service",
        )
    have = ", ".join(f"{index} ({one.name})" for index, one in enumerate(passed))
    candidates = [one for one in passed if options.get("name") in (None, one.name)]
    index = int(options.get("index", "0"))
    if "index" not in options and "name" in options and len(candidates) > 1:
        raise InvalidConfiguration(
            f"systemd passed {len(candidates)} sockets named {options['name']}",
            hint=f"add :index=0 to :index={len(candidates) - 1}",
        )
    if index >= len(candidates):
        raise InvalidConfiguration(f"{spec!r} names no socket that systemd passed: {have}")
    sock = candidates[index].sock
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(
        socket.SOL_SOCKET, socket.SO_ACCEPTCONN
    ):
        raise InvalidConfiguration(
            f"{spec!r} names a socket that accepts no connections",
            hint="the socket unit needs ListenStream= and Accept=no",
        )
    domain = options.get("domain")
    if domain is not None and _DOMAINS[domain] != sock.family:
        raise InvalidConfiguration(f"{spec!r} names a socket of another domain than {domain}")
    tls = options.get("tls")
    if tls == "yes" and sock.family == socket.AF_UNIX:
        raise InvalidConfiguration(f"{spec!r}: TLS is spoken on TCP sockets only")
    return sock, tls == "yes" if tls is not None else sock.family != socket.AF_UNIX


def _options(spec: str) -> dict[str, str]:
    options: dict[str, str] = {}
    values = {"name": ".+", "index": r"\d{1,4}", "domain": "|".join(_DOMAINS), "tls": "yes|no"}
    for part in spec.removeprefix("systemd:").split(":"):
        key, _, value = part.partition("=")
        if key not in values or not re.fullmatch(values[key], value) or key in options:
            raise InvalidConfiguration(f"{part!r} in {spec!r} is not understood", hint=_HOW)
        options[key] = value
    return options


def notify(environ: Mapping[str, str], **state: object) -> None:
    """Tell systemd, if it asked for that: ``READY=1``, ``MAINPID=123``."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    message = "\n".join(f"{name}={value}" for name, value in state.items())
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            sock.sendto(message.encode(), "\0" + address[1:] if address[0] == "@" else address)
        except OSError:
            return  # nobody to tell
