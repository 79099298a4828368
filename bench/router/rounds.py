"""Interleaved rounds, and how they become one figure for each proxy."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import attrs

from bench.router.generators.native import GeneratorFailed
from bench.router.lab import Lab
from bench.router.machine import CoreTime
from bench.router.measures.measure import Measure, Target
from bench.router.peers.peer import Peer, Proxy
from bench.router.processes import PROXY_CORE, NotStarted

#: More of the proxy's core than this for others, and a reading does not count.
_TOLERATED = 0.08


@attrs.frozen(kw_only=True)
class Reading:
    """What one proxy showed in one round.

    ``other_load`` is others' share of its core, None where that cannot be told.
    """

    figures: Mapping[str, float]
    other_load: float | None

    @property
    def clean(self) -> bool:
        """Whether the proxy had its core nearly to itself."""
        return self.other_load is None or self.other_load <= _TOLERATED


@attrs.frozen(kw_only=True)
class Outcome:
    """A target, and how far it was reached. ``reached`` is None where it was not measured."""

    target: Target
    reached: float | None

    @property
    def met(self) -> bool | None:
        """Whether that is enough."""
        if self.reached is None:
            return None
        if self.target.at_least:
            return self.reached >= self.target.bound
        return self.reached <= self.target.bound


@attrs.frozen(kw_only=True)
class Comparison:
    """All rounds of one measure: for each proxy its reading in each round."""

    measure: Measure
    rounds: Sequence[Mapping[str, Reading]]

    def names(self) -> list[str]:
        """The proxies, in the order in which they ran."""
        return list(self.rounds[0])

    def value(self, name: str, figure: str) -> float:
        """The median of *figure*, over the clean rounds where there are any."""
        readings = [found[name] for found in self.rounds]
        clean = [reading for reading in readings if reading.clean]
        return statistics.median(reading.figures[figure] for reading in clean or readings)

    def ratio(self, name: str, figure: str, against: str) -> float | None:
        """The median of the ratios to *against* in the same round. None where that did not run.

        Rounds in which either had to share its core count only where there is no other.
        """
        if name not in self.rounds[0] or against not in self.rounds[0]:
            return None
        pairs = [(found[name], found[against]) for found in self.rounds]
        clean = [pair for pair in pairs if pair[0].clean and pair[1].clean]
        ratios = [
            ours.figures[figure] / theirs.figures[figure]
            for ours, theirs in clean or pairs
            if theirs.figures[figure]
        ]
        return statistics.median(ratios) if ratios else None

    def noise(self, name: str) -> float:
        """The largest share that others had of the proxy's core in any round."""
        return max(found[name].other_load or 0.0 for found in self.rounds)

    def outcomes(self) -> list[Outcome]:
        """Each target of the measure, and what was reached."""
        return [
            Outcome(target=target, reached=self._reached(target)) for target in self.measure.targets
        ]

    def _reached(self, target: Target) -> float | None:
        if target.of not in self.rounds[0]:
            return None
        if target.against is None:
            return self.value(target.of, target.figure)
        return self.ratio(target.of, target.figure, target.against)


def compare(
    lab: Lab,
    measure: Measure,
    peers: Sequence[Peer],
    *,
    rounds: int,
    seconds: float,
    again: int,
    say: Callable[[str], None],
) -> Comparison | None:
    """Measure each of *peers*, started afresh, in turn, *rounds* times.

    A reading while others used the proxy's core is taken *again* at most so often.

    None where no peer could be measured; those that could not are left out.
    """
    proxies: list[Proxy] = []
    try:
        for peer in peers:
            if measure.suits(peer):
                try:
                    proxies.append(measure.start(peer, lab))
                except NotStarted as error:
                    say(f"  {measure.name}: {peer.name} left out: {error}")
        found: list[dict[str, Reading]] = []
        for number in range(1, min(rounds, measure.most_rounds or rounds) + 1):
            found.append({})
            for proxy in list(proxies):
                try:
                    reading = _read_undisturbed(measure, proxy, seconds, again)
                except (GeneratorFailed, NotStarted) as error:
                    say(f"  {measure.name}: {proxy.name} left out: {error}")
                    proxies.remove(proxy)
                    proxy.session.stop()
                    for readings in found:
                        readings.pop(proxy.name, None)
                    continue
                found[-1][proxy.name] = reading
                say(f"  {measure.name} {number} {proxy.name:12} {_shown(measure, reading)}")
        return Comparison(measure=measure, rounds=found) if proxies else None
    finally:
        for proxy in proxies:
            proxy.session.stop()


def _shown(measure: Measure, reading: Reading) -> str:
    figures = "  ".join(
        f"{figure.title} {figure.form.format(reading.figures[figure.name])}"
        for figure in measure.figures
    )
    return figures if reading.clean else f"{figures}  [others: {reading.other_load:.0%}]"


def _read_undisturbed(measure: Measure, proxy: Proxy, seconds: float, again: int) -> Reading:
    readings = [_read(measure, proxy, seconds)]
    if measure.most_rounds is None:
        while not readings[-1].clean and len(readings) <= again:
            time.sleep(1.0)
            readings.append(_read(measure, proxy, seconds))
    return min(readings, key=lambda reading: reading.other_load or 0.0)


def _read(measure: Measure, proxy: Proxy, seconds: float) -> Reading:
    used, core = proxy.session.usage(), CoreTime.now(PROXY_CORE)
    figures = measure.take(proxy, seconds)
    if measure.shares_the_load_core:
        return Reading(figures=figures, other_load=None)
    ours = proxy.session.usage().total_since(used)
    return Reading(figures=figures, other_load=CoreTime.now(PROXY_CORE).other_load(core, ours))
