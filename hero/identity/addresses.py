"""Host names and IP addresses, as they stand in certificates."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import urlsplit

from cryptography import x509

from hero.errors import InvalidConfiguration

#: A label of a host name, RFC 1123 section 2.1; the underscore is for container names.
_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")

_WITH_PORT = re.compile(r"(?P<host>\[[^\]]*\]|[^:\[\]]+):\d{1,5}\Z")

LOOPBACK = ("localhost", "127.0.0.1", "::1")


def normalize_address(text: str) -> str:
    """*text*, a host name or an IP address, in the one form in which it can be compared.

    Raises `InvalidConfiguration` for anything else, wildcards included.
    """
    bare = text.strip()
    if bare.startswith("[") and bare.endswith("]"):
        bare = bare[1:-1]
    try:
        return str(ipaddress.ip_address(bare))
    except ValueError:
        pass
    try:
        name = bare.rstrip(".").encode("idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    labels = name.split(".")
    if not all(_LABEL.match(label) for label in labels) or labels[-1].isdigit():
        raise InvalidConfiguration(
            f"{text!r} is neither a host name nor an IP address",
            hint="give the address by which other machines reach this one, without port",
        )
    return name


def normalize_addresses(texts: Iterable[str]) -> list[str]:
    """`normalize_address` of each, once each, in order."""
    return list(dict.fromkeys(normalize_address(text) for text in texts))


def host_of_url(url: str) -> str:
    """The host in *url*, such as ``https://10.0.0.5:9998``, normalized."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host:
        raise InvalidConfiguration(f"{url!r} has no host in it", hint="like https://host:port")
    return normalize_address(host)


def host_of(text: str) -> str:
    """The host in *text*: a URL, ``host:port``, ``[IPv6]:port`` or a host alone; normalized."""
    if "://" in text:
        return host_of_url(text)
    with_port = _WITH_PORT.match(text.strip())
    return normalize_address(with_port["host"] if with_port else text)


def general_name(address: str) -> x509.GeneralName:
    """The entry of a subject alternative name for a normalized *address*."""
    try:
        return x509.IPAddress(ipaddress.ip_address(address))
    except ValueError:
        return x509.DNSName(address)
