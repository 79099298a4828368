"""A measure: figures taken of one proxy at a time, and what is wanted of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import attrs

from bench.router.lab import Lab
from bench.router.peers.peer import Peer, Proxy


@attrs.frozen(kw_only=True)
class Figure:
    """A number that a measure yields. ``form`` is how a table shows it, as in `str.format`.

    ``ratio``: whether it is also shown as a ratio to nginx in the same round.
    """

    name: str
    title: str
    form: str = "{:.0f}"
    ratio: bool = False


@attrs.frozen(kw_only=True)
class Target:
    """What Hero should reach: at least, or at most, ``bound``, of ``figure``.

    The bound is a multiple of what the peer ``against`` reached, where there is one; else it is
    in the figure's own unit. ``of`` says which of ours.
    """

    figure: str
    bound: float
    at_least: bool = True
    against: str | None = None
    of: str = "hero"


#: Takes the figures of a proxy, loading it for about so many seconds.
Take = Callable[[Proxy, float], Mapping[str, float]]


def start_alone(peer: Peer, lab: Lab) -> Proxy:
    """One process on the proxy's core."""
    return peer.start(lab)


@attrs.frozen(kw_only=True)
class Measure:
    """``take`` is called for each proxy in each round. Proxies are started with ``start``."""

    name: str
    title: str
    figures: tuple[Figure, ...]
    take: Take
    targets: tuple[Target, ...] = ()
    start: Callable[[Peer, Lab], Proxy] = start_alone
    #: Which peers can do this.
    suits: Callable[[Peer], bool] = lambda peer: True
    #: Rounds are not repeated more often than this, whatever is asked for.
    most_rounds: int | None = None
    #: The proxy has more than its core, so what others do there cannot be told apart.
    shares_the_load_core: bool = False
