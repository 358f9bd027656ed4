"""The predictions of `task why`, and revoking and pausing, with real workers."""

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
def fleet(cluster):
    """A fleet with `settings` and a `broker`."""
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
    return {event["task"]: event["at"] for event in fleet.events("start")}


def test_a_task_starts_at_the_time_that_task_why_predicts(fleet):
    fleet.start_worker("worker-cpu-1", "cpu", concurrency=2)
    fleet.until_ran(submit(fleet, [f"warm-{n}" for n in range(6)], sleep=0.25))
    ids = submit(fleet, [f"t-{n:02}" for n in range(24)], sleep=0.25)
    submit(fleet, ["urgent"], sleep=0.25, priority="URGENT")
    asked = ["t-08", "t-16", "t-23"]
    explainer = TaskExplainer(fleet.broker, fleet.settings)
    predicted = {one: explainer.why(one) for one in asked}
    fleet.until_ran(ids)
    actual = starts(fleet)
    for one, why in predicted.items():
        assert why.earliest_start_at <= actual[one] <= why.latest_start_at, (one, actual[one] - why.expected_start)
        wait = why.expected_start - explainer.snapshot.taken_at
        assert abs(actual[one] - why.expected_start) <= 0.5 + 0.5 * wait, one
    assert predicted["t-08"].expected_start < predicted["t-16"].expected_start < predicted["t-23"].expected_start

    def ended():
        return TaskExplainer(fleet.broker, fleet.settings).why("t-23").reason_code == "COMPLETED"

    until(ended, 10, lambda: fleet.where())  # completions are recorded twice a second


def test_a_revoked_task_is_cancelled_whether_reserved_or_running(fleet):
    fleet.start_worker("worker-cpu-1", "cpu", options=("--prefetch-multiplier=2",))
    submit(fleet, ["runs", "reserved"], sleep=20)
    until(lambda: "runs" in starts(fleet), 20, lambda: fleet.where())
    until(lambda: len(fleet.broker.observe()[0].held) == 2, 20, lambda: fleet.where())
    editor = TaskEditor(fleet.broker, fleet.settings, "task cancel", who="test")
    report = cancel(editor, ["runs", "reserved"], terminate=True)
    assert {one.task_id: one.outcome for one in report.tasks} == {"runs": "revoked", "reserved": "revoked"}

    def states():
        return {task_id: record.state for task_id, record in fleet.broker.records(["runs", "reserved"]).items()}

    until(lambda: set(states().values()) == {"cancelled"}, 20, lambda: json.dumps(states()))
    assert "reserved" not in starts(fleet)
    assert not fleet.broker.observe()[0].held


def test_an_idle_worker_takes_nothing_from_a_paused_queue_until_resume(fleet):
    fleet.start_worker("worker-cpu-1", "cpu")
    pause(fleet.broker, "cpu_standard", who="test")
    submit(fleet, ["a"], sleep=0)
    submit(fleet, ["b"], sleep=0, queue="cpu_batch")
    fleet.until_ran(["b"])
    assert "a" not in starts(fleet)
    resume(fleet.broker, "cpu_standard", who="test")
    fleet.until_ran(["a"], 3)
