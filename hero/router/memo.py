"""Remembering what pure functions of heads gave, because heads repeat.

A client sends the same head again and again, and a service answers with the same one within a
second; reading one takes longer than everything else that is done with it. What is kept is
bounded in number and in size. `memoised(read)` can be replaced by ``read`` everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

T = TypeVar("T")

#: Heads that are kept. With the longest of them, and what they were read into, about 8 MiB.
_ENTRIES = 1024
_LONGEST = 2048


def memoised(
    read: Callable[[bytes], T], *, entries: int = _ENTRIES, longest: int = _LONGEST
) -> Callable[[bytes], T]:
    """*read*, which depends on nothing but its argument, with a memory of *entries* results.

    Arguments of more than *longest* bytes are not kept, nor are exceptions.
    """
    remembered = lru_cache(entries)(read)

    def recall(block: bytes) -> T:
        return remembered(block) if len(block) <= longest else read(block)

    return recall
