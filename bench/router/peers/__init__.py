"""The proxies, one module each. `bench.router.peers.peer` is what they have in common."""
