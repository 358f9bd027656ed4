"""Before → after: work at levels that a reader of its lane does not poll."""

from dataclasses import replace

from morag_queue.core.levels import DEFAULT_STEPS
from morag_queue.core.model import QueueType
from morag_queue.core.recovery.sweep import OpenTask, suspects
from tests.core.fleets import NOW, fleet, queued, worker
from tests.core.lanes_in_words import entry, moves, turn, waiting, why_not

CPU, BATCH, GPU = QueueType.CPU_STANDARD, QueueType.CPU_BATCH, QueueType.GPU_PRIORITY
STEPPED = worker("stepped", priority_steps=DEFAULT_STEPS)


def test_work_moves_to_levels_that_every_reader_polls_in_the_order_of_its_levels():
    rows = {n: [entry(f"t{n}")] for n in range(10)}
    plan = turn(fleet(worker("w"), STEPPED, lanes=(waiting(CPU, rows, more=2),))).plan
    assert moves(plan) == [
        f"3 cpu_standard/{level} → cpu_standard/{to}" for level, to in ((1, 3), (2, 3), (4, 6), (5, 6), (7, 9), (8, 9))
    ]
    assert plan.steps[0].reason == (
        "unpolled level: not all readers of cpu_standard poll level 1; they poll 0, 3, 6, 9"
    )


def test_a_lane_keeps_its_levels_if_all_its_readers_poll_them():
    others = worker("gpu-1", "gpu", priority_steps=DEFAULT_STEPS)
    lanes = (queued(CPU, 5, level=4), queued(CPU, 1, "w", level=5))
    assert moves(turn(fleet(worker("w"), others, lanes=lanes)).plan) == []


def test_all_lanes_keep_to_the_levels_of_the_fleet_also_those_of_workers_and_of_unknown_ones():
    lanes = (queued(BATCH, 2, level=8), queued(CPU, 1, "w", level=4), queued(GPU, 1, "new", level=1))
    before = replace(fleet(worker("w"), lanes=lanes), steps=DEFAULT_STEPS)
    assert moves(turn(before, only=CPU).plan) == ["1 cpu_standard.w/4 → cpu_standard.w/6"]
    assert moves(turn(before).plan) == [
        "2 cpu_batch/8 → cpu_batch/9",
        "1 cpu_standard.w/4 → cpu_standard.w/6",
        "1 gpu_priority.new/1 → gpu_priority.new/3",
    ]


def test_a_turn_that_changes_levels_makes_no_optional_moves_and_the_lanes_of_a_dead_worker_move_once():
    gone = worker("gone", beat_age=500)
    old = waiting(CPU, {8: [entry("old", waited=5000, priority="BATCH")]})
    plan = turn(fleet(STEPPED, gone, lanes=(old, queued(CPU, 1, "gone", level=4)))).plan
    assert moves(plan) == ["1 cpu_standard.gone/4 → cpu_standard/6", "1 cpu_standard/8 → cpu_standard/9"]
    assert why_not(plan, "this turn") == ["no optional moves in a turn that changes the levels of whole lanes"]


def test_an_open_task_whose_level_was_changed_is_no_suspect_while_older_work_waits_there():
    before = replace(fleet(lanes=(queued(CPU, 5, level=6, age=100),)), steps=DEFAULT_STEPS)
    opened = [OpenTask("young", NOW - 50, "cpu_standard", 4), OpenTask("old", NOW - 200, "cpu_standard", 4)]
    assert [task.task_id for task in suspects(before, opened)] == ["old"]
