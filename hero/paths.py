"""Where Hero keeps its files.

Everything lives under ``$HERO_HOME`` (default ``~/hero``); only the socket directory can be
elsewhere (``$HERO_SOCKET_DIR``). Directories are made with mode 0700.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import attrs

from hero.errors import InvalidConfiguration, SocketPathTooLong

#: ``sun_path`` of ``struct sockaddr_un`` on Linux (unix(7)), less the final NUL.
MAX_SOCKET_PATH = 107

#: The longest ``<service>/<socket>.sock`` that Hero's own processes make.
_LONGEST_OWN_SOCKET = "hero_compute/explorer_rpc.sock"


@attrs.frozen
class HeroPaths:
    """The files of one node.

    ``home`` is an absolute directory; ``sockets`` is the directory whose UNIX sockets the router
    serves.
    """

    home: Path
    sockets: Path

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> HeroPaths:
        """Read ``HERO_HOME`` and ``HERO_SOCKET_DIR`` from *environ*, with their defaults."""
        home = Path(environ.get("HERO_HOME") or "~/hero").expanduser().absolute()
        configured = environ.get("HERO_SOCKET_DIR")
        sockets = Path(configured).expanduser().absolute() if configured else home / "var/sockets"
        return cls(home=home, sockets=sockets)

    @property
    def state(self) -> Path:
        """Databases and other state that must survive a restart."""
        return self.home / "var/state"

    @property
    def vms(self) -> Path:
        """One directory for each VM, named by its sid."""
        return self.home / "var/vms"

    @property
    def images(self) -> Path:
        """Disk images and kernels that VMs start from."""
        return self.home / "var/images"

    @property
    def log(self) -> Path:
        """Logs of the node's own processes."""
        return self.home / "var/log"

    @property
    def run(self) -> Path:
        """Process ids and locks; worthless after a reboot."""
        return self.home / "var/run"

    @property
    def env_file(self) -> Path:
        """Settings in ``KEY=value`` lines, written by ``hero up`` and ``hero join``."""
        return self.home / "cfg/hero.env"

    @property
    def tls(self) -> Path:
        """Certificates and keys: ``ca.crt``, ``node.crt``, ``node.key``; ``ca.key`` on a master."""
        return self.home / "cfg/tls"

    @property
    def tokens_file(self) -> Path:
        """Hashes of the cluster's bearer tokens, which this node's router accepts."""
        return self.state / "tokens.json"

    @property
    def own_tokens_file(self) -> Path:
        """Hashes of the bearer tokens that this machine made for its own router alone."""
        return self.home / "cfg/tokens.json"

    @property
    def router_socket(self) -> Path:
        """The router's own management API."""
        return self.sockets / "hero_router/rpc.sock"

    @property
    def compute_socket(self) -> Path:
        """The compute service of this node."""
        return self.sockets / "hero_compute/rpc.sock"

    @property
    def explorer_socket(self) -> Path:
        """The explorer, where this node runs one."""
        return self.sockets / "hero_compute/explorer_rpc.sock"

    @property
    def ui_socket(self) -> Path:
        """The web console, where this node runs one."""
        return self.sockets / "hero_compute/ui.sock"

    def ensure(self) -> None:
        """Make the directories that are missing, mode 0700.

        Raises `SocketPathTooLong` when a socket of ours would not fit a socket address, and
        `InvalidConfiguration` when a directory cannot be made.
        """
        longest = os.fsencode(self.sockets / _LONGEST_OWN_SOCKET)
        if len(longest) > MAX_SOCKET_PATH:
            room = MAX_SOCKET_PATH - len(_LONGEST_OWN_SOCKET) - 1
            raise SocketPathTooLong(
                f"the socket directory {self.sockets} is {len(os.fsencode(self.sockets))} bytes "
                f"long; with {room} bytes or fewer its sockets fit an address",
                hint="set HERO_SOCKET_DIR to a shorter path, such as /run/hero",
            )
        for directory in (
            self.home,
            self.sockets,
            self.state,
            self.vms,
            self.images,
            self.log,
            self.run,
            self.env_file.parent,
            self.tls,
        ):
            _make_private(directory)


def _make_private(directory: Path) -> None:
    """Make *directory* and the parents that are missing, each with mode 0700."""
    for missing in (*reversed(directory.parents), directory):
        try:
            missing.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise InvalidConfiguration(
                f"the directory {missing} cannot be made: {error.strerror}",
                hint="set HERO_HOME, or HERO_SOCKET_DIR, to a place where this user may write",
            ) from error
