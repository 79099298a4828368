"""All the measures, in the order of the report."""

from __future__ import annotations

from fnmatch import fnmatchcase

from bench.router.measures import answers, bodies, handshakes, websocket
from bench.router.measures.measure import Measure

MEASURES: tuple[Measure, ...] = (
    *answers.MEASURES,
    *bodies.MEASURES,
    *handshakes.MEASURES,
    *websocket.MEASURES,
)


def chosen(patterns: list[str]) -> list[Measure]:
    """The measures whose names match one of *patterns* (``tls*``), in order; all where none."""
    return [
        measure
        for measure in MEASURES
        if not patterns or any(fnmatchcase(measure.name, pattern) for pattern in patterns)
    ]
