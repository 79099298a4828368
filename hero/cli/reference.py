"""The reference page of the command line.

``python -m hero.cli.reference > docs/reference/cli.md`` writes it.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from hero.cli.exit_codes import ExitCode

_MEANINGS = {
    ExitCode.OK: "done",
    ExitCode.FAILED: "something went wrong that has no code of its own",
    ExitCode.USAGE: "the command line, or the value of an option, is wrong",
    ExitCode.NOT_FOUND: "no such VM, node, image, token, operation or route",
    ExitCode.NOT_ALLOWED: "no identity, not the right to do this, or a peer that is not trusted",
    ExitCode.UNAVAILABLE: "a service or node cannot be reached, or has no room; try again later",
    ExitCode.CONFLICT: "the thing's state does not allow this, or its name is taken",
    ExitCode.TIMED_OUT: "no answer in time, or the operation goes on longer than was waited for",
    ExitCode.INTERRUPTED: "Ctrl-C",
}

_INTRODUCTION = """\
# The command line

*Made from the source by `python -m hero.cli.reference`.*

A command speaks to the router that `--url` names; else to this machine's explorer, by its socket;
else to this machine's compute service. It never needs to know on which node a VM is.

Answers go to stdout, all else to stderr. With `--json` the answer is one JSON value, with the
members that the [JSON-RPC API](sockets.md) has; an error is one JSON object on stderr,
`{"error": {"kind": …, "detail": …, "hint": …}, "exit_code": …}`. `--json` and the other common
options can stand before, among and after the commands.

Commands that start an operation wait for it; `--no-wait` prints the operation instead, and
`hero operation show --wait SID` takes up the waiting, from anywhere.
"""


def reference() -> str:
    """The page, in Markdown."""
    from hero.cli.main import main

    # Commands remember the first help option that they are asked for, so this must be the real one.
    context = click.Context(main, info_name="hero", **main.context_settings)
    parts = [_INTRODUCTION, "## Exit codes\n", "| code | meaning |\n|---|---|"]
    parts += [f"| {int(code)} | {meaning} |" for code, meaning in _MEANINGS.items()]
    parts += ["", "## Common options\n", *_options(context, main)]
    for path, child in _walk(context, main):
        parts += _section(path, child)
    return "\n".join(parts).rstrip() + "\n"


def _walk(
    context: click.Context, group: click.Group
) -> Iterator[tuple[click.Context, click.Command]]:
    for name in sorted(group.commands):
        command = group.commands[name]
        child = click.Context(command, info_name=name, parent=context)
        yield child, command
        if isinstance(command, click.Group):
            yield from _walk(child, command)


def _section(context: click.Context, command: click.Command) -> list[str]:
    level = "##" if isinstance(command, click.Group) or context.parent is None else "###"
    if context.parent is not None and context.parent.parent is None:
        level = "##"
    text = inspect.cleandoc(command.help or "")
    parts = [f"\n{level} {context.command_path}\n", text, ""]
    if not isinstance(command, click.Group):
        usage = " ".join(command.collect_usage_pieces(context))
        parts += [f"```\n{context.command_path} {usage}\n```", "", *_options(context, command)]
    return parts


def _options(context: click.Context, command: click.Command) -> list[str]:
    rows = []
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        record = parameter.get_help_record(context)
        if record is None or "--help" in record[0]:
            continue
        if context.parent is not None and parameter.opts == ["--json"]:
            continue
        names, words = (part.replace("|", "\\|") for part in record)
        rows.append(f"| `{names}` | {' '.join(words.split())} |")
    return ["| option | |\n|---|---|", *rows, ""] if rows else []


if __name__ == "__main__":
    print(reference(), end="")
