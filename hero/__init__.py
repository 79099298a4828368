"""Hero turns a handful of Linux machines into one private cloud that a person can understand.

The packages are the architecture:

- `hero.router`: the one network door of a node; proxies to the UNIX sockets it discovers.
- `hero.compute`: the virtual machines of this node; sends the heartbeats.
- `hero.explorer`: the cluster; nodes, joining, placement, every VM by one API.
- `hero.ui`: the web console.
- `hero.cli`: the `hero` command and the supervisor behind `hero up`.
- `hero.identity`: certificates, tokens, and who may do what.
- `hero.rpc`: JSON-RPC 2.0 server and client, declared methods, operations.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("hero")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
