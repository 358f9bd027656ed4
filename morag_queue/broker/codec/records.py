"""What the other keys hold as text: ledger records, held messages, cordons and results of Celery.

The readers never raise: unknown fields are ignored, and a broken text reads as None or as a record without fields.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from morag_queue.broker.compact_record import expand
from morag_queue.core.enums import ContentType, QueuePriority, Requires, TaskState
from morag_queue.core.lanes import queue_of
from morag_queue.core.worker_records import HeldMessage, WorkerInfo

from .fields import count, json_object, member, moment, number, priority, word

if TYPE_CHECKING:
    from morag_queue.core.task import Task

_CARRIED = ("priority", "enqueued_at", "queue", "requires", "estimated_minutes", "content_type")
"""Fields that an ended record repeats from the open one, for readers that know only the outer record."""


@dataclass(frozen=True, slots=True)
class LedgerRecord:
    """One task in the ledger. `fields` is the whole JSON object: a rewrite keeps the fields of other versions.

    `text` is the value as it was read, for scripts that change a record only if it still is the same; "" for a new one.
    An open record is what was submitted. An ended one has the outcome, and the open record as its `entry`.
    """

    fields: Mapping[str, Any]
    text: str = ""

    @property
    def state(self) -> TaskState | None:
        return member(TaskState, self.fields.get("state"))

    @property
    def task(self) -> str:
        return word(self.fields.get("task"))

    @property
    def source(self) -> str:
        return word(self.fields.get("source")) or word(self.submitted.fields.get("source"))

    @property
    def lane(self) -> str:
        return word(self.fields.get("lane"))

    @property
    def level(self) -> int | None:
        level = self.fields.get("level")
        return level if type(level) is int and 0 <= level <= 9 else None

    @property
    def requires(self) -> Requires:
        return member(Requires, self.fields.get("requires")) or Requires.CPU

    @property
    def estimated_minutes(self) -> float | None:
        """Minutes at factor 1."""
        return number(self.fields.get("estimated_minutes"))

    @property
    def enqueued_at(self) -> float | None:
        return number(self.fields.get("enqueued_at"))

    @property
    def priority(self) -> QueuePriority:
        return priority(self.fields.get("priority"), self.level or 0)

    @property
    def content_type(self) -> ContentType | None:
        return member(ContentType, self.fields.get("content_type"))

    @property
    def queue(self) -> str:
        return word(self.fields.get("queue"))

    @property
    def worker(self) -> str | None:
        """The worker that ran the task; of an open record the one that it is pinned to."""
        return word(self.fields.get("worker")) or None

    @property
    def error(self) -> str:
        return word(self.fields.get("error"))

    @property
    def submission(self) -> str | None:
        """The id of the `submit` that queued the task."""
        return word(self.fields.get("submission")) or None

    @property
    def submitted(self) -> "LedgerRecord":
        """The open record of an ended task; the record itself if it is open."""
        entry = self.fields.get("entry")
        return LedgerRecord(entry) if isinstance(entry, dict) else self

    @property
    def arguments(self) -> tuple[list[Any], dict[str, Any]] | None:
        """Args and kwargs; None where the record has none."""
        for fields in (self.fields, self.submitted.fields):
            args, kwargs = fields.get("args"), fields.get("kwargs") or {}
            if isinstance(args, list) and isinstance(kwargs, dict):
                return args, kwargs
        return None

    @property
    def decision(self) -> Mapping[str, Any] | None:
        """The routing decision at submit."""
        found = self.fields.get("decision") or self.submitted.fields.get("decision")
        return found if isinstance(found, dict) else None

    @property
    def message(self) -> str | None:
        """The message of a cancelled task that had no record of its own."""
        message = self.submitted.fields.get("message")
        return message if isinstance(message, str) else None

    def waits_in(self, lane: str, level: int) -> bool:
        """Whether the record is open and names this place."""
        return (self.state, self.lane, self.level) == (TaskState.QUEUED, lane, level)

    def encoded(self) -> str:
        return json.dumps(dict(self.fields))

    def changed(self, **fields: Any) -> "LedgerRecord":
        """Return the record with other values of these fields."""
        return LedgerRecord({**self.fields, **fields})

    def moved(self, lane: str, level: int, fields: Mapping[str, Any]) -> str:
        """Return the record with another place and other header fields; a value of None removes the field."""
        merged = {**self.fields, "lane": lane, "level": level, **fields}
        return json.dumps({name: value for name, value in merged.items() if value is not None})

    def reopened(self, lane: str, level: int) -> str:
        """Return the open record for a task that is queued again; "" where it is empty."""
        fields = self.submitted.fields
        return json.dumps({**fields, "state": "queued", "lane": lane, "level": level}) if fields else ""


def read_record(text: bytes | str | None) -> LedgerRecord | None:
    fields = json_object(text)
    if fields is None or text is None:
        return None
    expand(fields)
    if isinstance(entry := fields.get("entry"), dict):
        expand(entry)
    return LedgerRecord(fields, text.decode() if isinstance(text, bytes) else text)


def _carried(record: LedgerRecord | None, *more: str) -> dict[str, Any]:
    fields = record.fields if record is not None else {}
    return {name: fields[name] for name in (*_CARRIED, *more) if name in fields}


def withdrawn_record(
    record: LedgerRecord | None, message: str, task: "Task", state: TaskState, reason: str, at: float
) -> str:
    """End a waiting task. Without a record of its own it keeps its message, so that it can be queued again."""
    return json.dumps({
        **_carried(record, "worker", "source"),
        "state": state,
        "task": task.task,
        "lane": task.lane,
        "level": task.level,
        "ended_at": round(at, 3),
        "error": reason,
        "entry": dict(record.fields) if record is not None and record.fields else {"message": message},
    })  # fmt: skip


def completed_record(held: HeldMessage, record: LedgerRecord | None) -> LedgerRecord:
    """End a task whose worker died after the work: its times are not known."""
    task = record.task if record is not None else ""
    return ended_record(_carried(record), state=TaskState.COMPLETED, task=task, lane=held.lane, worker=held.worker)


def ended_record(
    header: Mapping[str, Any],
    *,
    state: str,
    task: str,
    lane: str,
    worker: str,
    started_at: float | None = None,
    wait_seconds: float | None = None,
    run_seconds: float | None = None,
    error: str = "",
) -> LedgerRecord:
    """End a task that ran on a worker. The settle script adds the end time and the open record.

    `header` has the fields of our message header. Times are None where they are not known.
    """
    return LedgerRecord({
        **header, "state": state, "task": task, "lane": lane, "worker": worker,
        "started_at": None if started_at is None else round(started_at, 3),
        "wait_seconds": wait_seconds, "run_seconds": run_seconds, "error": error,
    })  # fmt: skip


def minimal_record(task: "Task", lane: str, level: int) -> str:
    """Open a record for a task that had none: one sent by plain Celery, cancelled, and queued again."""
    fields = {"state": "queued", "task": task.task, "lane": lane, "level": level, "priority": task.priority.name}
    return json.dumps(fields | ({"queue": queue} if (queue := queue_of(lane)) else {}))


def read_held(tag: bytes | str, text: bytes | str) -> HeldMessage | None:
    """Read the owner of an unacknowledged message: `[worker, incarnation, task id, lane, level, milliseconds]`."""
    try:
        *words, level, ms = json.loads(text)
        worker, incarnation, task_id, lane = words
        if any(word(text) != text for text in words) or level not in range(10) or number(ms) is None:
            return None
        return HeldMessage(
            tag=tag.decode() if isinstance(tag, bytes) else tag, worker=worker, incarnation=incarnation,
            task_id=task_id, lane=lane, level=level, claimed_at=ms / 1000,
        )  # fmt: skip
    except (ValueError, TypeError, RecursionError):
        return None


def write_held(held: HeldMessage) -> str:
    return json.dumps(
        [held.worker, held.incarnation, held.task_id, held.lane, held.level, round(held.claimed_at * 1000)]
    )


@dataclass(frozen=True, slots=True)
class WorkerProcess:
    """The process of a registered worker. `started_at`: seconds since the epoch."""

    host: str
    pid: int
    client_name: str
    started_at: float


def read_process(text: bytes | str | None) -> WorkerProcess | None:
    """Read the process from a registration; None only where there is none: a broken one is no proof of a death."""
    if not text:
        return None
    found = json_object(text) or {}
    return WorkerProcess(
        word(found.get("host")), count(found.get("pid")), word(found.get("client_name")),
        number(found.get("started_at")) or 0.0,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class LastBeat:
    """The time of a worker's last heartbeat (seconds, server's clock), and whether it then shut down cleanly."""

    at: float
    stopped: bool


def read_last_beat(text: bytes | str | None) -> LastBeat | None:
    found = json_object(text)
    return None if found is None else LastBeat(number(found.get("at")) or 0.0, found.get("stopped") is True)


def write_worker(info: WorkerInfo) -> str:
    return json.dumps(asdict(info), ensure_ascii=False, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What Celery's result backend keeps of a task. `date_done` as Celery writes it, `ended_at` in seconds."""

    status: str
    result: Any
    date_done: Any
    ended_at: float | None


def read_result(text: bytes | str | None) -> TaskResult | None:
    found = json_object(text)
    if found is None:
        return None
    done = found.get("date_done")
    return TaskResult(word(found.get("status")), found.get("result"), done, moment(done))
