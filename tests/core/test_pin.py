import pytest

from morag_queue.core.model import ContentType, DecisionAction, QueuePriority, QueueType, Requires
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.router import route
from morag_queue.core.routing.types import TaskProfile
from tests.core.fleets import fleet, held, worker

VIDEO = TaskProfile(Requires.GPU, QueuePriority.HIGH, ContentType.VIDEO, estimated_minutes=5, memory_gb=2)
AUDIO = TaskProfile(Requires.GPU_PREFERRED, content_type=ContentType.AUDIO, estimated_minutes=4)
DOCUMENT = TaskProfile(Requires.CPU, content_type=ContentType.DOCUMENT, estimated_minutes=1)


def pinned(task, view, pin="w", **options):
    workers = (view,) if view else ()
    return route(task, fleet(*workers, worker("other", "gpu")), Policy(), Queues(), pin=pin, **options)


@pytest.mark.parametrize(
    ("task", "view", "lane"),
    [
        (VIDEO, worker("w", "gpu"), "gpu_priority.w"),
        (AUDIO, worker("w", "hybrid"), "gpu_fallback.w"),
        (AUDIO, worker("w"), "cpu_standard.w"),  # the fallback of its queue
        (DOCUMENT, worker("w", "gpu"), "gpu_priority.w"),  # any lane that the worker reads will do
        (VIDEO, worker("w", "gpu", beat_age=20), "gpu_priority.w"),  # suspect
        (AUDIO, worker("w", "gpu", queues=("gpu_priority",)), "gpu_priority.w"),
    ],
)
def test_a_pinned_task_goes_to_a_lane_that_its_worker_reads(task, view, lane):
    routed = pinned(task, view)
    assert (routed.lane, routed.decision.worker_id, routed.decision.action) == (lane, "w", DecisionAction.ASSIGN)
    assert routed.decision.reason == "pinned to w"


def test_a_task_pinned_to_a_full_worker_waits_in_its_lane():
    full = fleet(worker("w", "gpu"), held=held("w", QueueType.GPU_PRIORITY, 2))
    assert route(VIDEO, full, Policy(), Queues(), pin="w").lane == "gpu_priority.w"


REFUSED = [
    (VIDEO, None, "unknown_worker",
     "worker w is not registered: start it or choose another worker, or add --force"),
    (VIDEO, worker("w"), "no_gpu",
     "worker w has no GPU, and the task needs one: choose a worker with a GPU, or add --allow-cpu"),
    (VIDEO, worker("w", "gpu", cordon="cordoned", cordon_reason="new disk"), "cordoned",
     "worker w is cordoned (cordoned by ann: new disk): uncordon it, or add --force"),
    (VIDEO, worker("w", "gpu", cordon="drained"), "drained",
     "worker w is drained (drained by ann): uncordon it, or add --force"),
    (VIDEO, worker("w", "gpu", cordon="draining", claims=False), "draining",
     "worker w is being drained (draining by ann): uncordon it, or add --force"),
    (VIDEO, worker("w", "gpu", beat_age=90), "offline",
     "worker w is offline (no heartbeat for 90 s): start it, or add --force"),
    (VIDEO, worker("w", "gpu", content_types=(ContentType.IMAGE,)), "content_type",
     "worker w does not take this content type: choose another worker, or add --force"),
    (VIDEO, worker("w", "gpu", memory_gb=1.0), "memory",
     "worker w has less memory than the task is expected to need: choose another worker, or add --force"),
    (VIDEO, worker("w", "hybrid", queues=("cpu_standard",)), "no_safe_lane",
     "worker w has no lane that keeps the task from workers without a GPU (cpu_standard is served by cpu workers): "
     "add --allow-cpu"),
]  # fmt: skip


@pytest.mark.parametrize(("task", "view", "code", "message"), REFUSED, ids=[case[2] for case in REFUSED])
def test_a_pin_to_a_worker_that_cannot_take_the_task_is_refused_with_the_remedy(task, view, code, message):
    refusal = pinned(task, view)
    assert (refusal.code, refusal.subject, refusal.message) == (code, "w", message)
    assert refusal.override == message.rpartition("add ")[2]


@pytest.mark.parametrize(("task", "view", "code", "message"), REFUSED, ids=[case[2] for case in REFUSED])
def test_the_flag_of_the_refusal_and_no_other_pins_the_task_despite_the_obstacle(task, view, code, message):
    by_cpu = message.endswith("--allow-cpu")
    assert pinned(task, view, force=by_cpu, allow_cpu=not by_cpu).code == code
    routed = pinned(task, view, force=not by_cpu, allow_cpu=by_cpu)
    assert routed.lane.endswith(".w")
    assert routed.decision.worker_id == "w"


def test_a_worker_that_is_out_of_service_and_has_no_gpu_needs_both_flags():
    drained = worker("w", cordon="drained")
    assert pinned(VIDEO, drained, force=True).override == "--allow-cpu"
    assert pinned(VIDEO, drained, allow_cpu=True).override == "--force"
    assert pinned(VIDEO, drained, force=True, allow_cpu=True).lane == "cpu_standard.w"


def test_allow_cpu_counts_only_for_a_place_that_is_named():
    readers = fleet(worker("w", queues=tuple(queue.value for queue in QueueType)))
    assert route(VIDEO, readers, Policy(), Queues(), allow_cpu=True).code == "no_safe_lane"
    named = route(VIDEO, readers, Policy(), Queues(), queue=QueueType.CPU_BATCH, allow_cpu=True)
    assert named.lane == "cpu_batch"


def test_a_forced_pin_to_an_unknown_worker_keeps_out_of_the_queues_of_cpu_workers():
    assert pinned(VIDEO, None, queue=QueueType.CPU_STANDARD, force=True).code == "no_safe_lane"


def test_the_reason_of_a_forced_pin_names_the_obstacle():
    assert pinned(VIDEO, worker("w"), allow_cpu=True).decision.reason == (
        "pinned to w; it requires a GPU, but --allow-cpu allows a worker without one"
    )
    assert pinned(VIDEO, None, force=True).decision.reason == "pinned to w by force, although it is not registered"


@pytest.mark.parametrize(
    ("view", "options", "message"),
    [
        (worker("w", queues=("celery",)), {},
         "worker w does not read any of the four queues (it reads none of them): choose a queue or a worker that fits"),
        (worker("w", "gpu"), {"queue": QueueType.CPU_BATCH},
         "worker w does not read cpu_batch.w (it reads gpu_fallback, gpu_priority): "
         "choose a queue or a worker that fits"),
    ],
)  # fmt: skip
def test_a_pin_to_a_lane_that_the_worker_does_not_read_is_refused_even_with_force(view, options, message):
    for force in (False, True):
        refusal = pinned(DOCUMENT, view, force=force, **options)
        assert (refusal.code, refusal.message, refusal.override) == ("not_served", message, None)


def test_a_pin_with_a_named_queue_goes_to_the_lane_of_that_queue():
    routed = pinned(DOCUMENT, worker("w", "hybrid"), queue=QueueType.CPU_BATCH)
    assert routed.lane == "cpu_batch.w"
