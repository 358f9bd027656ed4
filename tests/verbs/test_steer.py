"""Tasks changed by hand while the fleet goes on."""

import pytest

from morag_queue.broker.lanes import LaneEdit, LaneEdits
from morag_queue.core.model import QueuePriority
from morag_queue.core.task import TaskFilter
from morag_queue.errors import BrokerError
from morag_queue.operations.task_editor import TaskEditor
from morag_queue.operations.task_edits import cancelling, reprioritising


@pytest.fixture
def steer(stage):
    return TaskEditor(stage.broker, stage.settings, "test", who="ann")


def outcomes(report):
    return {one.task_id: one.outcome for one in report.tasks}


def test_what_was_taken_after_it_was_chosen_is_decided_again(stage, steer):
    stage.join("cpu-1")
    stage.submit("a", "b", "c")
    found = steer.chosen(TaskFilter(priority=QueuePriority.NORMAL))
    assert stage.claim("cpu-1") == "a"
    report = steer.all(found, cancelling("", terminate=False))
    assert outcomes(report) == {"a": "refused", "b": "cancelled", "c": "cancelled"}
    assert stage.broker.observe()[0].held[0].task_id == "a"


def test_what_was_moved_after_it_was_chosen_is_changed_where_it_is(stage, steer):
    stage.submit("a", "b")
    found = steer.chosen(TaskFilter(priority=QueuePriority.NORMAL))
    stage.broker.moves.lane("cpu_standard", "cpu_batch", 4, 2)
    report = steer.all(found, reprioritising(QueuePriority.URGENT))
    assert outcomes(report) == {"a": "changed", "b": "changed"}
    assert stage.ids("cpu_batch", 0) == ["a", "b"]


def test_two_operators_at_once_cancel_each_task_once(stage, steer):
    stage.submit("a", "b")
    both = [steer.chosen(TaskFilter(priority=QueuePriority.NORMAL)) for _ in range(2)]
    reports = [steer.all(found, cancelling("", terminate=False)) for found in both]
    assert [outcomes(report) for report in reports] == [
        {"a": "cancelled", "b": "cancelled"},
        {"a": "unchanged", "b": "unchanged"},
    ]
    assert int(stage.client.hget(stage.keys.totals, "cancelled||cpu_standard")) == 2


def test_a_target_of_the_wrong_type_is_refused_with_nothing_done(stage, steer):
    stage.submit("a", "b")
    stage.client.set(stage.keys.list("cpu_standard", 0), "not a list")
    with pytest.raises(BrokerError, match="which it is; nothing was changed by this step"):
        steer.named(["a"], reprioritising(QueuePriority.URGENT))
    assert stage.ids("cpu_standard", 4) == ["a", "b"]


def test_a_message_is_found_again_where_others_were_taken_before_it(stage):
    """The depth at which it was read is only where to look first."""
    stage.submit(*"abcdefgh")
    raws = list(reversed(stage.client.lrange("cpu_standard\x06\x164", 0, -1)))
    changes = [
        LaneEdit(one, "cpu_standard", 4, depth, raws[n], None, "{}")
        for n, one, depth in ((3, "d", 3), (5, "f", 1), (6, "g", 90), (7, "x", 8))
    ]
    stage.client.rpop("cpu_standard\x06\x164")
    done = LaneEdits(stage.client, stage.keys, 60).apply([*changes, changes[0]])
    assert done == [True, True, True, True, False]
    assert stage.ids("cpu_standard", 4) == ["b", "c", "e"]
