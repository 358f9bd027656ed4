"""Failed tasks: kinds of failure, retry decisions, and what counts for a worker's circuit breaker.

    kind                 what happens to the task                          counts against the worker
    worker offline       requeued, see `retry_decision`                    no: the task may have killed its process
    network              Celery's own retries                              no
    timeout              Celery's own retries                              if others succeed at the same queue
    processing error     Celery's own retries                              if others succeed at the same queue
    resource exhaustion  Celery's own retries                              yes

A worker that keeps restarting opens its breaker too, unless tasks that are quarantined by then have killed it.

Only the tasks of dead workers are requeued. A task that raised an exception is left to Celery's retries: if its
author wants it to run once only, a requeue would run it twice.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from .setting import Table, setting


class FailureKind(StrEnum):
    WORKER_OFFLINE = "worker_offline"
    NETWORK = "network"
    TIMEOUT = "timeout"
    PROCESSING_ERROR = "processing_error"
    RESOURCE_EXHAUSTION = "resource_exhaustion"


class Blame(StrEnum):
    """How a failed task counts for its worker's circuit breaker."""

    NONE = "none"
    WORKER = "worker"
    UNCLEAR = "unclear"


class RetryDecision(StrEnum):
    """What happens to a task that is requeued from a dead worker."""

    REASSIGN = "reassign"
    RETRY_WITH_DELAY = "retry_with_delay"
    QUARANTINE = "quarantine"


@dataclass(frozen=True, kw_only=True)
class RecoveryPolicy(Table):
    """When work counts as lost, how it is retried, and when a worker's circuit breaker opens."""

    orphan_after_seconds: float = setting(
        15.0, gt=0, description="age from which an unacked message that no worker reports has no owner"
    )
    lost_after_seconds: float = setting(
        5.0, gt=0, description="age from which an open task without a message on the broker is searched for"
    )
    retry_delay_seconds: float = setting(
        10.0, ge=0, description="delay of a task whose worker died twice; doubles with each further death"
    )
    breaker_failures: int = setting(5, ge=1, description="failures in a row that open a worker's circuit breaker")
    breaker_seconds: float = setting(300.0, gt=0, description="how long the circuit breaker stays open")


_KIND_BY_EXCEPTION = {
    "MemoryError": FailureKind.RESOURCE_EXHAUSTION,
    "OutOfMemoryError": FailureKind.RESOURCE_EXHAUSTION,
    "ResourceExhaustedError": FailureKind.RESOURCE_EXHAUSTION,
    "WorkerLostError": FailureKind.WORKER_OFFLINE,
    "SystemExit": FailureKind.WORKER_OFFLINE,  # the pool process ends, and the task with it
    "TimeLimitExceeded": FailureKind.TIMEOUT,
    "SoftTimeLimitExceeded": FailureKind.TIMEOUT,
    "ConnectionError": FailureKind.NETWORK,
    "ConnectionRefusedError": FailureKind.NETWORK,
    "ConnectionResetError": FailureKind.NETWORK,
    "ConnectTimeout": FailureKind.NETWORK,
    "ReadTimeout": FailureKind.NETWORK,
    "TimeoutError": FailureKind.NETWORK,
    "URLError": FailureKind.NETWORK,
    "gaierror": FailureKind.NETWORK,
    "ReadOnlyError": FailureKind.NETWORK,
}
# Libraries raise these as a plain RuntimeError or OSError: only the text identifies them.
_KIND_BY_TEXT = {
    "used memory > 'maxmemory'": FailureKind.NETWORK,  # of a Redis server: the result could not be stored
    "out of memory": FailureKind.RESOURCE_EXHAUSTION,
    "no space left on device": FailureKind.RESOURCE_EXHAUSTION,
    "too many open files": FailureKind.RESOURCE_EXHAUSTION,
    "cannot allocate memory": FailureKind.RESOURCE_EXHAUSTION,
    "hard time limit": FailureKind.TIMEOUT,
}
_BLAME = {
    FailureKind.NETWORK: Blame.NONE,
    FailureKind.WORKER_OFFLINE: Blame.NONE,
    FailureKind.RESOURCE_EXHAUSTION: Blame.WORKER,
}


def kind_of(error: str) -> FailureKind:
    """Return the kind of an error in the ledger's form, `Name: text`; a processing error where it is not recognised."""
    lowered, name = error.lower(), error.partition(":")[0].strip()
    by_exception = _KIND_BY_EXCEPTION.get(name, FailureKind.PROCESSING_ERROR)
    return next((kind for text, kind in _KIND_BY_TEXT.items() if text in lowered), by_exception)


def blame(kind: FailureKind) -> Blame:
    """Return how a failure of this kind counts against its worker.

    A processing error alone is unclear: a batch of broken files would take a healthy fleet out of service. It counts
    against the worker only if other workers complete tasks of the same queue meanwhile.
    """
    return _BLAME.get(kind, Blame.UNCLEAR)


def retry_decision(attempts: int, max_retries: int) -> RetryDecision:
    """Return what happens to a task that was requeued from dead workers `attempts` times before."""
    if attempts >= max_retries:
        return RetryDecision.QUARANTINE
    return RetryDecision.RETRY_WITH_DELAY if attempts else RetryDecision.REASSIGN


def delay_seconds(attempts: int, recovery: RecoveryPolicy) -> float:
    """Return the delay of a task that was requeued `attempts` times before: the task itself may kill its workers."""
    return recovery.retry_delay_seconds * 2 ** (attempts - 1) if attempts else 0.0


def eta(at: float) -> str:
    """Return seconds since the epoch in the form of Celery's `eta` header."""
    return datetime.fromtimestamp(at, UTC).isoformat()
