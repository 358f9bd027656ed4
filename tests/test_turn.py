"""Turns of the loop on a real broker: failover, circuit breakers, balancing, dry runs. The workers are simulated."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from morag_queue.core.balancing.state import BalancerState
from morag_queue.errors import LeaseLost
from morag_queue.operations.rebalance import DEPTH
from morag_queue.operations.sweep import Sweep
from morag_queue.watch.breakers import close_breakers
from morag_queue.watch.turn import PollEvidence, TurnResult, step, sweep_step
from tests.support.simulated_fleet import SimulatedFleet, connected


def turn(sim_fleet: SimulatedFleet, evidence: PollEvidence | None = None, term: str = "", **more: Any) -> TurnResult:
    evidence = evidence or PollEvidence()
    return step(sim_fleet.broker, BalancerState(), evidence, term=term, who="ann", pause=lambda _: None, **more)


def silence(sim_fleet: SimulatedFleet, name: str) -> None:
    """Make the last heartbeat of a worker an old one."""
    sim_fleet.client.hset(sim_fleet.keys.beats, name, '{"at": 1000.0}')


def succeed(sim_fleet: SimulatedFleet, task_id: str) -> None:
    """Store the result of a task that succeeded and was not acknowledged."""
    done = datetime.fromtimestamp(sim_fleet.broker.now() + 1.0, UTC).isoformat()
    sim_fleet.client.set(f"celery-task-meta-{task_id}", json.dumps({"status": "SUCCESS", "date_done": done}))


def test_a_turn_on_a_balanced_fleet_changes_nothing(sim_fleet):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("a")
    done = turn(sim_fleet)
    assert not done.report.has_changed
    assert done.report.rules == {}
    assert sim_fleet.broker.journal.latest(5) == []


def test_tasks_of_a_dead_worker_are_requeued_at_the_front(sim_fleet):
    sim_fleet.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    sim_fleet.submit("a", "b", "c")
    assert sim_fleet.claim("worker-cpu-1") == "a"
    done = turn(sim_fleet, PollEvidence(absent=frozenset({"worker-cpu-1"})))
    assert (done.report.taken_back, done.report.moved) == (1, 0)
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b", "c"]
    assert [entry.verb for entry in sim_fleet.broker.journal.latest(5)] == ["failover"]
    assert "worker-cpu-1" in sim_fleet.broker.journal.latest(1)[0].subject


def test_a_dead_worker_without_tasks_is_not_failed_over(sim_fleet):
    sim_fleet.join("worker-cpu-1")
    done = turn(sim_fleet, PollEvidence(absent=frozenset({"worker-cpu-1"})))
    assert done.report.failed_over is None
    assert not done.snapshot.worker_by_id["worker-cpu-1"].fenced


def test_a_worker_that_came_back_does_not_block_the_failover_of_others(valkey, sim_fleet):
    for name in ("worker-cpu-1", "worker-cpu-2"):
        sim_fleet.join(name, client_name=f"mq.{name}")
    sim_fleet.submit("a", "b")
    sim_fleet.claim("worker-cpu-1")
    sim_fleet.claim("worker-cpu-2")
    with connected(valkey, "mq.worker-cpu-2"):
        done = turn(sim_fleet, PollEvidence(absent=frozenset({"worker-cpu-1", "worker-cpu-2"})))
    assert done.report.taken_back == 1
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]


def test_a_silent_but_connected_worker_is_fenced_before_its_tasks_are_requeued(valkey, sim_fleet):
    sim_fleet.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    sim_fleet.submit("a")
    sim_fleet.claim("worker-cpu-1")
    silence(sim_fleet, "worker-cpu-1")
    with connected(valkey, "mq.worker-cpu-1"):
        done = turn(sim_fleet, PollEvidence(silent=frozenset({"worker-cpu-1"})))
    assert done.report.taken_back == 1
    assert sim_fleet.broker.observe()[0].worker_by_id["worker-cpu-1"].fenced


def test_a_turn_empties_the_lanes_of_a_draining_worker_and_counts_the_rule(sim_fleet):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.join("worker-cpu-2")
    sim_fleet.submit("a", "b", worker="worker-cpu-1")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    done = turn(sim_fleet)
    assert (done.report.moved, done.report.rules) == (2, {"evacuation": 2})
    assert sim_fleet.broker.journal.latest(1)[0].verb == "watch"


def test_a_dry_run_reports_decisions_and_changes_nothing(sim_fleet):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("a", worker="worker-cpu-1")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    done = turn(sim_fleet, dry_run=True)
    assert not done.report.has_changed
    assert [decision.source_lane for decision in done.report.decisions] == ["cpu_standard.worker-cpu-1"]
    assert sim_fleet.ids("cpu_standard.worker-cpu-1", 4) == ["a"]


def test_a_flapping_worker_is_cordoned_for_a_limited_time(sim_fleet):
    sim_fleet.join("worker-cpu-1")
    done = turn(sim_fleet, PollEvidence(flapping={"worker-cpu-1": 5}))
    assert done.report.opened_breakers == ("worker-cpu-1",)
    cordon = sim_fleet.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon
    assert (cordon.state, cordon.who) == ("cordoned", "circuit breaker")
    assert cordon.until == pytest.approx(cordon.at + 300)
    assert "started 5 times" in cordon.reason


def test_the_circuit_breaker_keeps_an_existing_cordon(sim_fleet):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "drained", "who": "ann"}')
    assert turn(sim_fleet, PollEvidence(flapping={"worker-cpu-1": 5})).report.opened_breakers == ()
    assert sim_fleet.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon.who == "ann"


def die(sim_fleet, worker, times=1):
    """Let a worker die over the task in its lane; at the fourth death the task is quarantined."""
    for _ in range(times):
        assert sim_fleet.claim(worker) == "poison"
        sim_fleet.broker.registry.take_back(worker, f"{worker}.1", max_deaths=3)


def test_a_worker_is_not_blamed_for_restarts_that_a_quarantined_task_has_caused(sim_fleet):
    for name in ("worker-cpu-1", "worker-cpu-2"):
        sim_fleet.join(name)
    sim_fleet.submit("poison", worker="worker-cpu-1")
    die(sim_fleet, "worker-cpu-1", times=4)
    done = turn(sim_fleet, PollEvidence(flapping={"worker-cpu-1": 5, "worker-cpu-2": 5}))
    assert done.report.opened_breakers == ("worker-cpu-2",), "it did not run the task"


def test_a_breaker_closes_once_the_task_that_caused_the_restarts_is_quarantined(sim_fleet):
    for name in ("worker-cpu-1", "worker-cpu-2"):
        sim_fleet.join(name)
    sim_fleet.submit("poison", worker="worker-cpu-1")
    die(sim_fleet, "worker-cpu-1", times=3)
    opened = turn(sim_fleet, PollEvidence(flapping={"worker-cpu-1": 5, "worker-cpu-2": 5}))
    assert set(opened.report.opened_breakers) == {"worker-cpu-1", "worker-cpu-2"}
    turn(sim_fleet)
    assert sim_fleet.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon is not None, "no task is to blame yet"
    die(sim_fleet, "worker-cpu-1")
    turn(sim_fleet)
    cordons = {view.worker: view.cordon for view in sim_fleet.broker.observe()[0].workers}
    assert (cordons["worker-cpu-1"], cordons["worker-cpu-2"].who) == (None, "circuit breaker")
    closed = sim_fleet.broker.journal.latest(1)[0]
    assert (closed.verb, closed.subject, closed.reason) == (
        "uncordon", "worker-cpu-1", "poison caused its restarts and is quarantined",
    )  # fmt: skip


def test_closing_breakers_keeps_the_cordon_of_an_operator(sim_fleet):
    sim_fleet.join("worker-cpu-1")
    sim_fleet.submit("poison", worker="worker-cpu-1")
    die(sim_fleet, "worker-cpu-1", times=3)
    turn(sim_fleet, PollEvidence(flapping={"worker-cpu-1": 5}))
    before = sim_fleet.broker.observe()[0]
    die(sim_fleet, "worker-cpu-1")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "cordoned", "who": "ann"}')
    close_breakers(sim_fleet.broker, before, term="", who="ann")
    assert sim_fleet.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon.who == "ann"


@pytest.mark.parametrize("due", ["failover", "drain", "breaker", "nothing"])
def test_a_superseded_leader_changes_nothing(sim_fleet, due):
    sim_fleet.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    sim_fleet.submit("held", "waits")
    sim_fleet.submit("pinned", worker="worker-cpu-1")
    sim_fleet.claim("worker-cpu-1")
    if due == "drain":
        sim_fleet.client.hset(sim_fleet.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    evidence = PollEvidence(
        absent=frozenset({"worker-cpu-1"} if due == "failover" else ()),
        flapping={"worker-cpu-1": 9} if due == "breaker" else {},
    )
    old = sim_fleet.broker.leases.take("old", "ann", "watch", 30)
    assert sim_fleet.broker.leases.give_up(old)
    sim_fleet.broker.leases.take("new", "bob", "watch", 30)
    before = {key: sim_fleet.client.dump(key) for key in sim_fleet.client.scan_iter()}
    with pytest.raises(LeaseLost):
        turn(sim_fleet, evidence, term=str(old.term))
    assert {key: sim_fleet.client.dump(key) for key in sim_fleet.client.scan_iter()} == before


def test_finished_tasks_of_dead_and_of_silent_workers_are_counted_together(valkey, sim_fleet):
    for name in ("dead-1", "silent-1"):
        sim_fleet.join(name, client_name=f"mq.{name}")
    sim_fleet.submit("a", "b")
    assert [sim_fleet.claim("dead-1"), sim_fleet.claim("silent-1")] == ["a", "b"]
    succeed(sim_fleet, "a")
    succeed(sim_fleet, "b")
    silence(sim_fleet, "silent-1")
    with connected(valkey, "mq.silent-1"):
        evidence = PollEvidence(absent=frozenset({"dead-1"}), silent=frozenset({"silent-1"}))
        report = turn(sim_fleet, evidence).report
    assert report.failed_over.finished_tasks == 2


def test_a_dry_run_shows_the_steps_for_dead_and_for_silent_workers(valkey, sim_fleet):
    for name in ("dead-1", "silent-1"):
        sim_fleet.join(name, client_name=f"mq.{name}")
    sim_fleet.submit("a", "b")
    sim_fleet.claim("dead-1")
    sim_fleet.claim("silent-1")
    silence(sim_fleet, "silent-1")
    with connected(valkey, "mq.silent-1"):
        evidence = PollEvidence(absent=frozenset({"dead-1"}), silent=frozenset({"silent-1"}))
        report = turn(sim_fleet, evidence, dry_run=True).report
    assert {planned.task_id for planned in report.failed_over.steps} == {"a", "b"}


def test_a_silent_worker_is_failed_over_although_another_one_is_unknown(valkey, sim_fleet):
    sim_fleet.join("silent-1", client_name="mq.silent-1")
    sim_fleet.submit("a")
    sim_fleet.claim("silent-1")
    silence(sim_fleet, "silent-1")
    with connected(valkey, "mq.silent-1"):
        report = turn(sim_fleet, PollEvidence(silent=frozenset({"silent-1", "gone-1"}))).report
    assert report.taken_back == 1


def test_a_turn_with_every_kind_of_work_reads_the_fleet_at_most_twice(valkey, sim_fleet, monkeypatch):
    for name in ("dead-1", "silent-1", "draining-1", "idle-1"):
        sim_fleet.join(name, client_name=f"mq.{name}", slots=1)
    sim_fleet.join("gpu-1", "gpu", slots=1)
    sim_fleet.submit("a", "b")
    assert [sim_fleet.claim("dead-1"), sim_fleet.claim("silent-1")] == ["a", "b"]
    sim_fleet.submit("pinned-1", worker="dead-1")
    sim_fleet.submit("pinned-2", worker="draining-1")
    sim_fleet.client.hset(sim_fleet.keys.cordons, "draining-1", '{"state": "draining"}')
    youtube = "https://www.youtube.com/watch?v=dQw4w9WgXcQ"
    fields = {"content_type": "youtube", "requires": "gpu_preferred", "estimated_duration": 10.0}
    sim_fleet.submit(*(f"long-{n}" for n in range(20)), source=youtube, **fields)
    silence(sim_fleet, "silent-1")
    real, calls = sim_fleet.broker.observe, []
    monkeypatch.setattr(sim_fleet.broker, "observe", lambda *args: calls.append(args) or real(*args))
    with connected(valkey, "mq.silent-1"):
        evidence = PollEvidence(absent=frozenset({"dead-1"}), silent=frozenset({"silent-1"}))
        report = turn(sim_fleet, evidence).report
    assert len(calls) <= 2
    assert report.taken_back == 2
    assert report.rules["evacuation"] == 1
    assert report.moved >= 2, "the lanes of the dead and of the draining worker"
    assert sim_fleet.ids("cpu_standard.dead-1", 4) == sim_fleet.ids("cpu_standard.draining-1", 4) == []

    calls.clear()
    sim_fleet.client.hset(sim_fleet.keys.incarnations, "idle-1", "fenced")
    sweep_step(sim_fleet.broker, Sweep(sim_fleet.broker), term="", who="ann")
    assert len(calls) == 1


def test_balancing_after_a_failover_reads_as_many_entries_as_without_a_failover(sim_fleet):
    sim_fleet.join("dead-1", client_name="mq.dead-1")
    sim_fleet.submit("a")
    sim_fleet.claim("dead-1")
    sim_fleet.submit(*(f"t{n}" for n in range(20)))
    evidence = PollEvidence(absent=frozenset({"dead-1"}))
    done = turn(sim_fleet, evidence)
    assert done.report.taken_back == 1
    assert len(done.snapshot.lane_by_name["cpu_standard"].heads[4]) == DEPTH
