"""``python -m bench.router``: see ``--help``. Run as root, from the top of the source tree."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from pathlib import Path

from bench.router.installation import install
from bench.router.lab import HeroSource, Lab
from bench.router.machine import describe_machine
from bench.router.measures.catalogue import MEASURES, chosen
from bench.router.peers.peer import Peer
from bench.router.peers.roster import NAMES, peers_for
from bench.router.processes import LOAD_CORE
from bench.router.report import Report, quote
from bench.router.rounds import Comparison, compare

_TREE = Path(__file__).parents[2]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.router", description="Measure Hero's router against others."
    )
    add = parser.add_argument
    add("--only", default="", help=f"measures: {', '.join(m.name for m in MEASURES)}; tls* works")
    add("--peers", default="", help=f"proxies: {', '.join(NAMES)} [all; nginx,hero if --quick]")
    add("--rounds", type=int, default=3, help="how often each proxy has its turn [3]")
    add("--seconds", type=float, default=3.0, help="how long a turn takes [3]")
    add("--again", type=int, default=0, help="repeat a turn so often while others disturb it [0]")
    add("--quick", action="store_true", help="one round of a second each, to see that it works")
    add("--hero-tree", type=Path, default=_TREE, help="the source tree that Hero is run from")
    add("--hero-python", type=Path, default=Path(sys.executable), help="Hero's interpreter")
    add("--save", action="store_true", help="write bench/results, and the table in the docs")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def _end(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _compare_all(
    lab: Lab, peers: list[Peer], arguments: argparse.Namespace, rounds: int, seconds: float
) -> list[Comparison]:
    """One comparison for each measure; those that were complete, where the run is ended early."""
    comparisons = []
    try:
        for measure in chosen(_names(arguments.only)):
            _say(measure.title)
            comparison = compare(
                lab,
                measure,
                peers,
                rounds=rounds,
                seconds=seconds,
                again=arguments.again,
                say=_say,
            )
            if comparison is not None:
                comparisons.append(comparison)
    except KeyboardInterrupt:
        _say("Ended early")
    return comparisons


def _say(line: str) -> None:
    print(line, flush=True)


def _save(report: Report) -> None:
    results = _TREE / "bench" / "results"
    results.mkdir(exist_ok=True)
    (results / "router.md").write_text(report.markdown())
    (results / "router.json").write_text(json.dumps(report.json(), indent=1) + "\n")
    quote(_TREE / "docs" / "explanation" / "performance.md", report.summary())


def main() -> None:
    """Measure, print, and save."""
    arguments = _arguments()
    # However a run is ended, no process is left behind.
    signal.signal(signal.SIGTERM, _end)
    rounds, seconds = (1, 1.0) if arguments.quick else (arguments.rounds, arguments.seconds)
    names = _names(arguments.peers) or (["nginx", "hero"] if arguments.quick else list(NAMES))
    # What this process does itself belongs to the load.
    os.sched_setaffinity(0, {LOAD_CORE})
    install()
    machine = describe_machine()
    hero = HeroSource(tree=arguments.hero_tree.resolve(), python=arguments.hero_python.absolute())
    with Lab(hero) as lab:
        peers = peers_for(lab, names)
        comparisons = _compare_all(lab, peers, arguments, rounds, seconds)
    report = Report(
        machine=machine,
        versions={peer.name: peer.version() for peer in peers},
        method=f"{rounds} interleaved rounds, turns of {seconds:g} s, medians.",
        comparisons=comparisons,
    )
    _say(report.markdown())
    if arguments.save:
        _save(report)


if __name__ == "__main__":
    main()
