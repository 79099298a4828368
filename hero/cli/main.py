"""The ``hero`` command."""

from __future__ import annotations

import click

from hero import __version__
from hero.cli.certificate import certificate
from hero.cli.command import HeroCli
from hero.cli.doctor import doctor
from hero.cli.image import image
from hero.cli.join import join
from hero.cli.node import node
from hero.cli.operation import operation
from hero.cli.route import route
from hero.cli.router import router
from hero.cli.status import status
from hero.cli.token import token
from hero.cli.tunnel import tunnel
from hero.cli.ui import ui
from hero.cli.up import down, up
from hero.cli.vm import vm


@click.group("hero", cls=HeroCli, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="hero")
def main() -> None:
    """Virtual machines on your own computers, behind one network door each.

    Commands speak to this machine's services, or to the router that --url names.

    \b
    hero up -d                start this machine's services
    hero vm create demo       make a virtual machine and start it
    hero ui                   print a link to the web console
    hero token create         let another machine join; run hero join there

    \b
    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 not allowed,
    5 unavailable, 6 conflict, 7 timed out, 130 interrupted.
    """


for _command in (
    up, down, status, join, token, certificate, node, vm, image, operation, route, router, tunnel,
    ui, doctor,
):  # fmt: skip
    main.add_command(_command)

if __name__ == "__main__":
    main()
