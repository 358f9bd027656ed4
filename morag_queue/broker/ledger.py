"""The ledger: every task from submit to its end, and the counters that its end adds to.

The record of an open task does not expire. The record of an ended one is kept for the retention time, then Redis drops
it. Nothing here scans.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from morag_queue.core.enums import Capability, QueueType, TaskState
from morag_queue.core.estimate import estimate, log_error
from morag_queue.core.failure import Blame, RecoveryPolicy
from morag_queue.core.histogram import bucket
from morag_queue.core.worker_records import HeldMessage

from .codec import LedgerRecord, read_record, write_held
from .contract import JournalNote, OutgoingMessage
from .journal import LENGTH as JOURNAL_LENGTH
from .journal import encoded
from .keys import Keys
from .scripts import Call, Key, Script

if TYPE_CHECKING:
    from redis import Redis

BATCH = 250
"""Messages per call of the submit script: about 1 ms of the server's time."""

END_KEYS = ("totals", "current", "minutes", "hours", "figures", "attempts", "dead", "graves", "ended")
"""The keys that the end of a task changes besides its ledger entry, see `lua/lib/end_task.lua`."""


@dataclass(frozen=True, slots=True)
class TaskEnd:
    """How a task ended on a worker. Times in seconds; None where not known."""

    tag: str
    task_id: str
    worker: str
    queue: str
    outcome: str
    wait_seconds: float | None
    run_seconds: float | None
    record: LedgerRecord
    blame: Blame = Blame.NONE


@dataclass(frozen=True)
class SubmittedMessage:
    """One message of a submit call; `worker_lane` is its lane where that is a worker's, else ''."""

    task: Key
    list: Key
    message: str
    entry: str
    queue: str
    worker_lane: str


@dataclass(frozen=True)
class SubmitCall(Call):
    SCRIPT: ClassVar = "submit"
    KEYS: ClassVar = ("lanes", "current", "minutes", "hours", "figures", "ids", "tasks", "journal")

    note: str
    journal_length: int
    messages: Sequence[SubmittedMessage]


@dataclass(frozen=True)
class SettleCall(Call):
    SCRIPT: ClassVar = "settle"
    KEYS: ClassVar = ("unacked", "unacked_index", "held", *END_KEYS, "cordons", "journal", "surprises", "workers")

    task: Key
    tag: str
    outcome: str
    task_id: str
    worker: str
    queue: str
    record: str
    error: str
    retention: int
    wait_ms: int | None
    wait_bucket: int | None
    run_ms: int | None
    run_bucket: int | None
    blame: Blame
    breaker_failures: int
    breaker_seconds: float
    journal_length: int
    work: str
    log_error_on_cpu: float | None
    log_error_on_gpu: float | None
    queues: str


@dataclass(frozen=True, slots=True)
class ExternalCompletion:
    """How a task ended on a worker without the agent, as far as it is known. Times in seconds."""

    task_id: str
    outcome: str
    worker: str = ""
    wait_seconds: float | None = None
    run_seconds: float | None = None


@dataclass(frozen=True)
class CompleteExternalCall(Call):
    SCRIPT: ClassVar = "complete_external"
    KEYS: ClassVar = END_KEYS

    task: Key
    task_id: str
    seen: str
    outcome: str
    worker: str
    queue: str
    retention: int
    wait_ms: int | None
    wait_bucket: int | None
    run_ms: int | None
    run_bucket: int | None


class Ledger:
    """Opens and closes tasks, atomically with their messages."""

    def __init__(
        self, client: "Redis", keys: Keys, retention_seconds: float, recovery: RecoveryPolicy | None = None
    ) -> None:
        self._client, self._keys, self._retention = client, keys, max(1, int(retention_seconds))
        self._recovery = recovery or RecoveryPolicy()
        self._submit = Script(client, keys, SubmitCall)
        self._settle = Script(client, keys, SettleCall)

    def submit(self, messages: Sequence[OutgoingMessage], note: JournalNote | None = None) -> list[bool]:
        """Queue up to `BATCH` messages in one step. False for an id that is still open: its message was not queued.

        `note` goes to the journal in the same step, if none of them is refused.
        """
        call = SubmitCall(
            "" if note is None else encoded(note),
            JOURNAL_LENGTH,
            [
                SubmittedMessage(
                    task=self._keys.task(message.task_id), list=self._keys.list(message.lane, message.level),
                    message=message.text, entry=message.record, queue=message.queue,
                    worker_lane=message.lane if message.is_worker_lane else "",
                )
                for message in messages
            ],
        )  # fmt: skip
        return [bool(answer) for answer in self._submit(call)]

    def settle(self, end: TaskEnd) -> bool:
        """End one task. False when the message was taken from this worker meanwhile: then nothing is counted."""
        return bool(self._settle(self.settle_call(end)))

    def settle_call(self, end: TaskEnd) -> SettleCall:
        """The call by which `settle` ends one task."""
        wait_ms, wait_bucket = _milliseconds_and_bucket(end.wait_seconds)
        run_ms, run_bucket = _milliseconds_and_bucket(end.run_seconds)
        work, on_cpu, on_gpu = _log_errors(end)
        return SettleCall(
            task=self._keys.task(end.task_id), tag=end.tag, outcome=end.outcome, task_id=end.task_id, worker=end.worker,
            queue=end.queue, record=end.record.encoded(), error=end.record.error,
            retention=self._retention, wait_ms=wait_ms, wait_bucket=wait_bucket, run_ms=run_ms, run_bucket=run_bucket,
            blame=end.blame, breaker_failures=self._recovery.breaker_failures,
            breaker_seconds=self._recovery.breaker_seconds, journal_length=JOURNAL_LENGTH, work=work,
            log_error_on_cpu=on_cpu, log_error_on_gpu=on_gpu, queues=" ".join(QueueType),
        )  # fmt: skip

    def hold(self, held: HeldMessage) -> None:
        """Record the holder of a message that was not taken by the claim script."""
        self._client.hset(self._keys.held, held.tag, write_held(held))

    def records(self, task_ids: Iterable[str]) -> dict[str, LedgerRecord]:
        """Records by task id: of open tasks, and of ended ones within the retention time."""
        return read_records(self._client, self._keys, task_ids)


def read_records(client: "Redis", keys: Keys, task_ids: Iterable[str]) -> dict[str, LedgerRecord]:
    """Read the ledger records of those tasks that have one, in one round trip."""
    ids = list(task_ids)
    texts: list[bytes | None] = client.mget([keys.task(task_id) for task_id in ids]) if ids else []  # type: ignore[assignment]
    records = map(read_record, texts)
    return {task_id: record for task_id, record in zip(ids, records, strict=True) if record is not None}


class ExternalCompletions:
    """Closes ledger entries of tasks that ran on workers without the agent."""

    def __init__(self, client: "Redis", keys: Keys, retention_seconds: float) -> None:
        self._keys, self._retention = keys, max(1, int(retention_seconds))
        self._script = Script(client, keys, CompleteExternalCall)

    def end(self, completion: ExternalCompletion, record: LedgerRecord) -> bool:
        """End an open entry that was read as `record`. False where it has changed since, or is not open."""
        if record.state is not TaskState.QUEUED:
            return False
        wait_ms, wait_bucket = _milliseconds_and_bucket(completion.wait_seconds)
        run_ms, run_bucket = _milliseconds_and_bucket(completion.run_seconds)
        call = CompleteExternalCall(
            task=self._keys.task(completion.task_id), task_id=completion.task_id, seen=record.text,
            outcome=completion.outcome, worker=completion.worker, queue=record.queue, retention=self._retention,
            wait_ms=wait_ms, wait_bucket=wait_bucket, run_ms=run_ms, run_bucket=run_bucket,
        )  # fmt: skip
        return bool(self._script(call))


def _milliseconds_and_bucket(seconds: float | None) -> tuple[int | None, int | None]:
    """A duration as the scripts count it: milliseconds, and the bucket of the histogram."""
    return (None, None) if seconds is None else (round(seconds * 1000), bucket(seconds))


def _log_errors(end: TaskEnd) -> tuple[str, float | None, float | None]:
    """`<content type>|<requires>`, and the estimate's log error for a CPU and for a GPU worker; "" to learn nothing.

    The script reads which kind of worker it was.
    """
    record = end.record
    if end.run_seconds is None or record.content_type is None:
        return "", None, None
    predicted, measured = record.estimated_minutes or 0.0, end.run_seconds / 60
    on_cpu = log_error(measured, estimate(predicted, record.requires, Capability.CPU))
    on_gpu = log_error(measured, estimate(predicted, record.requires, Capability.GPU))
    return f"{record.content_type}|{record.requires}", on_cpu, on_gpu
