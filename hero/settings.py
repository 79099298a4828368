"""Settings, from the command line, the environment, or ``cfg/hero.env``, in this order.

The environment name of ``--some-option`` is ``HERO_SOME_OPTION``; settings that are shared with the
user's other tools have the names listed in `SHARED_NAMES`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dotenv import dotenv_values, set_key
from twisted.python import usage

from hero.paths import HeroPaths

#: Options whose environment name is another.
SHARED_NAMES = {
    "explorer-addresses": "EXPLORER_ADDRESSES",
    "advertise-address": "HERO_COMPUTE_ADVERTISE_ADDRESS",
}


def environment_name(option: str) -> str:
    """The environment variable that sets ``--option``."""
    return SHARED_NAMES.get(option, "HERO_" + option.upper().replace("-", "_"))


def effective_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """*environ* laid over the node's ``hero.env``, which it names by ``HERO_HOME``.

    An absent file counts as empty.
    """
    return {**stored_settings(environ), **environ}


def stored_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What the node's ``hero.env`` says, by ``HERO_HOME`` in *environ*."""
    env_file = HeroPaths.from_environment(environ).env_file
    return {k: v for k, v in dotenv_values(env_file).items() if v} if env_file.exists() else {}


def write_env_file(path: Path, settings: Mapping[str, str]) -> None:
    """Set *settings* in the file *path* (mode 0600), leaving its other lines as they are."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    for name, value in settings.items():
        set_key(path, name, value, quote_mode="auto")


class EnvironmentOptions(usage.Options):
    """`usage.Options` whose parameters default to the environment and the node's ``hero.env``.

    Subclasses list ``optParameters`` as usual. `paths` is set after parsing.
    """

    paths: HeroPaths

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        self.environment = effective_environment(os.environ if environ is None else environ)
        super().__init__()  # type: ignore[no-untyped-call]
        for option in list(self.defaults):
            value = self.environment.get(environment_name(option))
            if value is not None:
                coerce = self._dispatch_coerce(option)
                try:
                    self.defaults[option] = self.opts[option] = coerce(value)
                except ValueError as error:
                    raise usage.UsageError(f"{environment_name(option)}: {error}") from None

    def _dispatch_coerce(self, option: str) -> Any:
        for parameter in self.optParameters:  # type: ignore[attr-defined]
            if parameter[0] == option and len(parameter) > 4 and parameter[4]:
                return parameter[4]
        return str

    def postOptions(self) -> None:
        """Work out where this node's files are."""
        self.paths = HeroPaths.from_environment(self.environment)
