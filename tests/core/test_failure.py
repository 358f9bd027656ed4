"""Kinds of failure, blame of the worker, and retries of tasks whose workers died."""

import pytest

from morag_queue.core.failure import (
    Blame,
    FailureKind,
    RecoveryPolicy,
    RetryDecision,
    blame,
    delay_seconds,
    eta,
    kind_of,
    retry_decision,
)


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ("ValueError: not a page", FailureKind.PROCESSING_ERROR),
        ("MemoryError: ", FailureKind.RESOURCE_EXHAUSTION),
        ("RuntimeError: CUDA out of memory. Tried to allocate 2 GiB", FailureKind.RESOURCE_EXHAUSTION),
        ("OSError: [Errno 28] No space left on device", FailureKind.RESOURCE_EXHAUSTION),
        ("WorkerLostError: Worker exited prematurely: signal 9", FailureKind.WORKER_OFFLINE),
        ("SystemExit: 1", FailureKind.WORKER_OFFLINE),
        ("hard time limit of 60 s", FailureKind.TIMEOUT),
        ("ConnectionRefusedError: [Errno 111]", FailureKind.NETWORK),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", FailureKind.RESOURCE_EXHAUSTION),
        ("OutOfMemoryError: Command # 1 (SETEX x) … not allowed when used memory > 'maxmemory'.", FailureKind.NETWORK),
        ("ReadOnlyError: You can't write against a read only replica.", FailureKind.NETWORK),
        ("", FailureKind.PROCESSING_ERROR),
    ],
)
def test_the_kind_of_a_failure_follows_from_its_error_text(error, kind):
    assert kind_of(error) is kind


def test_resource_exhaustion_blames_the_worker_and_a_network_failure_or_a_lost_process_does_not():
    assert blame(FailureKind.RESOURCE_EXHAUSTION) is Blame.WORKER
    assert blame(FailureKind.NETWORK) is Blame.NONE
    assert blame(FailureKind.WORKER_OFFLINE) is Blame.NONE
    assert blame(FailureKind.PROCESSING_ERROR) is Blame.UNCLEAR


def test_a_requeued_task_runs_at_once_then_with_growing_delays_and_is_then_quarantined():
    recovery = RecoveryPolicy(retry_delay_seconds=10)
    assert [retry_decision(attempts, 3) for attempts in range(5)] == [
        RetryDecision.REASSIGN,
        RetryDecision.RETRY_WITH_DELAY,
        RetryDecision.RETRY_WITH_DELAY,
        RetryDecision.QUARANTINE,
        RetryDecision.QUARANTINE,
    ]
    assert [delay_seconds(attempts, recovery) for attempts in range(4)] == [0, 10, 20, 40]


def test_an_eta_is_written_as_celery_reads_it():
    assert eta(1_764_000_000.5) == "2025-11-24T16:00:00.500000+00:00"
