"""Every reason code, brought about; and the start that is told, against a play of the fleet."""

import pytest

from morag_queue.core.explain.eta import RunTime, expected_start
from morag_queue.core.explain.explain import MEANING, ReasonCode, explain
from morag_queue.core.lanes import lane
from morag_queue.core.model import HeldMessage, QueueType, Requires, TaskState
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.routing.feasibility import Feasibility
from morag_queue.core.task import Task
from tests.core.fleets import NOW, fleet, held, queued, worker

CPU, BATCH, GPU = QueueType.CPU_STANDARD, QueueType.CPU_BATCH, QueueType.GPU_PRIORITY
RUNS = {queue: RunTime(10.0, 1.0) for queue in QueueType}


def task(queue=CPU, *, of=None, level=3, depth=1, state=TaskState.QUEUED, **more) -> Task:
    return Task(task_id="t", state=state, queue=queue, lane=lane(queue, of), level=level, depth=depth, **more)


def taken(name="cpu-1", **more) -> Task:
    return task(state=TaskState.RUNNING, worker=name, claimed_at=NOW - 5, **more)


def told(one, snapshot):
    return explain(one, snapshot, Policy(), Queues(), RUNS)


one_waits = (queued(CPU, 1),)
busy = worker("cpu-1", slots=1)
CASES = [
    (
        ReasonCode.COMPLETED,
        task(state=TaskState.COMPLETED, worker="cpu-1", run_seconds=2.0),
        fleet(),
        "on cpu-1 after 2.0 s",
    ),
    (ReasonCode.FAILED, task(state=TaskState.FAILED, error="ValueError: no"), fleet(), "ValueError: no"),
    (ReasonCode.CANCELLED, task(state=TaskState.CANCELLED), fleet(), "cancelled"),
    (ReasonCode.QUARANTINED, task(state=TaskState.QUARANTINED), fleet(), "set aside"),
    (ReasonCode.RUNNING, taken(), fleet(busy), "cpu-1 has had it for 5 s"),
    (
        ReasonCode.RESERVED,
        taken(),
        fleet(
            busy,
            held=(
                HeldMessage(
                    tag="x",
                    worker="cpu-1",
                    incarnation="cpu-1.now",
                    task_id="other",
                    lane="cpu_standard",
                    level=3,
                    claimed_at=NOW - 9,
                ),
            ),
        ),
        "runs 1 other first",
    ),
    (ReasonCode.HOLDER_OFFLINE, taken(), fleet(worker("cpu-1", beat_age=100)), "failover cpu-1"),
    (ReasonCode.HOLDER_OFFLINE, taken("gone"), fleet(), "is not registered"),
    (ReasonCode.NOT_ON_BROKER, task(is_on_broker=False), fleet(), "sweep"),
    (ReasonCode.QUEUE_PAUSED, task(), fleet(worker("cpu-1"), paused=frozenset({CPU})), "resume cpu_standard"),
    (ReasonCode.ETA_NOT_REACHED, task(eta_at=NOW + 600), fleet(worker("cpu-1")), "in 10 min"),
    (ReasonCode.ETA_NOT_REACHED, taken(eta_at=NOW + 60), fleet(busy), "cpu-1 keeps it until"),
    (ReasonCode.NO_CAPABLE_WORKER, task(), fleet(), "none is registered"),
    (ReasonCode.NO_CAPABLE_WORKER, task(GPU, requires=Requires.GPU), fleet(worker("cpu-1")), "1 without a GPU"),
    (ReasonCode.NO_CAPABLE_WORKER, task(of="cpu-9"), fleet(worker("cpu-1")), "cpu_standard.cpu-9"),
    (ReasonCode.LANE_CORDONED, task(), fleet(worker("cpu-1", cordon="cordoned")), "1 cordoned"),
    (ReasonCode.LANE_CORDONED, task(of="cpu-1"), fleet(worker("cpu-1", cordon="drained")), "1 drained"),
    (
        ReasonCode.ALL_CAPABLE_OFFLINE,
        task(),
        fleet(worker("cpu-1", beat_age=99), worker("c", cordon="drained")),
        "1 offline",
    ),
    (ReasonCode.ALL_CAPABLE_OFFLINE, task(), fleet(worker("cpu-1", beat_age=20)), "1 suspect"),
    (ReasonCode.LEVEL_NOT_POLLED, task(level=4), fleet(worker("cpu-1", priority_steps=(0, 3, 6, 9))), "doctor"),
    (
        ReasonCode.BEHIND_PRIORITY,
        task(),
        fleet(busy, lanes=(queued(CPU, 1), queued(BATCH, 2, level=0))),
        "2 more urgent tasks",
    ),
    (
        ReasonCode.BEHIND_PRIORITY,
        task(depth=3),
        fleet(busy, lanes=(queued(CPU, 3), queued(BATCH, 1, level=0))),
        "and 2 of its own",
    ),
    (ReasonCode.BEHIND_EARLIER, task(depth=2), fleet(busy, lanes=(queued(CPU, 2),)), "1 task is"),
    (
        ReasonCode.BEHIND_EARLIER,
        task(),
        fleet(busy, lanes=(queued(CPU, 1), queued(CPU, 4, worker="cpu-1"))),
        "4 tasks are",
    ),
    (ReasonCode.ALL_CAPABLE_BUSY, task(), fleet(busy, held=held("cpu-1"), lanes=one_waits), "cpu-1 is busy"),
    (ReasonCode.ABOUT_TO_START, task(), fleet(busy, lanes=one_waits), "cpu-1 is free"),
    (
        ReasonCode.ABOUT_TO_START,
        task(of="cpu-1"),
        fleet(worker("cpu-1", cordon="cordoned"), lanes=(queued(CPU, 1, "cpu-1"),)),
        "cpu-1 is free",
    ),
]


@pytest.mark.parametrize(("code", "one", "snapshot", "says"), CASES)
def test_a_task_is_given_the_first_reason_that_holds(code, one, snapshot, says):
    explanation = told(one, snapshot)
    assert (explanation.code, says in explanation.reason) == (code, True), explanation


def test_every_reason_has_a_meaning_and_a_case_that_brings_it_about():
    assert set(MEANING) == set(ReasonCode) == {code for code, *_ in CASES}


def test_workers_are_listed_best_first_with_why_the_others_cannot():
    snapshot = fleet(worker("gpu-1", "gpu"), worker("cpu-1"), worker("cpu-2", cordon="drained"), lanes=one_waits)
    verdicts = {score.worker: score.verdict for score in told(task(), snapshot).workers}
    assert next(iter(verdicts.items())) == ("cpu-1", Feasibility.FIT)
    assert verdicts == {"cpu-1": Feasibility.FIT, "gpu-1": Feasibility.NOT_SERVED, "cpu-2": Feasibility.DRAINED}


def test_a_pinned_task_lists_the_worker_of_its_lane_only():
    snapshot = fleet(worker("cpu-1"), worker("cpu-2"), lanes=(queued(CPU, 1, "cpu-1"),))
    assert [score.worker for score in told(task(of="cpu-1"), snapshot).workers] == ["cpu-1"]


# -- when


def start(snapshot, queue=CPU, level=3, depth=1, of=None):
    return expected_start(snapshot, Policy(), RUNS, lane(queue, of), level, depth)


def test_the_next_task_starts_now_while_a_slot_is_free():
    expected = start(fleet(busy, lanes=one_waits))
    assert (expected.start, expected.earliest, expected.ahead) == (NOW, NOW, 0)


@pytest.mark.parametrize(("depth", "rounds"), [(1, 0), (2, 0), (3, 1), (5, 2), (8, 3)])
def test_those_before_it_are_shared_out_over_the_slots(depth, rounds):
    snapshot = fleet(worker("cpu-1", slots=1), worker("cpu-2", slots=1), lanes=(queued(CPU, 9),))
    assert start(snapshot, depth=depth).start == NOW + rounds * 10


def test_a_slot_in_use_is_free_when_its_task_has_run_as_long_as_usual():
    snapshot = fleet(busy, held=held("cpu-1"), lanes=one_waits)  # taken 5 s ago
    expected = start(snapshot)
    assert expected.start == NOW + 5
    assert expected.earliest < expected.start < expected.latest


def test_more_urgent_work_of_another_lane_that_the_worker_reads_goes_first():
    lanes = (queued(CPU, 1), queued(BATCH, 3, level=1))
    assert start(fleet(busy, lanes=lanes)).start == NOW + 30


def test_a_paused_queue_keeps_nobody_waiting_and_starts_nothing_itself():
    lanes = (queued(CPU, 1), queued(BATCH, 3, level=1))
    paused = fleet(busy, lanes=lanes, paused=frozenset({BATCH}))
    assert start(paused).start == NOW
    assert start(paused, BATCH, level=1) is None


def test_nobody_in_service_means_no_time_at_all():
    assert start(fleet(worker("cpu-1", beat_age=100), lanes=one_waits)) is None
    assert start(fleet(worker("gpu-1", "gpu"), lanes=one_waits)) is None


def test_a_cordoned_worker_counts_for_its_own_lane_only():
    cordoned = worker("cpu-1", slots=1, cordon="cordoned")
    lanes = (queued(CPU, 2), queued(CPU, 2, "cpu-1"))
    assert start(fleet(cordoned, lanes=lanes)) is None
    assert start(fleet(cordoned, lanes=lanes), of="cpu-1", depth=2).start == NOW + 10


def test_a_very_long_line_is_told_within_a_hundredth():
    snapshot = fleet(worker("cpu-1", slots=4), lanes=(queued(CPU, 1_000_000),))
    expected = start(snapshot, depth=800_000)
    assert expected.start - NOW == pytest.approx(2_000_000, rel=0.01)
