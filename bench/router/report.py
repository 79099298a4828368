"""The result of a run: a Markdown page for people, JSON for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

from bench.router.measures.measure import Figure, Target
from bench.router.rounds import Comparison, Outcome

_BEGIN, _END = "<!-- results -->", "<!-- end of results -->"


@attrs.frozen(kw_only=True)
class Report:
    """What was compared, on which machine, with which versions, and how."""

    machine: Mapping[str, str]
    versions: Mapping[str, str]
    method: str
    comparisons: Sequence[Comparison]

    def markdown(self) -> str:
        """The page."""
        lines = ["# Hero's router against others", "", self.method, ""]
        lines += [f"- {name}: {value}" for name, value in self.machine.items()]
        lines += [f"- {name}: {version}" for name, version in self.versions.items()]
        lines += ["", *self.summary()]
        for comparison in self.comparisons:
            lines += ["", f"## {comparison.measure.title}", "", *_table(comparison)]
            outcomes = comparison.outcomes()
            if outcomes:
                lines += ["", "| wanted | reached | |", "|---|---|---|"]
                lines += [_outcome(comparison, outcome) for outcome in outcomes]
        return "\n".join(lines) + "\n"

    def summary(self) -> list[str]:
        """A table of every measure's first figure, as a ratio to nginx where that makes sense."""
        names = list(self.versions)
        lines = ["| | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for comparison in self.comparisons:
            figure = comparison.measure.figures[0]
            unit = "" if figure.ratio else f" ({figure.title})"
            cells = [f"{comparison.measure.title}{unit}"]
            for name in names:
                cells.append(_cell(comparison, name, figure))
            lines.append("| " + " | ".join(cells) + " |")
        return lines

    def json(self) -> dict[str, Any]:
        """The same, with every round."""
        return {
            "machine": dict(self.machine),
            "versions": dict(self.versions),
            "method": self.method,
            "measures": {
                comparison.measure.name: _comparison_json(comparison)
                for comparison in self.comparisons
            },
        }


def quote(page: Path, lines: Sequence[str]) -> None:
    """Put *lines* between the two marks that *page* has for them."""
    text = page.read_text()
    before, mark, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not mark or not end:
        raise ValueError(f"{page} has no place for results")
    page.write_text("\n".join([before + _BEGIN, "", *lines, "", _END + after]))


def _cell(comparison: Comparison, name: str, figure: Figure) -> str:
    if name not in comparison.names():
        return ""
    if not figure.ratio:
        return figure.form.format(comparison.value(name, figure.name))
    ratio = comparison.ratio(name, figure.name, "nginx")
    return "" if ratio is None else f"{ratio:.2f}"


def _table(comparison: Comparison) -> list[str]:
    figures = comparison.measure.figures
    heads = ["proxy"]
    for figure in figures:
        heads += [figure.title, "to nginx"] if figure.ratio else [figure.title]
    heads.append("others' share of the core")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    for name in comparison.names():
        cells = [name]
        for figure in figures:
            cells.append(figure.form.format(comparison.value(name, figure.name)))
            if figure.ratio:
                ratio = comparison.ratio(name, figure.name, "nginx")
                cells.append("-" if ratio is None else f"{ratio:.2f}")
        cells.append(f"up to {comparison.noise(name):.0%}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _outcome(comparison: Comparison, outcome: Outcome) -> str:
    wanted, reached = _words(comparison, outcome.target), "not measured"
    if outcome.reached is not None:
        reached = f"{outcome.reached:.2f}".rstrip("0").rstrip(".")
    verdict = {True: "met", False: "**missed**", None: ""}[outcome.met]
    return f"| {wanted} | {reached} | {verdict} |"


def _words(comparison: Comparison, target: Target) -> str:
    titles = {figure.name: figure.title for figure in comparison.measure.figures}
    relation = "at least" if target.at_least else "at most"
    unit = f" times {target.against}" if target.against else ""
    return f"{target.of}: {titles[target.figure]} {relation} {target.bound:g}{unit}"


def _comparison_json(comparison: Comparison) -> dict[str, Any]:
    return {
        "title": comparison.measure.title,
        "rounds": [
            {
                name: {**reading.figures, "other_load": reading.other_load}
                for name, reading in readings.items()
            }
            for readings in comparison.rounds
        ],
        "targets": [
            {**attrs.asdict(outcome.target), "reached": outcome.reached, "met": outcome.met}
            for outcome in comparison.outcomes()
        ],
    }
