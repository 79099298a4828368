"""``hero certificate``: a certificate by which a person is known to the router."""

from __future__ import annotations

import os
import secrets
from datetime import timedelta
from pathlib import Path

import click

from hero.cli.command import HeroCommand, pass_session
from hero.cli.options import Duration
from hero.cli.output import moment, show
from hero.cli.session import Session
from hero.errors import NameTaken


@click.command(cls=HeroCommand, local=True)
@click.argument("user")
@click.option(
    "--role",
    type=click.Choice(["admin", "operator", "viewer"]),
    default="viewer",
    show_default=True,
    help="What it allows: operators and viewers are so in the context that HERO_CONTEXT names.",
)
@click.option(
    "--lifetime",
    type=Duration(),
    default="30d",
    show_default=True,
    help="How long it is good for. It cannot be revoked, so not for ever.",
)
@click.option(
    "--to",
    "directory",
    type=click.Path(file_okay=False, exists=True, path_type=Path),
    default=Path(),
    help="Directory for the files.  [default: the current one]",
)
@pass_session
def certificate(session: Session, user: str, role: str, lifetime: float, directory: Path) -> None:
    """Make a certificate for a person, where this machine has the authority for that.

    USER.pem holds the key and the certificate, for scripts; USER.p12 the same for a browser, under
    a password that is shown this once.
    """
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, pkcs12

    from hero.identity.authority import Authority
    from hero.identity.certificates import key_to_pem, new_key, to_pem
    from hero.identity.claims import Claim

    authority = Authority.load(session.paths.tls)
    key = new_key()
    made = authority.issue_to_user(
        key.public_key(),
        user=user,
        claim=Claim(role, None if role == "admin" else session.context),
        lifetime=timedelta(seconds=lifetime),
    )
    password = secrets.token_urlsafe(12)
    for_scripts, for_browsers = directory / f"{user}.pem", directory / f"{user}.p12"
    _write(for_scripts, key_to_pem(key) + to_pem(made, authority.certificate).encode())
    encryption = BestAvailableEncryption(password.encode())
    _write(
        for_browsers,
        pkcs12.serialize_key_and_certificates(
            user.encode(), key, made, [authority.certificate], encryption
        ),
    )
    expires = made.not_valid_after_utc
    answer = {
        "user": f"user:{user}",
        "expires_at": expires,
        "file": str(for_scripts),
        "browser_file": str(for_browsers),
        "browser_password": password,
    }
    pairs = [
        ("for scripts", for_scripts),
        ("for a browser", for_browsers),
        ("its password", password),
        ("good until", moment(expires)),
    ]
    show(session, answer, pairs)


def _write(path: Path, content: bytes) -> None:
    try:
        descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise NameTaken(f"{path} exists already", hint="move it away, or use --to") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
