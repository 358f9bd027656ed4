"""What the sweep recovers, and what it leaves alone."""

from dataclasses import replace

from morag_queue.core.model import QueueType
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.sweep import (
    OpenTask,
    StaleMessage,
    SweepFindings,
    orphan_after,
    plan_sweep,
    suspects,
)
from tests.core.fleets import NOW, fleet, held, queued, worker

STANDARD = QueueType.CPU_STANDARD
BEFORE = NOW - 15


def sweep(snapshot, **findings):
    """The steps and the declined options of a sweep."""
    plan = plan_sweep(snapshot, Policy(), Queues(), SweepFindings(stale_before=BEFORE, **findings), plan_id="p")
    return list(plan.steps), list(plan.declined)


def stale(task_id="t", name="", run=""):
    return StaleMessage(f"tag-{task_id}", name, run, "cpu_standard.cpu-1", task_id, 4)


def test_a_message_that_its_live_holder_does_not_touch_is_requeued():
    steps, declined = sweep(fleet(worker("cpu-1")), stale=[stale("t", "cpu-1", "cpu-1.now")])
    assert [(step.task_id, step.target, step.untouched_since) for step in steps] == [("t", "cpu_standard", BEFORE)]
    assert declined == []


def test_a_message_of_a_silent_worker_is_left_alone():
    for view in (worker("cpu-1", beat_age=60), worker("cpu-1", beat_age=None)):
        assert sweep(fleet(view), stale=[stale("t", "cpu-1", "cpu-1.now")]) == ([], [])


def test_a_message_without_a_holder_is_requeued_unless_an_agentless_worker_may_hold_it():
    steps, declined = sweep(fleet(worker("cpu-1")), stale=[stale("t")])
    assert [step.incarnation for step in steps] == [""]
    steps, declined = sweep(fleet(worker("cpu-1")), stale=[stale("t")], agentless=1)
    assert steps == []
    assert "without the agent" in declined[0].reason


def test_the_message_untouched_for_longest_is_requeued_last_so_that_it_runs_first():
    steps, _ = sweep(fleet(), stale=[stale("old"), stale("new")])
    assert [step.task_id for step in steps] == ["new", "old"]


def test_a_message_counts_as_stale_after_three_heartbeats_of_the_slowest_worker():
    assert orphan_after(fleet(worker("cpu-1")), Policy()) == 15
    assert orphan_after(fleet(worker("cpu-1", beat_seconds=20.0)), Policy()) == 60


def test_messages_of_former_and_fenced_runs_are_requeued_and_others_stay():
    messages = held("cpu-1", run="before") + held("cpu-1") + held("cpu-2")
    fenced = replace(worker("cpu-2"), fenced=True)
    taken = sweep(fleet(worker("cpu-1"), fenced, held=messages))[0]
    assert sorted(step.tag for step in taken) == ["cpu-1.before.0", "cpu-2.now.0"]


def test_messages_of_an_unregistered_worker_stay():
    assert sweep(fleet(held=held("cpu-1"))) == ([], [])


def test_lanes_of_unregistered_workers_are_emptied_after_a_minute():
    for age, count in ((30, 0), (90, 1)):
        snapshot = fleet(worker("cpu-2"), lanes=(queued(STANDARD, 2, "cpu-1", age=age), queued(STANDARD, 2, "cpu-2")))
        assert len(sweep(snapshot)[0]) == count


def test_only_a_task_at_the_head_of_its_lane_is_a_suspect():
    waiting = fleet(lanes=(queued(STANDARD, 5, level=3, age=10),))
    opened = [
        OpenTask("before all that wait", NOW - 20, "cpu_standard", 3),
        OpenTask("the next", NOW - 10, "cpu_standard", 3),
        OpenTask("behind them", NOW - 5, "cpu_standard", 3),
        OpenTask("alone at its level", NOW - 5, "cpu_standard", 4),
    ]
    assert [task.task_id for task in suspects(waiting, opened)] == ["before all that wait", "alone at its level"]


def test_a_held_task_or_one_with_an_unsearchable_id_is_no_suspect():
    opened = [OpenTask("cpu-1-0", NOW - 20, "cpu_standard", 3), OpenTask('a "name"', NOW - 20, "cpu_standard", 3)]
    assert suspects(fleet(worker("cpu-1"), held=held("cpu-1")), opened) == []


def test_lost_tasks_are_resent_newest_first_so_that_the_oldest_is_in_front():
    lost = [OpenTask("old", NOW - 20, "cpu_standard", 3), OpenTask("new", NOW - 5, "cpu_standard", 3)]
    assert [step.task_id for step in sweep(fleet(), lost=lost)[0]] == ["new", "old"]
