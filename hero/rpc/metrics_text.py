"""A registry in Prometheus' text format, quickly: a scrape must not hold up the reactor for long.

Its plain twin is `prometheus_client.generate_latest`, which takes two to three times as long,
and whose output this is.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Sample
from prometheus_client.utils import floatToGoString

_ESCAPES = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_PLAIN = frozenset({"counter", "gauge", "histogram"})
#: What the twin puts at the end, into families of their own.
_APART = ("_created", "_gsum", "_gcount")


def metrics_text(registry: CollectorRegistry) -> bytes:
    """What *registry* collects."""
    return b"".join(_family(metric) for metric in registry.collect())


def _family(metric: Metric) -> bytes:
    samples = metric.samples
    if metric.type not in _PLAIN or any(_is_special(sample) for sample in samples):
        return generate_latest(_Only(metric))
    name = f"{metric.name}_total" if metric.type == "counter" else metric.name
    about = metric.documentation.replace("\\", r"\\").replace("\n", r"\n")
    lines = [f"# HELP {name} {about}\n# TYPE {name} {metric.type}\n"]
    lines += [_line(sample) for sample in samples]
    return "".join(lines).encode()


def _is_special(sample: Sample) -> bool:
    return sample.timestamp is not None or sample.name.endswith(_APART)


def _line(sample: Sample) -> str:
    value = float(sample.value)
    small = 0.0 <= value < 1e6 and value.is_integer()
    number = repr(value) if small else str(floatToGoString(value))  # type: ignore[no-untyped-call]
    labels = sample.labels
    if not labels:
        return f"{sample.name} {number}\n"
    pairs = [_pair(name, labels[name]) for name in sorted(labels)]
    return f"{sample.name}{{{','.join(pairs)}}} {number}\n"


@lru_cache(4096)
def _pair(name: str, value: str) -> str:
    """A label. Most stand on many lines."""
    return f'{name}="{value.translate(_ESCAPES)}"'


class _Only:
    """A collector of one family."""

    def __init__(self, metric: Metric) -> None:
        self._metric = metric

    def collect(self) -> Iterator[Metric]:
        yield self._metric
