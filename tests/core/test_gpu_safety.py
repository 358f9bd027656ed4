"""No planner ever moves work that requires a GPU into a queue that a worker without one may read."""

from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from morag_queue.core.balancing.rebalance import plan_rebalance
from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.lanes import lane, queue_of
from morag_queue.core.model import Capability, HeldMessage, QueueType, Requires
from morag_queue.core.plan import MoveLane, MoveTask, Plan, Resend, TakeBack
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.drain import plan_drain, plan_forced_requeue
from morag_queue.core.recovery.failover import plan_failover
from morag_queue.core.recovery.requeue import HeldTasks
from morag_queue.core.recovery.sweep import OpenTask, StaleMessage, SweepFindings, plan_sweep
from morag_queue.core.routing.gpu_safety import is_unsafe_lane, unsafe_queues
from morag_queue.core.routing.lane_readers import readers_in
from morag_queue.core.snapshot import LaneView, Snapshot
from tests.core.fleets import NOW, fleet, held, queued, worker
from tests.core.lanes_in_words import entry, waiting

NAMES = ("w0", "w1", "w2", "missing")
GPU, STANDARD = QueueType.GPU_PRIORITY, QueueType.CPU_STANDARD


def cpu_may_read(snapshot: Snapshot, queue: QueueType) -> bool:
    """The rule in its simplest form, written without the code under test."""
    return Capability.CPU in Queues().of(queue).served_by or any(
        queue.value in view.info.queues and view.info.capability is Capability.CPU for view in snapshot.workers
    )


# -- the rule


def test_queues_of_cpu_workers_are_closed_by_the_table_and_by_their_readers():
    assert unsafe_queues({}, Queues()).keys() == {STANDARD, QueueType.CPU_BATCH}
    reasons = unsafe_queues({"gpu_priority": ["cpu-2", "cpu-1"]}, Queues())
    assert reasons[GPU] == "gpu_priority is read by cpu-1, cpu-2, without a GPU"


def test_the_lane_of_a_single_worker_is_closed_like_its_queue():
    unsafe = unsafe_queues({}, Queues())
    assert is_unsafe_lane("cpu_standard.gpu-1", unsafe)
    assert not is_unsafe_lane("gpu_priority.cpu-1", unsafe)
    assert not is_unsafe_lane("celery", unsafe)


# -- held work that was pinned by force to a lane of a CPU queue


@pytest.fixture
def forced() -> Snapshot:
    """A GPU worker that holds a task from its lane of a CPU queue, and a CPU worker that reads this queue."""
    message = replace(held("gpu-1")[0], task_id="film", lane="cpu_standard.gpu-1")
    return fleet(worker("gpu-1", "gpu"), worker("cpu-1"), held=(message,))


def test_failover_requeues_a_held_gpu_task_to_a_gpu_queue(forced):
    (step,) = plan_failover(forced, Policy(), Queues(), ["gpu-1"], HeldTasks(gpu={"film"}), plan_id="p").steps
    assert step.target == "gpu_priority"


def test_a_forced_drain_requeues_a_held_gpu_task_to_a_gpu_queue(forced):
    (step,) = plan_forced_requeue(forced, Queues(), "gpu-1", HeldTasks(gpu={"film"}), plan_id="p").steps
    assert step.target == "gpu_priority"


def test_a_held_gpu_task_is_declined_when_cpu_workers_read_every_queue(forced):
    reader = worker("cpu-2", queues=tuple(queue.value for queue in QueueType))
    unsafe = fleet(*forced.workers, reader, held=forced.held)
    plan = plan_failover(unsafe, Policy(), Queues(), ["gpu-1"], HeldTasks(gpu={"film"}), plan_id="p")
    assert plan.steps == ()
    assert plan.declined[0].subject == "task film"


def test_a_lost_gpu_task_is_resent_to_a_gpu_queue(forced):
    findings = SweepFindings(tasks=HeldTasks(gpu={"film"}), lost=[OpenTask("film", NOW - 60, "cpu_standard", 4)])
    (step,) = plan_sweep(fleet(*forced.workers), Policy(), Queues(), findings, plan_id="p").steps
    assert step.target == "gpu_priority"


def test_a_drain_moves_a_gpu_task_in_a_cpu_lane_to_a_gpu_queue():
    lanes = (waiting(STANDARD, {3: [entry("film", "gpu"), entry("page")]}, "gpu-1"),)
    plan = plan_drain(fleet(worker("gpu-1", "gpu"), worker("cpu-1"), lanes=lanes), Queues(), "gpu-1", plan_id="p")
    assert [(step.target, step.keeps_gpu) for step in plan.steps] == [("gpu_priority", False), ("cpu_standard", True)]


def test_a_drain_changes_a_level_that_a_reader_does_not_poll():
    lanes = (queued(STANDARD, 3, "w", level=4),)
    snapshot = fleet(worker("w"), worker("r", priority_steps=(0, 3, 6, 9)), lanes=lanes)
    plan = plan_drain(snapshot, Queues(), "w", plan_id="p")
    assert [(step.target, step.level, step.to_level) for step in plan.steps] == [("cpu_standard", 4, 6)]


# -- every planner


@st.composite
def fleets(draw) -> Snapshot:
    """Any workers reading any queues, with any work in any lane."""
    names = draw(st.lists(st.sampled_from(NAMES[:3]), unique=True))
    queues = st.lists(st.sampled_from(QueueType), min_size=1, unique=True).map(tuple)
    workers = [
        worker(
            name, draw(st.sampled_from(Capability)).value, queues=draw(queues),
            beat_age=draw(st.sampled_from([1, 500])),
            cordon=draw(st.sampled_from([None, None, "draining", "cordoned"])),
        )
        for name in names
    ]  # fmt: skip
    entries = st.lists(st.sampled_from(Requires), max_size=4)
    lanes: list[LaneView] = []
    for queue in QueueType:
        for owner in (None, *draw(st.lists(st.sampled_from(NAMES), unique=True, max_size=2))):
            rows = {
                level: [
                    entry(f"{queue}.{owner}.{level}.{n}", requires.value, minutes=9, waited=500, queue=queue)
                    for n, requires in enumerate(draw(entries))
                ]
                for level in (1, 4)
            }
            lanes.append(waiting(queue, rows, owner))
    messages = tuple(
        HeldMessage(
            tag=f"tag-{n}", worker=draw(st.sampled_from(NAMES)), incarnation=draw(st.sampled_from(["w0.now", "old"])),
            task_id=f"{draw(st.sampled_from(Requires)).value}:{n}",
            lane=lane(draw(st.sampled_from(QueueType)), draw(st.sampled_from([None, "w0"]))), level=4,
            claimed_at=NOW - 60,
        )
        for n in range(draw(st.integers(0, 4)))
    )  # fmt: skip
    return fleet(*workers, lanes=tuple(lanes), held=messages)


def plans(snapshot: Snapshot) -> Iterator[Plan]:
    policy, queues = Policy(), Queues()
    tasks = HeldTasks(gpu={message.task_id for message in snapshot.held if message.task_id.startswith("gpu:")})
    stale = [
        StaleMessage(f"{message.tag}s", "", "", message.lane, message.task_id, message.level)
        for message in snapshot.held
    ]
    lost = [OpenTask(message.task_id, NOW - 60, queue_of(message.lane) or STANDARD, 4) for message in snapshot.held]
    yield plan_rebalance(snapshot, policy, queues, BalancerState(), plan_id="p").plan
    yield plan_failover(snapshot, policy, queues, NAMES[:2], tasks, plan_id="p")
    yield plan_sweep(snapshot, policy, queues, SweepFindings(tasks=tasks, stale=stale, lost=lost), plan_id="p")
    for name in NAMES:
        yield plan_drain(snapshot, queues, name, plan_id="p")
        yield plan_forced_requeue(snapshot, queues, name, tasks, plan_id="p")


@given(fleets())
@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_plan_moves_gpu_work_into_a_queue_that_a_cpu_worker_may_read(snapshot):
    heads = (head for view in snapshot.lanes for row in view.heads for head in row)
    needs_gpu = {head.task_id for head in heads if head.requires is Requires.GPU}
    lost_from = {message.task_id: message.lane for message in snapshot.held}
    for plan in plans(snapshot):
        for step in plan.steps:
            queue = queue_of(step.target or lost_from[step.task_id])
            if queue is None or not cpu_may_read(snapshot, queue):
                continue
            match step:
                case MoveLane():
                    assert step.keeps_gpu, step
                case MoveTask():
                    assert step.keeps_gpu or step.task_id not in needs_gpu, step
                case TakeBack() | Resend():
                    assert not step.task_id.startswith("gpu:"), step


@given(fleets())
@settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
def test_the_readers_of_a_snapshot_close_exactly_the_queues_of_the_rule(snapshot):
    assert set(readers_in(snapshot, Queues()).unsafe) == {queue for queue in QueueType if cpu_may_read(snapshot, queue)}
