"""Click commands that all take Hero's common options and report errors in Hero's way."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NoReturn, TypeVar

import click

from hero.cli.exit_codes import ExitCode, exit_code_for
from hero.cli.session import Session
from hero.errors import HeroError

_F = TypeVar("_F", bound=Callable[..., Any])

pass_session = click.make_pass_decorator(Session)


def _remember(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    if value not in (None, False):
        session = ctx.find_object(Session)
        if session is not None and parameter.name is not None:
            setattr(session, parameter.name.removeprefix("common_"), value)


def _common(*names: str, hidden: bool, **attributes: Any) -> click.Option:
    name = names[0].removeprefix("--").replace("-", "_")
    return click.Option(
        [f"common_{name}", *names],
        expose_value=False,
        is_eager=True,
        callback=_remember,
        hidden=hidden,
        **attributes,
    )


def _common_options(*, local: bool, brief: bool) -> list[click.Parameter]:
    options: list[click.Parameter] = [
        _common("--json", is_flag=True, hidden=False, help="Print JSON; errors too, on stderr.")
    ]
    if local:
        return options
    return [
        *options,
        _common(
            "--url",
            metavar="URL",
            hidden=brief,
            help="The router to speak to, https://host:port, rather than this machine's services."
            "  [env: HERO_URL]",
        ),
        _common(
            "--token",
            metavar="TOKEN",
            hidden=brief,
            help="Bearer token for --url. Other users of this machine can see it while the "
            "command runs; the environment or --token-file keeps it to yourself."
            "  [env: HERO_TOKEN]",
        ),
        _common(
            "--token-file",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False, allow_dash=True),
            hidden=brief,
            help="File that holds the token; - reads it from standard input.",
        ),
        _common(
            "--ca",
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            hidden=brief,
            help="The cluster's CA certificate (PEM), to know the router by.  [env: HERO_CA]",
        ),
        _common(
            "--ca-sha256",
            metavar="HEX",
            hidden=brief,
            help="The SHA-256 of the cluster's CA certificate. Needed once: the certificate is "
            "then remembered for this URL.  [env: HERO_CA_SHA256]",
        ),
        _common(
            "--context",
            metavar="NAME",
            hidden=brief,
            help="Whose things to act on.  [env: HERO_CONTEXT; default: root]",
        ),
    ]


class HeroCommand(click.Command):
    """A command with the common options. *local* ones act on this machine only."""

    def __init__(self, *args: Any, local: bool = False, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_common_options(local=local, brief=True))


class HeroGroup(click.Group):
    """A group of `HeroCommand`, which takes the common options before its commands too."""

    command_class = HeroCommand
    group_class: type[click.Group] | type[type] | None = type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.params.extend(_common_options(local=False, brief=True))


class HeroCli(HeroGroup):
    """The root command: nothing that goes wrong below it ends in a traceback."""

    group_class = HeroGroup

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for parameter in self.params:
            if isinstance(parameter, click.Option):
                parameter.hidden = False

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run the command line *args* and exit with its code."""
        arguments = list(sys.argv[1:] if args is None else args)
        session = extra.setdefault("obj", Session.from_environment(os.environ))
        session.json = "--json" in arguments[: _end_of_options(arguments)]
        code = ExitCode.OK
        try:
            with _errors_reported(session):
                result = super().main(
                    args=arguments,
                    prog_name=prog_name or "hero",
                    complete_var=complete_var,
                    standalone_mode=False,
                    windows_expand_args=windows_expand_args,
                    **extra,
                )
                if isinstance(result, int):
                    code = ExitCode(result)
        except SystemExit as ending:
            if not standalone_mode:
                raise
            sys.exit(ending.code)
        if standalone_mode:
            sys.exit(int(code))
        return code


def _end_of_options(arguments: Sequence[str]) -> int:
    return arguments.index("--") if "--" in arguments else len(arguments)


@contextlib.contextmanager
def _errors_reported(session: Session) -> Iterator[None]:
    try:
        yield
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.ctx.get_help() if error.ctx else str(error), err=True)
        sys.exit(ExitCode.USAGE)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.UsageError as error:
        usage = error.ctx.get_usage() if error.ctx else None
        hint = f"{error.ctx.command_path} --help lists the options" if error.ctx else None
        _fail(session, ExitCode.USAGE, "usage", error.format_message(), hint=hint, above=usage)
    except click.ClickException as error:
        _fail(session, ExitCode.FAILED, "failed", error.format_message())
    except (KeyboardInterrupt, click.Abort):
        _fail(session, ExitCode.INTERRUPTED, "interrupted", session.interrupted_message)
    except HeroError as error:
        data = error.to_data()
        _fail(
            session,
            exit_code_for(error),
            str(data.pop("remote_kind", data.pop("kind"))),
            str(data.pop("detail")),
            hint=data.pop("hint", None),
            data=data,
        )
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.FAILED)
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        _fail(session, ExitCode.FAILED, "failed", what)
    except Exception as error:
        if os.environ.get("HERO_TRACEBACK"):
            raise
        _fail(
            session,
            ExitCode.FAILED,
            "internal",
            f"hero itself failed: {type(error).__name__}: {error}",
            hint="HERO_TRACEBACK=1 shows where; please report it",
        )


def _fail(
    session: Session,
    code: ExitCode,
    kind: str,
    detail: str,
    *,
    hint: str | None = None,
    above: str | None = None,
    data: dict[str, Any] | None = None,
) -> NoReturn:
    if session.json:
        members: dict[str, Any] = {**(data or {}), "kind": kind, "detail": detail}
        if hint:
            members["hint"] = hint
        click.echo(json.dumps({"error": members, "exit_code": int(code)}), err=True)
    else:
        if above:
            click.echo(above, err=True)
        label = "" if code is ExitCode.INTERRUPTED else "Error: "
        click.echo(click.style(label, fg="red", bold=True) + detail, err=True)
        if hint:
            click.echo(click.style("Hint: ", bold=True) + hint, err=True)
    sys.exit(code)
