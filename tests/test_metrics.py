"""Prometheus metrics, scraped over HTTP and parsed."""

import json
import re
import urllib.request
from importlib.resources import files

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.plan import Rejected
from morag_queue.settings import Settings
from morag_queue.watch.events import Event
from morag_queue.watch.metrics import FleetCollector, LoopMetrics, serve
from morag_queue.watch.turn import TurnReport


@pytest.fixture
def scraped(sim_fleet):
    """Return a function that scrapes the metrics and returns samples by name and labels."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(sim_fleet.broker))
    metrics = LoopMetrics(registry)
    url = serve(registry, "127.0.0.1", 0)

    def scrape():
        with urllib.request.urlopen(url, timeout=5) as answer:
            text = answer.read().decode()
        return {
            (sample.name.removeprefix("morag_queue_"), *sorted(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    scrape.metrics, scrape.url = metrics, url
    return scrape


def value(samples, name, **labels):
    return samples[name, *sorted(labels.items())]


def test_an_empty_fleet_has_every_series_at_zero(scraped):
    samples = scraped()
    assert value(samples, "up") == 1
    assert value(samples, "pending_tasks", queue="gpu_priority", level="0") == 0
    assert value(samples, "workers", status="online", capability="gpu") == 0
    assert value(samples, "tasks_total", queue="cpu_batch", outcome="failed") == 0
    assert value(samples, "leader_term") == 0


def test_waiting_running_and_ended_tasks_are_counted(sim_fleet, scraped):
    sim_fleet.join("worker-cpu-1", slots=2)
    sim_fleet.submit("a", "b", "c")
    sim_fleet.claim("worker-cpu-1")
    sim_fleet.claim("worker-cpu-1")
    sim_fleet.end("a", run_seconds=2.0)
    sim_fleet.client.hset(sim_fleet.keys.unacked, "a-tag-without-an-owner", "[]")
    samples = scraped()
    assert value(samples, "pending_tasks", queue="cpu_standard", level="4") == 1
    assert value(samples, "processing_tasks", queue="cpu_standard") == 1
    assert value(samples, "unacked_messages", worker="worker-cpu-1") == 1
    assert value(samples, "unacked_messages", worker="") == 1
    assert value(samples, "tasks_total", queue="cpu_standard", outcome="completed") == 1
    assert value(samples, "workers", status="online", capability="cpu") == 1
    assert value(samples, "backlog_seconds", queue="cpu_standard") > 0
    assert 3 / 300 <= value(samples, "arrivals_per_second", queue="cpu_standard") <= 3 / 240
    assert 2 / 300 <= value(samples, "increase_per_second", queue="cpu_standard") <= 2 / 240


def test_histograms_have_cumulative_buckets(sim_fleet, scraped):
    sim_fleet.join("worker-cpu-1")
    for task, seconds in (("a", 2.0), ("b", 2.0), ("c", 200.0)):
        sim_fleet.submit(task)
        sim_fleet.claim("worker-cpu-1")
        sim_fleet.end(task, run_seconds=seconds)
    samples = scraped()
    assert value(samples, "task_run_seconds_count", queue="cpu_standard") == 3
    assert value(samples, "task_run_seconds_sum", queue="cpu_standard") == pytest.approx(204.0)
    buckets = sorted(
        (float(dict(labels)["le"]), value)
        for (name, *labels), value in samples.items()
        if name == "task_run_seconds_bucket" and dict(labels)["queue"] == "cpu_standard"
    )
    counts = [value for _, value in buckets]
    assert counts == sorted(counts)
    assert next(value for edge, value in buckets if edge > 2.5) == 2
    assert buckets[-1] == (float("inf"), 3)


def test_histograms_survive_the_expiry_of_minute_counters(sim_fleet, scraped):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("a")
    sim_fleet.claim("worker-cpu-1")
    sim_fleet.end("a")
    sim_fleet.client.hset(sim_fleet.keys.current, "minute", 61)
    sim_fleet.submit("b")  # in a later minute
    assert sim_fleet.client.delete(sim_fleet.keys.minute(61 * 60)) == 1
    assert value(scraped(), "task_wait_seconds_count", queue="cpu_standard") == 1


def test_leader_and_term_are_exported(sim_fleet, scraped):
    lease = sim_fleet.broker.leases.take("me", "ann", "watch", 30)
    scraped.metrics.on_alive(True)
    samples = scraped()
    assert (value(samples, "leader_term"), value(samples, "leading")) == (lease.term, 1)


def test_the_loop_counts_moves_recoveries_turns_and_events(scraped):
    report = TurnReport(
        trigger="tick", plan_id="p", taken_at=0.0, moved=5, taken_back=2, quarantined=1, rules={"spill": 3},
        rejected=(Rejected(task_id="x", reason="gone"),), seconds=0.02,
    )  # fmt: skip
    scraped.metrics.on_turn(report, 0.3)
    scraped.metrics.on_turn(report.model_copy(update={"trigger": "worker-cpu-1 joined"}), 0.0)
    passed_on = []
    scraped.metrics.counting(lambda event, **fields: passed_on.append(event))(Event.JOINED, worker="w")
    samples = scraped()
    assert (value(samples, "moves_total", rule="spill"), value(samples, "moves_total", rule="recovery")) == (6, 4)
    assert (
        value(samples, "rescues_total", kind="taken_back"),
        value(samples, "rescues_total", kind="resent"),
    ) == (4, 0)
    assert value(samples, "refusals_total") == 2
    assert (value(samples, "turns_total", trigger="tick"), value(samples, "turns_total", trigger="news")) == (
        1,
        1,
    )
    assert (value(samples, "turn_duration_seconds_count"), value(samples, "turn_lag_seconds_count")) == (2, 1)
    assert value(samples, "events_total", event="worker_joined") == 1
    assert passed_on == [Event.JOINED]


def test_a_scrape_without_a_broker_reports_up_0_and_nothing_else():
    registry = CollectorRegistry()
    registry.register(FleetCollector(RedisBroker(Settings(redis_url="redis://127.0.0.1:1/0"))))
    (up,) = registry.collect()
    assert [(sample.name, sample.value) for sample in up.samples] == [("morag_queue_up", 0)]


def test_metric_names_follow_prometheus_conventions(scraped):
    for name, *_ in scraped():
        assert not re.search(r"minutes|_ms\b|[A-Z]", name), name


def test_the_dashboard_uses_only_existing_metrics(scraped, mq_out):
    report = TurnReport(trigger="tick", plan_id="p", taken_at=0.0, moved=1, rules={"spill": 1})
    scraped.metrics.on_turn(report, 0.0)
    scraped.metrics.counting(lambda event, **fields: None)(Event.JOINED, worker="w")
    existing = {f"morag_queue_{name}" for name, *_ in scraped()}
    dashboard = json.loads(mq_out("dashboard"))
    named = {
        name
        for panel in dashboard["panels"]
        for target in panel["targets"]
        for name in re.findall(r"morag_queue_\w+", target["expr"])
    }
    assert named - existing == set()
    assert {"morag_queue_pending_tasks", "morag_queue_backlog_seconds", "morag_queue_leading"} <= named


@pytest.fixture
def mq_out(capsys):
    from morag_queue.cli import main

    def run(*args):
        assert main(args) == 0
        out = capsys.readouterr().out
        assert out == files("morag_queue").joinpath("data", "grafana.json").read_text("utf-8")
        return out

    return run
