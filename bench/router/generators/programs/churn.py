"""``churn.py DIRECTORY COUNT RATE``: services that come and go.

Keeps COUNT services in the socket directory DIRECTORY, each a socket in a directory of its own.
Prints READY; from a line of input on RATE times a second a new one comes and the oldest goes; at
the next line it prints RESULT, and at the end of its input it leaves.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

_BODY = b'{"name":"churn","version":"1","protocol":"http","access":"public"}'
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (
    len(_BODY),
    _BODY,
)


class Service(asyncio.Protocol):
    """Gives every request, which has no body, the same answer: the manifest."""

    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        *heads, self._received = (self._received + data).split(b"\r\n\r\n")
        self._transport.write(_ANSWER * len(heads))


class Services:
    """The services that there are, oldest first."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._present: deque[tuple[str, asyncio.AbstractServer]] = deque()
        self.came = 0
        self.went = 0

    @property
    def newest(self) -> str:
        """The name of the one that came last."""
        return self._present[-1][0]

    async def come(self) -> None:
        """A new one."""
        self.came += 1
        name = f"churn-{self.came:06}"
        (self._directory / name).mkdir()
        path = self._directory / name / "web.sock"
        server = await asyncio.get_running_loop().create_unix_server(Service, path)
        self._present.append((name, server))

    def go(self) -> None:
        """The oldest goes."""
        self.went += 1
        name, server = self._present.popleft()
        server.close()
        (self._directory / name / "web.sock").unlink(missing_ok=True)
        (self._directory / name).rmdir()

    def all_go(self) -> None:
        """None is left."""
        while self._present:
            self.go()


async def main(directory: str, count: int, rate: float) -> None:
    """Do what the module's docstring says."""
    services = Services(Path(directory))
    loop = asyncio.get_running_loop()
    for _ in range(count):
        await services.come()
    print("READY", flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    before, start = services.came, loop.time()
    stopping = loop.run_in_executor(None, sys.stdin.readline)
    while not stopping.done():
        await services.come()
        services.go()
        pause = start + (services.came - before) / rate - loop.time()
        await asyncio.sleep(max(0.0, pause))
    found = {"changes": services.came - before, "seconds": loop.time() - start}
    print("RESULT", json.dumps({**found, "newest": services.newest}), flush=True)
    await loop.run_in_executor(None, sys.stdin.readline)
    services.all_go()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
