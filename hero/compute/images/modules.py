"""Kernel modules: which others each needs, and their plain bytes."""

from __future__ import annotations

import lzma
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

import attrs

_SUFFIXES = (".ko", ".ko.xz", ".ko.zst")
_DEPENDS = re.compile(rb"\0depends=([^\0]*)\0")


@attrs.frozen
class Module:
    """A module's file name, which ends in ``.ko``, and what ``insmod`` loads."""

    filename: str
    data: bytes


def load_modules(root: Path, wanted: Iterable[str]) -> list[Module]:
    """The modules *wanted* below *root*, each after those it needs.

    One that is absent is left out, as it may be part of the kernel proper.
    """
    files = {
        _name(path): path
        for path in root.rglob("*.ko*")
        if path.is_file() and path.name.endswith(_SUFFIXES)
    }
    loaded: dict[str, Module] = {}

    def load(name: str) -> None:
        if name in loaded or name not in files:
            return
        data = _plain(files[name])
        found = _DEPENDS.search(data)
        for needed in found[1].decode().split(",") if found and found[1] else ():
            load(needed.replace("-", "_"))
        loaded[name] = Module(f"{name}.ko", data)

    for name in wanted:
        load(name)
    return list(loaded.values())


def _name(path: Path) -> str:
    return path.name.split(".ko")[0].replace("-", "_")


def _plain(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name.endswith(".xz"):
        return lzma.decompress(data)
    if path.name.endswith(".zst"):
        return subprocess.run(
            ["zstd", "-dcq"], input=data, capture_output=True, check=True, timeout=60
        ).stdout
    return data
