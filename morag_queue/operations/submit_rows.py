"""Rows to submit, one for each source: from the command line, or as lines of JSON."""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

from pydantic import Field, ValidationError, field_validator

from morag_queue.core.levels import parse_priority
from morag_queue.core.model import (
    Classification,
    ContentType,
    Facts,
    Frozen,
    QueuePriority,
    QueueType,
    Requires,
    TaskQueueEntry,
)
from morag_queue.core.routing.classify import classify
from morag_queue.core.routing.router import Router
from morag_queue.core.routing.types import Placement, Refusal
from morag_queue.errors import ExitStatus, MoragQueueError, UsageError
from morag_queue.settings import Settings, TaskNames

_UUID_MASK = 0xF << 76 | 0x3 << 62
_UUID_4 = 0x4 << 76 | 0x2 << 62
"""Version and variant of a random UUID."""


class Row(Frozen):
    """One source to submit. Fields that are None are derived from the source."""

    source: str = Field(min_length=1)
    content_type: ContentType | None = None
    priority: QueuePriority | None = None
    options: dict[str, Any] = Field(default_factory=dict)
    queue: QueueType | None = None
    worker: str | None = Field(None, min_length=1)
    task_id: str | None = Field(None, min_length=1, max_length=255)
    estimated_duration: float | None = Field(None, ge=0, description="minutes at factor 1")
    task: str | None = Field(None, min_length=1)
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = Field(default_factory=dict)
    requires: Requires | None = None

    @field_validator("priority", mode="before")
    @classmethod
    def _by_name(cls, word: Any) -> Any:
        return parse_priority(word) if isinstance(word, str) else word


def row_of(source: str, fields: dict[str, Any]) -> Row:
    """Build a row from the flags. Raises UsageError that names the invalid fields."""
    try:
        return Row(source=source, **fields)
    except ValidationError as error:
        raise UsageError(_complaint(error)) from None


@dataclass(frozen=True, slots=True)
class RowFailure:
    """A row that was not queued, and why. `line` counts from 1; 0 for a row of the command line."""

    line: int
    source: str
    error: str
    exit_status: ExitStatus = ExitStatus.FAILED

    @classmethod
    def of(cls, line: int, source: str, error: MoragQueueError) -> "RowFailure":
        return cls(line, source, str(error), error.exit_status)


def parse_lines(lines: Iterable[str | bytes], defaults: Row) -> Iterator[tuple[int, Row | RowFailure]]:
    """Parse JSON lines, skipping blank lines. `defaults` has the flags, for fields that a line leaves out."""
    given = {name: getattr(defaults, name) for name in defaults.model_fields_set - {"source"}}
    for number, line in enumerate(lines, 1):
        if line.strip():
            yield number, _parse(number, line, given)


def _parse(number: int, line: str | bytes, given: dict[str, Any]) -> Row | RowFailure:
    try:
        if not given:
            return Row.model_validate_json(line)  # in half the time of the code below, which describes errors
    except ValidationError:
        pass
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        return RowFailure(number, "", f"not a JSON object: {error}", ExitStatus.FAILED)
    if not isinstance(fields, dict):
        return RowFailure(number, "", f'not a JSON object but {type(fields).__name__}; write {{"source": "…"}}')
    source = fields.get("source")
    try:
        return Row.model_validate({**given, **fields} if given else fields)
    except ValidationError as error:
        return RowFailure(number, source if isinstance(source, str) else "", _complaint(error))


def _complaint(error: ValidationError) -> str:
    complaints = []
    for problem in error.errors():
        name = ".".join(str(part) for part in problem["loc"]) or "the row"
        if problem["type"] == "missing":
            complaints.append(f"{name} is missing")
        elif problem["type"] == "extra_forbidden":
            complaints.append(f"{name} is not a field of a row; there are {', '.join(Row.model_fields)}")
        else:
            complaints.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    return "; ".join(complaints)


class PreparedTask(NamedTuple):
    """A classified and routed row."""

    row: Row
    classification: Classification
    routed: Placement
    entry: TaskQueueEntry
    line: int = 0


def classified(row: Row, facts: Facts, settings: Settings) -> Classification:
    """Classify a row; its own fields override the classification."""
    return classify(
        facts, row.options, settings.content, declared=row.content_type, priority=row.priority,
        requires=row.requires, estimated_minutes=row.estimated_duration,
    )  # fmt: skip


def prepare(
    row: Row,
    found: Classification,
    router: Router,
    settings: Settings,
    *,
    enqueued_at: float,
    force: bool = False,
    allow_cpu: bool = False,
    explain: bool = False,
    line: int = 0,
    submission: str | None = None,
) -> PreparedTask | Refusal:
    """Route one row. `enqueued_at` is seconds since the epoch by the server's clock; `explain` adds the score table.

    `submission` is the id that its task shares with the others of one `submit`.
    """
    routed = router.route(found, pin=row.worker, queue=row.queue, force=force, allow_cpu=allow_cpu, explain=explain)
    if isinstance(routed, Refusal):
        return routed
    task, args = _call(row, found, settings.tasks)
    entry = TaskQueueEntry(
        task_id=row.task_id or _new_id(),
        task=row.task or task,
        args=args if row.args is None else row.args,
        kwargs=row.kwargs,
        source=row.source,
        content_type=found.content_type,
        priority=found.priority,
        requires=found.requires,
        queue=routed.queue,
        lane=routed.lane,
        level=routed.level,
        estimated_duration=found.estimated_minutes,
        enqueued_at=enqueued_at,
        worker=row.worker,
        submission=submission,
    )
    return PreparedTask(row, found, routed, entry, line)


def _new_id() -> str:
    """Return a random UUID as `uuid4` does, in a third of its time."""
    digits = f"{int.from_bytes(os.urandom(16)) & ~_UUID_MASK | _UUID_4:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _call(row: Row, found: Classification, names: TaskNames) -> tuple[str, tuple[Any, ...]]:
    """Return the Celery task's name and arguments, as MoRAG's workers define them."""
    if "://" not in row.source if found.facts is None else not found.facts.is_url:
        return names.file, (os.path.abspath(row.source), found.content_type.value, row.options)
    if found.content_type is ContentType.WEB:
        return names.web, (row.source, row.options)
    if found.content_type is ContentType.YOUTUBE:
        return names.youtube, (row.source, row.options)
    return names.url, (row.source, found.content_type.value, row.options)
