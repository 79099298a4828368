"""All the measures, in the order of the report."""

from __future__ import annotations

from fnmatch import fnmatchcase

from bench.router.measures import (
    answers,
    bodies,
    discovery,
    handshakes,
    idle,
    restart,
    slow_readers,
    websocket,
    workers,
)
from bench.router.measures.measure import Measure

MEASURES: tuple[Measure, ...] = (
    *answers.MEASURES,
    *workers.MEASURES,
    *bodies.MEASURES,
    *slow_readers.MEASURES,
    *idle.MEASURES,
    *handshakes.MEASURES,
    *websocket.MEASURES,
    *discovery.MEASURES,
    *restart.MEASURES,
)


def chosen(patterns: list[str]) -> list[Measure]:
    """The measures whose names match one of *patterns* (``tls*``), in order; all where none."""
    return [
        measure
        for measure in MEASURES
        if not patterns or any(fnmatchcase(measure.name, pattern) for pattern in patterns)
    ]
