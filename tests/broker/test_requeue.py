"""requeue.lua: a message is taken from a worker and put first in a lane, in one step or not at all."""

import json

import pytest

from morag_queue.broker.requeue import RequeueRequest, Requeues
from tests.broker.conftest import Bench, MakeFull, Taken


@pytest.fixture
def requeues(bench: Bench) -> Requeues:
    return Requeues(bench.client, bench.keys, 60)


def back(taken: Taken, **more) -> RequeueRequest:
    known = {"incarnation": "run-1", "task_id": taken.task_id, "lane": "cpu_standard", "level": 4, "why": "w1 died"}
    return RequeueRequest(taken.tag, **(known | more))


def test_a_requeued_message_is_first_with_a_new_tag_and_address(bench: Bench, requeues: Requeues):
    bench.send(lane="cpu_standard.w1")
    taken = bench.claim()
    assert taken is not None
    waits = bench.send()

    assert requeues.apply([back(taken)]) == ["moved"]

    first, second = (json.loads(raw) for raw in bench.waiting())
    assert (first["headers"]["id"], second["headers"]["id"]) == (taken.task_id, waits)
    assert first["properties"]["delivery_info"]["routing_key"] == "cpu_standard"
    assert first["properties"]["delivery_tag"] not in (taken.tag, taken.message["properties"]["delivery_tag"])
    assert (bench.unacked(taken.tag), bench.held(taken.tag)) == (None, None)
    assert bench.client.zcard(bench.keys.unacked_index) == 0


def test_a_restore_under_the_old_tag_changes_nothing(bench: Bench, requeues: Requeues):
    bench.send()
    taken = bench.claim()
    requeues.apply([back(taken)])
    before = bench.everything()
    bench.restore(taken.tag)
    assert bench.everything() == before


def test_a_message_of_another_incarnation_stays(bench: Bench, requeues: Requeues):
    bench.send()
    taken = bench.claim(incarnation="run-2")
    before = bench.everything()
    assert requeues.apply([back(taken), back(taken, incarnation="")]) == ["gone", "gone"]
    assert bench.everything() == before


def test_a_message_is_requeued_once(bench: Bench, requeues: Requeues):
    bench.send()
    taken = bench.claim()
    assert requeues.apply([back(taken), back(taken)]) == ["moved", "gone"]
    assert len(bench.waiting()) == 1


def test_many_messages_keep_their_order(bench: Bench, requeues: Requeues):
    sent = [bench.send() for _ in range(600)]
    taken = [bench.claim() for _ in sent]
    assert requeues.apply([back(one) for one in reversed(taken)]) == ["moved"] * 600
    assert bench.claimed_ids() == sent


def test_a_message_touched_since_stays(bench: Bench, requeues: Requeues):
    bench.send()
    taken = bench.claim()
    touched = bench.client.zscore(bench.keys.unacked_index, taken.tag)
    assert requeues.apply([back(taken, untouched_since=touched)]) == ["gone"]
    assert requeues.apply([back(taken, untouched_since=touched + 1)]) == ["moved"]


def test_a_message_without_a_holder_is_requeued_only_by_a_request_without_one(bench: Bench, requeues: Requeues):
    bench.send()
    taken = bench.claim()
    bench.client.hdel(bench.keys.held, taken.tag)
    assert requeues.apply([back(taken)]) == ["gone"]
    assert requeues.apply([back(taken, incarnation="")]) == ["moved"]


def test_a_task_acknowledged_before_it_ran_ends_as_failed(bench: Bench, requeues: Requeues):
    bench.send()
    taken = bench.claim()
    bench.client.hdel(bench.keys.unacked, taken.tag)
    key = bench.keys.task(taken.task_id)
    bench.client.set(key, '{"state": "queued", "args": [{}, []]}')
    assert requeues.apply([back(taken)]) == ["early"]
    record = bench.client.get(key)
    assert json.loads(record)["state"] == "failed"
    assert record.endswith(b', "entry": {"state": "queued", "args": [{}, []]}}')
    assert 0 < bench.client.ttl(key) <= 60
    assert bench.waiting() == []


def test_a_task_is_quarantined_with_its_story_after_too_many_deaths(bench: Bench, requeues: Requeues):
    task_id = bench.send(args=({}, [], "ü"))
    key = bench.keys.task(task_id)
    bench.client.set(key, '{"state": "queued"}')
    for death in range(1, 4):
        taken = bench.claim()
        assert requeues.apply([back(taken, max_deaths=2, why=f"death {death}")]) == [
            "moved" if death < 3 else "quarantined"
        ]
    letter = json.loads(bench.client.hget(bench.keys.dead, task_id))
    assert [(worker, why) for _, worker, why in letter["story"]] == [("w1", f"death {n}") for n in (1, 2, 3)]
    assert (letter["lane"], letter["level"], letter["state"]) == ("cpu_standard", 4, "quarantined")
    assert json.loads(letter["message"])["body"] == taken.message["body"]
    assert bench.client.get(key) == b'{"state": "quarantined"}'
    assert bench.client.hlen(bench.keys.attempts) == 0
    assert bench.waiting() == []
    assert bench.unacked(taken.tag) is None


def test_the_oldest_dead_letter_is_dropped_at_capacity_and_its_record_expires(bench: Bench, requeues: Requeues):
    bench.client.zadd(bench.keys.graves, {"old": 1} | {f"x-{n}": 2 for n in range(9_999)})
    bench.client.hset(bench.keys.dead, "old", "{}")
    bench.client.set(bench.keys.task("old"), '{"state": "quarantined"}')
    task_id = bench.send()
    assert requeues.apply([back(bench.claim(), max_deaths=0)]) == ["quarantined"]
    assert bench.client.hkeys(bench.keys.dead) == [task_id.encode()]
    assert bench.client.zcard(bench.keys.graves) == 10_000
    assert 0 < bench.client.ttl(bench.keys.task("old")) <= 60


def test_graves_of_another_type_refuse_a_quarantine_whole(bench: Bench, requeues: Requeues):
    from redis.exceptions import ResponseError

    bench.client.set(bench.keys.graves, "another type")
    bench.send()
    taken = bench.claim()
    with pytest.raises(ResponseError, match="WRONGTYPE"):
        requeues.apply([back(taken, max_deaths=0)])
    assert bench.unacked(taken.tag) is not None
    assert not bench.client.exists(bench.keys.dead)


def test_giving_back_does_not_count_as_a_death(bench: Bench, requeues: Requeues):
    bench.send()
    for _ in range(5):
        assert requeues.apply([back(bench.claim())]) == ["moved"]
    assert bench.client.hlen(bench.keys.attempts) == 0


def test_an_eta_is_written_only_into_a_message_without_one(bench: Bench, requeues: Requeues):
    bench.send()
    bench.send(countdown=3600)
    first, second = bench.claim(), bench.claim()
    wanted = second.message["headers"]["eta"]
    requeues.apply([back(one, eta="2030-01-01T00:00:00+00:00") for one in (second, first)])
    etas = [json.loads(raw)["headers"]["eta"] for raw in bench.waiting()]
    assert etas == ["2030-01-01T00:00:00+00:00", wanted]


def test_a_foreign_unacked_text_stays(bench: Bench, requeues: Requeues):
    bench.client.hset(bench.keys.unacked, "x", "not a message")
    bench.client.hset(bench.keys.held, "x", json.dumps(["w1", "run-1", "", "cpu_standard", 4, 0]))
    assert requeues.apply([RequeueRequest("x", "run-1", "", "cpu_standard", 4)]) == ["foreign"]
    assert bench.unacked("x") == b"not a message"


def test_a_superseded_leader_requeues_nothing(bench: Bench, requeues: Requeues):
    from redis.exceptions import ResponseError

    bench.send()
    taken = bench.claim()
    bench.client.set(bench.keys.lease, '{"term": 7}')
    with pytest.raises(ResponseError, match="STALE"):
        requeues.apply([back(taken)], term="6")
    assert bench.unacked(taken.tag) is not None
    assert requeues.apply([back(taken)], term="7") == ["moved"]


def test_a_server_out_of_memory_refuses_a_requeue_whole(bench: Bench, requeues: Requeues, out_of_memory: MakeFull):
    from redis.exceptions import ResponseError

    bench.send()
    taken = bench.claim()
    requeues.apply([back(taken)])  # loads the script
    taken = bench.claim()
    before = bench.everything()
    out_of_memory()
    with pytest.raises(ResponseError, match="maxmemory"):
        requeues.apply([back(taken, max_deaths=2)])
    assert bench.everything() == before
