"""Prometheus metrics of a fleet and of the loop that looks after it.

What is of the fleet is read when it is scraped: it is as fresh as the scrape, and costs nothing between two. What is of
the loop is counted as it happens. Base units (seconds), as Prometheus has it; counters end in `_total`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from threading import Lock
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from morag_queue.broker.counters import FleetCounters, fleet_counters
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.histogram import GROWTH, LAST_BUCKET, SMALLEST_S
from morag_queue.core.model import Capability, FleetStats, QueueStats, QueueType, WorkerStatus
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.stats import fleet_stats
from morag_queue.errors import MoragQueueError

from .events import Event, EventSink
from .turn import TurnReport

RATE_SECONDS = 300.0
"""What rates are of: short enough to see a change, long enough not to jump with every minute."""


_BUCKETS = range(10, LAST_BUCKET, 5)
"""Every fifth of our buckets, 6 ms to a month, each 2.5 times the one before: 22 lines a queue."""


_TURN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class FleetCollector(Collector):
    """The fleet at the moment of the scrape. Where the broker does not answer, `morag_queue_up` is 0 and alone."""

    def __init__(self, broker: RedisBroker) -> None:
        self._broker, self._lock = broker, Lock()

    def describe(self) -> Iterable[Metric]:
        """Nothing: what is there is known when it is asked for, and to register must not need the broker."""
        return ()

    def collect(self) -> Iterable[Metric]:
        try:
            with self._lock:
                found = list(self._look())
        except MoragQueueError:
            return [_gauge("up", "Whether the broker answers.", 0)]
        return [_gauge("up", "Whether the broker answers.", 1), *found]

    def _look(self) -> Iterator[Metric]:
        broker, settings = self._broker, self._broker.settings
        snapshot, totals = broker.observe()
        windows = broker.windows(snapshot.taken_at, RATE_SECONDS)
        with broker.translated():
            grown = fleet_counters(broker.client, broker.keys)
        found = fleet_stats(snapshot, windows, totals, settings.policy, window_seconds=RATE_SECONDS)
        yield from _queues(found, snapshot)
        yield from _workers(found, snapshot, grown)
        yield from _all_time(grown)
        term = found.leader.term if found.leader else 0
        yield _gauge("leader_term", "The term of who leads the fleet; 0 while nobody does.", term)
        yield _gauge("foreign_messages", "Messages in the lanes that are not Celery's.", found.foreign_messages)


class LoopMetrics:
    """What the loop of this process does."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, says: str, *labels: str) -> Counter:
            return Counter(f"morag_queue_{name}", says, labels, registry=registry)

        self._moves = counter("moves", "Tasks moved from lane to lane or level to level, by rule.", "rule")
        self._rescues = counter("rescues", "Tasks brought back: taken back, sent again, or quarantined.", "kind")
        self._refusals = counter("refusals", "Steps of plans that no longer fitted.")
        self._turns = counter("turns", "Turns of the loop, by what called for them.", "trigger")
        self._events = counter("events", "Lines of the log, by event.", "event")
        self._seconds = Histogram(
            "morag_queue_turn_duration_seconds", "How long a turn took.", buckets=_TURN_SECONDS, registry=registry
        )
        self._lag = Histogram(
            "morag_queue_turn_lag_seconds", "How late a tick's turn began.", buckets=_TURN_SECONDS, registry=registry
        )
        self._leading = Gauge("morag_queue_leading", "Whether this process leads the fleet.", registry=registry)
        for kind in ("taken_back", "resent", "quarantined"):
            self._rescues.labels(kind)

    def reported(self, report: TurnReport, lag: float) -> None:
        """One turn, or one part of the sweep."""
        known = sum(report.rules.values())
        for rule, count in {**report.rules, "recovery": max(report.moved - known, 0)}.items():
            self._moves.labels(rule).inc(count)
        for kind in ("taken_back", "resent", "quarantined"):
            self._rescues.labels(kind).inc(getattr(report, kind))
        self._refusals.inc(len(report.rejected))
        # A trigger names workers, and of these there may be many.
        trigger = report.trigger if report.trigger in ("tick", "sweep", "once") else "news"
        self._turns.labels(trigger).inc()
        if trigger != "sweep":
            self._seconds.observe(report.seconds)
        if trigger == "tick":
            self._lag.observe(lag)

    def alive(self, leads: bool) -> None:
        self._leading.set(leads)

    def counting(self, tell: EventSink) -> EventSink:
        """The same, with each line counted by its event."""

        def told(event: Event, /, **fields: Any) -> None:
            self._events.labels(event.value).inc()
            tell(event, **fields)

        return told


def serve(registry: CollectorRegistry, address: str, port: int) -> str:
    """Serves them in a thread of its own; gives the URL (port 0 is any free one). Raises OSError where it is taken."""
    server, _ = start_http_server(port, address, registry)
    return f"http://{address}:{server.server_port}/metrics"


def _queues(found: FleetStats, snapshot: Snapshot) -> Iterator[Metric]:
    pending = _gauge("pending_tasks", "Tasks that wait, by queue and level (0 is taken first).", None, "queue", "level")
    for queue in QueueType:
        for level in range(10):
            count = sum(view.lengths[level] for view in snapshot.lanes_by_queue[queue])
            pending.add_metric([queue.value, str(level)], count)
    yield pending
    rows: dict[str, tuple[str, Callable[[QueueStats], float]]] = {
        "processing_tasks": ("Messages in workers' hands.", lambda one: one.processing_tasks),
        "serving_workers": ("Workers in service that read the queue.", lambda one: one.worker_count),
        "oldest_wait_seconds": ("How long the oldest one waits.", lambda one: one.oldest_wait_time * 60),
        "backlog_seconds": ("Work that waits, by the slots that serve it.", lambda one: one.backlog_time * 60),
        "arrivals_per_second": ("New tasks, of five minutes.", lambda one: one.arrivals_per_minute / 60),
        "service_per_second": ("Tasks that end, of five minutes.", lambda one: one.completions_per_minute / 60),
        "increase_per_second": (
            "Arrivals less ends, of five minutes.",
            lambda one: (one.arrivals_per_minute - one.completions_per_minute) / 60,
        ),
        "paused": ("Whether the queue hands out nothing.", lambda one: int(one.queue_type in snapshot.paused)),
    }
    for name, (says, read) in rows.items():
        metric = _gauge(name, says, None, "queue")
        for one in found.queues:
            metric.add_metric([one.queue_type.value], read(one))
        yield metric


def _workers(found: FleetStats, snapshot: Snapshot, grown: FleetCounters) -> Iterator[Metric]:
    workers = _gauge("workers", "Workers, by status and capability.", None, "status", "capability")
    counts = {(status, capability): 0 for status in WorkerStatus for capability in Capability}
    for one in found.workers:
        counts[one.status, one.capability] += 1
    for (status, capability), count in counts.items():
        workers.add_metric([status.value, capability.value], count)
    yield workers
    unacked = _gauge("unacked_messages", "Messages in hand, by owner; without one: nobody knows.", None, "worker")
    for view in snapshot.workers:
        unacked.add_metric([view.worker], len(snapshot.held_by_worker.get(view.worker, ())))
    unacked.add_metric([""], grown.unowned)
    yield unacked
    yield _gauge("dead_tasks", "Failed and quarantined tasks that are kept.", grown.dead)


def _all_time(grown: FleetCounters) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "morag_queue_tasks", "Tasks that have ended, by queue and outcome.", labels=["queue", "outcome"]
    )
    waits = HistogramMetricFamily("morag_queue_task_wait_seconds", "From submit to start.", labels=["queue"])
    runs = HistogramMetricFamily("morag_queue_task_run_seconds", "From start to a good end.", labels=["queue"])
    for queue, one in grown.queues.items():
        for outcome in ("completed", "failed", "cancelled"):
            ended.add_metric([queue.value, outcome], one.ended.get(outcome, 0))
        _add_histogram(waits, queue, one.waits, one.wait_seconds)
        _add_histogram(runs, queue, one.runs, one.run_seconds)
    yield from (ended, waits, runs)


def _add_histogram(metric: HistogramMetricFamily, queue: QueueType, counts: Mapping[int, int], seconds: float) -> None:
    buckets = [
        (f"{SMALLEST_S * GROWTH**edge:.6g}", sum(count for index, count in counts.items() if index <= edge))
        for edge in _BUCKETS
    ]
    metric.add_metric([queue.value], [*buckets, ("+Inf", sum(counts.values()))], seconds)


def _gauge(name: str, says: str, value: float | None, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"morag_queue_{name}", says, value=value, labels=labels or None)
