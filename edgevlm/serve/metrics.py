"""`/metrics`: what a server counts, in Prometheus' text format."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import generate_latest

from edgevlm.serve.answers import usage_of
from edgevlm.serve.work import Done, Job, Served

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """Counts what one server does."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Lines(models))

        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"edgevlm_serve_{name}", what, labels, registry=self._registry)

        def histogram(name: str, what: str) -> Histogram:
            return Histogram(f"edgevlm_serve_{name}", what, ["model"], buckets=SECONDS, registry=self._registry)

        self._requests = counter("requests", "Chat completions by status.", "model", "status")
        self._hung_up = counter("hang_ups", "Clients that went before their answer was there.", "model")
        self._tokens = counter("tokens", "Tokens of answers and prompts, and those reused of prompts.", "model", "kind")
        self._waited = histogram("wait_seconds", "In the line.")
        self._first = histogram("first_token_seconds", "From the request to its first token.")
        self._whole = histogram("request_seconds", "From the request to the end of its answer.")

    def status(self, model: str, status: int) -> None:
        """A request has its status. `model`: one that is served, or "" (others would be names without end)."""
        self._requests.labels(model, str(status)).inc()

    def hung_up(self, model: str) -> None:
        """A client has gone."""
        self._hung_up.labels(model).inc()

    def first(self, model: str, job: Job) -> None:
        """The first piece is there."""
        if job.begun is not None:
            self._waited.labels(model).observe(job.begun - job.asked)
        self._first.labels(model).observe(time.monotonic() - job.asked)

    def done(self, model: str, job: Job, done: Done) -> None:
        """The answer is whole."""
        used = usage_of(done.answer)
        self._whole.labels(model).observe(time.monotonic() - job.asked)
        self._tokens.labels(model, "prompt").inc(used.prompt_tokens)
        self._tokens.labels(model, "reused").inc(used.prompt_tokens_details.cached_tokens)
        self._tokens.labels(model, "answer").inc(used.completion_tokens)

    def text(self) -> bytes:
        """What Prometheus reads."""
        return generate_latest(self._registry)


class _Lines:
    """How many wait and run, looked at when asked."""

    def __init__(self, models: Sequence[Served]) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        waiting = GaugeMetricFamily("edgevlm_serve_waiting", "Requests in the line.", labels=["model"])
        running = GaugeMetricFamily("edgevlm_serve_running", "Answers being made.", labels=["model"])
        for one in self._models:
            waiting.add_metric([one.name], one.waiting)
            running.add_metric([one.name], one.running)
        yield from (waiting, running)
