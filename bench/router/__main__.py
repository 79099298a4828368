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
from bench.router.peers.roster import NAMES, peers_for
from bench.router.processes import LOAD_CORE
from bench.router.report import Report
from bench.router.rounds import compare

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
    add("--save", type=Path, help="write the result to this directory")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    return [name for part in text.split(",") if (name := part.strip())]


def main() -> None:
    """Measure, print, and save."""
    arguments = _arguments()
    # Whoever ends the run early leaves no processes behind either.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    rounds, seconds = (1, 1.0) if arguments.quick else (arguments.rounds, arguments.seconds)
    names = _names(arguments.peers) or (["nginx", "hero"] if arguments.quick else list(NAMES))
    # What this process does itself belongs to the load.
    os.sched_setaffinity(0, {LOAD_CORE})
    install()
    hero = HeroSource(tree=arguments.hero_tree.resolve(), python=arguments.hero_python.absolute())
    with Lab(hero) as lab:
        peers = peers_for(lab, names)
        comparisons = []
        for measure in chosen(_names(arguments.only)):
            print(measure.title, flush=True)
            comparison = compare(
                lab,
                measure,
                peers,
                rounds=rounds,
                seconds=seconds,
                again=arguments.again,
                say=lambda line: print(line, flush=True),
            )
            if comparison is not None:
                comparisons.append(comparison)
        report = Report(
            machine=describe_machine(),
            versions={peer.name: peer.version() for peer in peers},
            method=f"{rounds} interleaved rounds of {seconds:g} s, medians.",
            comparisons=comparisons,
        )
    print(report.markdown())
    if arguments.save:
        arguments.save.mkdir(parents=True, exist_ok=True)
        (arguments.save / "router.md").write_text(report.markdown())
        (arguments.save / "router.json").write_text(json.dumps(report.json(), indent=1) + "\n")


if __name__ == "__main__":
    main()
