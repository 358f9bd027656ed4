"""`failover --dead`: recover all dead workers, and sweep for lost messages and tasks."""

import redis

from tests.cli.helpers import backdate_beat, backdate_tasks, backdate_unacked, recovery_counts


def test_failover_dead_recovers_only_workers_silent_for_long_enough(stage, join, fleet):
    for name in ("gone", "blinks", "lives"):
        join(name, alive=name == "lives")
    stage.submit("a", "b", "c")
    for name in ("gone", "blinks", "lives"):
        stage.claim(name)
    backdate_beat(stage, "gone", 10)
    answer = fleet("failover", "--dead", "--json").json
    assert [(worker["worker"], worker["verdict"]) for worker in answer["workers"]] == [("gone", "dead")]
    assert recovery_counts(answer) == (1, 0, 0, 0)
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_failover_dead_reports_a_silent_worker_with_connections_as_unproven(stage, join, fleet):
    join("stopped", alive=True)
    stage.submit("a")
    stage.claim("stopped")
    backdate_beat(stage, "stopped", 600)
    answer = fleet("failover", "--dead", "--json").json
    assert [(worker["verdict"], worker["done"]) for worker in answer["workers"]] == [("unproven", "left alone")]
    assert recovery_counts(answer) == (0, 0, 0, 0)


def test_a_message_that_a_live_worker_lost_is_requeued_and_the_others_are_kept(stage, join, fleet):
    join("cpu-1", alive=True, slots=2)
    stage.submit("lost", "kept")
    stage.claim("cpu-1"), stage.claim("cpu-1")
    backdate_unacked(stage, 60)
    kept = next(message.tag for message in stage.broker.observe()[0].held if message.task_id == "kept")
    assert stage.broker.registry.beat("cpu-1", "cpu-1.1", {"active": 1}, [kept]) == "ok"
    answer = fleet("failover", "--dead", "--json").json
    assert recovery_counts(answer) == (1, 0, 0, 0)
    assert stage.ids("cpu_standard", 4) == ["lost"]


def test_an_unacked_message_without_an_owner_is_requeued(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("a")
    stage.claim("cpu-1")
    backdate_unacked(stage, 60)
    stage.client.delete(stage.keys.held)
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (1, 0, 0, 0)
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_failover_dead_finishes_an_interrupted_failover(stage, join, fleet):
    join("cpu-1", alive=False)
    stage.submit("a")
    stage.claim("cpu-1")
    assert stage.broker.evidence.fence("cpu-1", "cpu-1.1") == ""
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (1, 0, 0, 0)


def test_a_task_missing_from_the_broker_is_resent_unchanged(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("lost", options={"n": [1, {}]}, priority="HIGH", estimated_duration=0.5)
    stage.submit("waits")
    before = stage.message("cpu_standard", 1)
    stage.client.delete(stage.keys.list("cpu_standard", 1))
    backdate_tasks(stage, "lost", "waits")
    answer = fleet("failover", "--dead", "--json").json
    assert recovery_counts(answer) == (0, 0, 1, 0)
    after = stage.message("cpu_standard", 1)
    assert after["body"] == before["body"]
    assert after["headers"]["morag_queue"] == before["headers"]["morag_queue"] | {"enqueued_at": enqueued_at(after)}
    assert after["properties"]["delivery_tag"] != before["properties"]["delivery_tag"]
    assert stage.ids("cpu_standard", 4) == ["waits"]
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0), "resent only once"


def test_a_task_that_moved_to_another_lane_is_not_resent(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("moved", "stays")
    stage.broker.moves.lane("cpu_standard", "cpu_batch", 4, 1)
    backdate_tasks(stage, "moved", "stays")
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0)
    assert stage.ids("cpu_batch", 4) == ["moved"]


def test_a_missing_task_with_a_result_is_closed_as_completed(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("ran")
    stage.client.delete(stage.keys.list("cpu_standard", 4))
    stage.client.set(stage.keys.result("ran"), '{"status": "SUCCESS"}')
    backdate_tasks(stage, "ran")
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0)
    assert stage.broker.records(["ran"])["ran"].state == "completed"


def test_a_missing_task_that_an_agentless_worker_may_have_run_is_declined(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("unsure")
    stage.client.delete(stage.keys.list("cpu_standard", 4))
    backdate_tasks(stage, "unsure")
    with redis.Redis.from_url(stage.url) as agentless, agentless.pubsub() as pubsub:
        pubsub.subscribe("celery.pidbox")
        pubsub.get_message(timeout=1)
        answer = fleet("failover", "--dead", "--json").json
    assert recovery_counts(answer) == (0, 0, 0, 0)
    assert "unsure" in answer["declined"][0]["subject"]


def test_lanes_of_a_worker_that_never_registered_are_emptied_after_a_minute(stage, join, fleet):
    join("cpu-1", alive=True)
    with redis.Redis.from_url(stage.url) as client:
        stage.submit("pin", worker="cpu-1")
        client.rename("cpu_standard.cpu-1\x06\x164", "cpu_standard.nobody\x06\x164")
        client.sadd(stage.keys.lanes, "cpu_standard.nobody")
    backdate_tasks(stage, "pin", lane="cpu_standard.nobody", seconds=90)
    assert recovery_counts(fleet("failover", "--dead", "--json").json) == (0, 1, 0, 0)


def test_failover_dead_prints_nothing_if_there_is_nothing_to_do(stage, join, fleet):
    join("cpu-1", alive=True)
    assert fleet("failover", "--dead").out == ""


def enqueued_at(message):
    return message["headers"]["morag_queue"]["enqueued_at"]
