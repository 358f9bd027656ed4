"""Before → after: the fleet and the task in words, then where it goes and why."""

import pytest

from morag_queue.core.estimate import Correction
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


def sent(task, snapshot, policy=LATE, queues=None, **wishes):
    return route(task, snapshot, policy, queues or Queues(), **wishes)


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
def test_the_queue_follows_from_what_the_task_needs_and_how_urgent_it_is(requires, priority, queue):
    assert choose_queue(Requires(requires), QueuePriority[priority]) is QueueType(queue)


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (VIDEO, ("assign", "gpu_priority", "worker-gpu-1")),
        (AUDIO, ("assign", "gpu_fallback", "worker-gpu-1")),
        (DOCUMENT, ("assign", "cpu_standard", "worker-cpu-1")),
    ],
)
def test_bound_late_a_task_waits_in_the_shared_lane_and_names_the_worker_that_should_take_it(task, expected):
    routed = sent(task, usual_fleet())
    assert summary(routed) == expected
    assert "is expected to take it, with 0 of" in routed.decision.reason


def test_bound_early_a_task_goes_to_the_lane_of_the_best_worker():
    assert summary(sent(VIDEO, usual_fleet(), EARLY)) == ("assign", "gpu_priority.worker-gpu-1", "worker-gpu-1")


@pytest.mark.parametrize(
    ("on_gpu_1", "on_gpu_2", "best"),
    [
        (0, 0, "worker-gpu-1"),  # ties go by name
        (1, 0, "worker-gpu-2"),
        (1, 1, "worker-hybrid-1"),  # half loaded specialists are behind an idle hybrid
        (2, 1, "worker-hybrid-1"),
    ],
)
def test_the_least_loaded_worker_is_expected_and_a_hybrid_only_when_it_is_freer_by_the_penalty(
    on_gpu_1, on_gpu_2, best
):
    loads = held("worker-gpu-1", QueueType.GPU_PRIORITY, on_gpu_1)
    loads += held("worker-gpu-2", QueueType.GPU_PRIORITY, on_gpu_2)
    assert sent(VIDEO, usual_fleet(held=loads)).decision.worker_id == best


def test_the_score_table_tells_each_workers_verdict_best_first():
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
    scores = sent(
        TaskProfile(Requires.GPU, content_type=ContentType.VIDEO, estimated_minutes=5, memory_gb=2), snapshot
    ).scores
    assert [(one.worker, one.verdict.value, round(one.score, 2)) for one in scores] == [
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
    assert {one.verdict for one in scores} == set(Feasibility)
    minutes = {one.worker: one.expected_minutes for one in scores}
    assert (minutes["idle"], minutes["cpu"]) == (5.0, None)


def test_a_task_waits_in_the_shared_lane_while_all_are_full():
    full = held("worker-gpu-1", count=2) + held("worker-gpu-2", count=2) + held("worker-hybrid-1", count=3)
    for policy, lanes in [
        (LATE, ()),
        (EARLY, tuple(queued("gpu_priority", 2, w) for w in ("worker-gpu-1", "worker-gpu-2", "worker-hybrid-1"))),
    ]:
        routed = sent(VIDEO, usual_fleet(held=full, lanes=lanes), policy)
        assert summary(routed) == ("hold", "gpu_priority", None)
        assert routed.decision.reason == (
            "every worker that could take it (3) is full or suspect: it waits in gpu_priority"
        )


@pytest.mark.parametrize(
    ("workers", "obstacles"),
    [
        ((), "no worker is registered"),
        ((worker("c"), worker("d")), "2 without a GPU"),
        ((worker("c"), worker("g", "gpu", beat_age=90)), "1 without a GPU, 1 offline"),
    ],
)
def test_work_that_needs_a_gpu_waits_and_says_why_while_there_is_none(workers, obstacles):
    routed = sent(VIDEO, fleet(*workers))
    assert summary(routed) == ("hold", "gpu_priority", None)
    assert routed.decision.reason == f"nobody can take it ({obstacles}): it waits in gpu_priority"


def test_work_that_prefers_a_gpu_falls_back_to_a_cpu_while_no_worker_serves_its_queue():
    routed = sent(AUDIO, fleet(worker("c"), worker("g", "gpu", cordon="cordoned")))
    assert summary(routed) == ("fallback", "cpu_standard", "c")
    assert (routed.decision.source_queue, routed.decision.target_queue) == ("gpu_fallback", "cpu_standard")
    assert routed.decision.reason == (
        "nobody can take it from gpu_fallback (1 not reading the queue, 1 cordoned): "
        "c is expected to take it, with 0 of 4 slots in use"
    )


def test_work_that_prefers_a_gpu_does_not_fall_back_because_the_gpu_is_full_or_a_beat_is_late():
    for gpu in (worker("g", "gpu", beat_age=20), worker("g", "gpu")):
        routed = sent(AUDIO, fleet(worker("c"), gpu, held=held("g", QueueType.GPU_FALLBACK, 2)))
        assert summary(routed) == ("hold", "gpu_fallback", None)


def test_a_paused_queue_holds_new_work_even_where_a_worker_is_free():
    routed = sent(VIDEO, usual_fleet(paused=frozenset({QueueType.GPU_PRIORITY})), EARLY)
    assert summary(routed) == ("hold", "gpu_priority", None)
    assert routed.decision.reason == "gpu_priority is paused: it waits in gpu_priority"


def test_a_batch_bound_early_fills_every_worker_to_the_limit_of_the_table_and_then_holds():
    router = Router(usual_fleet(), EARLY, Queues())
    lanes = [router.route(VIDEO).lane for _ in range(7)]
    assert sorted(lanes) == [
        "gpu_priority",
        *["gpu_priority.worker-gpu-1"] * 2,
        *["gpu_priority.worker-gpu-2"] * 2,
        *["gpu_priority.worker-hybrid-1"] * 2,
    ]


def test_a_batch_bound_early_alternates_between_equal_workers():
    router = Router(fleet(worker("a"), worker("b")), EARLY, Queues())
    assert [router.route(DOCUMENT).decision.worker_id for _ in range(4)] == ["a", "b", "a", "b"]


def test_load_given_by_one_queue_counts_in_the_others():
    router = Router(fleet(worker("a", "gpu"), worker("b", "gpu")), EARLY, Queues())
    assert [router.route(VIDEO).decision.worker_id, router.route(AUDIO).decision.worker_id] == ["a", "b"]


@pytest.mark.parametrize(
    ("queues", "readers", "where"),
    [
        (Queues(), (worker("rogue", queues=("gpu_priority",)),), ("fallback", "gpu_fallback", "g")),
        (
            Queues(gpu_priority=Queues().gpu_priority.model_copy(update={"served_by": tuple(Capability)})),
            (),
            ("fallback", "gpu_fallback", "g"),
        ),
    ],
)
def test_work_that_needs_a_gpu_avoids_a_queue_that_a_worker_without_one_reads(queues, readers, where):
    routed = sent(VIDEO, fleet(worker("g", "gpu"), *readers), queues=queues)
    assert summary(routed) == where
    assert routed.decision.reason.startswith("gpu_priority is ")


def test_work_that_needs_a_gpu_is_refused_when_every_queue_is_read_by_a_worker_without_one():
    rogue = worker("rogue", queues=tuple(QueueType))
    refusal = sent(VIDEO, fleet(worker("g", "gpu"), rogue), force=True)
    assert (refusal.code, refusal.overridable) == (RefusalCode.NO_SAFE_LANE, False)
    assert "gpu_priority is read by rogue, without a GPU" in refusal.message
    assert "take these workers off gpu_priority" in refusal.message


def test_a_queue_that_a_person_names_is_respected_and_not_left_for_another():
    routed = sent(DOCUMENT, fleet(worker("c")), queue=QueueType.GPU_FALLBACK)
    assert summary(routed) == ("hold", "gpu_fallback", None)


def test_a_named_queue_that_cpu_workers_serve_is_refused_for_work_that_needs_a_gpu_force_or_not():
    for force in (False, True):
        refusal = sent(VIDEO, usual_fleet(), queue=QueueType.CPU_STANDARD, force=force)
        assert (refusal.code, refusal.overridable) == (RefusalCode.CPU_WOULD_RUN_IT, False)
        assert refusal.message == (
            "the task needs a GPU and cpu_standard is served by cpu workers: choose a queue that only GPU workers read"
        )


def test_the_level_is_one_that_every_worker_of_the_lane_polls():
    stock = worker("stock", "gpu", priority_steps=(0, 3, 6, 9))
    urgent_enough = TaskProfile(Requires.GPU, QueuePriority.HIGH, estimated_minutes=5)
    assert sent(urgent_enough, fleet(worker("g", "gpu"))).level == 2
    assert sent(urgent_enough, fleet(worker("g", "gpu"), stock)).level == 0
    assert sent(urgent_enough, fleet(worker("g", "gpu"), stock), pin="g").level == 2
    assert sent(urgent_enough, fleet(worker("g", "gpu"), stock), EARLY).level == 2


def test_the_level_goes_by_the_estimate_on_the_best_capability_even_where_only_a_slower_one_is_there():
    # 1 minute at factor 1 is 12 s on a GPU: the first NORMAL level, though the CPU will take 2 minutes
    short = TaskProfile(Requires.GPU_PREFERRED, estimated_minutes=1)
    assert sent(short, fleet(worker("c"))).level == sent(short, usual_fleet()).level == 3


def test_what_was_learned_changes_the_level_and_the_shown_minutes_of_that_type_only():
    slower = {(ContentType.AUDIO, Requires.GPU_PREFERRED, True): Correction(n=50, m=1.2)}
    task = TaskProfile(Requires.GPU_PREFERRED, content_type=ContentType.AUDIO, estimated_minutes=2)
    before, after = sent(task, usual_fleet()), sent(task, usual_fleet(), corrections=slower)
    assert (before.level, after.level) == (3, 4)
    assert before.scores[0].expected_minutes == pytest.approx(0.4)
    assert after.scores[0].expected_minutes == pytest.approx(0.4 * 2.718281828**1.2)
    image = TaskProfile(Requires.GPU_PREFERRED, content_type=ContentType.IMAGE, estimated_minutes=2)
    assert sent(image, usual_fleet(), corrections=slower).level == 3


def test_the_improvement_is_the_run_time_saved_against_the_next_choice():
    both = (worker("c", queues=("gpu_fallback",)), worker("g", "gpu"))
    assert sent(AUDIO, fleet(*both)).decision.estimated_improvement == pytest.approx(4 * 2.0 - 4 * 0.2)
    another_gpu = fleet(*both, worker("h", "gpu"))
    assert sent(AUDIO, another_gpu).decision.estimated_improvement == 0.0


def test_confidence_is_the_classifications_times_how_sure_the_place_is():
    unsure = TaskProfile(Requires.GPU, estimated_minutes=1, confidence=0.6)
    half = fleet(worker("g", "gpu"), held=held("g", QueueType.GPU_PRIORITY, 1))
    assert sent(unsure, fleet(worker("g", "gpu"))).decision.confidence == pytest.approx(0.6)
    assert sent(unsure, half).decision.confidence == pytest.approx(0.6 / 1.5)
    assert sent(unsure, half, EARLY).decision.confidence == pytest.approx(0.6)
    assert sent(unsure, fleet()).decision.confidence == pytest.approx(0.3)


def test_routing_a_batch_leaves_the_snapshot_as_it_was():
    snapshot = usual_fleet()
    router = Router(snapshot, EARLY, Queues())
    first = router.route(VIDEO)
    assert first.decision.action is DecisionAction.ASSIGN
    assert Router(snapshot, EARLY, Queues()).route(VIDEO) == first
