"""The options of ``twistd hero-router``, from the command line, the environment or ``hero.env``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
from twisted.python import usage

from hero.identity.addresses import host_of_url
from hero.identity.public_certificate import PublicFiles
from hero.paths import HeroPaths
from hero.router.limits import Limits
from hero.settings import EnvironmentOptions, stored_settings

MODES = ("local", "master", "worker")
#: What a change of takes another process, and is not noticed by one that runs.
FIXED = ("mode", "sockets", "access-log", "workers")


def _access(value: str) -> str:
    if value not in ("cluster", "public"):
        raise usage.UsageError("--access is cluster or public")
    return value


def _mode(value: str) -> str:
    if value not in MODES:
        raise usage.UsageError(f"--mode is one of {', '.join(MODES)}")
    return value


def _workers(value: str) -> int:
    if value == "auto":
        return len(os.sched_getaffinity(0))
    if not re.fullmatch(r"[1-9]\d{0,2}", value):
        raise usage.UsageError("--workers is a number of processes, or auto: one for each core")
    return int(value)


def read_limits(text: str) -> Limits:
    """The default limits with the changes in *text*: ``connections=2000 idle_time=30``.

    ``none`` stands for no bound where a limit can be without. Raises `usage.UsageError`.
    """
    changes: dict[str, Any] = {}
    fields = attrs.fields_dict(Limits)
    for item in re.split(r"[\s,]+", text.strip()) if text.strip() else []:
        name, _, value = item.partition("=")
        if name not in fields:
            raise usage.UsageError(f"--limits: there is no limit {name!r}")
        optional = "None" in str(fields[name].type)
        try:
            if optional and value == "none":
                changes[name] = None
            elif "float" in str(fields[name].type):
                changes[name] = float(value)
            else:
                changes[name] = int(value)
        except ValueError:
            raise usage.UsageError(f"--limits: {value!r} is no value for {name}") from None
        if changes[name] is not None and not 0 < changes[name] < 2**53:
            raise usage.UsageError(f"--limits: {name} has to be more than 0")
    return Limits(**changes)


class Options(EnvironmentOptions):
    """Options of ``twistd hero-router``. ``arguments`` are the ones of the command line."""

    synopsis = "[options]"
    longdesc = "The one network door of a node: a TLS reverse proxy for the sockets of its services"

    optParameters = [  # noqa: RUF012
        ["sockets", None, None, "Directory whose sockets are served [HERO_SOCKET_DIR]"],
        ["mode", None, "local", "local, master or worker", _mode],
        ["access", None, "cluster", "Who may call what does not say: cluster, public", _access],
        ["advertise-address", None, "", "URLs or hosts by which others reach this node, by commas"],
        ["certificate", None, None, "Certificate (PEM) for names of one's own; reread on change"],
        ["key", None, None, "Its key (PEM) [in the same file]"],
        ["access-log", None, None, "A file, stdout, or - for none [var/log/router-access.log]"],
        ["workers", None, 1, "Processes that share the work; auto: one for each core", _workers],
        ["limits", None, None, "Other bounds than usual: connections=2000 …", read_limits],
    ]

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        given = dict(os.environ if environ is None else environ)
        # What systemd and hero up read from the file, and hand down, is from the file all the same.
        stored = stored_settings(given)
        self._own = {name: value for name, value in given.items() if stored.get(name) != value}
        if "HERO_HOME" in given:
            self._own["HERO_HOME"] = given["HERO_HOME"]
        super().__init__(given)
        self.listen: list[str] = []
        self.arguments: list[str] = []

    def parseOptions(self, options: Sequence[str] | None = None) -> None:
        """See `usage.Options`."""
        self.arguments = list(options or ())
        super().parseOptions(options)  # type: ignore[no-untyped-call]

    def opt_listen(self, spec: str) -> None:
        """Listen on this: ssl:443, tcp:9998, unix:/PATH, systemd:name=NAME. May be repeated."""
        self.listen.append(spec)

    def postOptions(self) -> None:
        """Fill in what depends on other options."""
        super().postOptions()
        self["limits"] = self["limits"] or Limits()
        if self["sockets"]:
            sockets = Path(self["sockets"]).expanduser().absolute()
            self.paths = HeroPaths(home=self.paths.home, sockets=sockets)
        if not self.listen:
            self.listen = self.environment.get("HERO_LISTEN", "").split()
        if not self.listen:
            local = self["mode"] == "local"
            self.listen = ["ssl:443:interface=127.0.0.1" if local else "ssl:443"]

    @property
    def addresses(self) -> list[str]:
        """The node's addresses, for its certificate."""
        parts = [part for text in self["advertise-address"].split(",") if (part := text.strip())]
        return [host_of_url(part) if "://" in part else part for part in parts]

    @property
    def public_files(self) -> PublicFiles | None:
        """A certificate of one's own and its key, to serve beside the node's."""
        if not self["certificate"]:
            return None
        files = [self["certificate"], self["key"] or self["certificate"]]
        certificate, key = (Path(file).expanduser().absolute() for file in files)
        return PublicFiles(certificate=certificate, key=key)

    def read_again(self) -> Options:
        """The options with the same command line and what ``hero.env`` says now.

        Raises `usage.UsageError`.
        """
        options = Options(self._own)
        options.parseOptions(self.arguments)
        return options
