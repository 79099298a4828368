"""``hero doctor``: what on this machine could keep Hero from working."""

from __future__ import annotations

import click

from hero.cli.command import HeroCommand, pass_session
from hero.cli.exit_codes import ExitCode
from hero.cli.output import print_json
from hero.cli.session import Session

_COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}


@click.command(cls=HeroCommand, local=True)
@pass_session
def doctor(session: Session) -> int:
    """Check what Hero needs of this machine, and say how to mend what is wrong.

    The exit code is 1 if a check fails; warnings are no failures.
    """
    import attrs

    from hero.cli.checks import run_checks

    findings = run_checks(session.settings)
    failed = any(finding.verdict == "fail" for finding in findings)
    if session.json:
        print_json({"ok": not failed, "checks": [attrs.asdict(f) for f in findings]})
    else:
        for finding in findings:
            verdict = click.style(finding.verdict.ljust(5), fg=_COLOURS[finding.verdict])
            click.echo(f"{verdict} {finding.name.ljust(13)} {finding.detail}")
            if finding.mend:
                click.echo(" " * 20 + click.style("-> ", bold=True) + finding.mend)
    return ExitCode.FAILED if failed else ExitCode.OK
