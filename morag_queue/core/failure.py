"""What failed, and what is done about it: kinds of failure, the circuit breaker, how reliable a worker is.

    kind                 what is done with the task                 does it speak against the worker
    worker offline       taken back, then by `retry_decision`               yes: it is failed over
    network              its own retries, Celery's                  no
    timeout              its own retries                            where others succeed at the same queue
    processing error     its own retries                            where others succeed at the same queue
    resource exhaustion  its own retries                            yes

A task that raised is Celery's own affair: it has its own retries, and to run it again unasked would run twice what its
author wanted once. What nobody else would bring back are the tasks of a worker that died: these are ours.
"""

from datetime import UTC, datetime
from enum import StrEnum

from pydantic import Field

from .model import Frozen


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
    """What becomes of a task that is taken back from a worker that died."""

    REASSIGN = "reassign"
    RETRY_WITH_DELAY = "retry_with_delay"
    QUARANTINE = "quarantine"


class RecoveryPolicy(Frozen):
    """How patient recovery is, and when a worker is kept from taking more."""

    orphan_after_seconds: float = Field(
        15.0, gt=0, description="a taken message that no worker says it has, for so long, is nobody's"
    )
    lost_after_seconds: float = Field(
        5.0, gt=0, description="an open task that is nowhere on the broker is looked for after this time"
    )
    retry_delay_seconds: float = Field(
        10.0, ge=0, description="before a task runs again whose workers died twice; doubles with each further one"
    )
    breaker_failures: int = Field(5, ge=1, description="failures in a row that open a worker's circuit breaker")
    breaker_seconds: float = Field(300.0, gt=0, description="how long it stays open")


_BY_NAME = {
    "MemoryError": FailureKind.RESOURCE_EXHAUSTION,
    "OutOfMemoryError": FailureKind.RESOURCE_EXHAUSTION,
    "ResourceExhaustedError": FailureKind.RESOURCE_EXHAUSTION,
    "WorkerLostError": FailureKind.WORKER_OFFLINE,
    "SystemExit": FailureKind.WORKER_OFFLINE,  # the pool process ends, with the task
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
# Libraries raise these as a RuntimeError or an OSError: only the words tell.
_BY_WORDS = {
    "used memory > 'maxmemory'": FailureKind.NETWORK,  # of a Redis server: the result could not be stored
    "out of memory": FailureKind.RESOURCE_EXHAUSTION,
    "no space left on device": FailureKind.RESOURCE_EXHAUSTION,
    "too many open files": FailureKind.RESOURCE_EXHAUSTION,
    "cannot allocate memory": FailureKind.RESOURCE_EXHAUSTION,
    "hard time limit": FailureKind.TIMEOUT,
}
_BLAME = {FailureKind.NETWORK: Blame.NONE, FailureKind.RESOURCE_EXHAUSTION: Blame.WORKER}


def kind_of(error: str) -> FailureKind:
    """The kind of an error as the ledger keeps it: `Name: text`. What is not known is a processing error."""
    said, name = error.lower(), error.partition(":")[0].strip()
    by_name = _BY_NAME.get(name, FailureKind.PROCESSING_ERROR)
    return next((kind for words, kind in _BY_WORDS.items() if words in said), by_name)


def blame(kind: FailureKind) -> Blame:
    """What a failure of this kind says of the worker that had the task.

    A processing error alone says nothing: a batch of broken files would take a whole healthy fleet out of service. It
    counts against the worker where others end tasks of the same queue well meanwhile.
    """
    return _BLAME.get(kind, Blame.UNCLEAR)


def retry_decision(attempts: int, max_retries: int) -> RetryDecision:
    """What is done with a task of a dead worker that was taken back `attempts` times before."""
    if attempts >= max_retries:
        return RetryDecision.QUARANTINE
    return RetryDecision.RETRY_WITH_DELAY if attempts else RetryDecision.REASSIGN


def delay_seconds(attempts: int, recovery: RecoveryPolicy) -> float:
    """How long a task waits that was taken back `attempts` times before: it may be what kills its workers."""
    return recovery.retry_delay_seconds * 2 ** (attempts - 1) if attempts else 0.0


def eta(at: float) -> str:
    """Seconds since the epoch as Celery writes an `eta`."""
    return datetime.fromtimestamp(at, UTC).isoformat()
