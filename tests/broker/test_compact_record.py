"""The compact form of open ledger records: Python and the scripts read what it leaves out as it was written."""

import json
import re
from functools import partial
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from morag_queue.broker.celery_message import MessageBuilder
from morag_queue.broker.codec import LedgerRecord, read_record, submitted_entry, with_decision
from morag_queue.broker.compact_record import ITEMS, TASKS
from morag_queue.broker.dead_letters import DeadLetters
from morag_queue.broker.lanes import Moves
from morag_queue.broker.ledger import ExternalCompletion, ExternalCompletions
from morag_queue.broker.lost_work import LostWork
from morag_queue.broker.requeue import RequeueRequest, Requeues
from morag_queue.core.lanes import lane
from morag_queue.core.model import (
    ContentType,
    DecisionAction,
    LoadBalancingDecision,
    QueuePriority,
    QueueType,
    Requires,
    TaskQueueEntry,
)
from morag_queue.core.plan import MoveTask
from tests.broker.conftest import ScriptRunner

ID = "0a1b2c3d-6a1f-4b7e-9a37-3c2f5d0e8b41"
FILE = "/data/reports/2026/annual-report.pdf"

KINDS = [kind.value for kind in ContentType]
WORDS = st.text(max_size=8) | st.sampled_from(["worker-cpu-1", "~a", '"open":[1.5,"a",3', "cpu_standard"])
OPTIONS = st.dictionaries(WORDS, st.none() | st.integers() | WORDS, max_size=2)
ARGS = st.lists(WORDS | OPTIONS | st.sampled_from(KINDS), max_size=4).map(tuple)
REASONS = st.lists(
    st.sampled_from([
        "{worker}", "{queue}", " could take it, all full or suspect: it waits in ", " is expected to take it, with ",
        " fits best, with ", " of at most ", " slots in use", " tasks assigned", ": it waits in ", "~", "12", "w", "a",
    ]) | st.text(max_size=3),
    max_size=6,
).map("".join)  # fmt: skip


def entry(**more: Any) -> TaskQueueEntry:
    """A task as `submit` queues a file."""
    fields: dict[str, Any] = {
        "task_id": ID, "task": TASKS[0], "args": (FILE, "document", {}), "source": FILE, "content_type": "document",
        "queue": "cpu_standard", "lane": "cpu_standard", "level": 4, "estimated_duration": 1.0,
        "enqueued_at": 1795559186.469, "submission": "a5a0a66b76",
    }  # fmt: skip
    return TaskQueueEntry(**{**fields, **more})


def decision(worker: str | None = None, **more: Any) -> LoadBalancingDecision:
    fields: dict[str, Any] = {
        "action": DecisionAction.ASSIGN if worker else DecisionAction.HOLD, "source_queue": "cpu_standard",
        "target_queue": "cpu_standard", "worker_id": worker, "confidence": 0.5,
        "reason": "3 workers could take it, all full or suspect: it waits in cpu_standard",
    }  # fmt: skip
    return LoadBalancingDecision(**{**fields, **more})


def written(task: TaskQueueEntry, routed: LoadBalancingDecision | None = None) -> tuple[str, str]:
    """The message and the record of a new task."""
    text, record = MessageBuilder().message(task)
    return text, record if routed is None else with_decision(record, routed)


def read(record: str) -> LedgerRecord:
    found = read_record(record)
    assert found is not None
    return found


def without_tag(message: str) -> str:
    return re.sub('"delivery_tag": "[^"]*"', "", message)


# -- bytes


@pytest.mark.parametrize(
    ("reason", "worker", "most"),
    [
        ("3 workers could take it, all full or suspect: it waits in cpu_standard", None, 162),
        ("worker-cpu-1 is expected to take it, with 0 of 8 slots in use", "worker-cpu-1", 176),
        ("worker-cpu-1 fits best, with 0 of at most 2 tasks assigned", "worker-cpu-1", 174),
    ],
)
def test_the_record_of_a_typical_file_is_short(reason: str, worker: str | None, most: int) -> None:
    """Its source has 36 characters. A queued task then takes at most 1.25 times the memory of its message."""
    _, record = written(entry(), decision(worker, reason=reason))

    assert len(record) <= most, record
    assert read(record).decision["reason"] == reason  # type: ignore[index]


# -- what is written is read


@given(
    task=st.builds(
        partial(entry, lane="cpu_standard"),
        task=st.sampled_from(TASKS) | WORDS, args=ARGS, kwargs=OPTIONS, source=WORDS,
        content_type=st.none() | st.sampled_from(KINDS), priority=st.sampled_from(list(map(int, QueuePriority))),
        requires=st.sampled_from([one.value for one in Requires]), level=st.integers(0, 9),
        worker=st.none() | WORDS.filter(bool),
        submission=st.none() | WORDS.filter(bool), enqueued_at=st.integers(0, 10**13).map(lambda ms: ms / 1000),
        estimated_duration=st.integers(0, 10**9).map(lambda part: part / 10_000),
    ),
    owner=st.none() | WORDS.filter(bool),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_a_task_is_sent_again_as_it_was_submitted(task: TaskQueueEntry, owner: str | None) -> None:
    message, record = written(task)

    again = submitted_entry(task.task_id, read(record), None)

    assert again is not None
    assert again == task
    assert without_tag(written(again)[0]) == without_tag(message)
    own = task.model_copy(update={"lane": lane(task.queue, owner)})
    assert read(written(own)[1]).lane == own.lane


@given(
    worker=st.none() | WORDS.filter(bool), reason=REASONS, queue=st.sampled_from(QueueType),
    action=st.sampled_from(DecisionAction), confidence=st.integers(0, 1000).map(lambda part: part / 1000),
)  # fmt: skip
@settings(max_examples=400, deadline=None)
def test_a_decision_is_read_as_it_was_made(
    worker: str | None, reason: str, queue: QueueType, action: DecisionAction, confidence: float
) -> None:
    reason = reason.replace("{worker}", worker or "").replace("{queue}", queue)
    made = decision(worker, reason=reason, action=action, target_queue=queue, confidence=confidence)

    assert read(written(entry(queue=queue), made)[1]).decision == {
        "action": action, "target_queue": queue, "worker_id": worker, "reason": reason, "confidence": confidence,
    }  # fmt: skip


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", [None, "web"])
def test_usual_arguments_are_written_as_the_source_alone(task: str, kind: str | None) -> None:
    names_type = task in TASKS[:2] and kind is not None
    args = (FILE, kind, {}) if names_type else (FILE, {})

    _, record = written(entry(task=task, content_type=kind, args=args))

    assert json.loads(record)["open"][ITEMS.index("args")] == FILE
    assert read(record).arguments == (list(args), {})


def test_a_record_of_the_version_with_names_reads_the_same() -> None:
    text = (
        '{"state":"queued","priority":"HIGH","enqueued_at":1795559186.469,"queue":"cpu_standard","lane":"cpu_standard.w",'
        '"level":4,"estimated_minutes":1.0,"task":"t","content_type":"document","submission":"a5a0a66b76",'
        '"args":["/a", "document", {}],"kwargs":{"open": [1.5,"a",3]},"attempt":"390e80b0.1",'
        '"decision":["hold",0.5,"~a: it waits in cpu_standard"]}'
    )
    record = read(text)

    assert record.arguments == (["/a", "document", {}], {"open": [1.5, "a", 3]})
    assert (record.source, record.lane, record.level, record.submission) == ("/a", "cpu_standard.w", 4, "a5a0a66b76")
    assert record.decision == {
        "action": "hold", "target_queue": "cpu_standard", "worker_id": None, "confidence": 0.5,
        "reason": "~a: it waits in cpu_standard",
    }  # fmt: skip


def test_a_moved_record_keeps_everything_but_its_place() -> None:
    record = read(written(entry(kwargs={"lane": "x"}, worker="w1"), decision())[1])

    moved = read(record.moved("cpu_batch", 7, {"worker": None}))

    assert (moved.lane, moved.level, moved.worker) == ("cpu_batch", 7, None)
    changed = {"lane", "level", "worker"}
    assert {name: value for name, value in moved.fields.items() if name not in changed} == {
        name: value for name, value in record.fields.items() if name not in changed
    }


# -- scripts

HOSTILE = {"enqueued_at": 9e9, "queue": "x", "lane": "x", "level": 9, "state": "completed"}


def put(runner: ScriptRunner, record: str, task_id: str = "t") -> None:
    runner.client.set(runner.keys.task(task_id), record)


def stored(runner: ScriptRunner, task_id: str = "t") -> LedgerRecord:
    return read(runner.client.get(runner.keys.task(task_id)))


def moved_by_the_version_before(record: str) -> str:
    """A version that does not know the form rewrites it as JSON, with a place of its own behind the arguments."""
    return json.dumps({**json.loads(record), "lane": "gpu_fallback", "level": 4, "queue": "gpu_fallback"})


def test_a_record_that_the_version_before_has_moved_keeps_its_decision() -> None:
    record = read(written(entry(), decision())[1])

    moved = read(moved_by_the_version_before(record.text))

    assert (moved.lane, moved.queue) == ("gpu_fallback", "gpu_fallback")
    assert moved.decision == record.decision


def unchanged(record: str) -> str:
    return record


@pytest.mark.parametrize("rewritten", [unchanged, moved_by_the_version_before])
@pytest.mark.parametrize("more", [{}, {"lane": "cpu_standard.w1", "priority": QueuePriority.HIGH, "source": '"open":'}])
def test_a_lost_task_is_found(runner: ScriptRunner, rewritten: Any, more: dict[str, Any]) -> None:
    put(runner, rewritten(written(entry(kwargs=HOSTILE, enqueued_at=100.5, **more), decision())[1]))

    lost = LostWork(runner.client, runner.keys, 60)

    _, [found] = lost.open_tasks(0, 200.0)
    assert (found.task_id, found.enqueued_at, found.queue, found.level) == ("t", 100.5, "cpu_standard", 4)
    assert lost.open_tasks(0, 100.5)[1] == []


def test_the_arguments_of_a_record_with_names_are_not_taken_for_the_form(runner: ScriptRunner) -> None:
    put(
        runner,
        '{"state":"queued","priority":"LOW","enqueued_at":100.5,"queue":"cpu_batch","lane":"cpu_batch","level":8,'
        '"args":[],"kwargs":{"open":[5.5,"x",3]}}',
    )

    _, [found] = LostWork(runner.client, runner.keys, 60).open_tasks(0, 200.0)

    assert (found.enqueued_at, found.queue, found.level) == (100.5, "cpu_batch", 8)


@pytest.mark.parametrize("source_lane", ["cpu_standard", "cpu_standard.w1"])
def test_a_moved_task_has_its_new_place_and_all_else(runner: ScriptRunner, source_lane: str) -> None:
    task = entry(task_id="t", lane=source_lane, kwargs=HOSTILE, worker="w1")
    message, record = written(task, decision("w1"))
    runner.put(message, source_lane)
    put(runner, record)

    for source, target, level, to_level in ((source_lane, "cpu_batch", 4, 7), ("cpu_batch", "gpu_fallback", 7, 6)):
        step = MoveTask(task_id="t", source=source, target=target, level=level, to_level=to_level, reason="x")
        assert Moves(runner.client, runner.keys).tasks([step]) == ["moved"]

    assert dict(stored(runner).fields) == {**read(record).fields, "lane": "gpu_fallback", "level": 6}


@pytest.mark.parametrize("task", TASKS)
def test_a_record_that_a_script_ends_has_the_names_for_all_readers(runner: ScriptRunner, task: str) -> None:
    submitted = entry(task=task, lane="cpu_standard.w1", kwargs=HOSTILE)
    record = read(written(submitted, decision())[1])
    put(runner, record.text)
    ends = ExternalCompletions(runner.client, runner.keys, 60)

    assert ends.end(ExternalCompletion("t", "failed", "w9"), record)

    ended = json.loads(runner.client.get(runner.keys.task("t")) or b"")
    expected = {
        "state": "failed", "task": task, "queue": "cpu_standard", "lane": "cpu_standard.w1", "level": 4,
        "priority": "NORMAL", "enqueued_at": 1795559186.469, "estimated_minutes": 1, "content_type": "document",
        "submission": "a5a0a66b76", "worker": "w9",
    }  # fmt: skip
    assert {name: ended.get(name) for name in expected} == expected
    assert stored(runner).decision == record.decision
    assert stored(runner).arguments == record.arguments
    letter = DeadLetters(runner.client, runner.keys, 60).get("t")
    assert letter is not None
    assert (letter.source, letter.lane, letter.level) == (FILE, "cpu_standard.w1", 4)


@pytest.mark.parametrize("args", [(FILE, "document", {}), (FILE, "document", {"pages": [1]})])
def test_a_quarantined_task_keeps_its_source_and_arguments(runner: ScriptRunner, args: tuple[Any, ...]) -> None:
    task_id = runner.send()
    put(runner, written(entry(task_id=task_id, args=args))[1], task_id)
    taken = runner.claim()
    assert taken is not None

    request = RequeueRequest(taken.tag, "run-1", task_id, "cpu_standard", 4, "w1 died", max_deaths=0)
    assert Requeues(runner.client, runner.keys, 60).apply([request]) == ["quarantined"]

    record = stored(runner, task_id)
    assert (record.state, record.arguments) == ("quarantined", (list(args), {}))
    letter = DeadLetters(runner.client, runner.keys, 60).get(task_id)
    assert letter is not None
    assert letter.source == FILE
