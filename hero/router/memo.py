"""Remembering what pure functions of heads gave, because heads repeat.

A client sends the same head again and again, and a service answers with the same one within a
second; reading one takes longer than everything else that is done with it. Only what comes a second
time is kept, so that heads of which no two are alike cost no memory. `memoised(read)` can be
replaced by ``read`` everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

#: Heads that are kept. With the longest of them, and what they were read into, about 8 MiB.
_ENTRIES = 1024
_LONGEST = 2048


def memoised(
    read: Callable[[bytes], T], *, entries: int = _ENTRIES, longest: int = _LONGEST
) -> Callable[[bytes], T]:
    """*read*, which depends on nothing but its argument, with a memory of *entries* results.

    Arguments of more than *longest* bytes are not kept, nor are exceptions. When the memory is
    full, all of it is forgotten.
    """
    kept: dict[bytes, T] = {}
    seen: set[int] = set()

    def recall(block: bytes) -> T:
        result = kept.get(block)
        if result is None:
            result = read(block)
            mark = hash(block)
            if mark not in seen:
                if len(seen) >= entries:
                    seen.clear()
                seen.add(mark)
            elif len(block) <= longest:
                if len(kept) >= entries:
                    kept.clear()
                kept[block] = result
        return result

    return recall
