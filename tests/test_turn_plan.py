"""One turn of the loop: what it counts, and how often it reads the whole fleet."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import redis

from morag_queue.core.balancing.state import BalancerState
from morag_queue.operations.rebalance import DEPTH
from morag_queue.operations.sweep import Sweep
from morag_queue.watch.turn import PollEvidence, step, sweep_step


@contextmanager
def connected(url: str, name: str) -> Iterator[None]:
    with redis.Redis.from_url(url, client_name=name) as client:
        client.ping()
        yield


def turn(stage, **more):
    return step(stage.broker, BalancerState(), term="", who="ann", pause=lambda _: None, **more).report


def silence(stage, name: str) -> None:
    stage.client.hset(stage.keys.beats, name, '{"at": 1000.0}')


def succeed(stage, task_id: str) -> None:
    """Celery's result of a task that ended in success and was not acknowledged."""
    done = datetime.fromtimestamp(stage.broker.now() + 1.0, UTC).isoformat()
    stage.client.set(f"celery-task-meta-{task_id}", json.dumps({"status": "SUCCESS", "date_done": done}))


def test_finished_tasks_of_dead_and_of_silent_workers_are_counted_together(valkey, stage):
    for name in ("dead-1", "silent-1"):
        stage.join(name, client_name=f"mq.{name}")
    stage.submit("a", "b")
    assert [stage.claim("dead-1"), stage.claim("silent-1")] == ["a", "b"]
    succeed(stage, "a")
    succeed(stage, "b")
    silence(stage, "silent-1")
    with connected(valkey, "mq.silent-1"):
        report = turn(stage, evidence=PollEvidence(absent=frozenset({"dead-1"}), silent=frozenset({"silent-1"})))
    assert report.failed_over.finished_tasks == 2


def test_a_dry_run_shows_the_steps_for_dead_and_for_silent_workers(valkey, stage):
    for name in ("dead-1", "silent-1"):
        stage.join(name, client_name=f"mq.{name}")
    stage.submit("a", "b")
    stage.claim("dead-1")
    stage.claim("silent-1")
    silence(stage, "silent-1")
    with connected(valkey, "mq.silent-1"):
        evidence = PollEvidence(absent=frozenset({"dead-1"}), silent=frozenset({"silent-1"}))
        report = turn(stage, evidence=evidence, dry_run=True)
    assert {step.task_id for step in report.failed_over.steps} == {"a", "b"}


def test_a_silent_worker_is_failed_over_although_another_one_is_unknown(valkey, stage):
    stage.join("silent-1", client_name="mq.silent-1")
    stage.submit("a")
    stage.claim("silent-1")
    silence(stage, "silent-1")
    with connected(valkey, "mq.silent-1"):
        report = turn(stage, evidence=PollEvidence(silent=frozenset({"silent-1", "gone-1"})))
    assert report.taken_back == 1


def test_a_turn_with_every_kind_of_work_reads_the_fleet_at_most_twice(valkey, stage, monkeypatch):
    for name in ("dead-1", "silent-1", "draining-1", "idle-1"):
        stage.join(name, client_name=f"mq.{name}", slots=1)
    stage.join("gpu-1", "gpu", slots=1)
    stage.submit("a", "b")
    assert [stage.claim("dead-1"), stage.claim("silent-1")] == ["a", "b"]
    stage.submit("pinned-1", worker="dead-1")
    stage.submit("pinned-2", worker="draining-1")
    stage.client.hset(stage.keys.cordons, "draining-1", '{"state": "draining"}')
    youtube = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
    fields = {"content_type": "youtube", "requires": "gpu_preferred", "estimated_duration": 10.0}
    stage.submit(*(f"long-{n}" for n in range(20)), source=youtube, **fields)
    silence(stage, "silent-1")
    real, calls = stage.broker.observe, []
    monkeypatch.setattr(stage.broker, "observe", lambda *args: calls.append(args) or real(*args))
    with connected(valkey, "mq.silent-1"):
        evidence = PollEvidence(absent=frozenset({"dead-1"}), silent=frozenset({"silent-1"}))
        report = turn(stage, evidence=evidence)
    assert len(calls) <= 2
    assert report.taken_back == 2
    assert report.rules["evacuation"] == 1
    assert report.moved >= 2, "the lanes of the dead and of the draining worker"
    assert stage.ids("cpu_standard.dead-1", 4) == stage.ids("cpu_standard.draining-1", 4) == []

    calls.clear()
    stage.client.hset(stage.keys.incarnations, "idle-1", "fenced")
    sweep_step(stage.broker, Sweep(stage.broker), term="", who="ann")
    assert len(calls) == 1


def test_balancing_after_a_failover_sees_as_many_entries_as_without_one(stage):
    stage.join("dead-1", client_name="mq.dead-1")
    stage.submit("a")
    stage.claim("dead-1")
    stage.submit(*(f"t{n}" for n in range(20)))
    evidence = PollEvidence(absent=frozenset({"dead-1"}))
    done = step(stage.broker, BalancerState(), evidence, term="", who="ann", pause=lambda _: None)
    assert done.report.taken_back == 1
    assert len(done.snapshot.lane_by_name["cpu_standard"].heads[4]) == DEPTH
