"""Proof of death, and recovery of what a dead worker leaves behind."""

from morag_queue.core.model import QueueType
from morag_queue.core.plan import MoveLane, TakeBack
from morag_queue.core.policy import Policy, Queues
from morag_queue.core.recovery.failover import plan_failover
from morag_queue.core.recovery.liveness import Liveness, LivenessEvidence, assess_liveness, is_overdue
from morag_queue.core.recovery.requeue import HeldTasks
from tests.core.fleets import NOW, fleet, held, queued, worker

GPU, STANDARD = QueueType.GPU_PRIORITY, QueueType.CPU_STANDARD
NAMED = {"client_name": "mq.cpu-1"}


def liveness(view, **evidence):
    return assess_liveness("cpu-1", view, LivenessEvidence(**evidence), NOW).liveness


def plan(snapshot, *names, attempts=None, gpu=()):
    return plan_failover(snapshot, Policy(), Queues(), names, HeldTasks(attempts or {}, gpu), plan_id="p")


def test_no_connection_proves_death_however_fresh_the_beat():
    assert liveness(worker("cpu-1", beat_age=0.5, **NAMED)) is Liveness.DEAD


def test_silence_proves_nothing_while_a_connection_is_open():
    assert liveness(worker("cpu-1", beat_age=600, **NAMED), connections=6) is Liveness.UNPROVEN
    assert liveness(worker("cpu-1", beat_age=600, **NAMED), connections=6, answered=False) is Liveness.UNPROVEN


def test_a_fresh_heartbeat_or_an_answer_proves_life():
    assert liveness(worker("cpu-1", beat_age=1, **NAMED), connections=6) is Liveness.ALIVE
    assert liveness(worker("cpu-1", beat_age=600, **NAMED), connections=6, answered=True) is Liveness.ALIVE


def test_a_worker_whose_connections_have_no_name_is_never_proved_dead():
    assert liveness(worker("cpu-1", beat_age=600, client_name="")) is Liveness.UNPROVEN


def test_an_unregistered_worker_is_unknown_until_it_answers():
    assert liveness(None) is Liveness.UNKNOWN
    assert liveness(None, answered=False) is Liveness.UNKNOWN
    assert liveness(None, answered=True) is Liveness.ALIVE


def test_a_verdict_carries_its_evidence_in_words():
    verdict = assess_liveness(
        "cpu-1", worker("cpu-1", beat_age=12, **NAMED), LivenessEvidence(answered=False, process_is_gone=True), NOW
    )
    assert verdict.evidence == (
        "no connection named mq.cpu-1 in CLIENT LIST",
        "its process 1 is gone from this machine",
        "its last heartbeat was 12.0 s ago",
        "no answer on the control channel",
    )


def test_a_crashed_worker_is_overdue_after_two_heartbeats_if_it_holds_a_message():
    for age, held_count, due in ((3, 1, False), (5, 1, True), (5, 0, False)):
        snapshot = fleet(worker("cpu-1", beat_age=age), held=held("cpu-1", count=held_count))
        assert is_overdue(snapshot, snapshot.workers[0], Policy()) is due


def test_a_worker_that_shut_down_keeps_its_lanes_for_a_minute_and_a_drained_one_for_ever():
    lanes = (queued(STANDARD, 1, "cpu-1"),)
    for age, cordon, due in ((30, None, False), (90, None, True), (90, "drained", False), (90, "cordoned", True)):
        snapshot = fleet(worker("cpu-1", beat_age=age, stopped=True, cordon=cordon), lanes=lanes)
        assert is_overdue(snapshot, snapshot.workers[0], Policy()) is due, (age, cordon)


def test_failover_requeues_held_messages_and_empties_the_lanes():
    snapshot = fleet(
        worker("cpu-1"), worker("cpu-2"), held=held("cpu-1", count=2), lanes=(queued(STANDARD, 3, "cpu-1", level=5),)
    )
    steps = plan(snapshot, "cpu-1").steps
    requeued = [step for step in steps if isinstance(step, TakeBack)]
    assert {(step.task_id, step.target, step.eta) for step in requeued} == {
        ("cpu-1-0", "cpu_standard", ""), ("cpu-1-1", "cpu_standard", ""),
    }  # fmt: skip
    assert {step.max_deaths for step in requeued} == {Policy().max_retries}
    moved = [step for step in steps if isinstance(step, MoveLane)]
    assert [(step.source, step.target, step.level, step.count) for step in moved] == [
        ("cpu_standard.cpu-1", "cpu_standard", 5, 3)
    ]


def test_failover_requeues_what_former_runs_of_the_worker_hold():
    snapshot = fleet(worker("cpu-1"), held=held("cpu-1", run="before"))
    assert [step.incarnation for step in plan(snapshot, "cpu-1").steps] == ["cpu-1.before"]


def test_a_requeued_task_waits_longer_after_each_death():
    snapshot = fleet(worker("cpu-1"), held=held("cpu-1", count=2))
    etas = {step.task_id: step.eta for step in plan(snapshot, "cpu-1", attempts={"cpu-1-0": 1, "cpu-1-1": 2}).steps}
    assert etas == {"cpu-1-0": "1970-01-12T13:46:50+00:00", "cpu-1-1": "1970-01-12T13:47:00+00:00"}


def test_work_of_an_unserved_queue_goes_to_its_served_fallback():
    lanes = (queued(GPU, 2, "gpu-1"),)
    other = worker("gpu-2", "gpu", queues=("gpu_fallback",))
    before = fleet(worker("gpu-1", "gpu"), other, lanes=lanes)
    assert [step.target for step in plan(before, "gpu-1").steps] == ["gpu_fallback"]


def test_gpu_work_never_falls_back_to_a_cpu_queue():
    before = fleet(worker("gpu-1", "gpu"), worker("cpu-1"), lanes=(queued(GPU, 2, "gpu-1"),))
    made = plan(before, "gpu-1")
    assert [step.target for step in made.steps] == ["gpu_priority"]
    assert [(declined.subject, declined.reason) for declined in made.declined] == [
        ("gpu_priority", "no worker in service reads it: its tasks wait")
    ]


def test_a_dead_worker_that_left_nothing_plans_nothing():
    assert plan(fleet(worker("cpu-1"), worker("cpu-2"), held=held("cpu-2")), "cpu-1").steps == ()
