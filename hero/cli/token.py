"""``hero token``: who may join, and who may use the cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hero.cli.command import HeroGroup, pass_session
from hero.cli.options import Duration
from hero.cli.output import ago, moment, print_json, print_table, show
from hero.cli.session import Session

if TYPE_CHECKING:
    from hero.explorer.model import ApiToken, ApiTokenPage
    from hero.identity.own_tokens import OwnTokens


@click.group(cls=HeroGroup)
def token() -> None:
    """Make and revoke tokens: for machines to join, for people and scripts to use the API."""


_local_option = click.option(
    "--local",
    is_flag=True,
    help="Tokens that only this machine's router knows; for that, nothing has to run.",
)


@token.command()
@click.option(
    "--lifetime", type=Duration(), default="1h", show_default=True, help="How long it can be used."
)
@pass_session
def create(session: Session, lifetime: float) -> None:
    """Make a join token: a string with which one machine can join the cluster, once.

    Only the string is printed on stdout. Give it to hero join on the new machine.
    """
    made = session.with_services(lambda s: s.explorer.create_join_token(lifetime=lifetime))
    if session.json:
        print_json(made)
        return
    click.echo(made.token)
    click.echo(
        f"On the new machine: hero join TOKEN  (works once, until {moment(made.expires_at)})",
        err=True,
    )


@token.command()
@click.option("--user", default="admin", show_default=True, help="Who it stands for.")
@click.option(
    "--role",
    type=click.Choice(["admin", "operator", "viewer"]),
    default="admin",
    show_default=True,
    help="What it allows: operators and viewers are so in one --context.",
)
@click.option("--lifetime", type=Duration(), help="How long it is good for.  [default: for ever]")
@_local_option
@pass_session
def admin(session: Session, user: str, role: str, lifetime: float | None, local: bool) -> None:
    """Make a bearer token for the API. Only the token is printed on stdout, this once."""
    context = session.context
    if local:
        own = _own_tokens(session)
        made = own.create(user=user, role=role, context=context, lifetime=lifetime)
    else:
        limits = {} if lifetime is None else {"lifetime": lifetime}
        made = session.with_services(
            lambda s: s.explorer.create_token(user=user, role=role, context=context, **limits)
        )
    if session.json:
        print_json(made)
        return
    click.echo(made.token)
    click.echo(_how_to_use_here(session) if local else _how_to_use(session), err=True)


def _own_tokens(session: Session) -> OwnTokens:
    from hero.identity.own_tokens import OwnTokens

    return OwnTokens(session.paths.own_tokens_file)


def _how_to_use_here(session: Session) -> str:
    from hero.cli.instance import router_urls

    url = next(iter(router_urls(session.paths)), "https://HOST")
    return (
        "It is not kept, and cannot be shown again. This machine's router accepts it at once:\n"
        f'  curl -H "Authorization: Bearer ..." {url}/SERVICE/SOCKET/'
    )


def _how_to_use(session: Session) -> str:
    from hero.cli.instance import router_urls
    from hero.cli.startup import ADVERTISE
    from hero.cli.status import ca_fingerprint

    urls = router_urls(session.paths)
    url = session.url or session.settings.get(ADVERTISE) or (urls[0] if urls else "https://HOST")
    fingerprint = ca_fingerprint(session.paths.tls / "ca.crt") or "SHA256"
    return (
        "It is not kept, and cannot be shown again. To use it elsewhere:\n"
        f"  export HERO_URL={url} HERO_TOKEN=...\n"
        f"  hero --ca-sha256 {fingerprint} status    (the hash is needed once)"
    )


@token.command("list")
@_local_option
@pass_session
def list_tokens(session: Session, local: bool) -> None:
    """List bearer tokens, without their secrets."""
    if local:
        page = _own_page(session)
    else:
        page = session.with_services(lambda services: services.explorer.list_tokens())
    if session.json:
        print_json(page)
        return
    print_table(
        ["sid", "user", "claims", "context", "age", "expires"],
        ([t.sid, t.user, t.claims, t.context, ago(t.created_at), _until(t)] for t in page.items),
        empty="No tokens: hero token admin makes one.",
    )


def _own_page(session: Session) -> ApiTokenPage:
    from hero.explorer.model import ApiTokenPage

    return ApiTokenPage(items=_own_tokens(session).records())


@token.command()
@click.argument("sid")
@_local_option
@pass_session
def revoke(session: Session, sid: str, local: bool) -> None:
    """Refuse a bearer token from now on."""
    if local:
        gone = _own_tokens(session).revoke(sid)
    else:
        gone = session.with_services(lambda services: services.explorer.revoke_token(sid=sid))
    show(
        session,
        gone,
        [("revoked", gone.sid), ("user", gone.user), ("claims", gone.claims)],
    )


def _until(found: ApiToken) -> str:
    return moment(found.expires_at) or "never"
