"""failover on the command line: workers that are registered, with and without connections in their names."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest
import redis

from morag_queue.broker.workers import ClientConnections
from morag_queue.cli import VERBS
from morag_queue.cli.context import World
from morag_queue.cli.run import run
from tests.cli.conftest import Terminal


@pytest.fixture
def fleet(stage, mq):
    return lambda *args, **more: mq(*args, env={"REDIS_URL": stage.url, "USER": "ann"}, **more)


@pytest.fixture
def join(stage) -> Iterator[Callable[..., None]]:
    """Registers a worker; a live one has a connection in its name until the end of the test."""
    with ExitStack() as stack:

        def joined(name, capability="cpu", *, alive, **more):
            stage.join(name, capability, client_name=f"mq.{name}", **more)
            if alive:
                connected = stack.enter_context(redis.Redis.from_url(stage.url, client_name=f"mq.{name}"))
                connected.ping()

        yield joined


def age(stage, name, seconds):
    """As if its last beat was so long ago."""
    beat = json.loads(stage.client.hget(stage.keys.beats, name))
    stage.client.hset(stage.keys.beats, name, json.dumps(beat | {"at": beat["at"] - seconds}))


def untouched(stage, seconds):
    """As if nobody had touched what is in hands for so long."""
    for tag, at in stage.client.zrange(stage.keys.unacked_index, 0, -1, withscores=True):
        stage.client.zadd(stage.keys.unacked_index, {tag: at - seconds})


def counts(answer):
    names = ("requeued_tasks", "moved_tasks", "recovered_tasks", "quarantined_tasks")
    return tuple(answer[name] for name in names)


# -- a dead worker


def test_what_a_dead_worker_held_is_first_in_line_and_its_lanes_go_to_everybody(stage, join, fleet):
    join("cpu-1", alive=False, slots=2)
    join("cpu-2", alive=True)
    stage.submit("a", "b", "c")
    assert [stage.claim("cpu-1"), stage.claim("cpu-1")] == ["a", "b"]
    stage.submit("pin-1", "pin-2", worker="cpu-1")
    answer = fleet("failover", "cpu-1", "--reason", "fire", "--json").json
    assert counts(answer) == (2, 2, 0, 0)
    assert stage.ids("cpu_standard", 4) == ["a", "b", "c", "pin-1", "pin-2"]
    (worker,) = answer["workers"]
    assert (worker["worker"], worker["verdict"]) == ("cpu-1", "dead")
    assert "no connection named mq.cpu-1 in CLIENT LIST" in worker["evidence"]
    assert answer["plan_id"]
    entry = stage.broker.journal.latest(1)[0]
    assert (entry.verb, entry.subject, entry.reason, entry.plan_id) == ("failover", "cpu-1", "fire", answer["plan_id"])
    assert entry.changes["tasks"] == ["b", "a"]


def test_the_second_time_is_quiet(stage, join, fleet):
    join("cpu-1", alive=False)
    stage.submit("a")
    stage.claim("cpu-1")
    fleet("failover", "cpu-1")
    entries = len(stage.broker.journal.latest(50))
    assert counts(fleet("failover", "cpu-1", "--json").json) == (0, 0, 0, 0)
    assert "nothing was left to take over" in fleet("failover", "cpu-1").out
    assert len(stage.broker.journal.latest(50)) == entries
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_to_fence_one_that_held_nothing_is_written_down_once_with_its_reason(stage, join, fleet):
    join("cpu-1", alive=False)
    for _ in range(2):
        fleet("failover", "cpu-1", "--force", "--yes", "--reason", "rack fire")
    (entry,) = stage.broker.journal.latest(50)
    assert (entry.verb, entry.subject, entry.reason) == ("failover", "cpu-1", "rack fire")


def test_a_dry_run_shows_where_each_task_would_go(stage, join, fleet):
    join("cpu-1", alive=False)
    stage.submit("held")
    stage.claim("cpu-1")
    stage.submit("pinned", worker="cpu-1")
    told = fleet("failover", "cpu-1", "--dry-run").out
    assert "  held held by cpu-1 → cpu_standard at level 4\n" in told
    assert "  1 of cpu_standard.cpu-1 at level 4 → cpu_standard\n" in told
    assert told.endswith("would be 1 taken back, 1 moved\n")
    assert len(stage.broker.observe()[0].held) == 1


def test_a_dead_worker_shows_as_offline_at_once(stage, join, fleet):
    join("cpu-1", alive=False)
    fleet("failover", "cpu-1")
    (shown,) = fleet("stats", "--json").json["workers"]
    assert (shown["status"], shown["reason"]) == ("offline", "failed over")


def test_what_ends_late_on_a_worker_that_was_failed_over_does_not_count(stage, join, fleet):
    join("cpu-1", alive=False)
    stage.submit("a")
    stage.claim("cpu-1")
    before = stage.broker.observe()[0].held[0]
    fleet("failover", "cpu-1")
    from morag_queue.broker.ledger import TaskEnd

    late = TaskEnd(before.tag, "a", "cpu-1", "cpu_standard", "completed", 1, 1, {"state": "completed"})
    assert not stage.broker.ledger.settle(late)
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_a_task_that_kills_its_workers_waits_longer_and_is_quarantined(stage, join, fleet):
    etas = []
    for death in range(4):
        name = f"cpu-{death}"
        join(name, alive=False)
        if death == 0:
            stage.submit("poison")
        assert stage.claim(name) == "poison"
        answer = fleet("failover", name, "--json").json
        if death < 3:
            etas.append(stage.message("cpu_standard", 4)["headers"]["eta"])
    assert counts(answer) == (0, 0, 0, 1)
    assert etas[0] is None
    assert etas[1] is not None
    grave = json.loads(stage.client.hget(stage.keys.dead, "poison"))
    assert [worker for _, worker, _ in grave["story"]] == ["cpu-0", "cpu-1", "cpu-2", "cpu-3"]
    assert stage.ids("cpu_standard", 4) == []


def test_a_dry_run_counts_and_touches_nothing(stage, join, fleet):
    join("cpu-1", alive=False)
    stage.submit("a")
    stage.claim("cpu-1")
    stage.submit("pin", worker="cpu-1")
    answer = fleet("failover", "cpu-1", "--dry-run", "--json").json
    assert counts(answer) == (1, 1, 0, 0)
    assert stage.ids("cpu_standard.cpu-1", 4) == ["pin"]
    assert len(stage.broker.observe()[0].held) == 1
    assert stage.broker.journal.latest(5) == []


# -- a live one


def test_a_live_worker_is_refused_with_the_evidence(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("a")
    stage.claim("cpu-1")
    refused = fleet("failover", "cpu-1", status=5).err
    assert "cpu-1 is alive" in refused
    assert "1 connections named mq.cpu-1" in refused
    assert "--force" in refused
    assert len(stage.broker.observe()[0].held) == 1


def test_a_silent_worker_with_connections_is_not_proved_dead(stage, join, fleet):
    join("cpu-1", alive=True)
    age(stage, "cpu-1", 600)
    refused = fleet("failover", "cpu-1", status=5).err
    assert "not proved dead" in refused
    assert "no answer on the control channel" in refused


def test_one_live_worker_among_dead_ones_stops_all(stage, join, fleet):
    join("cpu-1", alive=False)
    join("cpu-2", alive=True)
    stage.submit("a")
    stage.claim("cpu-1")
    fleet("failover", "cpu-1", "cpu-2", status=5)
    assert len(stage.broker.observe()[0].held) == 1


def test_force_fences_a_live_worker_before_it_takes_over(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("a")
    stage.claim("cpu-1")
    answer = fleet("failover", "cpu-1", "--force", "--yes", "--json").json
    assert counts(answer) == (1, 0, 0, 0)
    assert answer["workers"][0]["verdict"] == "alive"
    assert stage.broker.registry.beat("cpu-1", "cpu-1.1", {}, []) == "fenced"
    with pytest.raises(redis.ResponseError, match="FENCED"):
        stage.claim("cpu-1")
    assert not stage.broker.registry.is_connected("mq.cpu-1")


def test_who_comes_back_in_the_middle_is_not_robbed_and_the_answer_says_so(stage, join, fleet, monkeypatch):
    join("cpu-1", alive=False)
    stage.submit("a")
    stage.claim("cpu-1")
    fence = ClientConnections.fence

    def comes_back(evidence, worker, incarnation, *, term=""):
        again = stage.broker.observe()[0].worker_by_id["cpu-1"].info.model_copy(update={"incarnation": "cpu-1.2"})
        assert stage.broker.registry.register(again, "cpu-1.1") == ""
        return fence(evidence, worker, incarnation, term=term)

    monkeypatch.setattr(ClientConnections, "fence", comes_back)
    answer = fleet("failover", "cpu-1", "--json", status=3)
    assert counts(answer.json) == (0, 0, 0, 0)
    assert "came back" in answer.json["workers"][0]["done"]
    assert "came back" in answer.err
    assert len(stage.broker.observe()[0].held) == 1


# -- --dead: all of them, and the sweep


def test_dead_takes_over_from_the_silent_ones_and_leaves_the_others_alone(stage, join, fleet):
    for name in ("gone", "blinks", "lives"):
        join(name, alive=name == "lives")
    stage.submit("a", "b", "c")
    for name in ("gone", "blinks", "lives"):
        stage.claim(name)
    age(stage, "gone", 10)
    answer = fleet("failover", "--dead", "--json").json
    assert [(one["worker"], one["verdict"]) for one in answer["workers"]] == [("gone", "dead")]
    assert counts(answer) == (1, 0, 0, 0)
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_dead_leaves_a_silent_worker_with_connections_alone_and_shows_it(stage, join, fleet):
    join("stopped", alive=True)
    stage.submit("a")
    stage.claim("stopped")
    age(stage, "stopped", 600)
    answer = fleet("failover", "--dead", "--json").json
    assert [(one["verdict"], one["done"]) for one in answer["workers"]] == [("unproven", "left alone")]
    assert counts(answer) == (0, 0, 0, 0)


def test_what_a_live_worker_has_lost_is_found_and_what_it_has_is_not_touched(stage, join, fleet):
    join("cpu-1", alive=True, slots=2)
    stage.submit("lost", "kept")
    stage.claim("cpu-1"), stage.claim("cpu-1")
    untouched(stage, 60)
    kept = next(one.tag for one in stage.broker.observe()[0].held if one.task_id == "kept")
    assert stage.broker.registry.beat("cpu-1", "cpu-1.1", {"active": 1}, [kept]) == "ok"
    answer = fleet("failover", "--dead", "--json").json
    assert counts(answer) == (1, 0, 0, 0)
    assert stage.ids("cpu_standard", 4) == ["lost"]


def test_a_message_in_no_hand_is_found(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("a")
    stage.claim("cpu-1")
    untouched(stage, 60)
    stage.client.delete(stage.keys.held)
    assert counts(fleet("failover", "--dead", "--json").json) == (1, 0, 0, 0)
    assert stage.ids("cpu_standard", 4) == ["a"]


def test_what_a_failover_left_that_was_cut_off_is_finished(stage, join, fleet):
    join("cpu-1", alive=False)
    stage.submit("a")
    stage.claim("cpu-1")
    assert stage.broker.evidence.fence("cpu-1", "cpu-1.1") == ""
    assert counts(fleet("failover", "--dead", "--json").json) == (1, 0, 0, 0)


def test_a_task_that_is_nowhere_is_sent_again_with_all_that_it_had(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("lost", options={"n": [1, {}]}, priority="HIGH", estimated_duration=0.5)
    stage.submit("waits")
    before = stage.message("cpu_standard", 1)
    stage.client.delete(stage.keys.list("cpu_standard", 1))
    make_old(stage, "lost", "waits")
    answer = fleet("failover", "--dead", "--json").json
    assert counts(answer) == (0, 0, 1, 0)
    after = stage.message("cpu_standard", 1)
    assert after["body"] == before["body"]
    assert after["headers"]["morag_queue"] == before["headers"]["morag_queue"] | {"enqueued_at": enqueued_at(after)}
    assert after["properties"]["delivery_tag"] != before["properties"]["delivery_tag"]
    assert stage.ids("cpu_standard", 4) == ["waits"]
    assert counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0), "once"


def test_a_task_that_only_moved_elsewhere_is_not_lost(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("moved", "stays")
    stage.broker.moves.lane("cpu_standard", "cpu_batch", 4, 1)
    make_old(stage, "moved", "stays")
    assert counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0)
    assert stage.ids("cpu_batch", 4) == ["moved"]


def test_a_task_that_a_stock_worker_has_ended_is_closed_by_its_result(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("ran")
    stage.client.delete(stage.keys.list("cpu_standard", 4))
    stage.client.set(stage.keys.result("ran"), '{"status": "SUCCESS"}')
    make_old(stage, "ran")
    assert counts(fleet("failover", "--dead", "--json").json) == (0, 0, 0, 0)
    assert stage.broker.records(["ran"])["ran"]["state"] == "completed"


def test_where_a_stock_worker_may_have_run_it_and_keeps_no_results_it_is_told_and_not_sent(stage, join, fleet):
    join("cpu-1", alive=True)
    stage.submit("unsure")
    stage.client.delete(stage.keys.list("cpu_standard", 4))
    make_old(stage, "unsure")
    with redis.Redis.from_url(stage.url) as stock, stock.pubsub() as pubsub:
        pubsub.subscribe("celery.pidbox")
        pubsub.get_message(timeout=1)
        answer = fleet("failover", "--dead", "--json").json
    assert counts(answer) == (0, 0, 0, 0)
    assert "unsure" in answer["declined"][0]["subject"]


def test_lanes_of_a_worker_that_never_came_are_emptied_after_a_minute(stage, join, fleet):
    join("cpu-1", alive=True)
    with redis.Redis.from_url(stage.url) as client:
        stage.submit("pin", worker="cpu-1")
        client.rename("cpu_standard.cpu-1\x06\x164", "cpu_standard.nobody\x06\x164")
        client.sadd(stage.keys.lanes, "cpu_standard.nobody")
    make_old(stage, "pin", lane="cpu_standard.nobody", seconds=90)
    assert counts(fleet("failover", "--dead", "--json").json) == (0, 1, 0, 0)


def test_nothing_to_do_says_nothing(stage, join, fleet):
    join("cpu-1", alive=True)
    assert fleet("failover", "--dead").out == ""


# -- bad input


def test_unknown_and_ambiguous_workers_and_no_worker_at_all(stage, join, fleet):
    join("worker-1", alive=False)
    join("worker-2", alive=False)
    assert "nobody" in fleet("failover", "nobody", status=8).err
    assert "worker-1, worker-2" in fleet("failover", "worker-", status=2).err
    assert "--dead" in fleet("failover", status=2).err
    assert "not both" in fleet("failover", "worker-1", "--dead", status=2).err


def test_a_lane_of_the_wrong_type_stops_nothing(stage, join, fleet):
    join("cpu-1", alive=False)
    stage.submit("pin", worker="cpu-1")
    stage.client.set("cpu_batch.cpu-1", "a string")
    stage.client.sadd(stage.keys.lanes, "cpu_batch.cpu-1")
    assert counts(fleet("failover", "cpu-1", "--json").json) == (0, 1, 0, 0)


def make_old(stage, *task_ids, lane="cpu_standard", seconds=30.0):
    """As if these were queued so long ago; in the ledger, and in that lane."""
    for one in task_ids:
        key = stage.keys.task(one)
        record = json.loads(stage.client.get(key))
        stage.client.set(key, json.dumps(record | {"enqueued_at": record["enqueued_at"] - seconds}))
    for level in range(10):
        name = stage.keys.list(lane, level)
        for place, raw in enumerate(stage.client.lrange(name, 0, -1)):
            message = json.loads(raw)
            message["headers"]["morag_queue"]["enqueued_at"] -= seconds
            stage.client.lset(name, place, json.dumps(message))


def enqueued_at(message):
    return message["headers"]["morag_queue"]["enqueued_at"]


def test_force_asks_on_a_terminal_and_a_no_changes_nothing(stage, join, tmp_path):
    join("cpu-1", alive=True)
    stage.submit("a")
    stage.claim("cpu-1")

    def at_a_terminal(said):
        out, err = Terminal(), Terminal()
        world = World(Terminal(said), out, err, {"HOME": str(tmp_path), "REDIS_URL": stage.url}, tmp_path)
        return run(VERBS, ["failover", "cpu-1", "--force"], world), err.getvalue()

    status, asked = at_a_terminal("n\n")
    assert status == 5
    assert "cpu-1: what runs there runs again elsewhere if it is alive. Go on? [y/N]" in asked
    assert len(stage.broker.observe()[0].held) == 1
    assert at_a_terminal("y\n")[0] == 0
    assert stage.ids("cpu_standard", 4) == ["a"]
