"""Lanes of a snapshot: the entries at both ends of each list, without the middle and without bodies."""

import json

import pytest

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.contract import OutgoingMessage
from morag_queue.broker.keys import Keys
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import ContentType, Cordon, QueuePriority, QueueType, Requires, TaskQueueEntry, WorkerStatus
from morag_queue.core.snapshot import LaneEntry, LaneView
from morag_queue.settings import Settings

QUEUE = QueueType.GPU_FALLBACK


@pytest.fixture
def broker(valkey):
    return RedisBroker(Settings(redis_url=valkey))


def submit(broker, *task_ids, lane="gpu_fallback", level=4, args=()):
    wire, messages = MessageBuilder(), []
    for n, task_id in enumerate(task_ids):
        entry = TaskQueueEntry(
            task_id=task_id, task="t", args=args, content_type=ContentType.IMAGE, requires=Requires.GPU_PREFERRED,
            priority=QueuePriority.NORMAL, queue=QUEUE, lane=lane, level=level, estimated_duration=2.5,
            enqueued_at=1000.0 + n,
        )  # fmt: skip
        messages.append(OutgoingMessage(task_id, *wire.message(entry), QUEUE.value, lane, level, lane != QUEUE.value))
    assert all(broker.submit(messages))


def lane_of(broker, name="gpu_fallback", depth=1) -> LaneView:
    return broker.observe(depth)[0].lane_by_name[name]


def ids(end):
    return [entry.task_id for entry in end]


@pytest.mark.parametrize("depth", [1, 2, 3, 4, 5, 9])
def test_both_ends_are_read_to_the_requested_depth(broker, depth):
    names = ["a", "b", "c", "d", "e"]
    submit(broker, *names)
    view = lane_of(broker, depth=depth)
    assert ids(view.heads[4]) == names[:depth]
    assert ids(view.tails[4]) == names[::-1][:depth]
    assert view.length == 5


def test_unknown_fields_of_another_version_are_ignored(broker, sim_fleet):
    sim_fleet.join("w")
    broker.leases.take("me", "ann", "watch", 15)
    broker.cordons.put("w", Cordon(state=WorkerStatus.CORDONED, reason="new disk"), (None,))
    keys = sim_fleet.keys
    for key in (keys.workers, keys.beats, keys.cordons):
        sim_fleet.client.hset(key, "w", json.dumps(json.loads(sim_fleet.client.hget(key, "w")) | {"new": [1]}))
    sim_fleet.client.set(keys.lease, json.dumps(json.loads(sim_fleet.client.get(keys.lease)) | {"new": [1]}))
    snapshot, _ = broker.observe()
    (view,) = snapshot.workers
    assert (view.worker, view.cordon.reason, view.beat.active, snapshot.leader.who) == ("w", "new disk", 0, "ann")


def test_an_entry_has_the_fields_of_its_header(broker):
    submit(broker, "a")
    assert lane_of(broker).heads[4] == (
        LaneEntry("a", Requires.GPU_PREFERRED, QueuePriority.NORMAL, 2.5, 1000.0, ContentType.IMAGE, QUEUE, None),
    )


def test_only_the_oldest_entry_of_a_workers_lane_is_read(broker):
    submit(broker, "a", "b", "c", lane="gpu_fallback.gpu-1")
    view = lane_of(broker, "gpu_fallback.gpu-1", depth=2)
    assert (ids(view.heads[4]), view.tails[4]) == (["a"], ())


def test_a_large_body_is_not_transferred(broker, client):
    submit(broker, "big", args=("x" * 1_000_000,))
    sent_before = client.info("stats")["total_net_output_bytes"]
    assert ids(lane_of(broker).heads[4]) == ["big"]
    assert client.info("stats")["total_net_output_bytes"] - sent_before < 20_000


@pytest.mark.parametrize("size", [0, 5000])
@pytest.mark.parametrize("body", ["", "plain", 'with "quotes" and a \\', '"', "\\"])
def test_headers_are_read_whatever_the_body(broker, client, body, size):
    message = {"body": "x" * size + body, "headers": {"id": "a", "morag_queue": {"requires": "gpu"}}, "properties": {}}
    client.lpush(Keys().list("gpu_fallback", 4), json.dumps(message))
    assert lane_of(broker).heads[4] == (LaneEntry("a", Requires.GPU),)


@pytest.mark.parametrize(
    ("raw", "foreign"),
    [
        ("", 1),
        ("no json", 1),
        ("[]", 1),
        ('{"headers": []}', 1),
        ("[" * 100_000, 1),
        ('{"body": "x', 1),
        ('{"body": "' + "x" * 5000, 1),
        ('{"headers": {}}', 0),
        ('{"headers": {"id": "plain", "task": "t"}}', 0),
        ('{"headers": {"id": "odd", "morag_queue": 7}}', 0),
        ('{"headers": {"id": 7, "morag_queue": {}}}', 0),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_message_without_our_header_is_no_entry(broker, client, raw, foreign):
    client.lpush(Keys().list("gpu_fallback", 4), raw)
    view = lane_of(broker, depth=3)
    assert (view.heads[4], view.tails[4], view.length, view.foreign) == ((), (), 1, foreign)


@pytest.mark.parametrize("value", [None, "word", -1, 1e300, True, [], {"a": 1}], ids=str)
def test_invalid_values_of_a_header_become_defaults(broker, client, value):
    fields = ("requires", "priority", "estimated_minutes", "enqueued_at", "content_type", "queue")
    header = dict.fromkeys(fields, value)
    client.lpush(Keys().list("gpu_fallback", 4), json.dumps({"headers": {"id": "odd", "morag_queue": header}}))
    (head,) = lane_of(broker).heads[4]
    assert (head.requires, head.priority, head.content_type, head.queue) == (
        Requires.CPU, QueuePriority.NORMAL, None, None,
    )  # fmt: skip


def test_a_lane_of_another_type_counts_as_empty(broker, client):
    client.set(Keys().list("gpu_fallback", 4), "not a list")
    assert lane_of(broker).length == 0
