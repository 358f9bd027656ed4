"""JSON output: enum values, times in UTC, nulls, and task arguments unchanged."""

import json

from morag_queue.core.model import Cordon, QueuePriority, QueueType, TaskQueueEntry, WorkerStatus
from morag_queue.view.output import dumps, iso


def test_times_are_iso_in_utc_enums_are_values_and_unknown_times_are_null():
    entry = TaskQueueEntry(
        task_id="1", task="t", queue=QueueType.CPU_BATCH, lane="cpu_batch", level=8, priority=QueuePriority.BATCH,
        enqueued_at=1_700_000_000.25,
    )  # fmt: skip
    document = json.loads(
        dumps({"entry": entry, "cordon": Cordon(state=WorkerStatus.DRAINED, deadline=60.0, until=60.0)})
    )
    assert document["entry"]["enqueued_at"] == "2023-11-14T22:13:20.250Z"
    assert document["entry"]["priority"] == "BATCH"
    assert document["entry"]["queue"] == "cpu_batch"
    assert document["cordon"]["state"] == "drained"
    assert document["cordon"]["at"] is None
    assert document["cordon"]["deadline"] == document["cordon"]["until"] == "1970-01-01T00:01:00.000Z"


def test_task_arguments_are_unchanged_even_if_they_look_like_times():
    kwargs = {"at": 5, "made_at": 1.5, "name": "\x1b[2J\u202e\udcff", "rows": [{}, [], None, True]}
    entry = TaskQueueEntry(task_id="1", task="t", queue=QueueType.CPU_BATCH, lane="x", level=0, kwargs=kwargs)
    text = dumps(entry)
    assert json.loads(text)["kwargs"] == kwargs
    assert text.isascii()
    assert text.isprintable()


def test_infinite_numbers_are_null():
    assert json.loads(dumps({"a": float("inf"), "b": [float("nan")]})) == {"a": None, "b": [None]}
    assert iso(float("inf")) is None
