"""What a drain moves, and what stands against it, as pictures of before and after."""

from morag_queue.core.model import QueueType
from morag_queue.core.plan import MoveLane
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.drain import RunningTask, drain_blockers, plan_drain, plan_force, unserved
from tests.core.fleets import fleet, held, queued, usual_fleet, worker

GPU, STANDARD, BATCH = QueueType.GPU_PRIORITY, QueueType.CPU_STANDARD, QueueType.CPU_BATCH


def moves(snapshot, name):
    plan = plan_drain(snapshot, name, Queues(), plan_id="p")
    return [(step.source, step.target, step.level, step.count) for step in plan.steps if isinstance(step, MoveLane)]


def against(snapshot, name, **more):
    given = {"running": (), "pinned": 0, "deadline_seconds": 3600.0} | more
    return {one.kind: one for one in drain_blockers(snapshot, snapshot.worker_by_id[name], Policy(), **given)}


def test_own_lanes_go_to_the_shared_lanes_level_by_level_and_others_stay():
    before = fleet(
        worker("cpu-1"), worker("cpu-2"),
        lanes=(queued(STANDARD, 3, "cpu-1", level=3), queued(BATCH, 2, "cpu-1", level=8), queued(STANDARD, 4, "cpu-2")),
    )  # fmt: skip
    assert moves(before, "cpu-1") == [
        ("cpu_standard.cpu-1", "cpu_standard", 3, 3),
        ("cpu_batch.cpu-1", "cpu_batch", 8, 2),
    ]


def test_ids_with_dots_and_glob_signs_are_only_names():
    before = fleet(worker("w*.1"), worker("w.x.1"), lanes=(queued(STANDARD, 1, "w*.1"), queued(STANDARD, 1, "w.x.1")))
    assert moves(before, "w*.1") == [("cpu_standard.w*.1", "cpu_standard", 3, 1)]


def test_what_needs_a_gpu_is_kept_out_of_a_lane_that_cpu_workers_read():
    before = fleet(worker("cpu-1"), lanes=(queued(STANDARD, 1, "cpu-1"), queued(GPU, 1, "cpu-1")))
    plan = plan_drain(before, "cpu-1", Queues(), plan_id="p")
    assert [step.keeps_gpu for step in plan.steps] == [True, False]


def test_a_drained_worker_gives_an_empty_plan():
    assert moves(fleet(worker("cpu-1", cordon="drained")), "cpu-1") == []


def test_force_takes_back_everything_the_first_taken_last_so_that_it_is_first_again():
    hands = held("cpu-1", count=2)
    later = tuple(one.model_copy(update={"claimed_at": one.claimed_at + n}) for n, one in enumerate(hands))
    plan = plan_force(fleet(worker("cpu-1"), held=later), "cpu-1", plan_id="p")
    assert [step.task_id for step in plan.steps] == ["cpu-1-1", "cpu-1-0"]
    at_once = plan_force(fleet(worker("cpu-1"), held=hands), "cpu-1", plan_id="p")
    assert [step.task_id for step in at_once.steps] == ["cpu-1-1", "cpu-1-0"], "taken in one millisecond"
    assert {step.target for step in plan.steps} == {"cpu_standard"}
    assert {step.max_deaths for step in plan.steps} == {None}, "a drain is nobody's death"


def test_the_last_gpu_worker_is_refused_while_gpu_work_waits():
    waits = fleet(worker("gpu-1", "gpu"), worker("cpu-1"), lanes=(queued(GPU, 2),))
    verdict = against(waits, "gpu-1")["last_worker"]
    assert "2 in gpu_priority" in verdict.reason
    assert verdict.overridden_by == "--allow-last"


def test_the_last_gpu_worker_may_go_while_nothing_waits_and_the_queues_are_named():
    idle = fleet(worker("gpu-1", "gpu"), worker("cpu-1"))
    assert against(idle, "gpu-1") == {}
    assert unserved(idle, idle.worker_by_id["gpu-1"], Policy()) == (GPU, QueueType.GPU_FALLBACK)


def test_a_worker_that_is_not_in_service_does_not_count_as_another_one():
    waiting = (queued(GPU, 1),)
    for other in (
        worker("gpu-2", "gpu", cordon="drained"),
        worker("gpu-2", "gpu", beat_age=600),
        worker("gpu-2", "gpu", cordon="cordoned"),
    ):
        assert "last_worker" in against(fleet(worker("gpu-1", "gpu"), other, lanes=waiting), "gpu-1")
    silent = worker("gpu-2", "gpu", beat_age=20)
    assert against(fleet(worker("gpu-1", "gpu"), silent, lanes=waiting), "gpu-1") == {}, "a suspect one may come back"


def test_pinned_work_is_an_obstacle_of_its_own():
    verdict = against(usual_fleet(), "worker-cpu-1", pinned=1)["pinned"]
    assert verdict.reason == "1 task in its lanes is pinned to it"
    assert verdict.overridden_by == "--allow-pinned"


def test_tasks_that_are_expected_to_outlast_the_deadline_are_named():
    one, other = held("worker-cpu-1", count=2)
    hands = (RunningTask(one, 90.0), RunningTask(other, None))
    verdict = against(usual_fleet(), "worker-cpu-1", running=hands)["past_deadline"]
    assert "worker-cpu-1-0" in verdict.reason
    assert "worker-cpu-1-1" not in verdict.reason, "of that one nobody knows"
    assert verdict.overridden_by == "--no-deadline"
    assert against(usual_fleet(), "worker-cpu-1", running=hands, deadline_seconds=None) == {}
    assert against(usual_fleet(), "worker-cpu-1", running=hands, deadline_seconds=91 * 60) == {}


def test_what_a_dead_worker_holds_is_failovers_affair():
    gone = fleet(worker("cpu-1", beat_age=600), worker("cpu-2"), held=held("cpu-1"))
    verdict = against(gone, "cpu-1")["offline"]
    assert "morag-queue failover cpu-1" in verdict.remedy
    assert verdict.overridden_by == "--force"


def test_every_obstacle_is_found_at_once():
    bad = fleet(worker("gpu-1", "gpu", beat_age=600), held=held("gpu-1", GPU), lanes=(queued(GPU, 1),))
    running = tuple(RunningTask(one, 600.0) for one in bad.held)
    assert set(against(bad, "gpu-1", running=running, pinned=2)) == {
        "last_worker", "pinned", "past_deadline", "offline",
    }  # fmt: skip
