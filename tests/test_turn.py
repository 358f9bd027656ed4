"""Single turns of the loop on a real broker. `tests.support.simulated_fleet` simulates the workers."""

from typing import Any

import pytest

from morag_queue.core.balancing.state import BalancerState
from morag_queue.errors import LeaseLost
from morag_queue.watch.turn import PollEvidence, step
from tests.support.simulated_fleet import SimulatedFleet, connected


def turn(stage: SimulatedFleet, evidence: PollEvidence = PollEvidence(), term: str = "", **more: Any) -> Any:  # noqa: B008
    return step(stage.broker, BalancerState(), evidence, term=term, who="ann", pause=lambda _: None, **more)


def test_a_turn_on_a_balanced_fleet_changes_nothing(stage):
    stage.join("worker-cpu-1")
    stage.submit("a")
    done = turn(stage)
    assert not done.report.has_changed
    assert done.report.rules == {}
    assert stage.broker.journal.latest(5) == []


def test_tasks_of_a_dead_worker_are_requeued_at_the_front(stage):
    stage.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    stage.submit("a", "b", "c")
    assert stage.claim("worker-cpu-1") == "a"
    done = turn(stage, PollEvidence(absent=frozenset({"worker-cpu-1"})))
    assert (done.report.taken_back, done.report.moved) == (1, 0)
    assert stage.ids("cpu_standard", 4) == ["a", "b", "c"]
    assert [entry.verb for entry in stage.broker.journal.latest(5)] == ["failover"]
    assert "worker-cpu-1" in stage.broker.journal.latest(1)[0].subject


def test_a_dead_worker_without_tasks_is_not_failed_over(stage):
    stage.join("worker-cpu-1")
    done = turn(stage, PollEvidence(absent=frozenset({"worker-cpu-1"})))
    assert done.report.failed_over is None
    assert not done.snapshot.worker_by_id["worker-cpu-1"].fenced


def test_a_worker_that_came_back_does_not_block_the_failover_of_others(valkey, stage):
    for name in ("worker-cpu-1", "worker-cpu-2"):
        stage.join(name, client_name=f"mq.{name}")
    stage.submit("a", "b")
    stage.claim("worker-cpu-1")
    stage.claim("worker-cpu-2")
    with connected(valkey, "mq.worker-cpu-2"):
        done = turn(stage, PollEvidence(absent=frozenset({"worker-cpu-1", "worker-cpu-2"})))
    assert done.report.taken_back == 1
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_a_silent_but_connected_worker_is_fenced_before_its_tasks_are_requeued(valkey, stage):
    stage.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    stage.submit("a")
    stage.claim("worker-cpu-1")
    stage.client.hset(stage.keys.beats, "worker-cpu-1", '{"at": 1000.0}')
    with connected(valkey, "mq.worker-cpu-1"):
        done = turn(stage, PollEvidence(silent=frozenset({"worker-cpu-1"})))
    assert done.report.taken_back == 1
    assert stage.broker.observe()[0].worker_by_id["worker-cpu-1"].fenced


def test_a_turn_empties_the_lanes_of_a_draining_worker_and_counts_the_rule(stage):
    stage.join("worker-cpu-1")
    stage.join("worker-cpu-2")
    stage.submit("a", "b", worker="worker-cpu-1")
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    done = turn(stage)
    assert (done.report.moved, done.report.rules) == (2, {"evacuation": 2})
    assert stage.broker.journal.latest(1)[0].verb == "watch"


def test_a_dry_run_reports_decisions_and_changes_nothing(stage):
    stage.join("worker-cpu-1")
    stage.submit("a", worker="worker-cpu-1")
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    done = turn(stage, dry_run=True)
    assert not done.report.has_changed
    assert [decision.source_lane for decision in done.report.decisions] == ["cpu_standard.worker-cpu-1"]
    assert stage.ids("cpu_standard.worker-cpu-1", 4) == ["a"]


def test_a_flapping_worker_is_cordoned_for_a_limited_time(stage):
    stage.join("worker-cpu-1")
    done = turn(stage, PollEvidence(flapping={"worker-cpu-1": 5}))
    assert done.report.opened_breakers == ("worker-cpu-1",)
    cordon = stage.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon
    assert (cordon.state, cordon.who) == ("cordoned", "circuit breaker")
    assert cordon.until == pytest.approx(cordon.at + 300)
    assert "started 5 times" in cordon.reason


def test_the_circuit_breaker_keeps_an_existing_cordon(stage):
    stage.join("worker-cpu-1")
    stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "drained", "who": "ann"}')
    assert turn(stage, PollEvidence(flapping={"worker-cpu-1": 5})).report.opened_breakers == ()
    assert stage.broker.observe()[0].worker_by_id["worker-cpu-1"].cordon.who == "ann"


@pytest.mark.parametrize("what", ["failover", "drain", "breaker", "nothing"])
def test_a_superseded_leader_changes_nothing(stage, what):
    stage.join("worker-cpu-1", client_name="mq.worker-cpu-1")
    stage.submit("held", "waits")
    stage.submit("pinned", worker="worker-cpu-1")
    stage.claim("worker-cpu-1")
    if what == "drain":
        stage.client.hset(stage.keys.cordons, "worker-cpu-1", '{"state": "draining"}')
    evidence = PollEvidence(
        absent=frozenset({"worker-cpu-1"} if what == "failover" else ()),
        flapping={"worker-cpu-1": 9} if what == "breaker" else {},
    )
    old = stage.broker.leases.take("old", "ann", "watch", 30)
    assert stage.broker.leases.give_up(old)
    stage.broker.leases.take("new", "bob", "watch", 30)
    before = {key: stage.client.dump(key) for key in stage.client.scan_iter()}
    with pytest.raises(LeaseLost):
        turn(stage, evidence, term=str(old.term))
    assert {key: stage.client.dump(key) for key in stage.client.scan_iter()} == before
