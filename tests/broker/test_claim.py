"""claim.lua: the order of claims, the messages it skips, and the records it writes."""

import json
from typing import Any

import pytest
import redis

from tests.broker.conftest import MakeFull, ScriptRunner

NOT_CELERYS = {
    "text": "hello",
    "nothing": "",
    "bytes": b"\xff\xfe\x00",
    "a number": "7",
    "null": "null",
    "a list": "[]",
    "an empty object": "{}",
    "no properties": '{"body": "", "headers": {}}',
    "no tag": '{"body": "", "headers": {}, "properties": {}}',
    "a tag that is no string": '{"body": "", "headers": {}, "properties": {"delivery_tag": 7}}',
    "a body that is no string": '{"body": {}, "headers": {}, "properties": {"delivery_tag": "x"}}',
    "a tag of its own in the headers": '{"body": "", "properties": {"delivery_tag": "x"}, '
    '"headers": {"delivery_tag": "y"}}',
    "cut off": '{"body": "", "headers": {}, "properties": {"delivery_tag": "x"',
    "nested deeply": "[" * 5000,
    "a tag with an escape": r'{"body": "", "headers": {}, "properties": {"delivery_tag": "a\"b"}}',
}


def the(taken: Any) -> Any:
    assert taken is not None, "nothing was claimed"
    return taken


# -- order


def test_a_more_urgent_level_is_claimed_before_any_lane_of_the_next(runner: ScriptRunner) -> None:
    low = runner.send("cpu_standard.w1", 8)
    high = runner.send("cpu_batch", 1)

    assert runner.claimed_ids() == [high, low]


def test_at_one_level_own_lanes_come_first_and_the_oldest_message_of_each(runner: ScriptRunner) -> None:
    batch, shared, shared_too = runner.send("cpu_batch", 4), runner.send(level=4), runner.send(level=4)
    own = runner.send("cpu_standard.w1", 4)

    assert runner.claimed_ids() == [own, shared, shared_too, batch]


def test_levels_are_claimed_from_the_lowest_number_up(runner: ScriptRunner) -> None:
    sent = {level: runner.send(level=level) for level in (3, 0, 9, 5, 1, 7, 2, 8, 4, 6)}

    assert runner.claimed_ids() == [sent[level] for level in range(10)]


def test_an_empty_claim_writes_nothing(runner: ScriptRunner, client: redis.Redis) -> None:
    client.config_resetstat()

    assert runner.claim() is None

    commands = client.info("commandstats")
    assert not {"cmdstat_hset", "cmdstat_zadd", "cmdstat_rpop", "cmdstat_lrem"} & commands.keys()
    assert runner.everything() == {}


# -- cordons, pauses and fences


@pytest.mark.parametrize("state", ["draining", "drained", "anything else"])
def test_a_draining_or_drained_worker_claims_nothing(state: str, runner: ScriptRunner, client: redis.Redis) -> None:
    sent = [runner.send("cpu_standard.w1"), runner.send()]
    client.hset(runner.keys.cordons, "w1", json.dumps({"state": state}))

    assert runner.claim() is None
    assert runner.claimed_ids(worker="w2", incarnation="other") == sent


def test_a_cordoned_worker_claims_from_its_own_lanes_only(runner: ScriptRunner, client: redis.Redis) -> None:
    own, shared = runner.send("cpu_standard.w1", 9), runner.send(level=0)
    client.hset(runner.keys.cordons, "w1", json.dumps({"state": "cordoned"}))

    assert runner.claimed_ids() == [own]
    client.hdel(runner.keys.cordons, "w1")
    assert runner.claimed_ids() == [shared]


def test_nothing_is_claimed_from_shared_or_own_lanes_of_a_paused_queue(
    runner: ScriptRunner, client: redis.Redis
) -> None:
    for lane in ("cpu_standard.w1", "cpu_standard"):
        runner.send(lane, 0)
    batch = runner.send("cpu_batch", 9)
    client.sadd(runner.keys.paused, "cpu_standard")

    assert runner.claimed_ids() == [batch]


def test_a_fenced_worker_gets_an_error_and_claims_nothing(runner: ScriptRunner, client: redis.Redis) -> None:
    sent = runner.send()
    client.hset(runner.keys.incarnations, "w1", "run-2")

    with pytest.raises(redis.ResponseError, match="FENCED w1 is run-2"):
        runner.claim(incarnation="run-1")

    assert runner.claimed_ids(incarnation="run-2") == [sent]


# -- records


def test_a_claim_records_the_message_its_time_and_its_holder(runner: ScriptRunner, client: redis.Redis) -> None:
    sent = runner.send("cpu_batch", 6)

    taken = the(runner.claim())

    assert taken.lane == "cpu_batch"
    assert runner.waiting("cpu_batch", 6) == []
    message, exchange, routing_key = json.loads(runner.unacked(taken.tag) or "")
    assert (message, exchange, routing_key) == (taken.message, "", "cpu_batch")
    seconds, micros = client.time()
    assert client.zscore(runner.keys.unacked_index, taken.tag) == pytest.approx(seconds + micros / 1e6, abs=5)
    worker, incarnation, task_id, lane, level, ms = runner.held(taken.tag) or []
    assert (worker, incarnation, task_id, lane, level) == ("w1", "run-1", sent, "cpu_batch", 6)
    assert ms / 1000 == pytest.approx(seconds, abs=5)


def test_only_the_delivery_tag_of_the_text_changes(runner: ScriptRunner) -> None:
    runner.send(args=("/a/é-日本-\U0001f600.pdf", {}, []), kwargs={"b": {}, "a": [], "c": 'q"u\\o/te', "d": 1e300})
    before = runner.waiting()[0]
    old = json.loads(before)["properties"]["delivery_tag"]

    taken = the(runner.claim())

    assert taken.text == before.replace(old.encode(), taken.tag.encode())
    assert taken.message["properties"]["delivery_tag"] == taken.tag != old


@pytest.mark.parametrize(
    "hostile",
    [
        {"headers": {"note": '"delivery_tag": "fake"'}},
        {"headers": {"delivery_tag": "fake"}},
        {"headers": {"properties": {"delivery_tag": "fake"}, "empty": {}, "none": []}},
        {"kwargs": {"delivery_tag": "fake"}},
        {"headers": {"slash": "a/b\\/c", "u": "\\u0022"}},
    ],
    ids=str,
)
def test_a_delivery_tag_in_headers_or_arguments_is_left_alone(hostile: dict[str, Any], runner: ScriptRunner) -> None:
    runner.send(**hostile)
    before = json.loads(runner.waiting()[0])

    taken = the(runner.claim())

    before["properties"]["delivery_tag"] = taken.tag
    assert taken.message == before


@pytest.mark.parametrize("compression", [None, "gzip", "bzip2"])
@pytest.mark.parametrize("serializer", ["json", "pickle"])
def test_kombu_restores_a_claimed_message_and_celery_reads_it(
    serializer: str, compression: str | None, runner: ScriptRunner
) -> None:
    arguments = ("/ü/日本/\x00\x1f", {}, [], None)
    sent = runner.send(args=arguments, kwargs={"a": []}, serializer=serializer, compression=compression)
    taken = the(runner.claim())

    runner.restore(taken.tag)

    assert runner.unacked(taken.tag) is None
    with runner.app.connection_for_read() as connection:
        queue = connection.SimpleQueue("cpu_standard")
        queue.consumer.accept = {"application/json", "application/x-python-serialize"}
        message = queue.get(timeout=5)
        args, kwargs, _ = message.payload
        message.ack()
        queue.close()
    assert message.headers["id"] == sent
    assert (list(args), kwargs) == (list(arguments), {"a": []})


# -- skipped messages


@pytest.mark.parametrize("raw", NOT_CELERYS.values(), ids=NOT_CELERYS)
def test_a_message_that_is_not_celerys_is_skipped_and_stays(raw: str | bytes, runner: ScriptRunner) -> None:
    runner.put(raw)
    sent = runner.send()
    runner.put(raw)
    kept = raw if isinstance(raw, bytes) else raw.encode()

    assert runner.claimed_ids() == [sent]
    assert runner.waiting() == [kept, kept]


def test_a_thousand_foreign_messages_are_skipped_and_keep_their_order(runner: ScriptRunner) -> None:
    foreign = [f"foreign {number}" for number in range(950)]
    for raw in foreign:
        runner.put(raw)
    sent = [runner.send(), runner.send()]

    assert runner.claimed_ids() == sent
    assert runner.waiting() == [raw.encode() for raw in foreign]


def test_a_lane_full_of_foreign_messages_does_not_block_other_lanes(runner: ScriptRunner) -> None:
    for number in range(1200):
        runner.put(f"foreign {number}", level=0)
    sent = runner.send("cpu_batch", 9)

    assert runner.claimed_ids() == [sent]


def test_a_lane_of_another_type_is_skipped(runner: ScriptRunner, client: redis.Redis) -> None:
    sent = runner.send(level=2)  # before: kombu declares the queue at the first message, which reads all its lists
    client.set(runner.keys.list("cpu_standard", 0), "no list")
    client.sadd(runner.keys.list("cpu_standard.w1", 1), "no list")

    assert runner.claimed_ids() == [sent]


@pytest.mark.parametrize("which", ["unacked", "unacked_index", "held"])
def test_a_message_is_not_taken_when_its_records_cannot_be_written(which: str, runner: ScriptRunner) -> None:
    runner.send()
    runner.client.set(getattr(runner.keys, which), "another type")
    before = runner.everything()

    with pytest.raises(redis.ResponseError, match="wrong kind of value"):
        runner.claim()

    assert runner.everything() == before


# -- refusals of the server


def test_a_claim_completes_on_a_server_out_of_memory(runner: ScriptRunner, out_of_memory: MakeFull) -> None:
    sent = runner.send()
    out_of_memory()

    taken = the(runner.claim())

    assert taken.task_id == sent
    assert runner.unacked(taken.tag) is not None
    assert runner.held(taken.tag) is not None


def test_a_read_only_replica_refuses_a_claim_whole(runner: ScriptRunner, read_only: MakeFull) -> None:
    runner.send()
    before = runner.everything()
    read_only()

    with pytest.raises(redis.exceptions.ReadOnlyError):
        runner.claim()

    assert runner.everything() == before


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("before", ["", "0", "0 1 2 3", "0 1 2 3 4 5 6 7 8"])
def test_a_message_is_found_at_each_level_whatever_the_level_of_the_last_one(
    before: str, level: int, runner: ScriptRunner
) -> None:
    last = runner.send(level=9)
    first = runner.send(level=level)

    taken = [runner.claim(before=before), runner.claim(before=before)]

    assert [one and one.task_id for one in taken] == ([first, last] if level < 9 else [last, first])
