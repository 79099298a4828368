"""Encoding the fields of answers (RFC 7541) without a memory of what was sent before.

The library's encoder looks through its dynamic table for each field, which takes longer than all
else that is done for a small answer, and keeps as large a table as the client wishes. This one
uses the static table and literals only, and remembers the octets of fields that it encoded, for
all connections together. That costs some bytes on the wire. The plain twin is `hpack.Encoder`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from hpack import Encoder
from hpack.hpack import encode_integer
from hpack.table import HeaderTable

#: RFC 7541 section 6.3: the dynamic table has room for nothing.
_NO_TABLE = b"\x20"
_ENTRIES, _LONGEST = 2048, 512

_static: HeaderTable = HeaderTable()


class StatelessEncoder(Encoder):
    """Gives to `h2` what `hpack.Encoder` does, as far as `h2` asks for it."""

    def __init__(self) -> None:
        super().__init__()
        self._announced = False

    @property
    def header_table_size(self) -> int:
        """What is used of the table that the client allows."""
        return 0

    @header_table_size.setter
    def header_table_size(self, value: int) -> None:
        # RFC 7541 section 4.2: a change is acknowledged in the next header block.
        self._announced = False

    def encode(self, headers: Iterable[Any], huffman: bool = True) -> bytes:
        """The header block of *headers*, pairs of names in lower case and values."""
        octets = [
            _field(name, value) if len(value) <= _LONGEST else _encode(name, value)
            for name, value in headers
        ]
        if not self._announced:
            self._announced = True
            octets.insert(0, _NO_TABLE)
        return b"".join(octets)


def _encode(name: bytes, value: bytes) -> bytes:
    found = _static.search(name, value)
    if found is None:
        # RFC 7541 section 6.2.2, with a new name
        return b"\x00" + _string(name) + _string(value)
    index, _, whole = found
    if whole is not None:
        indexed = encode_integer(index, 7)
        indexed[0] |= 0x80
        return bytes(indexed)
    return bytes(encode_integer(index, 4)) + _string(value)


_field = lru_cache(_ENTRIES)(_encode)


def _string(text: bytes) -> bytes:
    """RFC 7541 section 5.2; as it is, for Huffman coding takes longer than it saves."""
    return bytes(encode_integer(len(text), 7)) + text
