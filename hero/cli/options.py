"""Options and arguments that several groups of commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import click

_F = TypeVar("_F", bound=Callable[..., Any])

DEFAULT_WAIT = 300.0


def wait_options(function: _F) -> _F:
    """``--wait/--no-wait`` and ``--timeout``, for commands that start an operation."""
    with_timeout = click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        default=DEFAULT_WAIT,
        show_default=True,
        metavar="SECONDS",
        help="How long to wait for the operation to end; it goes on after that.",
    )
    with_wait = click.option(
        "--wait/--no-wait",
        default=True,
        help="Wait until it is done (the default), or print the operation and leave it at that.",
    )
    return with_wait(with_timeout(function))


def parse_labels(
    ctx: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> dict[str, str] | None:
    """The labels in ``name=value`` words; None where there are none."""
    labels = {}
    for value in values:
        name, equals, content = value.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{value!r} is not of the form name=value", ctx, parameter)
        labels[name] = content
    return labels or None


label_option = functools.partial(
    click.option,
    "--label",
    "labels",
    multiple=True,
    metavar="NAME=VALUE",
    callback=parse_labels,
)


class Duration(click.ParamType[float]):
    """Seconds, or a number with one of the units s, m, h, d."""

    name = "duration"
    _units = {"s": 1, "m": 60, "h": 3600, "d": 86400}  # noqa: RUF012

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        if isinstance(value, (int, float)):
            return float(value)
        number, factor = value, 1
        if value[-1:] in self._units:
            number, factor = value[:-1], self._units[value[-1]]
        try:
            seconds = float(number) * factor
        except ValueError:
            seconds = -1
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is not a length of time such as 90s, 30m, 2h or 7d", param, ctx)
        return float(seconds)
