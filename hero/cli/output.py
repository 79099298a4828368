"""Printing answers: JSON for programs, tables and sentences for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

import click

from hero.cli.session import Session

_STATE_STYLES = {
    "running": "green",
    "online": "green",
    "up": "green",
    "ready": "green",
    "succeeded": "green",
    "ok": "green",
    "failed": "red",
    "fail": "red",
    "refused": "red",
    "unreachable": "red",
    "down": "red",
    "paused": "yellow",
    "warn": "yellow",
    "cordoned": "yellow",
    "starting": "yellow",
    "provisioning": "yellow",
    "building": "yellow",
    "pending": "yellow",
}


def state_style(state: str) -> str | None:
    """The colour of a state; None for one that has none."""
    return _STATE_STYLES.get(state)


def print_json(value: Any) -> None:
    """Print *value*, made of builtins or of our wire types, as JSON on stdout."""
    import msgspec

    builtins = msgspec.to_builtins(value, builtin_types=())
    click.echo(json.dumps(builtins, indent=2, ensure_ascii=False))


def print_table(headings: Sequence[str], rows: Iterable[Sequence[Any]], *, empty: str) -> None:
    """Print *rows* for a person, or the sentence *empty*, on stderr, where there are none."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value, Text) for value in row))
    if not table.row_count:
        click.echo(empty, err=True)
        return
    if sys.stdout.isatty():
        Console().print(table)
        return
    plain = Console(width=4096, color_system=None)
    with plain.capture() as capture:
        plain.print(table)
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def _cell(value: Any, text: Any) -> Any:
    words = "-" if value is None or value == "" else str(value)
    return text(words, style=_STATE_STYLES.get(words, ""))


def print_details(pairs: Iterable[tuple[str, Any]]) -> None:
    """Print what is known of one thing, a line for each."""
    shown = [(name, value) for name, value in pairs if value not in (None, "", [], {})]
    width = max((len(name) for name, _ in shown), default=0)
    for name, value in shown:
        words = str(value)
        style = _STATE_STYLES.get(words)
        label = click.style(f"{name}:".ljust(width + 2), bold=True)
        click.echo(label + (click.style(words, fg=style) if style else words))


def show(session: Session, value: Any, pairs: Iterable[tuple[str, Any]]) -> None:
    """Print one thing: *value* as JSON, or *pairs* for a person."""
    if session.json:
        print_json(value)
    else:
        print_details(pairs)


def warn(message: str) -> None:
    """Say on stderr what the person should know beside the answer."""
    click.echo(click.style("Warning: ", fg="yellow", bold=True) + message, err=True)


def warn_unreachable(nodes: Sequence[str]) -> None:
    """Say which nodes did not answer, so that what is shown of them may be old."""
    if nodes:
        warn(
            f"{', '.join(nodes)} did not answer lately; what is shown of "
            f"{'it' if len(nodes) == 1 else 'them'} is the last thing known"
        )


def size(count: int | None) -> str | None:
    """*count* bytes, for a person: ``4.0 GiB``."""
    if count is None:
        return None
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} TiB"


def duration(seconds: float | None) -> str | None:
    """A length of time, for a person: ``3m 20s``."""
    if seconds is None:
        return None
    total = int(max(seconds, 0))
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m {total % 60}s"
    if total < 86400:
        return f"{total // 3600}h {total % 3600 // 60}m"
    return f"{total // 86400}d {total % 86400 // 3600}h"


def ago(moment: datetime | None) -> str | None:
    """How long ago *moment* was, for a person."""
    if moment is None:
        return None
    return f"{duration((datetime.now(UTC) - moment).total_seconds())} ago"


def moment(value: datetime | None) -> str | None:
    """A point in time, for a person: ``2026-01-02 03:04 UTC``."""
    return None if value is None else f"{value:%Y-%m-%d %H:%M} UTC"


def label_words(values: dict[str, str]) -> str:
    """Labels, for a person: ``tier=web,zone=a``."""
    return ",".join(f"{name}={value}" for name, value in sorted(values.items()))
