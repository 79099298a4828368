"""Hero's router against named reverse proxies: one core each, the same backend, the same load.

- `bench.router.lab`: where a run lives: certificates, sockets, the backend that all proxies share.
- `bench.router.peers`: one module for each proxy, which knows how to configure and start it.
- `bench.router.generators`: what makes load; the C and Lua sources lie beside them.
- `bench.router.measures`: what is measured, one module for each kind of load, and what is wanted.
- `bench.router.rounds`: interleaving, and how rounds become one figure.
- `bench.router.report`: tables and JSON.
- `bench.router.processes`, `bench.router.machine`: pinning, processor time, memory, other load.

The proxy has core 0 to itself; what loads it, and the backend, have core 1. The main figure is work
done per second of processor time that the proxy's processes used, as a ratio to nginx in the same
round: it holds where the generator is the bottleneck, and where the machine is not ours alone.
"""
