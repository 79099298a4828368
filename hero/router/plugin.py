"""What ``twistd hero-router`` loads: the reactor first, then what needs one.

Libraries that the router uses install Twisted's default reactor when they are imported.
"""

from hero.router.fast.lean_reactor import install_unless_chosen

install_unless_chosen()

from hero.router.tap import Options, makeService  # noqa: E402

__all__ = ["Options", "makeService"]
