"""How much of what costs the client nothing, and the router something, a client may send."""

from __future__ import annotations


class Budget:
    """*burst* tokens, of which *rate* come back each second, up to *burst* again."""

    def __init__(self, burst: float, rate: float, now: float) -> None:
        self._burst = burst
        self._rate = rate
        self._level = burst
        self._at = now

    def spend(self, now: float) -> bool:
        """Take a token; whether there was one."""
        if self._level < self._burst:
            self._level = min(self._burst, self._level + (now - self._at) * self._rate)
        self._at = now
        if self._level < 1:
            return False
        self._level -= 1
        return True

    def earn(self, tokens: float, most: float) -> None:
        """Add *tokens* for work that makes the client send more, up to *most* in all."""
        self._level = min(max(most, self._level), self._level + tokens)
