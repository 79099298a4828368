"""``hero ui``: a way into the web console."""

from __future__ import annotations

import click

from hero.cli.command import HeroCommand, pass_session
from hero.cli.output import duration, print_json
from hero.cli.session import Session


@click.command(cls=HeroCommand)
@click.option("--open/--no-open", "open_browser", default=False, help="Open it in a browser, too.")
@pass_session
def ui(session: Session, open_browser: bool) -> None:
    """Print a link that logs a browser in to the web console, once.

    The code in it is in the fragment, which browsers do not send: it appears in no log.
    """
    from hero.cli.startup import DEFAULT_UI_PORT

    code = session.with_services(lambda services: services.explorer.create_login_code())
    if session.url:
        from hero.cli.target import base_url

        base = f"{base_url(session.url)}/hero_compute/ui"
    else:
        base = f"http://127.0.0.1:{session.settings.get('HERO_PORT') or DEFAULT_UI_PORT}"
    link = f"{base}/#login={code.code}"
    if session.json:
        print_json({"url": link, "expires_in": code.expires_in})
        return
    click.echo(link)
    click.echo(f"It works once, within {duration(code.expires_in)}.", err=True)
    if open_browser:
        click.launch(link)
