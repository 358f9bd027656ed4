"""Summaries of plans and of their results."""

import pytest

from morag_queue.core.plan import Declined, MoveLane, Rejected, Resend
from morag_queue.core.recovery.liveness import Liveness
from morag_queue.operations.failover import FailoverResult, WorkerVerdict
from morag_queue.operations.rebalance import RebalanceResult
from morag_queue.view.plans import failover_view, rebalance_view, step_lines
from tests.view.test_tables import drawn


def rebalanced(**fields):
    return RebalanceResult(plan_id="p", decisions=(), **{"dry_run": False, **fields})


@pytest.mark.parametrize(
    ("fields", "summary"),
    [
        ({"dry_run": True}, "Nothing would be moved"),
        ({"moved_tasks": 1}, "1 task moved"),
        (
            {"moved_tasks": 2, "already": 3, "foreign": 1, "rejected": (Rejected(task_id="a", reason="it ended"),)},
            "2 tasks moved, 3 already moved, 1 foreign message left in place, 1 refused\n  refused: a: it ended",
        ),
    ],
)
def test_rebalance_summarizes_the_result(fields, summary):
    assert drawn(rebalance_view(rebalanced(**fields), explain=False, quiet=False), 100) == summary


def test_rebalance_with_explain_lists_declined_moves():
    declined = (Declined(subject="cpu_batch", reason="the queue is paused"),)
    text = drawn(rebalance_view(rebalanced(declined=declined), explain=True, quiet=False), 100)
    assert text == "0 tasks moved\nDeclined:\n  cpu_batch: the queue is paused"
    assert "No move was declined." in drawn(rebalance_view(rebalanced(), explain=True, quiet=False), 100)


def test_failover_shows_evidence_planned_steps_and_counts():
    worker = WorkerVerdict(worker="w1", verdict=Liveness.DEAD, evidence=("no connection", "no heartbeat"), done="dead")
    step = Resend(task_id="a", reason="lost")
    result = FailoverResult(plan_id="p", workers=(worker,), recovered_tasks=1, steps=(step,), dry_run=True)
    assert failover_view(result).splitlines() == [
        "w1: dead, dead (no connection; no heartbeat)", *step_lines([step]), "would be 1 resent",
    ]  # fmt: skip


def test_failover_without_tasks_says_that_there_is_nothing_to_recover():
    assert failover_view(FailoverResult(plan_id="p")) == "nothing to recover"


def test_a_long_list_of_steps_is_cut_and_counted():
    step = MoveLane(source="cpu_batch.w1", target="cpu_batch", level=4, count=2, reason="drain")
    lines = step_lines([step] * 25)
    assert len(lines) == 21
    assert lines[-1] == "  … and 5 more; --json lists them all"
