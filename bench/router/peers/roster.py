"""All the proxies by name."""

from __future__ import annotations

from bench.router.lab import Lab
from bench.router.peers.aiohttp import Aiohttp
from bench.router.peers.caddy import Caddy
from bench.router.peers.envoy import Envoy
from bench.router.peers.haproxy import HAProxy
from bench.router.peers.hero import Hero, HeroWithToken
from bench.router.peers.nginx import Nginx
from bench.router.peers.peer import Peer
from bench.router.peers.stock_twisted import StockTwisted

NAMES = ("nginx", "haproxy", "envoy", "caddy", "aiohttp", "twisted", "hero", "hero-token")


def peers_for(lab: Lab, names: list[str]) -> list[Peer]:
    """The peers called *names*, in the order of `NAMES`."""
    every: list[Peer] = [
        Nginx(),
        HAProxy(),
        Envoy(),
        Caddy(),
        Aiohttp(),
        StockTwisted(lab),
        Hero(lab),
        HeroWithToken(lab),
    ]
    return [peer for peer in every if peer.name in names]
