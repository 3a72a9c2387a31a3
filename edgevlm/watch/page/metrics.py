"""`/metrics`: what a watch counts, in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from edgevlm.watch.page.board import Board

PREFIX = "edgevlm_watch_"
_NOT_IN_NAMES = re.compile(r"[^a-zA-Z0-9_]+")


class Watching:
    """A collector that reads a board each time it is asked. A counter "verdicts.reject" becomes
    `edgevlm_watch_verdicts_total{kind="reject"}`: what stands behind the first dot is the label."""

    def __init__(self, board: Board) -> None:
        self._board = board

    def collect(self) -> Iterable[Metric]:
        """Counters, gauges, conditions."""
        seen = self._board.status.snapshot()
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, count in sorted(seen.counters.items()):
            _add(families, CounterMetricFamily, name, count)
        for name, value in sorted(seen.gauges.items()):
            _add(families, GaugeMetricFamily, name, value)
        yield from families.values()
        conditions = GaugeMetricFamily(f"{PREFIX}condition", "1 while it lasts.", labels=["name", "bad"])
        for one in seen.conditions:
            conditions.add_metric([one.name, str(one.bad).lower()], 1)
        yield conditions
        yield GaugeMetricFamily(f"{PREFIX}healthy", "1 while no condition is bad.", value=self._board.healthy)
        about = GaugeMetricFamily(f"{PREFIX}info", "What is running.", labels=["name", "bundle", "version"])
        about.add_metric([self._board.about.name, self._board.about.bundle, self._board.about.version], 1)
        yield about


def metrics(board: Board) -> bytes:
    """The text that Prometheus reads."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Watching(board))
    return generate_latest(registry)


def _add(
    families: dict[str, CounterMetricFamily | GaugeMetricFamily],
    family: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    value: float,
) -> None:
    stem, dot, kind = name.partition(".")
    plain = PREFIX + _NOT_IN_NAMES.sub("_", stem)
    key = f"{plain} {bool(dot)}"
    if key not in families:
        families[key] = family(plain, f"{stem.replace('_', ' ')}.", labels=["kind"] if dot else [])
    families[key].add_metric([kind] if dot else [], value)
