"""An undo takes back all that a change did: what the keys hold is as before, and each task is at its place."""

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from morag_queue.broker.codec import read_record
from morag_queue.core.edits.rules import MoveTarget
from morag_queue.core.model import QueuePriority, QueueType
from morag_queue.core.task import TaskFilter
from morag_queue.operations import task_editor
from morag_queue.operations.dead_letters import drop
from morag_queue.operations.journal import Undo, UndoResult, entry, in_full
from morag_queue.operations.task_editor import EditReport, TaskEditor
from morag_queue.operations.task_edits import cancel, move, prioritise, retry
from tests.support.simulated_fleet import SimulatedFleet

HISTORY = ("journal", "undo:", "current", "minute:", "hour:", "figures", "totals", "ended:", "lanes", "ids:")
"""Keys of what happened and where it is written; an undo adds to them. `lanes` and `ids` only grow."""


def editor(fleet: SimulatedFleet, verb: str = "task cancel") -> TaskEditor:
    return TaskEditor(fleet.broker, fleet.settings, verb, who="ann")


def undo(fleet: SimulatedFleet, name: str, **options: Any) -> UndoResult:
    found = entry(fleet.broker, name)
    assert found is not None
    return Undo(fleet.broker, fleet.settings, who="bob", **options)(found)


def contents(fleet: SimulatedFleet) -> Mapping[str, Any]:
    """What all keys but those of the history hold: lists in their order, and JSON decoded."""
    client: Any = fleet.client
    read: dict[bytes, Callable[[str], Any]] = {
        b"string": lambda key: decoded(client.get(key)),
        b"list": lambda key: [decoded(text) for text in client.lrange(key, 0, -1)],
        b"hash": lambda key: {field: decoded(text) for field, text in client.hgetall(key).items()},
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"set": client.smembers,
    }
    keys = [key for key in map(bytes.decode, client.scan_iter()) if not key.removeprefix("mq:").startswith(HISTORY)]
    return {key: read[client.type(key)](key) for key in keys}


def decoded(text: bytes) -> Any:
    record = read_record(text)
    return text if record is None else record.fields


def mixed(fleet: SimulatedFleet, number: int = 90) -> list[str]:
    """Tasks with ids by turns, one of plain Celery between them, and one at another level."""
    ids = [f"{'odd' if n % 2 else 'even'}-{n:03}" for n in range(number)]
    fleet.join("cpu-1")
    fleet.fill(ids[: number // 2])
    fleet.send("foreign", level=4)
    fleet.fill(ids[number // 2 :])
    fleet.submit("urgent", priority="URGENT")
    return ids


def end(fleet: SimulatedFleet, outcome: str, *task_ids: str) -> None:
    """Submit tasks and end them on a worker."""
    fleet.join("cpu-1")
    fleet.submit(*task_ids)
    for task_id in task_ids:
        assert fleet.claim("cpu-1") == task_id
        fleet.end(task_id, outcome, "" if outcome == "completed" else "ValueError: no")


CHANGES: Mapping[str, Callable[[TaskEditor, list[str]], EditReport]] = {
    "cancel": lambda editor, ids: cancel(editor, ids, terminate=False),
    "prio": lambda editor, ids: prioritise(editor, ids, QueuePriority.HIGH),
    "move": lambda editor, ids: move(editor, ids, MoveTarget(QueueType.CPU_BATCH), force=False),
    "pin": lambda editor, ids: move(editor, ids, MoveTarget(worker="cpu-1"), force=False),
}


@pytest.mark.parametrize("which", [slice(1, None, 2), slice(None), slice(20, 60), slice(0, 1), slice(-1, None)])
@pytest.mark.parametrize("change", CHANGES)
def test_an_undo_restores_every_message_and_record_and_its_place(
    sim_fleet: SimulatedFleet, change: str, which: slice
) -> None:
    chosen = [*mixed(sim_fleet)[which], "foreign", "urgent"]
    before = contents(sim_fleet)
    report = CHANGES[change](editor(sim_fleet), chosen)
    changed = contents(sim_fleet)
    assert len(report.changed) == len(chosen)
    result = undo(sim_fleet, report.entry_id)
    assert (result.undone, result.not_undone, result.exit_status) == (len(chosen), (), 0)
    assert contents(sim_fleet) == before
    again = undo(sim_fleet, report.entry_id)
    assert (again.undone, again.unchanged, again.exit_status, again.journal) == (0, len(chosen), 0, None)
    assert undo(sim_fleet, result.journal or "").undone == len(chosen)
    assert without_times(contents(sim_fleet)) == without_times(changed), "the undo of an undo makes the change again"
    assert undo(sim_fleet, sim_fleet.broker.journal.latest(1)[0].entry_id).undone == len(chosen)
    assert contents(sim_fleet) == before


def without_times(found: Mapping[str, Any]) -> Mapping[str, Any]:
    """Leave out when and why tasks were cancelled, and the order in a list: it is that of the enqueue times now."""
    times = ("ended_at", "error")
    return {
        key: {name: item for name, item in value.items() if name not in times}
        if isinstance(value, dict)
        else sorted(map(repr, value))
        for key, value in found.items()
    }


@pytest.mark.parametrize("outcome", ["completed", "failed"])
def test_an_undo_of_a_retry_returns_the_tasks_to_the_end_that_they_had(sim_fleet: SimulatedFleet, outcome: str) -> None:
    end(sim_fleet, outcome, "a", "b", "c")
    sim_fleet.submit("waits")
    before = contents(sim_fleet)
    report = retry(editor(sim_fleet, "task retry"), ["a", "b", "c"], reset=True)
    assert undo(sim_fleet, report.entry_id).undone == 3
    assert contents(sim_fleet) == before
    assert undo(sim_fleet, report.entry_id).unchanged == 3
    assert undo(sim_fleet, sim_fleet.broker.journal.latest(1)[0].entry_id).undone == 3
    assert {sim_fleet.claim("cpu-1") for _ in range(4)} == {"a", "b", "c", "waits"}


def test_an_undo_of_a_drop_puts_the_dead_letters_back(sim_fleet: SimulatedFleet) -> None:
    end(sim_fleet, "failed", *(f"f-{n}" for n in range(120)))
    before = contents(sim_fleet)
    names = [f"f-{n}" for n in range(110)]
    dropped = drop(sim_fleet.broker, sim_fleet.settings, names, who="ann")
    assert len(list(sim_fleet.broker.dead.all())) == 10
    restored = undo(sim_fleet, str(dropped.journal))
    assert (restored.undone, restored.exit_status) == (110, 0)
    assert contents(sim_fleet) == before
    assert undo(sim_fleet, str(dropped.journal)).unchanged == 110
    assert undo(sim_fleet, str(restored.journal)).undone == 110
    assert len(list(sim_fleet.broker.dead.all())) == 10


def test_a_dropped_task_that_was_submitted_again_is_reported_and_the_others_come_back(
    sim_fleet: SimulatedFleet,
) -> None:
    end(sim_fleet, "failed", "a", "b")
    dropped = drop(sim_fleet.broker, sim_fleet.settings, ["a", "b"], who="ann")
    sim_fleet.submit("a")
    result = undo(sim_fleet, str(dropped.journal))
    assert (result.undone, result.exit_status) == (1, 3)
    assert [(one.subject, one.reason) for one in result.not_undone] == [("a", "it was queued again since")]
    repeated = undo(sim_fleet, str(dropped.journal))
    assert (repeated.undone, repeated.exit_status, repeated.undone_before) == (0, 0, result.journal)


def test_tasks_that_have_gone_on_since_are_reported_and_the_others_come_back(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.join("cpu-1")
    sim_fleet.submit(*"abcdef")
    first = cancel(editor(sim_fleet), list("abcde"), terminate=False)
    retry(editor(sim_fleet), ["a", "b", "c"], reset=True)
    cancel(editor(sim_fleet), ["c"], terminate=False)
    assert sim_fleet.claim("cpu-1") == "f"
    sim_fleet.end("f")
    assert sim_fleet.claim("cpu-1") == "a"
    sim_fleet.end("a")
    assert sim_fleet.claim("cpu-1") == "b"
    result = undo(sim_fleet, first.entry_id)
    assert {one.subject: one.reason for one in result.not_undone} == {
        "a": "was queued again since, and has ended (completed)",
        "c": "was queued again since, and is cancelled by another change",
    }
    assert (result.undone, result.unchanged, result.exit_status) == (2, 1, 3)
    assert sim_fleet.ids("cpu_standard", 4) == ["d", "e"]
    assert undo(sim_fleet, first.entry_id).exit_status == 0


def test_a_restored_task_is_before_those_that_were_queued_later_and_behind_those_queued_earlier(
    sim_fleet: SimulatedFleet,
) -> None:
    ids = mixed(sim_fleet, 60)
    report = cancel(editor(sim_fleet), ids[20:40], terminate=False)
    sim_fleet.fill(["later"])
    assert [sim_fleet.claim("cpu-1") for _ in range(6)] == ["urgent", *ids[:5]]
    undo(sim_fleet, report.entry_id)
    waiting = [one for one in sim_fleet.ids("cpu_standard", 4) if one != "foreign"]
    queued_at = [sim_fleet.broker.records([one])[one].enqueued_at for one in waiting]
    assert sorted(waiting) == sorted([*ids[5:], "later"])
    assert queued_at == sorted(queued_at)


def test_a_task_that_had_cost_a_worker_keeps_its_attempts(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.submit("a")
    attempts = {"a": "2", "story|a": '[[1, "w1", "died"], [2, "w2", "died"]]'}
    sim_fleet.client.hset(sim_fleet.keys.attempts, mapping=attempts)
    before = contents(sim_fleet)
    report = cancel(editor(sim_fleet), ["a"], terminate=False)
    assert not sim_fleet.client.exists(sim_fleet.keys.attempts)
    undo(sim_fleet, report.entry_id)
    assert contents(sim_fleet) == before


def test_more_tasks_than_one_part_are_changed_and_undone_in_parts(
    sim_fleet: SimulatedFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_editor, "PART", 40)
    monkeypatch.setattr(task_editor, "JOURNALED_TASKS", 5)
    ids = mixed(sim_fleet, 150)
    before = contents(sim_fleet)
    change = editor(sim_fleet)
    chosen = change.choose(TaskFilter(priority=QueuePriority.NORMAL))
    assert chosen.tasks == [*ids[:75], "foreign", *ids[75:]]
    report = cancel(change, chosen.tasks, terminate=False)
    found = sim_fleet.broker.journal.get(report.entry_id)
    assert found is not None
    assert (found.changes["count"], found.changes["unnamed"], len(found.changes["tasks"])) == (151, 146, 5)
    assert set(in_full(sim_fleet.broker, found).changes["tasks"]) == set(chosen.tasks)
    assert undo(sim_fleet, report.entry_id).undone == 151
    assert contents(sim_fleet) == before


def test_a_gpu_task_is_not_put_back_where_a_cpu_worker_reads_since(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.join("gpu-1", "gpu")
    sim_fleet.submit("film", requires="gpu")
    sim_fleet.submit("sound", requires="gpu_preferred", priority="HIGH")
    report = cancel(editor(sim_fleet), ["film", "sound"], terminate=False)
    sim_fleet.join("cpu-1", queues=("gpu_priority",))
    result = undo(sim_fleet, report.entry_id)
    reason = "it requires a GPU, and gpu_priority is read by cpu-1, without a GPU"
    assert [(one.subject, one.reason) for one in result.not_undone] == [("film", reason)]
    assert sim_fleet.claim("cpu-1") == "sound"


def test_a_task_of_a_worker_that_is_gone_since_returns_to_the_shared_lane(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", worker="cpu-1")
    sim_fleet.submit("b")
    report = cancel(editor(sim_fleet), ["a"], terminate=False)
    sim_fleet.client.hdel(sim_fleet.keys.workers, "cpu-1")
    undo(sim_fleet, report.entry_id)
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b"]
    message = sim_fleet.message("cpu_standard", 4)
    assert message["properties"]["delivery_info"]["routing_key"] == "cpu_standard"
    assert sim_fleet.broker.records(["a"])["a"].lane == "cpu_standard"


def test_an_order_to_a_worker_is_reported_and_the_rest_is_undone(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.join("cpu-1")
    sim_fleet.submit("held", "waits")
    assert [sim_fleet.claim("cpu-1") for _ in range(1)] == ["held"]
    report = cancel(editor(sim_fleet), ["held", "waits"], terminate=True)
    assert [task.outcome for task in report.tasks] == ["revoked", "cancelled"]
    result = undo(sim_fleet, report.entry_id)
    assert [(one.subject, one.reason) for one in result.not_undone] == [
        ("held", "an order to a worker cannot be undone")
    ]
    assert sim_fleet.ids("cpu_standard", 4) == ["waits"]


def test_the_undo_of_a_submit_can_be_undone(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.submit("a", "b")
    before = contents(sim_fleet)
    submission = sim_fleet.broker.records(["a"])["a"].submission
    changes = {"submission": submission, "submitted": 2}
    submitted = sim_fleet.broker.journal.write("ann", "submit", "2 tasks", changes=changes)
    result = undo(sim_fleet, submitted)
    assert (result.undone, sim_fleet.ids("cpu_standard", 4)) == (2, [])
    assert undo(sim_fleet, result.journal or "").undone == 2
    assert contents(sim_fleet) == before


def test_a_change_of_an_earlier_version_is_undone_by_the_tasks_that_its_entry_names(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.submit("a", "b", "c")
    report = cancel(editor(sim_fleet), ["a", "c"], terminate=False)
    found = sim_fleet.broker.journal.get(report.entry_id)
    assert found is not None
    old = {**found.changes, "count": 5, "unnamed": 3}
    name = sim_fleet.broker.journal.write("ann", "task cancel", "5 tasks", changes=old)
    result = undo(sim_fleet, name)
    assert (result.undone, result.exit_status) == (2, 3)
    assert [(one.subject, one.reason) for one in result.not_undone] == [
        ("3 more tasks", "counted in the journal entry, but no longer recorded")
    ]
    assert sorted(sim_fleet.ids("cpu_standard", 4)) == ["a", "b", "c"]


def test_a_dry_run_of_an_undo_changes_nothing(sim_fleet: SimulatedFleet) -> None:
    end(sim_fleet, "failed", "f")
    sim_fleet.submit("a")
    entries = [
        cancel(editor(sim_fleet), ["a"], terminate=False).entry_id,
        drop(sim_fleet.broker, sim_fleet.settings, ["f"], who="ann").journal or "",
    ]
    before, written = contents(sim_fleet), sim_fleet.broker.journal.latest(10)
    assert [undo(sim_fleet, name, dry_run=True).undone for name in entries] == [1, 1]
    assert (contents(sim_fleet), sim_fleet.broker.journal.latest(10)) == (before, written)


def test_the_record_of_a_change_expires_with_the_records_of_ended_tasks(sim_fleet: SimulatedFleet) -> None:
    sim_fleet.submit("a")
    report = cancel(editor(sim_fleet), ["a"], terminate=False)
    found = sim_fleet.broker.journal.get(report.entry_id)
    assert found is not None
    lives = sim_fleet.client.ttl(sim_fleet.keys.undo(found.plan_id))
    assert 0 < lives <= sim_fleet.settings.ledger.retention_seconds
