"""requeue.lua: a message is taken from a worker and put first in a lane, in one step or not at all."""

import json

import pytest

from morag_queue.broker.requeue import RequeueRequest, Requeues
from tests.broker.conftest import MakeFull, ScriptRunner, Taken


@pytest.fixture
def requeues(runner: ScriptRunner) -> Requeues:
    return Requeues(runner.client, runner.keys, 60)


def back(taken: Taken, **more) -> RequeueRequest:
    known = {"incarnation": "run-1", "task_id": taken.task_id, "lane": "cpu_standard", "level": 4, "why": "w1 died"}
    return RequeueRequest(taken.tag, **(known | more))


def test_a_requeued_message_is_first_with_a_new_tag_and_address(runner: ScriptRunner, requeues: Requeues):
    runner.send(lane="cpu_standard.w1")
    taken = runner.claim()
    assert taken is not None
    waits = runner.send()

    assert requeues.apply([back(taken)]) == ["moved"]

    first, second = (json.loads(raw) for raw in runner.waiting())
    assert (first["headers"]["id"], second["headers"]["id"]) == (taken.task_id, waits)
    assert first["properties"]["delivery_info"]["routing_key"] == "cpu_standard"
    assert first["properties"]["delivery_tag"] not in (taken.tag, taken.message["properties"]["delivery_tag"])
    assert (runner.unacked(taken.tag), runner.held(taken.tag)) == (None, None)
    assert runner.client.zcard(runner.keys.unacked_index) == 0


def test_a_restore_under_the_old_tag_changes_nothing(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    taken = runner.claim()
    requeues.apply([back(taken)])
    before = runner.everything()
    runner.restore(taken.tag)
    assert runner.everything() == before


def test_a_message_of_another_incarnation_stays(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    taken = runner.claim(incarnation="run-2")
    before = runner.everything()
    assert requeues.apply([back(taken), back(taken, incarnation="")]) == ["gone", "gone"]
    assert runner.everything() == before


def test_a_message_is_requeued_once(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    taken = runner.claim()
    assert requeues.apply([back(taken), back(taken)]) == ["moved", "gone"]
    assert len(runner.waiting()) == 1


def test_many_messages_keep_their_order(runner: ScriptRunner, requeues: Requeues):
    sent = [runner.send() for _ in range(600)]
    taken = [runner.claim() for _ in sent]
    assert requeues.apply([back(one) for one in reversed(taken)]) == ["moved"] * 600
    assert runner.claimed_ids() == sent


def test_a_message_touched_since_stays(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    taken = runner.claim()
    touched = runner.client.zscore(runner.keys.unacked_index, taken.tag)
    assert requeues.apply([back(taken, untouched_since=touched)]) == ["gone"]
    assert requeues.apply([back(taken, untouched_since=touched + 1)]) == ["moved"]


def test_a_message_without_a_holder_is_requeued_only_by_a_request_without_one(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    taken = runner.claim()
    runner.client.hdel(runner.keys.held, taken.tag)
    assert requeues.apply([back(taken)]) == ["gone"]
    assert requeues.apply([back(taken, incarnation="")]) == ["moved"]


def test_a_task_acknowledged_before_it_ran_ends_as_failed(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    taken = runner.claim()
    runner.client.hdel(runner.keys.unacked, taken.tag)
    key = runner.keys.task(taken.task_id)
    runner.client.set(key, '{"state": "queued", "args": [{}, []]}')
    assert requeues.apply([back(taken)]) == ["early"]
    record = runner.client.get(key)
    assert json.loads(record)["state"] == "failed"
    assert record.endswith(b', "entry": {"state": "queued", "args": [{}, []]}}')
    assert 0 < runner.client.ttl(key) <= 60
    assert runner.waiting() == []


def test_a_task_is_quarantined_with_its_story_after_too_many_deaths(runner: ScriptRunner, requeues: Requeues):
    task_id = runner.send(args=({}, [], "ü"))
    key = runner.keys.task(task_id)
    runner.client.set(key, '{"state": "queued"}')
    for death in range(1, 4):
        taken = runner.claim()
        assert requeues.apply([back(taken, max_deaths=2, why=f"death {death}")]) == [
            "moved" if death < 3 else "quarantined"
        ]
    letter = json.loads(runner.client.hget(runner.keys.dead, task_id))
    assert [(worker, why) for _, worker, why in letter["story"]] == [("w1", f"death {n}") for n in (1, 2, 3)]
    assert (letter["lane"], letter["level"], letter["state"]) == ("cpu_standard", 4, "quarantined")
    assert json.loads(letter["message"])["body"] == taken.message["body"]
    assert runner.client.get(key) == b'{"state": "quarantined"}'
    assert runner.client.hlen(runner.keys.attempts) == 0
    assert runner.waiting() == []
    assert runner.unacked(taken.tag) is None


def test_the_oldest_dead_letter_is_dropped_at_capacity_and_its_record_expires(runner: ScriptRunner, requeues: Requeues):
    runner.client.zadd(runner.keys.graves, {"old": 1} | {f"x-{n}": 2 for n in range(9_999)})
    runner.client.hset(runner.keys.dead, "old", "{}")
    runner.client.set(runner.keys.task("old"), '{"state": "quarantined"}')
    task_id = runner.send()
    assert requeues.apply([back(runner.claim(), max_deaths=0)]) == ["quarantined"]
    assert runner.client.hkeys(runner.keys.dead) == [task_id.encode()]
    assert runner.client.zcard(runner.keys.graves) == 10_000
    assert 0 < runner.client.ttl(runner.keys.task("old")) <= 60


def test_graves_of_another_type_refuse_a_quarantine_whole(runner: ScriptRunner, requeues: Requeues):
    from redis.exceptions import ResponseError

    runner.client.set(runner.keys.graves, "another type")
    runner.send()
    taken = runner.claim()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        requeues.apply([back(taken, max_deaths=0)])
    assert runner.unacked(taken.tag) is not None
    assert not runner.client.exists(runner.keys.dead)


def test_giving_back_does_not_count_as_a_death(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    for _ in range(5):
        assert requeues.apply([back(runner.claim())]) == ["moved"]
    assert runner.client.hlen(runner.keys.attempts) == 0


def test_an_eta_is_written_only_into_a_message_without_one(runner: ScriptRunner, requeues: Requeues):
    runner.send()
    runner.send(countdown=3600)
    first, second = runner.claim(), runner.claim()
    wanted = second.message["headers"]["eta"]
    requeues.apply([back(one, eta="2030-01-01T00:00:00+00:00") for one in (second, first)])
    etas = [json.loads(raw)["headers"]["eta"] for raw in runner.waiting()]
    assert etas == ["2030-01-01T00:00:00+00:00", wanted]


def test_a_foreign_unacked_text_stays(runner: ScriptRunner, requeues: Requeues):
    runner.client.hset(runner.keys.unacked, "x", "not a message")
    runner.client.hset(runner.keys.held, "x", json.dumps(["w1", "run-1", "", "cpu_standard", 4, 0]))
    assert requeues.apply([RequeueRequest("x", "run-1", "", "cpu_standard", 4)]) == ["foreign"]
    assert runner.unacked("x") == b"not a message"


def test_a_superseded_leader_requeues_nothing(runner: ScriptRunner, requeues: Requeues):
    from redis.exceptions import ResponseError

    runner.send()
    taken = runner.claim()
    runner.client.set(runner.keys.lease, '{"term": 7}')
    with pytest.raises(ResponseError, match="STALE"):
        requeues.apply([back(taken)], term="6")
    assert runner.unacked(taken.tag) is not None
    assert requeues.apply([back(taken)], term="7") == ["moved"]


def test_a_server_out_of_memory_refuses_a_requeue_whole(
    runner: ScriptRunner, requeues: Requeues, out_of_memory: MakeFull
):
    from redis.exceptions import ResponseError

    runner.send()
    taken = runner.claim()
    requeues.apply([back(taken)])  # loads the script
    taken = runner.claim()
    before = runner.everything()
    out_of_memory()
    with pytest.raises(ResponseError, match="maxmemory"):
        requeues.apply([back(taken, max_deaths=2)])
    assert runner.everything() == before
