"""Debian packages, downloaded and unpacked without installing them, as any user.

The system's own lists of packages are used where they are there and current; otherwise lists are
fetched into the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hero.compute.errors import ImageUnavailable
from hero.compute.programs import ProgramMissing, ProgramResult, run_program

#: Seconds for one program. Downloads on slow lines are what takes so long.
_TIMEOUT = 900.0

#: Where a package with apt's tools is looked for, even by users whose PATH is bare.
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class PackageSource:
    """Packages of this system's distribution. *directory* is for files of ours only."""

    def __init__(self, reactor: Any, directory: Path) -> None:
        self._reactor = reactor
        self._directory = directory
        self._options = ["-o", "APT::Sandbox::User=", "-o", "Acquire::Retries=2"]
        self._own_lists = False

    async def depends(self, package: str) -> list[str] | None:
        """The names *package* depends on, alternatives among them; None if it does not exist."""
        result = await self._run("apt-cache", *self._options, "show", "--no-all-versions", package)
        if result.status != 0:
            return None
        for line in result.output.splitlines():
            if line.startswith("Depends:"):
                clauses = line.removeprefix("Depends:").replace("|", ",").split(",")
                return [clause.split()[0] for clause in clauses if clause.strip()]
        return []

    async def first_available(self, candidates: Iterable[str]) -> str | None:
        """The first of *candidates* that exists."""
        for candidate in candidates:
            if await self.depends(candidate) is not None:
                return candidate
        return None

    async def refresh(self) -> None:
        """Fetch lists of packages of our own, as the system's are absent or out of date."""
        if self._own_lists:
            return
        self._own_lists = True
        for name in ("lists/partial", "cache/archives/partial"):
            (self._directory / name).mkdir(parents=True)
        self._options += [
            "-o",
            f"Dir::State::lists={self._directory}/lists",
            "-o",
            f"Dir::Cache={self._directory}/cache",
        ]
        result = await self._run("apt-get", *self._options, "-q", "update")
        # Without a network it warns and succeeds, with no list at all.
        if result.status != 0 or not any((self._directory / "lists").glob("*_Packages*")):
            raise ImageUnavailable(
                f"apt-get could not fetch the lists of packages: {result.last_words}",
                hint="check the network and /etc/apt/sources.list, and try again",
            )

    async def unpack(self, packages: list[str]) -> Path:
        """Download *packages* and unpack them over each other; the answer is where."""
        downloads = self._directory / "packages"
        downloads.mkdir()
        result = await self._download(packages, downloads)
        if result.status != 0:
            await self.refresh()
            result = await self._download(packages, downloads)
        if result.status != 0:
            raise ImageUnavailable(
                f"apt-get could not download {', '.join(packages)}: {result.last_words}",
                hint="check the network and /etc/apt/sources.list, and try again",
            )
        root = self._directory / "root"
        for archive in sorted(downloads.glob("*.deb")):
            result = await self._run("dpkg-deb", "-x", str(archive), str(root))
            if result.status != 0:
                raise ImageUnavailable(
                    f"dpkg-deb could not unpack {archive.name}: {result.last_words}"
                )
        return root

    async def _download(self, packages: list[str], directory: Path) -> ProgramResult:
        return await self._run(
            "apt-get", *self._options, "-q", "download", *packages, directory=directory
        )

    async def _run(self, *argv: str, directory: Path | None = None) -> ProgramResult:
        environment = {"PATH": f"{os.environ.get('PATH', '')}:{_PATH}"}
        environment["HOME"] = str(self._directory)
        for name in ("http_proxy", "https_proxy", "no_proxy"):
            if name in os.environ:
                environment[name] = os.environ[name]
        try:
            return await run_program(
                self._reactor,
                argv,
                directory=directory or self._directory,
                environment=environment,
                limit=_TIMEOUT,
            )
        except ProgramMissing:
            raise ImageUnavailable(
                f"building the image needs {argv[0]}, which this system does not have",
                hint="build it on Debian or Ubuntu, with the packages apt and dpkg installed",
            ) from None
