"""Texts of other versions, of other producers and broken ones: the readers of the codec never raise."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morag_queue.broker import codec
from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.codec.fields import number
from morag_queue.core.model import (
    ContentType,
    DecisionAction,
    HeldMessage,
    LoadBalancingDecision,
    QueuePriority,
    QueueType,
    Requires,
    TaskQueueEntry,
    TaskState,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)
NAMES = [
    "state", "lane", "level", "entry", "args", "kwargs", "message", "decision", "story", "headers", "properties",
    "body", "id", "morag_queue", "eta", "retries", "priority", "requires", "worker", "enqueued_at", "status",
    "date_done", "until", "at", "reason",
]  # fmt: skip
OBJECTS = st.dictionaries(st.sampled_from(NAMES), JSON, max_size=8)
HEADERS = OBJECTS | st.fixed_dictionaries({"morag_queue": OBJECTS})
MESSAGES = st.fixed_dictionaries({"body": st.text(max_size=3), "properties": OBJECTS, "headers": HEADERS})
TEXTS = st.text(max_size=9) | JSON.map(json.dumps) | OBJECTS.map(json.dumps) | MESSAGES.map(json.dumps)


def message(**header):
    headers = {"id": "a", "task": "t", "retries": 2, "eta": "2026-01-01T00:00:00+00:00", "morag_queue": header}
    properties = {"delivery_tag": "tag", "delivery_info": {"exchange": "x", "routing_key": "old"}, "priority": 9}
    return json.dumps({"body": "W1tdLCB7fSwge31d", "headers": headers, "properties": properties})


@given(TEXTS)
@settings(max_examples=200, deadline=None)
def test_readers_never_raise(text):
    raw = text.encode()
    codec.lane_entry(raw, 3)
    codec.waiting_task(raw, "cpu_standard", 3)
    codec.read_arguments(codec.read_message(raw))
    codec.rewrite_message(raw, lane="cpu_batch", level=1, fields={"worker": None})
    codec.renew_message(raw, lane="cpu_batch", level=1, tag="t", keep_retries=False)
    codec.read_unacked(raw)
    codec.unacked_task_id(raw)
    codec.task_id_in(raw)
    codec.read_held(b"tag", raw)
    codec.read_story(raw)
    codec.read_result(raw)
    codec.cordon_in_force(raw, 0.0)
    dead = codec.read_dead_letter("a", raw)
    codec.dead_task(dead, dead.record)
    record = codec.read_record(raw)
    if record is not None:
        codec.ended_task("a", TaskState.FAILED, record)
        codec.lost_task("a", record, 1)
        json.loads(record.moved("cpu_batch", 1, {"worker": None}))
        assert (record.arguments, record.decision, record.message) is not None


def submitted(**more):
    """The record that `submit` writes, and its fields."""
    entry = TaskQueueEntry(**{
        "task_id": "a", "task": "t", "args": ("/data/a.pdf", "document", {"queue": "x"}), "source": "/data/a.pdf",
        "priority": QueuePriority.HIGH, "queue": QueueType.CPU_BATCH, "lane": "cpu_batch.w1", "level": 2,
        "estimated_duration": 1.23456, "enqueued_at": 1700000000.1234, **more,
    })  # fmt: skip
    text, record = MessageBuilder().message(entry)
    return json.loads(text), record


DECISION = LoadBalancingDecision(
    action=DecisionAction.ASSIGN, source_queue=QueueType.CPU_BATCH, target_queue=QueueType.CPU_BATCH, worker_id="w1",
    reason='w1 is "free"', confidence=0.87654,
)  # fmt: skip


def test_a_new_record_repeats_nothing_and_is_read_whole():
    message, text = submitted()
    text = codec.with_decision(text, DECISION)
    assert text.count("/data/a.pdf") == 1
    record = codec.read_record(text)
    assert (record.source, record.arguments) == ("/data/a.pdf", (["/data/a.pdf", "document", {"queue": "x"}], {}))
    assert (record.queue, record.lane, record.level, record.task) == ("cpu_batch", "cpu_batch.w1", 2, "t")
    assert (record.priority, record.requires, record.content_type) == (QueuePriority.HIGH, Requires.CPU, None)
    assert (record.enqueued_at, record.estimated_minutes) == (1700000000.123, 1.2346)
    assert record.decision == {
        "action": "assign", "target_queue": "cpu_batch", "worker_id": "w1", "reason": 'w1 is "free"',
        "confidence": 0.877,
    }  # fmt: skip
    for name, value in message["headers"]["morag_queue"].items():
        assert record.fields.get(name, Requires.CPU) == value, name


@pytest.mark.parametrize(
    "more",
    [
        {"source": "another"},
        {"source": "", "args": ("a",)},
        {"source": "a", "args": (7,)},
        {"kwargs": {"a": 1}},
        {"requires": Requires.GPU, "content_type": ContentType.AUDIO, "worker": "w1", "submission": "s1"},
    ],
)
def test_a_new_record_has_what_does_not_follow_from_the_rest(more):
    record = codec.read_record(submitted(**more)[1])
    args, kwargs = record.arguments
    found = {"args": tuple(args), "kwargs": kwargs} | {
        name: getattr(record, name) for name in ("source", "requires", "content_type", "worker", "submission")
    }
    assert {name: found[name] for name in more} == more


def test_the_entry_of_an_ended_record_is_read_whole():
    entry = codec.with_decision(submitted()[1], DECISION)
    record = codec.read_record(f'{{"state": "completed", "entry": {entry}}}')
    assert record.source == record.submitted.source == "/data/a.pdf"
    assert record.decision["worker_id"] == "w1"


def test_a_record_of_the_version_before_reads_the_same():
    decision = {"action": "hold", "target_queue": "gpu_priority", "worker_id": None, "reason": "r", "confidence": 0.2}
    fields = {
        "priority": "LOW", "enqueued_at": 1.5, "queue": "gpu_priority", "requires": "gpu", "estimated_minutes": 3.0,
        "state": "queued", "task": "t", "source": "s", "lane": "gpu_priority", "level": 6, "args": ["x"], "kwargs": {},
        "tag": "t-1", "decision": decision,
    }  # fmt: skip
    record = codec.read_record(json.dumps(fields))
    assert record.fields == fields
    assert record.decision == decision


def test_a_rewritten_message_keeps_what_it_does_not_replace():
    text = message(priority="LOW", worker="w", newer={"a": []})
    changed = json.loads(codec.rewrite_message(text, lane="cpu_batch", level=1, tag="t2", fields={"worker": None}))
    assert changed["headers"]["morag_queue"] == {"priority": "LOW", "newer": {"a": []}}
    assert changed["properties"] == {
        "delivery_tag": "t2", "delivery_info": {"exchange": "", "routing_key": "cpu_batch"}, "priority": 1,
    }  # fmt: skip
    assert changed["headers"]["retries"] == 2


@pytest.mark.parametrize(("keep", "retries"), [(True, 2), (False, 0)])
def test_a_renewed_message_runs_at_once(keep, retries):
    renewed = json.loads(codec.renew_message(message(), lane="l", level=1, tag="t", keep_retries=keep))
    assert (renewed["headers"]["eta"], renewed["headers"]["retries"]) == (None, retries)


def test_the_message_inside_kombus_triple_keeps_its_text():
    text = message(priority="LOW").replace(", ", " ,  ")
    found = codec.read_unacked(f'[{text}, "", "cpu_batch"]'.encode())
    assert (found.text, found.lane) == (text, "cpu_batch")


def test_a_held_record_is_read_as_it_was_written():
    held = HeldMessage(
        tag="t", worker="w", incarnation="w.1", task_id="a", lane="cpu_batch", level=3, claimed_at=1700000000.125
    )
    assert codec.read_held(b"t", codec.write_held(held)) == held


def test_a_rewritten_record_keeps_the_fields_of_other_versions():
    record = codec.read_record('{"state": "queued", "lane": "cpu_batch", "level": 8, "worker": "w", "newer": 1}')
    assert json.loads(record.moved("cpu_standard", 4, {"worker": None, "priority": "HIGH"})) == {
        "state": "queued", "lane": "cpu_standard", "level": 4, "newer": 1, "priority": "HIGH",
    }  # fmt: skip


@pytest.mark.parametrize("outside", [False, True])
def test_a_reopened_record_is_the_submitted_one(outside):
    submitted = {"state": "queued", "lane": "cpu_batch", "level": 8, "args": [1], "kwargs": {}}
    ended = submitted | {"state": "completed"} if outside else {"state": "completed", "entry": submitted}
    record = codec.LedgerRecord(ended)
    assert record.arguments == ([1], {})
    assert json.loads(record.reopened("cpu_batch", 7)) == submitted | {"level": 7}


def test_an_expired_cordon_is_not_in_force():
    text = '{"state": "cordoned", "until": 100, "newer": true}'
    assert codec.cordon_in_force(text, 99.0).state == "cordoned"
    assert codec.cordon_in_force(text, 100.0) is None


@pytest.mark.parametrize("text", [b"", b"x", b"[]", b'{"state": "of another version"}', b'{"state": "online"}'])
def test_a_worker_whose_cordon_cannot_be_read_counts_as_cordoned(text):
    assert codec.cordon_in_force(text, 0.0).reason == "its cordon cannot be read, see morag-queue doctor"
    assert codec.cordon_in_force(None, 0.0) is None


@pytest.mark.parametrize("value", [True, "1", None, float("nan"), float("inf"), 1e300, [1]])
def test_a_value_that_is_no_usable_number_reads_as_missing(value):
    assert number(value) is None


def test_a_text_filter_skips_no_message_that_fits():
    may_fit = codec.text_filter("rep", QueuePriority.LOW)
    assert may_fit(message(priority="LOW", source="report").encode())
    assert not may_fit(message(priority="HIGH", source="report").encode())
    assert not may_fit(message(priority="LOW").encode().replace(b"rep", b""))
    assert may_fit(b'{"headers": {"argsrepr": "report"}}'), "without our header the priority follows from the level"
