"""submit → probe → classify → route → lane: a row becomes a message, and its ledger entry with it."""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

from morag_queue.broker.contract import Broker, OutgoingMessage
from morag_queue.broker.ledger import BATCH
from morag_queue.core.model import Classification, ContentType, Facts, Frozen, LoadBalancingDecision
from morag_queue.core.routing.classify import effective_options
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Refusal
from morag_queue.errors import (
    BrokerError,
    BrokerUnreachable,
    ExitStatus,
    Interrupted,
    MoragQueueError,
    NotFound,
    Refused,
    UsageError,
)
from morag_queue.probe import probe_many
from morag_queue.settings import Settings

from .names import resolve
from .submit_rows import PreparedTask, Row, RowFailure, classified, prepare

if TYPE_CHECKING:
    from morag_queue.broker.celery_message import MessageBuilder

_CHUNK = 8 * BATCH
"""Rows that are probed together before they are queued: a reader of stdin sees progress, a probe pool has work."""


_NOTED = 20
"""Ids of a bulk that its journal entry names."""


class SubmittedTask(Frozen):
    """One queued task, as scripts read it. `estimated_duration` is in minutes at factor 1."""

    task_id: str
    source: str
    content_type: ContentType
    queue: str
    lane: str
    worker: str | None
    priority: str
    estimated_duration: float
    decision: LoadBalancingDecision


@dataclass(slots=True)
class SubmitReport:
    """What became of the rows.

    `broken` is what ended it before its end; `uncertain` are ids whose answer was lost with the broker.
    """

    submitted: int = 0
    tasks: list[SubmittedTask] = field(default_factory=list)
    failed: list[RowFailure] = field(default_factory=list)
    uncertain: list[str] = field(default_factory=list)
    broken: MoragQueueError | None = None

    @property
    def exit_status(self) -> ExitStatus:
        if self.broken is not None:
            return self.broken.exit_status
        if not self.failed:
            return ExitStatus.OK
        kinds = {failure.exit_status for failure in self.failed}
        return ExitStatus.PARTIAL if self.submitted else kinds.pop() if len(kinds) == 1 else ExitStatus.FAILED


class Submitter:
    """Prepares and queues rows on one picture of the fleet."""

    def __init__(
        self, broker: Broker, settings: Settings, *, force: bool = False, wire: "MessageBuilder | None" = None
    ) -> None:
        self._broker, self._settings, self._force = broker, settings, force
        snapshot, _ = broker.observe()
        self._router = Router(snapshot, settings.policy, settings.queues)
        self._workers = snapshot.worker_by_id
        self._clock_offset = snapshot.taken_at - monotonic()
        self._facts: dict[tuple[str, ContentType | None], Facts | MoragQueueError] = {}
        self._found: dict[tuple[Any, ...], Classification] = {}
        if wire is not None:
            self._wire = wire

    @cached_property
    def _wire(self) -> "MessageBuilder":
        from morag_queue.broker.celery_message import MessageBuilder

        return MessageBuilder()

    def prepare(
        self, rows: Iterable[tuple[int, Row | RowFailure]], *, explain: bool = False
    ) -> Iterator[PreparedTask | RowFailure]:
        """Probes, classifies and routes; queues nothing."""
        remaining = iter(rows)
        while chunk := list(islice(remaining, _CHUNK)):
            self._probe(row for _, row in chunk if isinstance(row, Row))
            for line, row in chunk:
                yield row if isinstance(row, RowFailure) else self._prepare(line, row, explain)

    def submit(
        self,
        rows: Iterable[tuple[int, Row | RowFailure]],
        *,
        details: bool = True,
        on_progress: Callable[[int], None] = lambda _: None,
    ) -> SubmitReport:
        """Queues the rows in order; one that cannot be queued stops nothing. `on_progress` hears of how many."""
        report = SubmitReport()
        prepared = self.prepare(rows)
        ready: list[PreparedTask] = []
        try:
            while batch := list(islice(prepared, BATCH)):
                report.failed += [one for one in batch if isinstance(one, RowFailure)]
                ready = [one for one in batch if isinstance(one, PreparedTask)]
                answers = self._broker.submit([outgoing(one, self._wire) for one in ready])
                _note_answers(report, ready, answers, details)
                ready = []
                on_progress(len(batch))
        except BrokerError as error:  # refused as a whole: none of this batch was queued
            report.broken = error
        except BrokerUnreachable as error:
            report.broken, report.uncertain = error, [one.entry.task_id for one in ready]
        except KeyboardInterrupt:
            report.broken, report.uncertain = Interrupted("interrupted"), [one.entry.task_id for one in ready]
        return report

    def _probe(self, rows: Iterable[Row]) -> None:
        """Reads each source once, however many rows name it."""
        wanted = {(row.source, row.content_type): None for row in rows}
        by_type: dict[ContentType | None, list[str]] = {}
        for source, declared in wanted:
            if (source, declared) not in self._facts:
                by_type.setdefault(declared, []).append(source)
        for declared, sources in by_type.items():
            for source, facts in zip(sources, probe_many(sources, declared=declared), strict=True):
                self._facts[source, declared] = facts

    def _prepare(self, line: int, row: Row, explain: bool) -> PreparedTask | RowFailure:
        facts = self._facts[row.source, row.content_type]
        if isinstance(facts, MoragQueueError):
            return RowFailure.of(line, row.source, facts)
        try:
            named = self._with_whole_name(row)
        except UsageError as error:
            return RowFailure.of(line, row.source, error)
        prepared = prepare(
            named, self._classified(row, facts), self._router, self._settings,
            enqueued_at=self._clock_offset + monotonic(), force=self._force, explain=explain, line=line,
        )  # fmt: skip
        return RowFailure.of(line, row.source, _refused(prepared)) if isinstance(prepared, Refusal) else prepared

    def _with_whole_name(self, row: Row) -> Row:
        """Of the worker that it is pinned to. Raises UsageError where several begin so."""
        if row.worker is None or row.worker in self._workers:
            return row
        try:
            return row.model_copy(update={"worker": resolve("worker", row.worker, self._workers)})
        except NotFound:
            return row  # the pin is refused, unless it is forced

    def _classified(self, row: Row, facts: Facts) -> Classification:
        """Rows that say the same of the same source need the same: ten thousand of them are classified once."""
        said = (row.content_type, row.priority, row.requires, row.estimated_duration)
        key = (row.source, *said, effective_options(row.options))
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = classified(row, facts, self._settings)
        return found


def _note_answers(report: SubmitReport, ready: Sequence[PreparedTask], answers: Sequence[bool], details: bool) -> None:
    for one, queued in zip(ready, answers, strict=True):
        if not queued:
            report.failed.append(_still_open(one))
            continue
        report.submitted += 1
        if details:
            report.tasks.append(submitted(one))


def note_submit(broker: Broker, report: SubmitReport, who: str, reason: str) -> None:
    """Leaves a journal entry: how many, and the first ids. None where nothing was queued, or the broker is away."""
    if report.submitted and (report.broken is None or isinstance(report.broken, Interrupted)):
        subject = report.tasks[0].source if len(report.tasks) == 1 else f"{report.submitted} tasks"
        changes = {
            "submitted": report.submitted,
            "failed": len(report.failed),
            "task_ids": [task.task_id for task in report.tasks[:_NOTED]],
        }
        with broker.translated():
            broker.journal.write(who, "submit", subject, reason=reason, changes=changes)


def outgoing(one: PreparedTask, wire: "MessageBuilder") -> OutgoingMessage:
    """The message of a task that has found its place, and the ledger's record of it, with the decision."""
    entry = one.entry
    text, record = wire.message(entry)
    record = f'{record[:-1]}, "decision": {_noted(one.routed.decision)}}}'
    is_worker_lane = entry.lane != entry.queue.value
    return OutgoingMessage(entry.task_id, text, record, entry.queue.value, entry.lane, entry.level, is_worker_lane)


@lru_cache(maxsize=1024)
def _noted(decision: LoadBalancingDecision) -> str:
    """For the ledger, which `task why` reads."""
    return json.dumps(
        {
            "action": decision.action,
            "target_queue": decision.target_queue,
            "worker_id": decision.worker_id,
            "reason": decision.reason,
            "confidence": round(decision.confidence, 3),
        }
    )


def submitted(one: PreparedTask) -> SubmittedTask:
    """The row of the answer for a task that was (or, in a dry run, would be) queued."""
    entry, decision = one.entry, one.routed.decision
    return SubmittedTask(
        task_id=entry.task_id,
        source=entry.source,
        content_type=one.classification.content_type,
        queue=entry.queue.value,
        lane=entry.lane,
        worker=decision.worker_id,
        priority=entry.priority.name,
        estimated_duration=entry.estimated_duration,
        decision=decision,
    )


def wait_for(
    broker: Broker, task_ids: Iterable[str], pause: Callable[[], None], on_ended: Callable[[int], None]
) -> Mapping[str, dict[str, Any]]:
    """Waits until each task has ended and gives their last records. `pause` is called between two looks.

    A task whose record is gone (it ended longer ago than the retention time) is given without a state.
    """
    open_ids, ended = list(task_ids), dict[str, dict[str, Any]]()
    while open_ids:
        records = broker.records(open_ids)
        now_ended = {one: records.get(one, {}) for one in open_ids if records.get(one, {}).get("state") != "queued"}
        ended |= now_ended
        open_ids = [one for one in open_ids if one not in now_ended]
        on_ended(len(now_ended))
        if open_ids:
            pause()
    return ended


def _refused(refusal: Refusal) -> Refused:
    return Refused(refusal.message)


def _still_open(one: PreparedTask) -> RowFailure:
    error = Refused(f"task id {one.entry.task_id} is still open: it was not queued again; choose another --id or wait")
    return RowFailure.of(one.line, one.row.source, error)
