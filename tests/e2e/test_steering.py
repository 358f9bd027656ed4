"""What `task why` foretells, and what a revoke does, against real workers."""

import json

import pytest

from morag_queue.broker.redis import RedisBroker
from morag_queue.local.waiting import until
from morag_queue.operations.pause import pause, resume
from morag_queue.operations.submit import Submitter
from morag_queue.operations.submit_rows import Row
from morag_queue.operations.task import TaskExplainer
from morag_queue.operations.task_editor import TaskEditor
from morag_queue.operations.task_edits import cancel
from morag_queue.settings import Settings


@pytest.fixture
def steered(cluster):
    """A fleet, with a broker of ours to it."""
    cluster.settings = Settings(redis_url=cluster.url)
    cluster.broker = RedisBroker(cluster.settings)
    yield cluster
    cluster.broker.client.close()


def submit(fleet, ids, *, sleep, **fields):
    rows = [
        (0, Row.model_validate({"source": "https://example.org/x", "content_type": "web", "task_id": one, **fields}
                               | {"options": {"sleep": sleep}}))
        for one in ids
    ]  # fmt: skip
    report = Submitter(fleet.broker, fleet.settings).submit(rows)
    assert not report.failed
    return list(ids)


def starts(fleet):
    return {note["task"]: note["at"] for note in fleet.events("start")}


def test_a_task_starts_when_why_says_it_will(steered):
    steered.start_worker("worker-cpu-1", "cpu", concurrency=2)
    steered.until_ran(submit(steered, [f"warm-{n}" for n in range(6)], sleep=0.25))
    ids = submit(steered, [f"t-{n:02}" for n in range(24)], sleep=0.25)
    submit(steered, ["urgent"], sleep=0.25, priority="URGENT")
    asked = ["t-08", "t-16", "t-23"]
    explainer = TaskExplainer(steered.broker, steered.settings)
    foretold = {one: explainer.why(one) for one in asked}
    steered.until_ran(ids)
    actual = starts(steered)
    for one, why in foretold.items():
        assert why.earliest_start_at <= actual[one] <= why.latest_start_at, (one, actual[one] - why.expected_start)
        wait = why.expected_start - explainer.snapshot.taken_at
        assert abs(actual[one] - why.expected_start) <= 0.5 + 0.5 * wait, one
    assert foretold["t-08"].expected_start < foretold["t-16"].expected_start < foretold["t-23"].expected_start

    def ended():
        return TaskExplainer(steered.broker, steered.settings).why("t-23").reason_code == "COMPLETED"

    until(ended, 10, lambda: steered.where())  # completions are told twice a second


def test_a_revoked_task_ends_as_cancelled_reserved_or_running(steered):
    steered.start_worker("worker-cpu-1", "cpu", options=("--prefetch-multiplier=2",))
    submit(steered, ["runs", "reserved"], sleep=20)
    until(lambda: "runs" in starts(steered), 20, lambda: steered.where())
    until(lambda: len(steered.broker.observe()[0].held) == 2, 20, lambda: steered.where())
    editor = TaskEditor(steered.broker, steered.settings, "task cancel", who="test")
    report = cancel(editor, ["runs", "reserved"], terminate=True)
    assert {one.task_id: one.outcome for one in report.tasks} == {"runs": "revoked", "reserved": "revoked"}

    def states():
        return {task_id: record.state for task_id, record in steered.broker.records(["runs", "reserved"]).items()}

    until(lambda: set(states().values()) == {"cancelled"}, 20, lambda: json.dumps(states()))
    assert "reserved" not in starts(steered)
    assert not steered.broker.observe()[0].held


def test_an_idle_worker_stays_idle_while_its_queue_is_paused_and_wakes_at_resume(steered):
    steered.start_worker("worker-cpu-1", "cpu")
    pause(steered.broker, "cpu_standard", who="test")
    submit(steered, ["a"], sleep=0)
    submit(steered, ["b"], sleep=0, queue="cpu_batch")
    steered.until_ran(["b"])
    assert "a" not in starts(steered)
    resume(steered.broker, "cpu_standard", who="test")
    steered.until_ran(["a"], 3)
