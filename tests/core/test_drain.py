"""What a drain moves, and its blockers, as snapshots before and after."""

from dataclasses import replace

from morag_queue.core.model import QueueType
from morag_queue.core.plan import MoveLane
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.drain import (
    DrainCheck,
    RunningTask,
    drain_blockers,
    plan_drain,
    plan_forced_requeue,
    unserved,
)
from morag_queue.core.recovery.requeue import HeldTasks
from tests.core.fleets import fleet, held, queued, usual_fleet, worker

GPU, STANDARD, BATCH = QueueType.GPU_PRIORITY, QueueType.CPU_STANDARD, QueueType.CPU_BATCH


def moves(snapshot, name):
    plan = plan_drain(snapshot, Queues(), name, plan_id="p")
    return [(step.source, step.target, step.level, step.count) for step in plan.steps if isinstance(step, MoveLane)]


def blockers(snapshot, name, **more):
    check = DrainCheck(snapshot, snapshot.worker_by_id[name], Policy(), **({"deadline_seconds": 3600.0} | more))
    return {blocker.kind: blocker for blocker in drain_blockers(check)}


def forced_requeue(snapshot, name, gpu=()):
    return plan_forced_requeue(snapshot, Queues(), name, HeldTasks(gpu=gpu), plan_id="p")


def test_a_drain_moves_the_workers_lanes_to_the_shared_lanes_level_by_level():
    before = fleet(
        worker("cpu-1"), worker("cpu-2"),
        lanes=(queued(STANDARD, 3, "cpu-1", level=3), queued(BATCH, 2, "cpu-1", level=8), queued(STANDARD, 4, "cpu-2")),
    )  # fmt: skip
    assert moves(before, "cpu-1") == [
        ("cpu_standard.cpu-1", "cpu_standard", 3, 3),
        ("cpu_batch.cpu-1", "cpu_batch", 8, 2),
    ]


def test_worker_ids_with_dots_and_glob_characters_match_exactly():
    before = fleet(worker("w*.1"), worker("w.x.1"), lanes=(queued(STANDARD, 1, "w*.1"), queued(STANDARD, 1, "w.x.1")))
    assert moves(before, "w*.1") == [("cpu_standard.w*.1", "cpu_standard", 3, 1)]


def test_gpu_work_stays_out_of_a_lane_that_cpu_workers_read():
    before = fleet(worker("cpu-1"), lanes=(queued(STANDARD, 1, "cpu-1"), queued(GPU, 1, "cpu-1")))
    plan = plan_drain(before, Queues(), "cpu-1", plan_id="p")
    assert [step.keeps_gpu for step in plan.steps] == [True, False]


def test_draining_a_worker_with_empty_lanes_plans_nothing():
    assert moves(fleet(worker("cpu-1", cordon="drained")), "cpu-1") == []


def test_force_requeues_the_message_claimed_first_last_so_that_it_runs_first():
    messages = held("cpu-1", count=2)
    later = tuple(replace(message, claimed_at=message.claimed_at + n) for n, message in enumerate(messages))
    plan = forced_requeue(fleet(worker("cpu-1"), held=later), "cpu-1")
    assert [step.task_id for step in plan.steps] == ["cpu-1-1", "cpu-1-0"]
    at_once = forced_requeue(fleet(worker("cpu-1"), held=messages), "cpu-1")
    assert [step.task_id for step in at_once.steps] == ["cpu-1-1", "cpu-1-0"], "claimed in one millisecond"
    assert {step.target for step in plan.steps} == {"cpu_standard"}
    assert {step.max_deaths for step in plan.steps} == {None}, "a drain counts no death"


def test_drain_is_blocked_for_the_last_gpu_worker_while_gpu_work_waits():
    waits = fleet(worker("gpu-1", "gpu"), worker("cpu-1"), lanes=(queued(GPU, 2),))
    blocker = blockers(waits, "gpu-1")["last_worker"]
    assert str(blocker) == (
        "gpu-1: it is the last worker in service for 2 tasks in gpu_priority; start one (celery worker -Q "
        "gpu_priority), or add --allow-last to let them wait"
    )
    cordoned = fleet(worker("gpu-1", "gpu"), worker("gpu-2", "gpu", cordon="cordoned"), lanes=(queued(GPU, 1),))
    assert blockers(cordoned, "gpu-1")["last_worker"].remedy == (
        "put one back (morag-queue uncordon gpu-2) or start one (celery worker -Q gpu_priority)"
    )


def test_the_last_gpu_worker_may_drain_while_no_gpu_work_waits():
    idle = fleet(worker("gpu-1", "gpu"), worker("cpu-1"))
    assert blockers(idle, "gpu-1") == {}
    assert unserved(idle, idle.worker_by_id["gpu-1"], Policy()) == (GPU, QueueType.GPU_FALLBACK)


def test_a_worker_out_of_service_does_not_count_as_another_server_of_the_queue():
    waiting = (queued(GPU, 1),)
    for other in (
        worker("gpu-2", "gpu", cordon="drained"),
        worker("gpu-2", "gpu", beat_age=600),
        worker("gpu-2", "gpu", cordon="cordoned"),
    ):
        assert "last_worker" in blockers(fleet(worker("gpu-1", "gpu"), other, lanes=waiting), "gpu-1")
    silent = worker("gpu-2", "gpu", beat_age=20)
    assert blockers(fleet(worker("gpu-1", "gpu"), silent, lanes=waiting), "gpu-1") == {}, "it may come back"


def test_pinned_tasks_are_a_blocker():
    blocker = blockers(usual_fleet(), "worker-cpu-1", pinned=1)["pinned"]
    assert str(blocker) == (
        "worker-cpu-1: 1 task in its lanes is pinned to it; let it run first (morag-queue cordon worker-cpu-1, and "
        "drain later), or add --allow-pinned to give it to any worker"
    )


def test_tasks_expected_to_outlast_the_deadline_are_a_blocker_that_names_them():
    first, second = held("worker-cpu-1", count=2)
    running = (RunningTask(first, 90.0), RunningTask(second, None))
    blocker = blockers(usual_fleet(), "worker-cpu-1", running=running)["past_deadline"]
    assert str(blocker) == (  # there is no estimate for the other task
        "worker-cpu-1: 1 task (worker-cpu-1-0) is expected to run for another 90 min, and the deadline is 60 min; "
        "give it more time (--deadline 91m), or add --no-deadline to wait without limit"
    )
    assert blockers(usual_fleet(), "worker-cpu-1", running=running, deadline_seconds=None) == {}
    assert blockers(usual_fleet(), "worker-cpu-1", running=running, deadline_seconds=91 * 60) == {}


def test_drain_of_a_dead_worker_that_holds_tasks_points_to_failover():
    gone = fleet(worker("cpu-1", beat_age=600), worker("cpu-2"), held=held("cpu-1"))
    blocker = blockers(gone, "cpu-1")["offline"]
    assert str(blocker) == (
        "cpu-1: it holds 1 task and is gone (no heartbeat for 10 min); recover its work (morag-queue failover cpu-1), "
        "or add --force to requeue what it holds"
    )


def test_all_blockers_are_found_at_once():
    bad = fleet(worker("gpu-1", "gpu", beat_age=600), held=held("gpu-1", GPU), lanes=(queued(GPU, 1),))
    running = tuple(RunningTask(message, 600.0) for message in bad.held)
    assert set(blockers(bad, "gpu-1", running=running, pinned=2)) == {
        "last_worker", "pinned", "past_deadline", "offline",
    }  # fmt: skip
