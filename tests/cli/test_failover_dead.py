"""`failover --dead`: recover all dead workers, and sweep for lost messages and tasks."""

import redis

from tests.cli.helpers import backdate_beat, backdate_tasks, backdate_unacked, recovery_counts


def test_failover_dead_recovers_only_workers_silent_for_long_enough(sim_fleet, join, fleet):
    for name in ("gone", "blinks", "lives"):
        join(name, alive=name == "lives")
    sim_fleet.submit("a", "b", "c")
    for name in ("gone", "blinks", "lives"):
        sim_fleet.claim(name)
    backdate_beat(sim_fleet, "gone", 10)
    answer = fleet("failover", "--dead", "--json").json
    assert [(worker["worker"], worker["verdict"]) for worker in answer["workers"]] == [("gone", "dead")]
    assert recovery_counts(answer) == (1, 0, 0, 0)
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]


def test_failover_dead_reports_a_silent_worker_with_connections_as_unproven(sim_fleet, join, fleet):
    join("stopped", alive=True)
    sim_fleet.submit("a")
    sim_fleet.claim("stopped")
    backdate_beat(sim_fleet, "stopped", 600)
    answer = fleet("failover", "--dead", "--json").json
    assert [(worker["verdict"], worker["done"]) for worker in answer["workers"]] == [("unproven", "left alone")]
    assert recovery_counts(answer) == (0, 0, 0, 0)


def test_a_message_that_a_live_worker_lost_is_requeued_and_the_others_are_kept(sim_fleet, join, fleet):
    join("cpu-1", alive=True, slots=2)
    sim_fleet.submit("lost", "kept")
    sim_fleet.claim("cpu-1"), sim_fleet.claim("cpu-1")
    backdate_unacked(sim_fleet, 60)
    kept = next(message.tag for message in sim_fleet.broker.observe()[0].held if message.task_id == "kept")
    assert sim_fleet.broker.registry.beat("cpu-1", "cpu-1.1", {"active": 1}, [kept]) == "ok"
    answer = fleet("failover", "--dead", "--json").json
    assert recovery_counts(answer) == (1, 0, 0, 0)
    assert sim_fleet.ids("cpu_standard", 4) == ["lost"]


def test_an_unacked_message_without_an_owner_is_requeued(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    backdate_unacked(sim_fleet, 60)
    sim_fleet.client.delete(sim_fleet.keys.held)
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (1, 0, 0, 0)
    assert sim_fleet.ids("cpu_standard", 4) == ["a"]


def test_failover_dead_finishes_an_interrupted_failover(sim_fleet, join, fleet):
    join("cpu-1", alive=False)
    sim_fleet.submit("a")
    sim_fleet.claim("cpu-1")
    assert sim_fleet.broker.evidence.fence("cpu-1", "cpu-1.1") == ""
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (1, 0, 0, 0)


def test_a_task_missing_from_the_broker_is_resent_unchanged(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("lost", options={"n": [1, {}]}, priority="HIGH", estimated_duration=0.5)
    sim_fleet.submit("waits")
    before = sim_fleet.message("cpu_standard", 1)
    sim_fleet.client.delete(sim_fleet.keys.list("cpu_standard", 1))
    backdate_tasks(sim_fleet, "lost", "waits")
    answer = fleet("failover", "--dead", "--json").json
    assert recovery_counts(answer) == (0, 0, 1, 0)
    after = sim_fleet.message("cpu_standard", 1)
    assert after["body"] == before["body"]
    assert after["headers"]["morag_queue"] == before["headers"]["morag_queue"] | {"enqueued_at": enqueued_at(after)}
    assert after["properties"]["delivery_tag"] != before["properties"]["delivery_tag"]
    assert sim_fleet.ids("cpu_standard", 4) == ["waits"]
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0), "resent only once"


def test_a_task_that_moved_to_another_lane_is_not_resent(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("moved", "stays")
    sim_fleet.broker.moves.lane("cpu_standard", "cpu_batch", 4, 1)
    backdate_tasks(sim_fleet, "moved", "stays")
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0)
    assert sim_fleet.ids("cpu_batch", 4) == ["moved"]


def test_a_missing_task_with_a_result_is_closed_as_completed(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("ran")
    sim_fleet.client.delete(sim_fleet.keys.list("cpu_standard", 4))
    sim_fleet.client.set(sim_fleet.keys.result("ran"), '{"status": "SUCCESS"}')
    backdate_tasks(sim_fleet, "ran")
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0)
    assert sim_fleet.broker.records(["ran"])["ran"].state == "completed"


def test_a_missing_task_that_an_agentless_worker_may_have_run_is_declined(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    sim_fleet.submit("unsure")
    sim_fleet.client.delete(sim_fleet.keys.list("cpu_standard", 4))
    backdate_tasks(sim_fleet, "unsure")
    with redis.Redis.from_url(sim_fleet.url) as agentless, agentless.pubsub() as pubsub:
        pubsub.subscribe("celery.pidbox")
        pubsub.get_message(timeout=1)
        answer = fleet("failover", "--dead", "--json").json
    assert recovery_counts(answer) == (0, 0, 0, 0)
    assert "unsure" in answer["declined"][0]["subject"]


def test_lanes_of_a_worker_that_never_registered_are_emptied_after_a_minute(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    with redis.Redis.from_url(sim_fleet.url) as client:
        sim_fleet.submit("pin", worker="cpu-1")
        client.rename("cpu_standard.cpu-1\x06\x164", "cpu_standard.nobody\x06\x164")
        client.sadd(sim_fleet.keys.lanes, "cpu_standard.nobody")
    backdate_tasks(sim_fleet, "pin", lane="cpu_standard.nobody", seconds=90)
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 1, 0, 0)


def test_failover_dead_prints_nothing_if_there_is_nothing_to_do(sim_fleet, join, fleet):
    join("cpu-1", alive=True)
    assert fleet("failover", "--dead").out == ""


def enqueued_at(message):
    return message["headers"]["morag_queue"]["enqueued_at"]
