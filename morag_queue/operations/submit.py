"""submit: probe, classify and route rows, then queue their messages with the ledger records."""

from collections.abc import Callable, Generator, Iterable, Iterator
from functools import cached_property
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

from morag_queue.broker.codec import with_decision
from morag_queue.broker.contract import Broker, OutgoingMessage
from morag_queue.broker.ledger import BATCH
from morag_queue.core.model import (
    Classification,
    ContentType,
    Facts,
    QueueType,
)
from morag_queue.core.pauses import paused_words, resume_command
from morag_queue.core.routing.classify import effective_options
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Refusal
from morag_queue.errors import (
    BrokerError,
    BrokerUnreachable,
    Interrupted,
    MoragQueueError,
    NotFound,
    Refused,
    UsageError,
)
from morag_queue.probe import Prober, Probing
from morag_queue.settings import Settings

from .names import resolve
from .submit_report import SubmitReport
from .submit_rows import PreparedTask, Row, RowFailure, classified, prepare

if TYPE_CHECKING:
    from morag_queue.broker.celery_message import MessageBuilder

_REMEMBERED = 4096
"""Sources whose facts are kept for further rows that name them; a stream may name any number of sources."""

_SUBMISSION_DIGITS = 10
"""Length of a submission's id. Each task stores it twice; among 100,000 ids, two are equal with a chance of 0.5 %."""


K = TypeVar("K")
V = TypeVar("V")


class Submitter:
    """Prepares and queues rows on one snapshot of the fleet."""

    def __init__(
        self,
        broker: Broker,
        settings: Settings,
        *,
        force: bool = False,
        allow_cpu: bool = False,
        builder: "MessageBuilder | None" = None,
        partial: bool = False,
    ) -> None:
        """`force` and `allow_cpu` as for `Router.route`, `partial` as for `Broker.observe`."""
        self._broker, self._settings, self._force, self._allow_cpu = broker, settings, force, allow_cpu
        self._snapshot = snapshot = broker.observe(partial=partial)[0]
        self._queues: set[QueueType] = set()
        self._submission: str | None = None
        self._router = Router(snapshot, settings.policy, settings.queues)
        self._workers = snapshot.worker_by_id
        self._clock_offset = snapshot.taken_at - monotonic()
        self._found = _Recent[tuple[Any, ...], Classification]()
        if builder is not None:
            self._builder = builder

    @cached_property
    def _builder(self) -> "MessageBuilder":
        from morag_queue.broker.celery_message import MessageBuilder

        return MessageBuilder()

    def prepare(
        self, rows: Iterable[tuple[int, Row | RowFailure]], *, explain: bool = False
    ) -> Generator[PreparedTask | RowFailure, None, None]:
        """Probe, classify and route rows without queueing them. Rows are read and probed some hundred ahead."""
        with Prober() as prober:
            for item in prober.ahead(_probed(rows, prober)):
                yield item if isinstance(item, RowFailure) else self._prepare(*item, explain)

    def submit(
        self,
        rows: Iterable[tuple[int, Row | RowFailure]],
        *,
        details: bool = True,
        on_progress: Callable[[int], None] = lambda _: None,
        who: str | None = None,
        reason: str = "",
    ) -> SubmitReport:
        """Queue rows in order. A row fails alone; `on_progress` is called with the size of each batch.

        With `who` the last batch writes the entry of the journal, if none of it is refused; else see `note_submit`.
        """
        self._submission = uuid4().hex[:_SUBMISSION_DIGITS]
        report = SubmitReport(self._submission, allow_cpu=self._allow_cpu)
        prepared = self.prepare(rows)
        ready: list[PreparedTask] = []
        try:
            while batch := list(islice(prepared, BATCH)):
                report.failed += [row for row in batch if isinstance(row, RowFailure)]
                ready = [task for task in batch if isinstance(task, PreparedTask)]
                is_last = len(batch) < BATCH
                note = report.note(ready, who, reason, details) if who is not None and is_last and ready else None
                answers = self._broker.submit([outgoing(task, self._builder) for task in ready], note)
                report.is_journaled = note is not None and all(answers)
                report.add(ready, answers, details)
                ready = []
                on_progress(len(batch))
        except BrokerError as error:  # the server rejected the whole batch: none of it was queued
            report.broken = error
        except BrokerUnreachable as error:
            report.broken, report.uncertain = error, [task.entry.task_id for task in ready]
        except KeyboardInterrupt:
            report.broken, report.uncertain = Interrupted("interrupted"), [task.entry.task_id for task in ready]
        finally:
            prepared.close()
        return report

    @property
    def warnings(self) -> list[str]:
        """One warning for each paused queue that a row was prepared for."""
        seen = self._snapshot
        return [
            f"{queue} {paused_words(seen.pause_of(queue), seen.taken_at)}: its tasks wait until {resume_command(queue)}"
            for queue in QueueType
            if queue in self._queues and queue in seen.paused
        ]

    def _prepare(self, line: int, row: Row, probing: Probing, explain: bool) -> PreparedTask | RowFailure:
        facts = probing.result()
        if isinstance(facts, MoragQueueError):
            return RowFailure.of(line, row.source, facts)
        try:
            named = self._with_full_worker_id(row)
        except UsageError as error:
            return RowFailure.of(line, row.source, error)
        prepared = prepare(
            named, self._classified(row, facts), self._router, self._settings,
            enqueued_at=self._clock_offset + monotonic(), force=self._force, allow_cpu=self._allow_cpu,
            explain=explain, line=line, submission=self._submission,
        )  # fmt: skip
        if isinstance(prepared, Refusal):
            return RowFailure.of(line, row.source, _refused(prepared))
        self._queues.add(prepared.entry.queue)
        return prepared

    def _with_full_worker_id(self, row: Row) -> Row:
        """Complete the prefix of the worker that the row is pinned to. Raises UsageError if several match."""
        if row.worker is None or row.worker in self._workers:
            return row
        try:
            return row.model_copy(update={"worker": resolve("worker", row.worker, self._workers)})
        except NotFound:
            return row  # routing refuses the pin unless it is forced

    def _classified(self, row: Row, facts: Facts) -> Classification:
        """Classify a row; rows with the same source and the same options share the result."""
        declared = (row.content_type, row.priority, row.requires, row.estimated_duration)
        key = (row.source, *declared, effective_options(row.options))
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = classified(row, facts, self._settings)
        return found


class _Recent(dict[K, V]):
    """A dictionary that starts anew when it has `_REMEMBERED` items."""

    def __setitem__(self, key: K, value: V) -> None:
        if len(self) >= _REMEMBERED:
            self.clear()
        super().__setitem__(key, value)


def _probed(
    rows: Iterable[tuple[int, Row | RowFailure]], prober: Prober
) -> Iterator[RowFailure | tuple[int, Row, Probing]]:
    """Start to probe the source of each row, once for rows that name the same one."""
    started = _Recent[tuple[str, ContentType | None], Probing]()
    for line, row in rows:
        if isinstance(row, RowFailure):
            yield row
            continue
        probing = started.get((row.source, row.content_type))
        if probing is None:
            probing = started[row.source, row.content_type] = prober.start(row.source, row.content_type)
        yield line, row, probing


def outgoing(task: PreparedTask, builder: "MessageBuilder") -> OutgoingMessage:
    """Build the message of a routed task, and its ledger record with the routing decision."""
    entry = task.entry
    text, record = builder.message(entry)
    record = with_decision(record, task.routed.decision)
    is_worker_lane = entry.lane != entry.queue.value
    return OutgoingMessage(entry.task_id, text, record, entry.queue.value, entry.lane, entry.level, is_worker_lane)


def _refused(refusal: Refusal) -> Refused:
    return Refused(refusal.message)
