"""Routing: for a fleet and a task, where the task goes and why."""

from dataclasses import replace

import pytest

from morag_queue.core.estimate import Correction
from morag_queue.core.levels import DEFAULT_STEPS
from morag_queue.core.model import Capability, ContentType, DecisionAction, QueuePriority, QueueType, Requires
from morag_queue.core.policy import Binding, Policy, Queues
from morag_queue.core.routing.feasibility import Feasibility
from morag_queue.core.routing.router import Router, choose_queue, route
from morag_queue.core.routing.types import RefusalCode, TaskProfile
from tests.core.fleets import fleet, held, queued, usual_fleet, worker

LATE, EARLY = Policy(), Policy(binding=Binding.EARLY)
VIDEO = TaskProfile(Requires.GPU, QueuePriority.HIGH, ContentType.VIDEO, estimated_minutes=5)
AUDIO = TaskProfile(Requires.GPU_PREFERRED, QueuePriority.NORMAL, ContentType.AUDIO, estimated_minutes=4)
DOCUMENT = TaskProfile(Requires.CPU, QueuePriority.NORMAL, ContentType.DOCUMENT, estimated_minutes=1)


def routed_to(task, snapshot, policy=LATE, queues=None, **options):
    return route(task, snapshot, policy, queues or Queues(), **options)


def summary(routed):
    return routed.decision.action.value, routed.lane, routed.decision.worker_id


@pytest.mark.parametrize(
    ("requires", "priority", "queue"),
    [
        ("gpu", "BATCH", "gpu_priority"), ("gpu", "URGENT", "gpu_priority"),
        ("gpu_preferred", "HIGH", "gpu_priority"), ("gpu_preferred", "URGENT", "gpu_priority"),
        ("gpu_preferred", "NORMAL", "gpu_fallback"), ("gpu_preferred", "BATCH", "gpu_fallback"),
        ("cpu", "URGENT", "cpu_standard"), ("cpu", "LOW", "cpu_standard"), ("cpu", "BATCH", "cpu_batch"),
    ],
)  # fmt: skip
def test_the_queue_follows_from_the_hardware_and_the_priority_of_the_task(requires, priority, queue):
    assert choose_queue(Requires(requires), QueuePriority[priority]) is QueueType(queue)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (VIDEO, ("assign", "gpu_priority", "worker-gpu-1")),
        (AUDIO, ("assign", "gpu_fallback", "worker-gpu-1")),
        (DOCUMENT, ("assign", "cpu_standard", "worker-cpu-1")),
    ],
)
def test_with_late_binding_a_task_waits_in_the_shared_lane_and_names_the_expected_worker(task, expected):
    routed = routed_to(task, usual_fleet())
    assert summary(routed) == expected
    assert "is expected to take it, with 0 of" in routed.decision.reason


def test_with_early_binding_a_task_goes_to_the_lane_of_the_best_worker():
    routed = routed_to(VIDEO, usual_fleet(), EARLY)
    assert summary(routed) == ("assign", "gpu_priority.worker-gpu-1", "worker-gpu-1")
    assert routed.decision.reason == "worker-gpu-1 fits best, with 0 of at most 2 tasks assigned"


@pytest.mark.parametrize(
    ("on_gpu_1", "on_gpu_2", "best"),
    [
        (0, 0, "worker-gpu-1"),  # ties go by name
        (1, 0, "worker-gpu-2"),
        (1, 1, "worker-hybrid-1"),  # half-loaded specialists rank behind an idle hybrid
        (2, 1, "worker-hybrid-1"),
    ],
)
def test_the_least_loaded_worker_is_expected_and_a_hybrid_only_if_freer_by_the_penalty(on_gpu_1, on_gpu_2, best):
    loads = held("worker-gpu-1", QueueType.GPU_PRIORITY, on_gpu_1)
    loads += held("worker-gpu-2", QueueType.GPU_PRIORITY, on_gpu_2)
    assert routed_to(VIDEO, usual_fleet(held=loads)).decision.worker_id == best


def test_the_score_table_gives_each_worker_a_verdict_best_first():
    snapshot = fleet(
        worker("busy", "gpu"),
        worker("cordoned", "gpu", cordon="cordoned"),
        worker("cpu"),
        worker("drained", "gpu", cordon="drained"),
        worker("draining", "gpu", cordon="draining"),
        worker("gone", "gpu", beat_age=90),
        worker("hybrid", "hybrid"),
        worker("idle", "gpu"),
        worker("images-only", "gpu", content_types=(ContentType.IMAGE,)),
        worker("other-queue", "gpu", queues=("gpu_fallback",)),
        worker("quiet", "gpu", beat_age=20),
        worker("small", "gpu", memory_gb=1.0),
        held=held("busy", QueueType.GPU_PRIORITY, 2) + held("draining", QueueType.GPU_PRIORITY, 1),
    )
    scores = routed_to(
        TaskProfile(Requires.GPU, content_type=ContentType.VIDEO, estimated_minutes=5, memory_gb=2), snapshot
    ).scores
    assert [(row.worker, row.verdict.value, round(row.score, 2)) for row in scores] == [
        ("idle", "fit", 1.0),
        ("hybrid", "fit", 0.83),
        ("busy", "full", 0.0),
        ("cordoned", "cordoned", 0.0),
        ("cpu", "no_gpu", 0.0),
        ("drained", "drained", 0.0),
        ("draining", "draining", 0.0),
        ("gone", "offline", 0.0),
        ("images-only", "content_type", 0.0),
        ("other-queue", "not_served", 0.0),
        ("quiet", "suspect", 0.0),
        ("small", "memory", 0.0),
    ]
    assert {row.verdict for row in scores} == set(Feasibility)
    minutes = {row.worker: row.expected_minutes for row in scores}
    assert (minutes["idle"], minutes["cpu"]) == (5.0, None)


def test_a_task_waits_in_the_shared_lane_while_all_workers_are_full():
    full = held("worker-gpu-1", count=2) + held("worker-gpu-2", count=2) + held("worker-hybrid-1", count=3)
    for policy, lanes in [
        (LATE, ()),
        (EARLY, tuple(queued("gpu_priority", 2, w) for w in ("worker-gpu-1", "worker-gpu-2", "worker-hybrid-1"))),
    ]:
        routed = routed_to(VIDEO, usual_fleet(held=full, lanes=lanes), policy)
        assert summary(routed) == ("hold", "gpu_priority", None)
        assert routed.decision.reason == "3 workers could take it, all full or suspect: it waits in gpu_priority"


@pytest.mark.parametrize(
    ("workers", "obstacles"),
    [
        ((), "no worker is registered"),
        ((worker("c"), worker("d")), "2 without a GPU"),
        ((worker("c"), worker("g", "gpu", beat_age=90)), "1 without a GPU, 1 offline"),
    ],
)
def test_gpu_only_work_waits_with_a_reason_while_the_fleet_has_no_gpu(workers, obstacles):
    routed = routed_to(VIDEO, fleet(*workers))
    assert summary(routed) == ("hold", "gpu_priority", None)
    assert routed.decision.reason == f"no worker can take it ({obstacles}): it waits in gpu_priority"


def test_gpu_preferred_work_falls_back_to_a_cpu_while_no_worker_serves_its_queue():
    routed = routed_to(AUDIO, fleet(worker("c"), worker("g", "gpu", cordon="cordoned")))
    assert summary(routed) == ("fallback", "cpu_standard", "c")
    assert (routed.decision.source_queue, routed.decision.target_queue) == ("gpu_fallback", "cpu_standard")
    assert routed.decision.reason == (
        "no worker can take it from gpu_fallback (1 not reading the queue, 1 cordoned): "
        "c is expected to take it, with 0 of 4 slots in use"
    )


def test_gpu_preferred_work_does_not_fall_back_because_the_gpu_worker_is_full_or_suspect():
    for gpu in (worker("g", "gpu", beat_age=20), worker("g", "gpu")):
        routed = routed_to(AUDIO, fleet(worker("c"), gpu, held=held("g", QueueType.GPU_FALLBACK, 2)))
        assert summary(routed) == ("hold", "gpu_fallback", None)


def test_a_paused_queue_holds_new_work_even_if_a_worker_is_free():
    routed = routed_to(VIDEO, usual_fleet(paused=frozenset({QueueType.GPU_PRIORITY})), EARLY)
    assert summary(routed) == ("hold", "gpu_priority", None)
    assert routed.decision.reason == "gpu_priority is paused: it waits in gpu_priority"


def test_with_early_binding_a_batch_fills_every_worker_to_its_limit_and_then_holds():
    router = Router(usual_fleet(), EARLY, Queues())
    lanes = [router.route(VIDEO).lane for _ in range(7)]
    assert sorted(lanes) == [
        "gpu_priority",
        *["gpu_priority.worker-gpu-1"] * 2,
        *["gpu_priority.worker-gpu-2"] * 2,
        *["gpu_priority.worker-hybrid-1"] * 2,
    ]


def test_with_early_binding_a_batch_alternates_between_equal_workers():
    router = Router(fleet(worker("a"), worker("b")), EARLY, Queues())
    assert [router.route(DOCUMENT).decision.worker_id for _ in range(4)] == ["a", "b", "a", "b"]


def test_load_assigned_by_one_queue_counts_in_the_others():
    router = Router(fleet(worker("a", "gpu"), worker("b", "gpu")), EARLY, Queues())
    assert [router.route(VIDEO).decision.worker_id, router.route(AUDIO).decision.worker_id] == ["a", "b"]


@pytest.mark.parametrize(
    ("queues", "others", "expected"),
    [
        (Queues(), (worker("rogue", queues=("gpu_priority",)),), ("fallback", "gpu_fallback", "g")),
        (
            Queues(gpu_priority=replace(Queues().gpu_priority, served_by=tuple(Capability))),
            (),
            ("fallback", "gpu_fallback", "g"),
        ),
    ],
)
def test_gpu_only_work_avoids_a_queue_that_a_worker_without_a_gpu_reads(queues, others, expected):
    routed = routed_to(VIDEO, fleet(worker("g", "gpu"), *others), queues=queues)
    assert summary(routed) == expected
    assert routed.decision.reason.startswith("gpu_priority is ")


def test_gpu_only_work_is_refused_if_a_worker_without_a_gpu_reads_every_queue():
    rogue = worker("rogue", queues=tuple(QueueType))
    refusal = routed_to(VIDEO, fleet(worker("g", "gpu"), rogue), force=True)
    assert (refusal.code, refusal.override) == (RefusalCode.NO_SAFE_LANE, None)
    assert (
        "the task needs a GPU, and no queue is safe for it (gpu_priority is read by rogue, without a GPU"
        in refusal.message
    )
    assert refusal.message.endswith("): take these workers off gpu_priority")


def test_a_task_stays_in_the_queue_that_the_user_names():
    routed = routed_to(DOCUMENT, fleet(worker("c")), queue=QueueType.GPU_FALLBACK)
    assert summary(routed) == ("hold", "gpu_fallback", None)


def test_a_named_queue_of_cpu_workers_is_refused_for_gpu_only_work_even_with_force():
    for force in (False, True):
        refusal = routed_to(VIDEO, usual_fleet(), queue=QueueType.CPU_STANDARD, force=force)
        assert (refusal.code, refusal.override) == (RefusalCode.CPU_WOULD_RUN_IT, "--allow-cpu")
        assert refusal.message == (
            "the task needs a GPU, and cpu_standard is served by cpu workers: "
            "choose a queue that only GPU workers read, or add --allow-cpu"
        )


def test_the_level_is_one_that_every_worker_of_the_lane_polls():
    kombu_steps = worker("kombu-steps", "gpu", priority_steps=(0, 3, 6, 9))
    high = TaskProfile(Requires.GPU, QueuePriority.HIGH, estimated_minutes=5)
    assert routed_to(high, fleet(worker("g", "gpu"))).level == 2
    assert routed_to(high, fleet(worker("g", "gpu"), kombu_steps)).level == 3, "behind URGENT, before NORMAL"
    assert routed_to(high, fleet(worker("g", "gpu"), kombu_steps), pin="g").level == 2
    assert routed_to(high, fleet(worker("g", "gpu"), kombu_steps), EARLY).level == 2


def test_every_lane_keeps_to_the_levels_of_the_fleet():
    few = replace(fleet(worker("g", "gpu")), steps=DEFAULT_STEPS)
    for priority, level in zip(sorted(QueuePriority, reverse=True), (0, 3, 6, 9, 9), strict=True):
        task = TaskProfile(Requires.GPU, priority, estimated_minutes=5)
        assert {routed_to(task, few, EARLY, pin=pin).level for pin in (None, "g")} == {level}
        assert routed_to(task, few).level == routed_to(task, replace(few, workers=())).level == level


def test_the_level_follows_the_estimate_on_the_best_capability_even_in_a_fleet_without_it():
    # 1 minute at factor 1 is 12 s on a GPU: the first NORMAL level, although the CPU will take 2 minutes
    short = TaskProfile(Requires.GPU_PREFERRED, estimated_minutes=1)
    assert routed_to(short, fleet(worker("c"))).level == routed_to(short, usual_fleet()).level == 3


def test_a_learned_correction_changes_the_level_and_the_minutes_of_its_type_only():
    slower = {(ContentType.AUDIO, Requires.GPU_PREFERRED, True): Correction(n=50, m=1.2)}
    task = TaskProfile(Requires.GPU_PREFERRED, content_type=ContentType.AUDIO, estimated_minutes=2)
    before, after = routed_to(task, usual_fleet()), routed_to(task, usual_fleet(), corrections=slower)
    assert (before.level, after.level) == (3, 4)
    assert before.scores[0].expected_minutes == pytest.approx(0.4)
    assert after.scores[0].expected_minutes == pytest.approx(0.4 * 2.718281828**1.2)
    image = TaskProfile(Requires.GPU_PREFERRED, content_type=ContentType.IMAGE, estimated_minutes=2)
    assert routed_to(image, usual_fleet(), corrections=slower).level == 3


def test_the_improvement_is_the_run_time_saved_against_the_other_kind_of_worker():
    both = (worker("c", queues=("gpu_fallback",)), worker("g", "gpu"))
    assert routed_to(AUDIO, fleet(*both)).decision.estimated_improvement == pytest.approx(4 * 2.0 - 4 * 0.2)
    another_gpu = fleet(*both, worker("h", "gpu"))
    assert routed_to(AUDIO, another_gpu).decision.estimated_improvement == 0.0


def test_the_confidence_is_that_of_the_classification_times_the_certainty_of_the_place():
    unsure = TaskProfile(Requires.GPU, estimated_minutes=1, confidence=0.6)
    half = fleet(worker("g", "gpu"), held=held("g", QueueType.GPU_PRIORITY, 1))
    assert routed_to(unsure, fleet(worker("g", "gpu"))).decision.confidence == pytest.approx(0.6)
    assert routed_to(unsure, half).decision.confidence == pytest.approx(0.6 / 1.5)
    assert routed_to(unsure, half, EARLY).decision.confidence == pytest.approx(0.6)
    assert routed_to(unsure, fleet()).decision.confidence == pytest.approx(0.3)


def test_routing_a_batch_does_not_change_the_snapshot():
    snapshot = usual_fleet()
    router = Router(snapshot, EARLY, Queues())
    first = router.route(VIDEO)
    assert first.decision.action is DecisionAction.ASSIGN
    assert Router(snapshot, EARLY, Queues()).route(VIDEO) == first
