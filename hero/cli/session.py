"""What one run of ``hero`` knows: the common options, and how to run work and reach services."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import attrs

from hero.cli.run import Work, run_in_new_reactor
from hero.paths import HeroPaths

if TYPE_CHECKING:
    from hero.cli.target import Services

T = TypeVar("T")

DEFAULT_INTERRUPTED = "interrupted"


@attrs.define(kw_only=True)
class Session:
    """The common options, as given anywhere on the command line or in the environment.

    ``run`` runs work under a reactor; tests pass another.
    """

    environ: Mapping[str, str]
    json: bool = False
    url: str | None = None
    token: str | None = attrs.field(default=None, repr=False)
    token_file: str | None = None
    ca: str | None = None
    ca_sha256: str | None = None
    context: str = "root"
    run: Callable[[Work[Any]], Any] = run_in_new_reactor
    interrupted_message: str = DEFAULT_INTERRUPTED

    @classmethod
    def from_environment(
        cls, environ: Mapping[str, str], run: Callable[[Work[Any]], Any] = run_in_new_reactor
    ) -> Session:
        """A session with what *environ* sets."""
        return cls(
            environ=dict(environ),
            url=environ.get("HERO_URL") or None,
            token=environ.get("HERO_TOKEN") or None,
            ca=environ.get("HERO_CA") or None,
            ca_sha256=environ.get("HERO_CA_SHA256") or None,
            context=environ.get("HERO_CONTEXT") or "root",
            run=run,
        )

    @functools.cached_property
    def settings(self) -> dict[str, str]:
        """The environment laid over the node's ``hero.env``."""
        from hero.settings import effective_environment

        return effective_environment(self.environ)

    @property
    def paths(self) -> HeroPaths:
        """Where this node's files are."""
        return HeroPaths.from_environment(self.settings)

    def with_services(self, work: Callable[[Services], Awaitable[T]]) -> T:
        """Run *work* with the services that this command speaks to."""
        from hero.cli.target import open_services

        async def with_reactor(reactor: Any) -> T:
            async with open_services(self, reactor) as services:
                return await work(services)

        return self.run(with_reactor)  # type: ignore[no-any-return]
