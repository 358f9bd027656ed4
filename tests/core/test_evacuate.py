"""Before → after: the lanes of workers that are dead or draining."""

import pytest

from morag_queue.core.model import QueueType
from tests.core.fleets import fleet, queued, usual_fleet, worker
from tests.core.lanes_in_words import entry, moves, turn, waiting

CPU, GPU = QueueType.CPU_STANDARD, QueueType.GPU_PRIORITY


def test_a_dead_workers_lanes_move_to_the_shared_lanes_level_by_level():
    lanes = (queued(CPU, 100_000, "w", level=3), queued(CPU, 7, "w", level=6), queued(GPU, 2, "w", level=1))
    plan = turn(fleet(worker("w", "hybrid", beat_age=500), worker("other"), lanes=lanes)).plan
    assert moves(plan) == [
        "100000 cpu_standard.w/3 → cpu_standard/3",
        "7 cpu_standard.w/6 → cpu_standard/6",
        "2 gpu_priority.w/1 → gpu_priority/1",
    ]
    assert plan.steps[0].reason == "evacuation: w is offline (no heartbeat for 8 min)"


def test_a_draining_workers_lanes_move_to_the_shared_lanes():
    leaving = worker("w", cordon="draining", cordon_reason="new disk")
    plan = turn(fleet(leaving, worker("other"), lanes=(queued(CPU, 3, "w"),))).plan
    assert moves(plan) == ["3 cpu_standard.w/3 → cpu_standard/3"]
    assert plan.steps[0].reason == "evacuation: w is draining (draining by ann: new disk)"


@pytest.mark.parametrize(
    "staying",
    [
        worker("w"),
        worker("w", beat_age=30),
        worker("w", cordon="cordoned"),
        worker("w", cordon="drained", active=1),
        worker("w", beat_age=None, started_at=999_990.0),
    ],
    ids=["online", "suspect", "cordoned", "drained, with a pin that was forced", "just registered, no beat yet"],
)
def test_a_worker_that_stays_keeps_its_lanes(staying):
    assert moves(turn(fleet(staying, lanes=(queued(CPU, 3, "w"),))).plan) == []


def test_evacuation_spends_nothing_of_the_budget():
    lanes = tuple(queued(CPU, 5, f"w{n}") for n in range(40))
    before = fleet(*(worker(f"w{n}", beat_age=500) for n in range(40)), lanes=lanes)
    assert len(turn(before, max_moves=0).plan.steps) == 40


def test_gpu_work_in_a_cpu_lane_goes_to_a_gpu_queue_task_by_task():
    forced = waiting(CPU, {3: [entry("film", "gpu"), entry("page")]}, "gpu-1")
    before = fleet(worker("gpu-1", "gpu", beat_age=500), worker("cpu-1"), lanes=(forced,))
    plan = turn(before).plan
    assert moves(plan) == ["film cpu_standard.gpu-1/3 → gpu_priority/3", "1 cpu_standard.gpu-1/3 → cpu_standard/3"]
    assert [step.keeps_gpu for step in plan.steps] == [False, True]


def test_gpu_work_avoids_a_gpu_queue_that_a_cpu_worker_reads():
    reader = worker("cpu-1", "cpu", queues=("gpu_priority", "cpu_standard"))
    lane = waiting(GPU, {3: [entry("film", "gpu")]}, "gpu-1")
    plan = turn(fleet(worker("gpu-1", "gpu", beat_age=500), reader, lanes=(lane,))).plan
    assert moves(plan) == ["film gpu_priority.gpu-1/3 → gpu_fallback/3"]


def test_work_at_a_level_that_a_reader_of_the_target_does_not_poll_gets_the_next_one():
    gone, reader = worker("w", beat_age=500), worker("r", priority_steps=(0, 3, 6, 9))
    plan = turn(fleet(gone, reader, lanes=(queued(CPU, 3, "w", level=4),))).plan
    assert moves(plan) == ["3 cpu_standard.w/4 → cpu_standard/6"]


def test_only_the_named_queue_is_evacuated():
    lanes = (queued(CPU, 3, "w"), queued(GPU, 3, "w"))
    before = fleet(worker("w", "hybrid", beat_age=500), lanes=lanes)
    assert moves(turn(before, only=GPU).plan) == ["3 gpu_priority.w/3 → gpu_priority/3"]


def test_a_balanced_fleet_plans_nothing():
    assert turn(usual_fleet()).plan.steps == ()
    assert turn(usual_fleet(lanes=(queued(CPU, 5), queued(GPU, 5)))).plan.steps == ()
