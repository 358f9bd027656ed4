"""What the sweep takes for nobody's, and what it leaves alone."""

from dataclasses import replace

from morag_queue.core.model import QueueType
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.sweep import (
    OpenTask,
    StaleMessage,
    abandoned_lanes,
    former_runs,
    orphan_after,
    orphans,
    resends,
    suspects,
)
from tests.core.fleets import NOW, fleet, held, queued, worker

STANDARD = QueueType.CPU_STANDARD
BEFORE = NOW - 15


def untouched(task_id="t", name="", run=""):
    return StaleMessage(f"tag-{task_id}", name, run, "cpu_standard.cpu-1", task_id, 4)


def test_what_a_live_worker_has_not_touched_for_long_it_has_lost():
    steps, declined = orphans(fleet(worker("cpu-1")), [untouched("t", "cpu-1", "cpu-1.now")], BEFORE, strangers=0)
    assert [(step.task_id, step.target, step.untouched_since) for step in steps] == [("t", "cpu_standard", BEFORE)]
    assert declined == []


def test_a_silent_worker_may_still_have_it():
    for view in (worker("cpu-1", beat_age=60), worker("cpu-1", beat_age=None)):
        assert orphans(fleet(view), [untouched("t", "cpu-1", "cpu-1.now")], BEFORE, strangers=0) == ([], [])


def test_a_message_without_a_holder_is_taken_unless_a_worker_without_the_agent_may_have_it():
    steps, declined = orphans(fleet(worker("cpu-1")), [untouched("t")], BEFORE, strangers=0)
    assert [step.incarnation for step in steps] == [""]
    steps, declined = orphans(fleet(worker("cpu-1")), [untouched("t")], BEFORE, strangers=1)
    assert steps == []
    assert "without the agent" in declined[0].reason


def test_the_longest_untouched_is_put_first_in_line_last():
    steps, _ = orphans(fleet(), [untouched("old"), untouched("new")], BEFORE, strangers=0)
    assert [step.task_id for step in steps] == ["new", "old"]


def test_several_beats_of_the_slowest_worker_are_waited_for():
    assert orphan_after(fleet(worker("cpu-1")), Policy()) == 15
    assert orphan_after(fleet(worker("cpu-1", beat_seconds=20.0)), Policy()) == 60


def test_a_former_run_holds_nothing_and_the_present_one_keeps_what_it_has():
    hands = held("cpu-1", run="before") + held("cpu-1") + held("cpu-2")
    fenced = replace(worker("cpu-2"), fenced=True)
    taken = list(former_runs(fleet(worker("cpu-1"), fenced, held=hands), Policy(), {}))
    assert sorted(step.tag for step in taken) == ["cpu-1.before.0", "cpu-2.now.0"]


def test_a_worker_that_is_not_registered_at_this_moment_is_not_robbed():
    assert list(former_runs(fleet(held=held("cpu-1")), Policy(), {})) == []


def test_lanes_of_workers_that_are_not_there_are_emptied_after_a_minute():
    for age, count in ((30, 0), (90, 1)):
        snapshot = fleet(worker("cpu-2"), lanes=(queued(STANDARD, 2, "cpu-1", age=age), queued(STANDARD, 2, "cpu-2")))
        assert len(list(abandoned_lanes(snapshot, Policy(), Queues()))) == count


def test_only_a_task_whose_turn_has_come_is_looked_for():
    waiting = fleet(lanes=(queued(STANDARD, 5, level=3, age=10),))
    opened = [
        OpenTask("before all that wait", NOW - 20, "cpu_standard", 3),
        OpenTask("the next", NOW - 10, "cpu_standard", 3),
        OpenTask("behind them", NOW - 5, "cpu_standard", 3),
        OpenTask("alone at its level", NOW - 5, "cpu_standard", 4),
    ]
    assert [one.task_id for one in suspects(waiting, opened)] == ["before all that wait", "alone at its level"]


def test_a_task_in_a_hand_or_with_a_name_that_cannot_be_searched_is_no_suspect():
    opened = [OpenTask("cpu-1-0", NOW - 20, "cpu_standard", 3), OpenTask('a "name"', NOW - 20, "cpu_standard", 3)]
    assert suspects(fleet(worker("cpu-1"), held=held("cpu-1")), opened) == []


def test_lost_tasks_are_sent_again_the_oldest_foremost():
    lost = [OpenTask("old", NOW - 20, "cpu_standard", 3), OpenTask("new", NOW - 5, "cpu_standard", 3)]
    assert [step.task_id for step in resends(lost)] == ["new", "old"]
