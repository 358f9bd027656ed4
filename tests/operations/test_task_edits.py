"""Edits of tasks while workers take them and other operators edit them."""

import pytest

from morag_queue.broker.lanes import LaneEdit, LaneEdits
from morag_queue.core.model import QueuePriority
from morag_queue.core.task import TaskFilter
from morag_queue.errors import BrokerError
from morag_queue.operations.task_editor import TaskEditor
from morag_queue.operations.task_edits import cancel, complete, prioritise, retry
from morag_queue.operations.worker_tasks import running_tasks


@pytest.fixture
def editor(sim_fleet):
    return TaskEditor(sim_fleet.broker, sim_fleet.settings, "test", who="ann")


def outcomes(report):
    return {task.task_id: task.outcome for task in report.tasks}


def test_a_task_taken_after_its_selection_is_planned_again(sim_fleet, editor):
    sim_fleet.join("cpu-1")
    sim_fleet.submit("a", "b", "c")
    found = list(editor.select(TaskFilter(priority=QueuePriority.NORMAL)))
    assert sim_fleet.claim("cpu-1") == "a"
    report = cancel(editor, found, terminate=False)
    assert outcomes(report) == {"a": "refused", "b": "cancelled", "c": "cancelled"}
    assert sim_fleet.broker.observe()[0].held[0].task_id == "a"


def test_a_task_moved_after_its_selection_is_changed_where_it_is_now(sim_fleet, editor):
    sim_fleet.submit("a", "b")
    found = list(editor.select(TaskFilter(priority=QueuePriority.NORMAL)))
    sim_fleet.broker.moves.lane("cpu_standard", "cpu_batch", 4, 2)
    report = prioritise(editor, found, QueuePriority.URGENT)
    assert outcomes(report) == {"a": "changed", "b": "changed"}
    assert sim_fleet.ids("cpu_batch", 0) == ["a", "b"]


@pytest.fixture
def restarted(sim_fleet):
    """A task of plain Celery, cancelled and queued again: plain Celery gives no estimate for its ledger record."""
    sim_fleet.join("cpu-1")
    sim_fleet.send("foreign")
    options = {"who": "ann"}
    cancel(TaskEditor(sim_fleet.broker, sim_fleet.settings, "task cancel", **options), ["foreign"], terminate=False)
    report = retry(TaskEditor(sim_fleet.broker, sim_fleet.settings, "task retry", **options), ["foreign"], reset=True)
    assert outcomes(report) == {"foreign": "queued"}
    return sim_fleet


def test_a_restarted_task_of_plain_celery_has_no_expected_remaining_time(restarted):
    assert restarted.claim("cpu-1") == "foreign"
    snapshot, _ = restarted.broker.observe()
    running = list(running_tasks(restarted.broker, snapshot, snapshot.worker_by_id["cpu-1"]))
    assert [(task.held.task_id, task.remaining_minutes) for task in running] == [("foreign", None)]


def test_a_restarted_task_of_plain_celery_can_be_completed_by_a_service(restarted):
    assert complete(restarted.broker, "foreign", success=True)
    assert restarted.broker.records(["foreign"])["foreign"].state == "completed"


def test_two_operators_cancel_each_task_once(sim_fleet, editor):
    sim_fleet.submit("a", "b")
    both = [list(editor.select(TaskFilter(priority=QueuePriority.NORMAL))) for _ in range(2)]
    reports = [cancel(editor, found, terminate=False) for found in both]
    assert [outcomes(report) for report in reports] == [
        {"a": "cancelled", "b": "cancelled"},
        {"a": "unchanged", "b": "unchanged"},
    ]
    assert int(sim_fleet.client.hget(sim_fleet.keys.totals, "cancelled||cpu_standard")) == 2


def test_nothing_is_changed_when_the_target_key_has_another_type(sim_fleet, editor):
    sim_fleet.submit("a", "b")
    sim_fleet.client.set(sim_fleet.keys.list("cpu_standard", 0), "not a list")
    with pytest.raises(BrokerError, match="shows the key; nothing was changed by this step"):
        prioritise(editor, ["a"], QueuePriority.URGENT)
    assert sim_fleet.ids("cpu_standard", 4) == ["a", "b"]


def test_a_message_is_found_after_others_before_it_were_taken(sim_fleet):
    """The recorded depth is only the first place where the script looks."""
    sim_fleet.submit(*"abcdefgh")
    raws = list(reversed(sim_fleet.client.lrange("cpu_standard\x06\x164", 0, -1)))
    changes = [
        LaneEdit(task_id, "cpu_standard", 4, depth, raws[n], None, "{}")
        for n, task_id, depth in ((3, "d", 3), (5, "f", 1), (6, "g", 90), (7, "x", 8))
    ]
    sim_fleet.client.rpop("cpu_standard\x06\x164")
    done = LaneEdits(sim_fleet.client, sim_fleet.keys, 60).apply([*changes, changes[0]])
    assert done == [True, True, True, True, False]
    assert sim_fleet.ids("cpu_standard", 4) == ["b", "c", "e"]
