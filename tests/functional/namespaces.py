"""Network namespaces joined by a veth pair: two machines with a cable between them."""

from __future__ import annotations

import os
import subprocess


def ip(*arguments: str) -> None:
    """Run iproute2's ``ip``; raises `subprocess.CalledProcessError` with what it printed."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=20)


class Cable:
    """Two namespaces, ``left`` and ``right``, with the addresses given, and a link between."""

    def __init__(self, left_address: str, right_address: str) -> None:
        tag = f"{os.getpid() % 100000}"
        self.left = f"hero-l{tag}"
        self.right = f"hero-r{tag}"
        self.left_device = f"hl{tag}"
        self._right_device = f"hr{tag}"
        self._left_address = left_address
        self._right_address = right_address

    def lay(self) -> None:
        """Make the namespaces and bring the link up."""
        for namespace in (self.left, self.right):
            ip("netns", "add", namespace)
            ip("-n", namespace, "link", "set", "lo", "up")
        ip(
            *("link", "add", self.left_device, "netns", self.left, "type", "veth"),
            *("peer", "name", self._right_device, "netns", self.right),
        )
        ends = (
            (self.left, self.left_device, self._left_address),
            (self.right, self._right_device, self._right_address),
        )
        for namespace, device, address in ends:
            ip("-n", namespace, "address", "add", f"{address}/24", "dev", device)
            ip("-n", namespace, "link", "set", device, "up")

    def cut(self) -> None:
        """Take the link down: packets are lost, nobody is told."""
        ip("-n", self.left, "link", "set", self.left_device, "down")

    def mend(self) -> None:
        """Bring the link up again."""
        ip("-n", self.left, "link", "set", self.left_device, "up")

    def remove(self) -> None:
        """Delete both namespaces, and the link with them."""
        for namespace in (self.left, self.right):
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, timeout=20)
