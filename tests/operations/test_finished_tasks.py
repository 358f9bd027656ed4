"""A worker that dies between a task's result and its acknowledgement: the task is completed, and not run again."""

import json
from datetime import UTC, datetime

import pytest

from morag_queue.core.balancing.state import BalancerState
from morag_queue.operations.apply import apply
from morag_queue.operations.sweep import Sweep
from morag_queue.watch.turn import PollEvidence, step

WORKER = "worker-cpu-1"


@pytest.fixture
def dead(sim_fleet):
    """A worker that holds two tasks, and whose connections are closed."""
    sim_fleet.join(WORKER, client_name=f"mq.{WORKER}", slots=2)
    sim_fleet.submit("done", "not-done")
    assert [sim_fleet.claim(WORKER), sim_fleet.claim(WORKER)] == ["done", "not-done"]
    return sim_fleet


def result(sim_fleet, task_id, *, status="SUCCESS", at=None, zone=UTC):
    done = datetime.fromtimestamp(sim_fleet.broker.now() + 1.0 if at is None else at, UTC)
    text = json.dumps({"status": status, "result": None, "date_done": done.replace(tzinfo=zone).isoformat()})
    sim_fleet.client.set(f"celery-task-meta-{task_id}", text)


def fail_over(sim_fleet):
    evidence = PollEvidence(absent=frozenset({WORKER}))
    return step(sim_fleet.broker, BalancerState(), evidence, term="", who="ann", pause=lambda _: None).report


@pytest.mark.parametrize("zone", [UTC, None])
def test_failover_completes_a_task_with_a_result_and_requeues_the_other(dead, zone):
    result(dead, "done", zone=zone)
    report = fail_over(dead)
    assert (report.taken_back, report.failed_over.finished_tasks) == (1, 1)
    assert dead.ids("cpu_standard", 4) == ["not-done"]
    record = dead.broker.records(["done"])["done"]
    assert (record.state, record.worker, record.task) == (
        "completed", WORKER, "morag.worker.process_web_page_task",
    )  # fmt: skip
    assert dead.client.hlen(dead.keys.unacked) == dead.client.hlen(dead.keys.held) == 0
    assert dead.client.hget(dead.keys.totals, "completed||cpu_standard") == b"1"
    assert dead.broker.journal.latest(1)[0].changes["finished_tasks"] == 1


@pytest.mark.parametrize("status", ["FAILURE", "RETRY", "STARTED", "REVOKED"])
def test_a_result_other_than_success_does_not_end_the_task(dead, status):
    result(dead, "done", status=status)
    assert fail_over(dead).taken_back == 2
    assert dead.ids("cpu_standard", 4) == ["done", "not-done"]


def test_a_result_older_than_the_claim_is_ignored(dead):
    result(dead, "done", at=dead.broker.now() - 3600)
    assert fail_over(dead).taken_back == 2


@pytest.mark.parametrize(
    "text", ["", "not JSON", "[]", '{"status": "SUCCESS"}', '{"status": "SUCCESS", "date_done": 3}']
)
def test_a_result_that_cannot_be_read_is_ignored(dead, text):
    dead.client.set("celery-task-meta-done", text)
    held = dead.broker.observe()[0].held
    assert dead.broker.results.finish(held) == []


def test_a_task_is_completed_once(dead):
    result(dead, "done")
    snapshot, _ = dead.broker.observe()
    assert dead.broker.results.finish(snapshot.held) == ["done"]
    assert dead.broker.results.finish(snapshot.held) == []
    assert dead.client.hget(dead.keys.totals, "completed||cpu_standard") == b"1"


def test_a_restarted_worker_does_not_requeue_a_task_that_its_last_run_completed(dead):
    result(dead, "done")
    (incarnation,) = {message.incarnation for message in dead.broker.observe()[0].held}
    assert dead.broker.registry.take_back(WORKER, incarnation, max_deaths=3) == 1
    assert dead.ids("cpu_standard", 4) == ["not-done"]
    assert dead.broker.records(["done"])["done"].state == "completed"


def test_a_sweep_does_not_requeue_a_completed_task_after_an_interrupted_failover(dead):
    result(dead, "done")
    dead.client.hset(dead.keys.incarnations, WORKER, "fenced")  # as after an interrupted failover
    sweep = Sweep(dead.broker)
    done = apply(dead.broker, sweep.plan(dead.broker.observe()[0]))
    assert done.taken_back == 1
    assert dead.ids("cpu_standard", 4) == ["not-done"]
    assert dead.broker.records(["done"])["done"].state == "completed"
