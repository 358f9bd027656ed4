"""classify → route: a row whose source was read becomes an entry that has found its place. Pure but for the new id."""

import os
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from morag_queue.core.classify import classify
from morag_queue.core.model import Classification, ContentType, Facts, TaskQueueEntry
from morag_queue.core.route import Router
from morag_queue.core.routed import Refusal, Routed
from morag_queue.settings import Settings, TaskNames

from .rows import Row


@dataclass(frozen=True, slots=True)
class Prepared:
    """A row that has found its place."""

    row: Row
    classification: Classification
    routed: Routed
    entry: TaskQueueEntry
    line: int = 0


def classified(row: Row, facts: Facts, settings: Settings) -> Classification:
    """What a row is expected to need; what the row says wins."""
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
    explain: bool = False,
    line: int = 0,
) -> Prepared | Refusal:
    """Where one row goes. `enqueued_at` is the server's clock; `explain` adds the score table."""
    routed = router.route(found, pin=row.worker, queue=row.queue, force=force, explain=explain)
    if isinstance(routed, Refusal):
        return routed
    task, args = _call(row, found, settings.tasks)
    entry = TaskQueueEntry(
        task_id=row.task_id or str(uuid4()),
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
    )
    return Prepared(row, found, routed, entry, line)


def _call(row: Row, found: Classification, names: TaskNames) -> tuple[str, tuple[Any, ...]]:
    """The Celery task and its arguments, as MoRAG's workers define them."""
    if "://" not in row.source if found.facts is None else not found.facts.is_url:
        return names.file, (os.path.abspath(row.source), found.content_type.value, row.options)
    if found.content_type is ContentType.WEB:
        return names.web, (row.source, row.options)
    if found.content_type is ContentType.YOUTUBE:
        return names.youtube, (row.source, row.options)
    return names.url, (row.source, found.content_type.value, row.options)
