"""Prometheus metrics of a fleet and of the loop that operates it.

The fleet is read at each scrape, so its metrics are current and cost nothing between scrapes. The loop updates its own
metrics as it runs. Units are base units (seconds) and counters end in `_total`, as is usual in Prometheus.
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
from morag_queue.core.model import Capability, QueueType, WorkerStatus
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.stats import RATE_SECONDS, FleetStats, QueueStats, fleet_stats
from morag_queue.errors import MoragQueueError

from .events import Event, EventSink
from .turn import TurnReport

_BUCKETS = range(10, LAST_BUCKET, 5)
"""Every fifth bucket of the stored histograms, 6 ms to a month, each 2.5 times the previous: 22 lines per queue."""

_UP_HELP = "1 if the broker is reachable."

_TURN_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class FleetCollector(Collector):
    """The fleet at the time of the scrape. While the broker is unreachable, the only metric is `morag_queue_up` 0."""

    def __init__(self, broker: RedisBroker) -> None:
        self._broker, self._lock = broker, Lock()

    def describe(self) -> Iterable[Metric]:
        """Return nothing, so that registering the collector does not need the broker."""
        return ()

    def collect(self) -> Iterable[Metric]:
        try:
            with self._lock:
                metrics = list(self._read())
        except MoragQueueError:
            return [_gauge("up", _UP_HELP, 0)]
        return [_gauge("up", _UP_HELP, 1), *metrics]

    def _read(self) -> Iterator[Metric]:
        broker, settings = self._broker, self._broker.settings
        snapshot, totals = broker.observe(partial=True)
        windows = broker.windows(snapshot.taken_at, RATE_SECONDS)
        with broker.translated():
            counters = fleet_counters(broker.client, broker.keys, broker.broken)
        stats = fleet_stats(snapshot, windows, totals, settings.policy, window_seconds=RATE_SECONDS, recent=windows)
        yield from _queues(stats, snapshot)
        yield from _workers(stats, snapshot, counters)
        yield from _all_time(counters)
        term = stats.leader.term if stats.leader else 0
        yield _gauge("leader_term", "Term of the current leader; 0 without one.", term)
        yield _gauge("foreign_messages", "Messages in lanes that Celery did not write.", stats.foreign_messages)


class LoopMetrics:
    """Metrics of the loop in this process."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, help_text: str, *labels: str) -> Counter:
            return Counter(f"morag_queue_{name}", help_text, labels, registry=registry)

        self._moves = counter("moves", "Tasks moved to another lane or level, by rule.", "rule")
        self._rescues = counter("rescues", "Recovered tasks, by kind (taken_back = requeued).", "kind")
        self._refusals = counter("refusals", "Planned steps rejected because the fleet had changed.")
        self._turns = counter("turns", "Turns and sweeps, by trigger (news = a change of the fleet).", "trigger")
        self._events = counter("events", "Events emitted, by name.", "event")
        self._seconds = Histogram(
            "morag_queue_turn_duration_seconds", "Duration of a turn.", buckets=_TURN_SECONDS, registry=registry
        )
        self._lag = Histogram(
            "morag_queue_turn_lag_seconds", "Delay of a turn behind its tick.", buckets=_TURN_SECONDS, registry=registry
        )
        self._leading = Gauge("morag_queue_leading", "1 if this process leads the fleet.", registry=registry)
        for kind in ("taken_back", "resent", "quarantined"):
            self._rescues.labels(kind)

    def on_turn(self, report: TurnReport, lag: float) -> None:
        """Count one turn or one part of the sweep; `lag` is in seconds."""
        by_rule = sum(report.rules.values())
        for rule, count in {**report.rules, "recovery": max(report.moved - by_rule, 0)}.items():
            self._moves.labels(rule).inc(count)
        for kind in ("taken_back", "resent", "quarantined"):
            self._rescues.labels(kind).inc(getattr(report, kind))
        self._refusals.inc(len(report.rejected))
        # Other triggers contain worker names, which would create too many label values.
        trigger = report.trigger if report.trigger in ("tick", "sweep", "once") else "news"
        self._turns.labels(trigger).inc()
        if trigger != "sweep":
            self._seconds.observe(report.seconds)
        if trigger == "tick":
            self._lag.observe(lag)

    def on_alive(self, is_leader: bool) -> None:
        """Record whether this process leads."""
        self._leading.set(is_leader)

    def counting(self, sink: EventSink) -> EventSink:
        """Return a sink that counts events and passes them on."""

        def emit(event: Event, /, **fields: Any) -> None:
            self._events.labels(event.value).inc()
            sink(event, **fields)

        return emit


def serve(registry: CollectorRegistry, address: str, port: int) -> str:
    """Serve metrics from a thread; return the URL. Port 0 picks a free port. Raises OSError if the port is in use."""
    server, _ = start_http_server(port, address, registry)
    return f"http://{address}:{server.server_port}/metrics"


_QUEUE_GAUGES: dict[str, tuple[str, Callable[[QueueStats], float]]] = {
    "processing_tasks": ("Tasks claimed by workers that have not ended.", lambda queue: queue.processing_tasks),
    "serving_workers": ("Workers in service that read the queue.", lambda queue: queue.worker_count),
    "oldest_wait_seconds": ("Age of the longest-waiting task.", lambda queue: queue.oldest_wait_time * 60),
    "backlog_seconds": ("Estimated time to run all waiting tasks.", lambda queue: queue.backlog_time * 60),
    "arrivals_per_second": (
        "Submitted tasks per second, over five minutes.",
        lambda queue: queue.arrivals_per_minute / 60,
    ),
    "service_per_second": (
        "Ended tasks per second, over five minutes.",
        lambda queue: queue.completions_per_minute / 60,
    ),
    "increase_per_second": (
        "Submitted minus ended tasks per second, over five minutes.",
        lambda queue: (queue.arrivals_per_minute - queue.completions_per_minute) / 60,
    ),
    "paused": ("1 if the queue is paused.", lambda queue: int(queue.paused)),
}


def _queues(stats: FleetStats, snapshot: Snapshot) -> Iterator[Metric]:
    pending = _gauge("pending_tasks", "Waiting tasks, by queue and level (0 is taken first).", None, "queue", "level")
    for queue in QueueType:
        for level in range(10):
            count = sum(view.lengths[level] for view in snapshot.lanes_by_queue[queue])
            pending.add_metric([queue.value, str(level)], count)
    yield pending
    for name, (help_text, read) in _QUEUE_GAUGES.items():
        metric = _gauge(name, help_text, None, "queue")
        for entry in stats.queues:
            metric.add_metric([entry.queue_type.value], read(entry))
        yield metric


def _workers(stats: FleetStats, snapshot: Snapshot, counters: FleetCounters) -> Iterator[Metric]:
    workers = _gauge("workers", "Workers, by status and capability.", None, "status", "capability")
    counts = {(status, capability): 0 for status in WorkerStatus for capability in Capability}
    for worker in stats.workers:
        counts[worker.status, worker.capability] += 1
    for (status, capability), count in counts.items():
        workers.add_metric([status.value, capability.value], count)
    yield workers
    unacked_help = 'Unacknowledged messages by worker; label "" = no known owner.'
    unacked = _gauge("unacked_messages", unacked_help, None, "worker")
    for view in snapshot.workers:
        if not view.info.pid:  # a registration that cannot be read: its name may be anything, and no label
            continue
        unacked.add_metric([view.worker], len(snapshot.held_by_worker.get(view.worker, ())))
    unacked.add_metric([""], counters.unowned)
    yield unacked
    yield _gauge("dead_tasks", "Dead letters: failed and quarantined tasks.", counters.dead)


def _all_time(counters: FleetCounters) -> Iterator[Metric]:
    ended = CounterMetricFamily("morag_queue_tasks", "Ended tasks, by queue and outcome.", labels=["queue", "outcome"])
    waits = HistogramMetricFamily("morag_queue_task_wait_seconds", "Time from submit to start.", labels=["queue"])
    runs = HistogramMetricFamily("morag_queue_task_run_seconds", "Run time of completed tasks.", labels=["queue"])
    for queue, total in counters.queues.items():
        for outcome in ("completed", "failed", "cancelled"):
            ended.add_metric([queue.value, outcome], total.ended.get(outcome, 0))
        _add_histogram(waits, queue, total.waits, total.wait_seconds)
        _add_histogram(runs, queue, total.runs, total.run_seconds)
    yield from (ended, waits, runs)


def _add_histogram(metric: HistogramMetricFamily, queue: QueueType, counts: Mapping[int, int], seconds: float) -> None:
    buckets = [
        (f"{SMALLEST_S * GROWTH**edge:.6g}", sum(count for index, count in counts.items() if index <= edge))
        for edge in _BUCKETS
    ]
    metric.add_metric([queue.value], [*buckets, ("+Inf", sum(counts.values()))], seconds)


def _gauge(name: str, help_text: str, value: float | None, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"morag_queue_{name}", help_text, value=value, labels=labels or None)
