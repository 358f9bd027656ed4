"""Every reason code with a case that causes it, and the expected start of waiting tasks."""

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


def task(queue=CPU, *, owner=None, level=3, depth=1, state=TaskState.QUEUED, **more) -> Task:
    return Task(task_id="t", state=state, queue=queue, lane=lane(queue, owner), level=level, depth=depth, **more)


def claimed(name="cpu-1", **more) -> Task:
    return task(state=TaskState.RUNNING, worker=name, claimed_at=NOW - 5, **more)


def explained(subject, snapshot):
    return explain(subject, snapshot, Policy(), Queues(), RUNS)


one_waiting = (queued(CPU, 1),)
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
    (
        ReasonCode.QUARANTINED,
        task(state=TaskState.QUARANTINED),
        fleet(),
        "quarantined after too many of its workers died",
    ),
    (ReasonCode.RUNNING, claimed(), fleet(busy), "cpu-1 claimed it 5 s ago and is running it"),
    (
        ReasonCode.RESERVED,
        claimed(),
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
        "prefetched it and runs 1 other task first",
    ),
    (
        ReasonCode.HOLDER_OFFLINE,
        claimed(),
        fleet(worker("cpu-1", beat_age=100)),
        "morag-queue failover cpu-1 requeues it",
    ),
    (ReasonCode.HOLDER_OFFLINE, claimed("gone"), fleet(), "gone holds it and is offline (not registered)"),
    (
        ReasonCode.NOT_ON_BROKER,
        task(is_on_broker=False),
        fleet(),
        "a sweep sends it again (morag-queue failover --dead)",
    ),
    (
        ReasonCode.QUEUE_PAUSED,
        task(),
        fleet(worker("cpu-1"), paused=frozenset({CPU})),
        "cpu_standard is paused: morag-queue resume cpu_standard ends the pause",
    ),
    (
        ReasonCode.ETA_NOT_REACHED,
        task(eta_at=NOW + 600),
        fleet(worker("cpu-1")),
        "it must not start before its ETA, in 10 min",
    ),
    (ReasonCode.ETA_NOT_REACHED, claimed(eta_at=NOW + 60), fleet(busy), "cpu-1 holds it until its ETA, in 60 s"),
    (
        ReasonCode.NO_CAPABLE_WORKER,
        task(),
        fleet(),
        "no worker can take it from cpu_standard (no worker is registered)",
    ),
    (ReasonCode.NO_CAPABLE_WORKER, task(GPU, requires=Requires.GPU), fleet(worker("cpu-1")), "1 without a GPU"),
    (ReasonCode.NO_CAPABLE_WORKER, task(owner="cpu-9"), fleet(worker("cpu-1")), "cpu_standard.cpu-9"),
    (
        ReasonCode.LANE_CORDONED,
        task(),
        fleet(worker("cpu-1", cordon="cordoned")),
        "out of service (1 cordoned): uncordon one",
    ),
    (ReasonCode.LANE_CORDONED, task(owner="cpu-1"), fleet(worker("cpu-1", cordon="drained")), "1 drained"),
    (
        ReasonCode.ALL_CAPABLE_OFFLINE,
        task(),
        fleet(worker("cpu-1", beat_age=99), worker("c", cordon="drained")),
        "1 offline",
    ),
    (ReasonCode.ALL_CAPABLE_OFFLINE, task(), fleet(worker("cpu-1", beat_age=20)), "1 suspect"),
    (
        ReasonCode.LEVEL_NOT_POLLED,
        task(level=4),
        fleet(worker("cpu-1", priority_steps=(0, 3, 6, 9))),
        "level 4 of cpu_standard: see morag-queue doctor",
    ),
    (
        ReasonCode.BEHIND_PRIORITY,
        task(),
        fleet(busy, lanes=(queued(CPU, 1), queued(BATCH, 2, level=0))),
        "2 more urgent tasks are ahead of it",
    ),
    (
        ReasonCode.BEHIND_PRIORITY,
        task(depth=3),
        fleet(busy, lanes=(queued(CPU, 3), queued(BATCH, 1, level=0))),
        "1 more urgent task is ahead of it, and 2 of its own level",
    ),
    (
        ReasonCode.BEHIND_EARLIER,
        task(depth=2),
        fleet(busy, lanes=(queued(CPU, 2),)),
        "1 task of its own level is ahead of it",
    ),
    (
        ReasonCode.BEHIND_EARLIER,
        task(),
        fleet(busy, lanes=(queued(CPU, 1), queued(CPU, 4, worker="cpu-1"))),
        "4 tasks of its own level are ahead of it",
    ),
    (
        ReasonCode.ALL_CAPABLE_BUSY,
        task(),
        fleet(busy, held=held("cpu-1"), lanes=one_waiting),
        "it is next, and cpu-1 is busy",
    ),
    (ReasonCode.ABOUT_TO_START, task(), fleet(busy, lanes=one_waiting), "it is next, and cpu-1 is free"),
    (
        ReasonCode.ABOUT_TO_START,
        task(owner="cpu-1"),
        fleet(worker("cpu-1", cordon="cordoned"), lanes=(queued(CPU, 1, "cpu-1"),)),
        "cpu-1 is free",
    ),
]


@pytest.mark.parametrize(("code", "subject", "snapshot", "phrase"), CASES)
def test_a_task_is_explained_by_the_first_reason_that_holds(code, subject, snapshot, phrase):
    explanation = explained(subject, snapshot)
    assert (explanation.code, phrase in explanation.reason) == (code, True), explanation


def test_every_reason_code_has_a_meaning_and_a_case():
    assert set(MEANING) == set(ReasonCode) == {code for code, *_ in CASES}


def test_workers_are_listed_best_first_with_their_verdicts():
    snapshot = fleet(worker("gpu-1", "gpu"), worker("cpu-1"), worker("cpu-2", cordon="drained"), lanes=one_waiting)
    verdicts = {score.worker: score.verdict for score in explained(task(), snapshot).workers}
    assert next(iter(verdicts.items())) == ("cpu-1", Feasibility.FIT)
    assert verdicts == {"cpu-1": Feasibility.FIT, "gpu-1": Feasibility.NOT_SERVED, "cpu-2": Feasibility.DRAINED}


def test_a_task_in_a_workers_own_lane_lists_only_that_worker():
    snapshot = fleet(worker("cpu-1"), worker("cpu-2"), lanes=(queued(CPU, 1, "cpu-1"),))
    assert [score.worker for score in explained(task(owner="cpu-1"), snapshot).workers] == ["cpu-1"]


def start(snapshot, queue=CPU, level=3, depth=1, owner=None):
    return expected_start(snapshot, Policy(), RUNS, lane(queue, owner), level, depth)


def test_the_next_task_starts_now_while_a_slot_is_free():
    expected = start(fleet(busy, lanes=one_waiting))
    assert (expected.start, expected.earliest, expected.ahead) == (NOW, NOW, 0)


@pytest.mark.parametrize(("depth", "rounds"), [(1, 0), (2, 0), (3, 1), (5, 2), (8, 3)])
def test_the_tasks_ahead_are_spread_over_all_slots(depth, rounds):
    snapshot = fleet(worker("cpu-1", slots=1), worker("cpu-2", slots=1), lanes=(queued(CPU, 9),))
    assert start(snapshot, depth=depth).start == NOW + rounds * 10


def test_a_used_slot_is_expected_to_be_free_after_the_mean_run_time():
    snapshot = fleet(busy, held=held("cpu-1"), lanes=one_waiting)  # claimed 5 s ago
    expected = start(snapshot)
    assert expected.start == NOW + 5
    assert expected.earliest < expected.start < expected.latest


def test_more_urgent_work_of_another_lane_of_the_worker_runs_first():
    lanes = (queued(CPU, 1), queued(BATCH, 3, level=1))
    assert start(fleet(busy, lanes=lanes)).start == NOW + 30


def test_a_paused_queue_delays_no_other_queue_and_has_no_expected_start():
    lanes = (queued(CPU, 1), queued(BATCH, 3, level=1))
    paused = fleet(busy, lanes=lanes, paused=frozenset({BATCH}))
    assert start(paused).start == NOW
    assert start(paused, BATCH, level=1) is None


def test_there_is_no_expected_start_without_a_worker_in_service():
    assert start(fleet(worker("cpu-1", beat_age=100), lanes=one_waiting)) is None
    assert start(fleet(worker("gpu-1", "gpu"), lanes=one_waiting)) is None


def test_a_cordoned_worker_is_expected_to_run_its_own_lane_only():
    cordoned = worker("cpu-1", slots=1, cordon="cordoned")
    lanes = (queued(CPU, 2), queued(CPU, 2, "cpu-1"))
    assert start(fleet(cordoned, lanes=lanes)) is None
    assert start(fleet(cordoned, lanes=lanes), owner="cpu-1", depth=2).start == NOW + 10


def test_the_expected_start_in_a_very_long_lane_is_within_one_percent():
    snapshot = fleet(worker("cpu-1", slots=4), lanes=(queued(CPU, 1_000_000),))
    expected = start(snapshot, depth=800_000)
    assert expected.start - NOW == pytest.approx(2_000_000, rel=0.01)


def test_the_start_on_each_worker_is_when_it_would_take_the_task_if_no_other_did():
    workers = [worker(name, slots=1) for name in ("cpu-1", "cpu-2")]
    shared = start(fleet(*workers, lanes=(queued(CPU, 4),)), depth=3)
    assert (shared.start, shared.by_worker) == (NOW + 10, {"cpu-1": NOW + 10, "cpu-2": NOW + 10})
    own = (queued(CPU, 2), queued(CPU, 3, "cpu-2"))
    behind_own = start(fleet(*workers, lanes=own), depth=2)
    assert behind_own.by_worker == {"cpu-1": NOW + 10, "cpu-2": NOW + 30}
    assert (behind_own.start, behind_own.ahead) == (NOW + 10, 2)
    in_own = start(fleet(*workers, lanes=own), owner="cpu-2", depth=3)
    assert in_own.by_worker == {"cpu-2": NOW + 20}
