"""Plans of task edits: each task gets one step, by its state."""

from functools import partial

import pytest

from morag_queue.core.edits import rules
from morag_queue.core.edits.rules import EditContext, MoveTarget, plan_edits
from morag_queue.core.edits.steps import (
    CancelTask,
    EditableTask,
    NoChange,
    RefusedEdit,
    RestartSource,
    ResubmitTask,
    ReviveTask,
    RevokeTask,
    RewriteTask,
)
from morag_queue.core.model import QueuePriority, QueueType, Requires, TaskState
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.task import Task
from tests.core.fleets import NOW, fleet, held, worker

CANCEL = partial(rules.cancel, reason="typo", terminate=False)
TERMINATE = partial(rules.cancel, reason="typo", terminate=True)
MOVE = partial(rules.move, target=MoveTarget(QueueType.CPU_BATCH), force=False, allow_cpu=False)
PRIORITISE = partial(rules.prioritise, priority=QueuePriority.URGENT)
RETRY = partial(rules.retry, reset=False)


def task(state=TaskState.QUEUED, **fields):
    known = {"lane": "cpu_standard", "level": 4, "queue": QueueType.CPU_STANDARD, "estimated_duration": 1.0}
    return Task(task_id="a", state=state, **(known | fields))


WAITING = task()
HELD = task(TaskState.RUNNING, worker="cpu-1", claimed_at=NOW - 5)
FAILED = task(TaskState.FAILED)
CANCELLED = task(TaskState.CANCELLED)
LOST = task(is_on_broker=False)


def plan(rule, subject, *workers, running=(), **more):
    snapshot = fleet(*(workers or (worker("cpu-1"), worker("gpu-1", "gpu"))), held=running)
    context = EditContext(snapshot, Policy(), Queues())
    (step,) = plan_edits(context, [EditableTask(subject, **more)], rule, plan_id="p").steps
    return step


@pytest.mark.parametrize(
    ("rule", "subject", "step", "detail"),
    [
        (CANCEL, CANCELLED, NoChange, "is cancelled already"),
        (CANCEL, FAILED, NoChange, "has ended already (failed)"),
        (CANCEL, HELD, RefusedEdit, "cpu-1 runs it: kill its process with --terminate"),
        (CANCEL, LOST, RefusedEdit, "has no message on the broker"),
        (MOVE, FAILED, RefusedEdit, "morag-queue task retry a runs it again"),
        (MOVE, HELD, RefusedEdit, "cpu-1 has it already"),
        (MOVE, LOST, RefusedEdit, "has no message on the broker"),
        (PRIORITISE, HELD, RefusedEdit, "cpu-1 has it already"),
        (RETRY, WAITING, NoChange, "is open already: it waits in cpu_standard"),
        (RETRY, HELD, NoChange, "is open already: cpu-1 has it"),
        (RETRY, FAILED, RefusedEdit, "its arguments are no longer stored"),
    ],
)
def test_an_edit_that_does_not_fit_the_state_is_refused_or_needs_no_change(rule, subject, step, detail):
    found = plan(rule, subject)
    assert isinstance(found, step)
    assert (found.task_id, detail in found.detail) == ("a", True)


def test_a_waiting_task_is_cancelled_in_its_lane():
    assert plan(CANCEL, WAITING) == CancelTask(WAITING, "typo")


def test_a_failed_task_in_dead_is_not_cancelled_but_can_be_dropped():
    assert "morag-queue dead drop a" in plan(CANCEL, FAILED, is_dead_letter=True).detail


def test_a_running_task_is_terminated_only_in_a_prefork_pool():
    assert plan(TERMINATE, HELD).terminate
    threads = plan(TERMINATE, HELD, worker("cpu-1", pool="threads"))
    assert "threads pool, where a running task cannot be killed" in threads.detail


def test_a_reserved_task_is_revoked_and_a_second_time_needs_no_change():
    subject = task(TaskState.RUNNING, worker="cpu-1", claimed_at=NOW - 1)
    busy = (worker("cpu-1", slots=1),)
    step = plan(CANCEL, subject, *busy, running=held("cpu-1"))
    assert isinstance(step, RevokeTask)
    assert (step.node, step.terminate) == ("cpu-1@host", False)
    again = plan(CANCEL, subject, *busy, running=held("cpu-1"), is_revoked=True)
    assert "is cancelled already" in again.detail


def test_a_task_of_an_offline_worker_is_refused_until_a_failover():
    step = plan(CANCEL, HELD, worker("cpu-1", beat_age=1e6))
    assert "morag-queue failover cpu-1 requeues it; then it can be cancelled" in step.detail


def test_a_move_to_a_queue_lifts_the_pin_and_a_move_to_a_worker_sets_it():
    pinned = task(lane="cpu_standard.cpu-1", pinned_to="cpu-1")
    assert plan(MOVE, pinned).fields == {"queue": "cpu_batch", "worker": None}
    to_worker = plan(partial(rules.move, target=MoveTarget(worker="cpu-1"), force=False, allow_cpu=False), WAITING)
    assert (to_worker.lane, to_worker.fields["worker"]) == ("cpu_standard.cpu-1", "cpu-1")


def test_gpu_work_is_never_moved_into_a_queue_that_a_worker_without_a_gpu_reads():
    gpu = task(lane="gpu_priority", queue=QueueType.GPU_PRIORITY, requires=Requires.GPU)
    assert isinstance(plan(MOVE, gpu), RefusedEdit)


def test_a_task_that_is_there_already_is_not_moved():
    assert plan(MOVE, task(lane="cpu_batch", queue=QueueType.CPU_BATCH)) == NoChange("a", "is in cpu_batch already")


def test_a_new_priority_keeps_the_lane_and_changes_the_level():
    step = plan(PRIORITISE, WAITING)
    assert isinstance(step, RewriteTask)
    assert (step.lane, step.level, step.fields) == ("cpu_standard", 0, {"priority": "URGENT"})
    assert plan(PRIORITISE, task(level=0, priority=QueuePriority.URGENT)) == NoChange("a", "is URGENT already")


@pytest.mark.parametrize(
    ("source", "step"),
    [
        (RestartSource.DEAD_LETTER, ReviveTask),
        (RestartSource.MESSAGE, ResubmitTask),
        (RestartSource.ARGUMENTS, ResubmitTask),
    ],
)
def test_an_ended_task_is_queued_again_from_what_is_stored_of_it(source, step):
    found = plan(RETRY, FAILED, restart=source)
    assert isinstance(found, step)
    assert found.lane == "cpu_standard"


def test_a_task_pinned_to_a_worker_that_is_gone_is_queued_again_in_the_shared_lane():
    pinned = task(TaskState.CANCELLED, lane="cpu_standard.gone", pinned_to="gone")
    assert plan(RETRY, pinned, restart=RestartSource.ARGUMENTS).lane == "cpu_standard"
