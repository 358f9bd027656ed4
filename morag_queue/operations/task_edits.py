"""task cancel, move, prio and retry, and dead requeue: each runs one rule of `core.edits` on the selected tasks."""

from collections.abc import Sequence
from functools import partial

from morag_queue.broker.task_lookup import TaskHit
from morag_queue.core import edits
from morag_queue.core.edits import MoveTarget
from morag_queue.core.model import QueuePriority

from .task_editor import EditReport, TaskEditor

Selection = Sequence[str] | Sequence[TaskHit]
"""Tasks by id or id prefix, or as `TaskEditor.select` found them."""


def cancel(editor: TaskEditor, tasks: Selection, *, terminate: bool) -> EditReport:
    """Remove waiting tasks from their lanes; revoke held ones, as far as Celery's revoke reaches.

    `terminate` also kills the processes of running tasks.
    """
    return editor.run(tasks, partial(edits.cancel, reason=editor.reason, terminate=terminate))


def move(editor: TaskEditor, tasks: Selection, target: MoveTarget, *, force: bool) -> EditReport:
    """Move waiting tasks to another queue, worker or lane. `force` allows a worker that cannot take them now."""
    return editor.run(tasks, partial(edits.move, target=target, force=force))


def prioritise(editor: TaskEditor, tasks: Selection, priority: QueuePriority) -> EditReport:
    """Give waiting tasks another priority."""
    return editor.run(tasks, partial(edits.prioritise, priority=priority))


def retry(editor: TaskEditor, tasks: Selection, *, reset: bool) -> EditReport:
    """Queue ended tasks again under their ids. `reset` forgets their retries and the workers that died over them."""
    return editor.run(tasks, partial(edits.retry, reset=reset))
