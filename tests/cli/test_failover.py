"""`failover` of named workers, with and without connections in their name."""

import json
from dataclasses import replace

import pytest
import redis

from morag_queue.broker.codec import LedgerRecord
from morag_queue.broker.workers import ClientConnections
from tests.cli.helpers import backdate_beat, recovery_counts


def test_failover_requeues_held_tasks_first_and_moves_lanes_to_the_shared_lane(sim_fleet, join, fleet):
    join("cpu-1", alive=False, slots=2)
    join("cpu-2", alive=True)
    sim_fleet.submit("a", "b", "c")
    assert [sim_fleet.claim("cpu-1"), sim_fleet.claim("cpu-1")] == ["a", "b"]
    sim_fleet.submit("pin-1", "pin-2", worker="cpu-1")
    answer = fleet("failover", "cpu-1", "--reason", "fire", "--json").json
    assert recovery_counts(answer) == (2, 2, 0, 0)
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b", "c", "pin-1", "pin-2"]
    (worker,) = answer["workers"]
    assert (worker["worker"], worker["verdict"]) == ("cpu-1", "dead")
    assert "no connection named mq.cpu-1 in CLIENT LIST" in worker["evidence"]
    assert answer["plan_id"]
    entry = sim_fleet.broker.journal.latest(1)[0]
    assert (entry.verb, entry.subject, entry.reason, entry.plan_id) == ("failover", "cpu-1", "fire", answer["plan_id"])
    assert entry.changes["tasks"] == ["b", "a"]


def test_a_repeated_failover_changes_nothing(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    fleet("failover", "cpu-1")
    entries = len(sim_fleet.broker.journal.latest(50))
    assert recovery_counts(fleet("failover", "cpu-1", "--json").json) == (0, 0, 0, 0)
    assert "nothing to recover" in fleet("failover", "cpu-1").out
    assert len(sim_fleet.broker.journal.latest(50)) == entries
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]


def test_fencing_an_idle_worker_is_journaled_once(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    for _ in range(2):
        fleet("failover", "cpu-1", "--force", "--yes", "--reason", "rack fire")
    (entry,) = sim_fleet.broker.journal.latest(50)
    assert (entry.verb, entry.subject, entry.reason) == ("failover", "cpu-1", "rack fire")


def test_a_dry_run_of_failover_lists_the_target_of_each_task(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    sim_fleet.submit("held")
    sim_fleet.claim("cpu-1")
    sim_fleet.submit("pinned", worker="cpu-1")
    out = fleet("failover", "cpu-1", "--dry-run").out
    assert "cpu-1: dead, would be failed over (" in out
    assert "  held held by cpu-1 → cpu_standard at level 4\n" in out
    assert "  1 of cpu_standard.cpu-1 at level 4 → cpu_standard\n" in out
    assert out.endswith("would be 1 requeued, 1 moved\n")
    assert len(sim_fleet.broker.observe()[0].held) == 1


def test_a_failed_over_worker_is_offline_at_once(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    fleet("failover", "cpu-1")
    (worker,) = fleet("stats", "--json").json["workers"]
    assert (worker["status"], worker["reason"]) == ("offline", "failed over")


def test_a_late_result_of_a_failed_over_worker_is_rejected(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    before = sim_fleet.broker.observe()[0].held[0]
    fleet("failover", "cpu-1")
    from morag_queue.broker.ledger import TaskEnd

    late = TaskEnd(before.tag, "a", "cpu-1", "cpu_standard", "completed", 1, 1, LedgerRecord({"state": "completed"}))
    assert not sim_fleet.broker.ledger.settle(late)
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]


def test_a_task_that_kills_its_workers_is_delayed_and_then_quarantined(sim_fleet, join, fleet):
    etas = []
    for death in range(4):
        name = f"cpu-{death}"
        join(name, alive=False)
        if death == 0:
            sim_fleet.submit("poison")
        assert sim_fleet.claim(name) == "poison"
        answer = fleet("failover", name, "--json").json
        if death < 3:
            etas.append(sim_fleet.message("cpu_standard", 4)["headers"]["eta"])
    assert recovery_counts(answer) == (0, 0, 0, 1)
    assert etas[0] is None
    assert etas[1] is not None
    dead_letter = json.loads(sim_fleet.client.hget(sim_fleet.keys.dead, "poison"))
    assert [worker for _, worker, _ in dead_letter["story"]] == ["cpu-0", "cpu-1", "cpu-2", "cpu-3"]
    assert sim_fleet.ids("cpu_standard", 4) == []


def test_a_dry_run_of_failover_counts_tasks_and_changes_nothing(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    sim_fleet.submit("pin", worker="cpu-1")
    answer = fleet("failover", "cpu-1", "--dry-run", "--json").json
    assert recovery_counts(answer) == (1, 1, 0, 0)
    assert answer["workers"][0]["done"] == "would be failed over"
    assert sim_fleet.ids("cpu_standard.cpu-1", 4) == ["pin"]
    assert len(sim_fleet.broker.observe()[0].held) == 1
    assert sim_fleet.broker.journal.latest(5) == []


def test_failover_refuses_a_live_worker_and_shows_the_evidence(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    refused = fleet("failover", "cpu-1", status=5).err
    assert "cpu-1 is alive" in refused
    assert "1 connection named mq.cpu-1" in refused
    assert "--force" in refused
    assert len(sim_fleet.broker.observe()[0].held) == 1


def test_a_silent_worker_with_connections_is_not_proved_dead(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    backdate_beat(sim_fleet, "cpu-1", 600)
    refused = fleet("failover", "cpu-1", status=5).err
    assert "not proved dead" in refused
    assert "no answer on the control channel" in refused


def test_failover_changes_nothing_if_one_of_the_workers_is_alive(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    join("cpu-2", alive=True)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    fleet("failover", "cpu-1", "cpu-2", status=5)
    assert len(sim_fleet.broker.observe()[0].held) == 1


def test_a_forced_failover_fences_a_live_worker_first(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    answer = fleet("failover", "cpu-1", "--force", "--yes", "--json").json
    assert recovery_counts(answer) == (1, 0, 0, 0)
    assert answer["workers"][0]["verdict"] == "alive"
    assert sim_fleet.broker.registry.beat("cpu-1", "cpu-1.1", {}, []) == "fenced"
    with pytest.raises(redis.ResponseError, match="FENCED"):
        sim_fleet.claim("cpu-1")
    assert not sim_fleet.broker.registry.is_connected("mq.cpu-1")


def test_a_worker_that_restarts_during_its_failover_keeps_its_tasks(sim_fleet, join, fleet, monkeypatch):
    join("cpu-1", alive=False)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    fence = ClientConnections.fence

    def restart_and_fence(evidence, worker, incarnation, *, term=""):
        restarted = replace(sim_fleet.broker.observe()[0].worker_by_id["cpu-1"].info, incarnation="cpu-1.2")
        assert sim_fleet.broker.registry.register(restarted, "cpu-1.1") == ""
        return fence(evidence, worker, incarnation, term=term)

    monkeypatch.setattr(ClientConnections, "fence", restart_and_fence)
    answer = fleet("failover", "cpu-1", "--json", status=3)
    assert recovery_counts(answer.json) == (0, 0, 0, 0)
    assert "came back" in answer.json["workers"][0]["done"]
    assert "not recovered: cpu-1: " in answer.err
    assert "came back" in answer.err
    assert len(sim_fleet.broker.observe()[0].held) == 1


def test_failover_rejects_unknown_ambiguous_and_missing_workers(sim_fleet, join, fleet):
    join("worker-1", alive=False)
    join("worker-2", alive=False)
    assert "nobody" in fleet("failover", "nobody", status=8).err
    assert "worker-1, worker-2" in fleet("failover", "worker-", status=2).err
    assert "no workers given: use `morag-queue failover W…`, or --dead" in fleet("failover", status=2).err
    assert "not both" in fleet("failover", "worker-1", "--dead", status=2).err


def test_failover_skips_a_lane_of_the_wrong_type(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    sim_fleet.submit("pin", worker="cpu-1")
    sim_fleet.client.set("cpu_batch.cpu-1", "a string")
    sim_fleet.client.sadd(sim_fleet.keys.lanes, "cpu_batch.cpu-1")
    assert recovery_counts(fleet("failover", "cpu-1", "--json").json) == (0, 1, 0, 0)


def test_a_declined_confirmation_of_a_forced_failover_changes_nothing(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    declined = fleet("failover", "cpu-1", "--force", typed="n\n", status=5)
    assert "cpu-1: tasks of a live worker will be requeued and may run twice. Continue? [y/N]" in declined.err
    assert len(sim_fleet.broker.observe()[0].held) == 1
    fleet("failover", "cpu-1", "--force", typed="y\n")
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]
