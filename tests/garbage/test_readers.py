"""Readers of every text that others write: they return a value or an error of ours, whatever the text."""

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from morag_queue.broker import codec
from morag_queue.broker.celery_control import _reported
from morag_queue.broker.keys import Keys
from morag_queue.broker.snapshot import node_names
from morag_queue.core.plan import MoveLane, MoveTask, Plan
from morag_queue.errors import MoragQueueError
from morag_queue.operations.plan_file import read
from morag_queue.operations.submit_rows import Row, RowFailure, parse_lines
from morag_queue.settings import load

from .values import LARGE_TEXTS, TEXTS, WRONG, changed_fields

RECORDS = {
    "message": {
        "body": "W1tdLCB7fSwge31d", "content-type": "application/json", "content-encoding": "utf-8",
        "headers": {
            "id": "a", "task": "t", "eta": None, "retries": 0, "argsrepr": "()",
            "morag_queue": {"priority": "HIGH", "requires": "gpu", "enqueued_at": 1.0, "estimated_minutes": 1.0,
                            "queue": "cpu_standard", "content_type": "web", "worker": "w", "submission": "s"},
        },
        "properties": {"priority": 4, "delivery_tag": "d", "delivery_info": {"exchange": "", "routing_key": "q"}},
    },
    "record": {
        "state": "queued", "priority": "HIGH", "enqueued_at": 1.0, "queue": "cpu_standard", "lane": "cpu_standard",
        "level": 4, "estimated_minutes": 1.0, "task": "t", "args": ["x"], "kwargs": {},
        "decision": ["assign", 1, "why"], "entry": {"args": ["x"]}, "worker": "w", "error": "", "ended_at": 2.0,
        "run_seconds": 1.0,
    },
    "worker": {
        "worker": "w", "incarnation": "w.1", "host": "h", "pid": 1, "capability": "cpu", "queues": ["cpu_standard"],
        "slots": 1, "settings": {}, "started_at": 1.0, "beat_seconds": 2.0,
    },
    "beat": {"at": 1.0, "clock": 1.0, "active": 1, "reserved": 0, "cpu_percent": 1.0, "stopped": False},
    "cordon": {"state": "cordoned", "reason": "r", "who": "w", "at": 1.0, "until": 2.0, "restarts": 1},
    "lease": {"holder": "h", "term": 1, "who": "w", "verb": "watch", "since": 1.0, "until": 2.0},
    "held": ["w", "w.1", "a", "cpu_standard", 4, 1000],
    "unacked": [{"headers": {"id": "a"}}, "", "cpu_standard"],
    "story": [[1.0, "w", "why"]],
    "letter": {"message": "{}", "lane": "cpu_standard", "level": 4, "state": "failed", "at": 1.0, "reason": "r",
               "source": "s", "story": [[1.0, "w", "why"]], "entry": {"args": []}},
    "corrections": {"web|cpu|0": [3, 0.5]},
    "result": {"status": "SUCCESS", "result": 1, "date_done": "2026-01-01T00:00:00"},
}  # fmt: skip
values = st.recursive(
    st.none() | st.integers() | st.floats() | st.text(max_size=20) | st.sampled_from(list(WRONG.values())),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=10,
)  # fmt: skip


def properties_of(value):
    """Read every property: they are computed from the fields when they are asked for."""
    for name in dir(type(value)):
        if isinstance(getattr(type(value), name), property):
            getattr(value, name)


def read_everything(text):
    """Give the text to every reader, and read every property of what it returns."""
    codec.read_cordon(text), codec.cordon_in_force(text, 1.0), codec.read_heartbeat(text), codec.read_lease(text)
    codec.read_worker("w", text), codec.read_pauses({b"cpu_standard": text}), codec.read_process(text)
    codec.read_last_beat(text), codec.read_held(b"tag", text), codec.read_story(text), codec.read_corrections(text)
    codec.read_work_kind(codec.text_of(text)), codec.whole_number(text), codec.lane_entry(text, 4)
    codec.task_id_in(text), codec.unacked_task_id(text), codec.requires_gpu(text), codec.read_result(text)
    codec.waiting_task(text, "cpu_standard", 4), node_names([text], Keys().sep)
    codec.rewrite_message(text, lane="cpu_batch", level=3, tag="t") if codec.read_message(text) else None
    codec.renew_message(text, lane="cpu_batch", level=3, tag="t", keep_retries=False)
    if (unacked := codec.read_unacked(text)) is not None:
        codec.waiting_task(unacked.text, unacked.lane, 4)
    if (message := codec.read_message(text)) is not None:
        codec.header_of(message), codec.task_id_of(message), codec.level_of(message), codec.read_arguments(message)
    letter = codec.read_dead_letter("a", text)
    properties_of(letter)
    codec.dead_task(letter)
    if (record := codec.read_record(text)) is not None:
        properties_of(record)
        codec.lost_task("a", record, 0), codec.submitted_entry("a", record, None)
        if record.state is not None:
            codec.ended_task("a", record.state, record)


@pytest.mark.parametrize("name", TEXTS)
def test_no_reader_raises_for_a_text(name):
    read_everything(TEXTS[name])


@pytest.mark.parametrize("kind", RECORDS)
def test_no_reader_raises_for_a_record_with_a_wrong_field(kind):
    for wrong in WRONG.values():
        for text in changed_fields(json.dumps(RECORDS[kind]).encode(), wrong):
            read_everything(text)


@given(
    st.sampled_from(list(RECORDS)), st.lists(st.tuples(st.integers(0, 600), st.integers(0, 9), st.binary(max_size=4)))
)
def test_no_reader_raises_for_a_damaged_record(kind, edits):
    text = json.dumps(RECORDS[kind]).encode()
    for place, cut, piece in edits:
        text = text[:place] + piece + text[place + cut :]
    read_everything(text)


@given(values)
def test_no_answer_of_remote_control_raises(value):
    _reported(value)
    _reported({"request": value, "id": value})
    _reported({"id": "a", "name": value, "delivery_info": value, "time_start": value})


def written(directory, text):
    path = Path(directory, "file")
    path.write_bytes(text)
    return path


def refusal(path):
    """Read a plan file; return why it was refused, else ""."""
    try:
        read(path, "f", "rebalance")
    except MoragQueueError as error:
        return str(error)
    return ""


PLAN = Plan(
    plan_id="p", verb="rebalance", taken_at=1.0, fleet="f", steps=(
        MoveLane(source="cpu_standard.w", target="cpu_standard", level=4, count=1, reason="r"),
        MoveTask(task_id="a", source="cpu_standard", target="cpu_batch", level=4, to_level=4, reason="r"),
    ),
)  # fmt: skip


def test_a_plan_file_with_a_wrong_field_is_read_or_refused(tmp_path):
    valid = PLAN.model_dump_json().encode()
    assert read(written(tmp_path, valid), "f", "rebalance") == PLAN
    refused = 0
    for wrong in WRONG.values():
        for text in changed_fields(valid, wrong):
            message = refusal(written(tmp_path, text))
            assert len(message) < 1000
            refused += bool(message)
    assert refused > 100
    for text in (TEXTS | LARGE_TEXTS).values():
        with pytest.raises(MoragQueueError):
            read(written(tmp_path, text), "f", "rebalance")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@given(st.binary(max_size=60), values)
def test_a_row_of_a_bulk_submit_is_read_or_fails_alone(raw, value):
    row = {
        "source": "https://example.org/a",
        "task_id": "a",
        "priority": "HIGH",
        "options": {},
        "args": [],
        "kwargs": {},
    }
    lines = [raw, *TEXTS.values(), json.dumps(value).encode(errors="replace")]
    lines += [json.dumps(row | {name: value}).encode() for name in row]
    found = [one for _, one in parse_lines(lines, Row(source="-"))]
    assert all(isinstance(one, Row | RowFailure) for one in found)
    assert all(len(one.error) < 2000 for one in found if isinstance(one, RowFailure))


@given(st.binary(max_size=60), values, st.sampled_from(["namespace", "policy", "queues", "broker", "results", "agent"]))
def test_a_config_file_is_read_or_refused(raw, value, table):
    with TemporaryDirectory() as directory:
        for text in (raw, f"{table} = {json.dumps(value)}".encode(), f"[{table}]\nurl = {json.dumps(value)}".encode()):
            with suppress(MoragQueueError):
                load({"config": str(written(directory, text))}, {}, Path(directory))


def test_a_config_file_of_any_text_is_refused(tmp_path):
    for name, text in (TEXTS | LARGE_TEXTS).items():
        path = written(tmp_path, text)
        if name == "empty":
            load({"config": str(path)}, {}, tmp_path)
            continue
        with pytest.raises(MoragQueueError):
            load({"config": str(path)}, {}, tmp_path)
