"""task cancel, move and prio. Each is one rule of `core.edits`, run by the editor on ids or on selected tasks."""

from collections.abc import Sequence
from functools import partial

from morag_queue.broker.task_lookup import TaskHit
from morag_queue.core import edits
from morag_queue.core.edits import MoveTarget
from morag_queue.core.model import QueuePriority

from .task_editor import EditReport, TaskEditor

Selection = Sequence[str] | Sequence[TaskHit]


def cancel(editor: TaskEditor, tasks: Selection, *, terminate: bool) -> EditReport:
    """Remove waiting tasks from their lanes, and revoke held ones as far as Celery's revoke reaches."""
    return editor.run(tasks, partial(edits.cancel, reason=editor.reason, terminate=terminate))


def move(editor: TaskEditor, tasks: Selection, target: MoveTarget, *, force: bool) -> EditReport:
    """Move waiting tasks to another queue, worker or lane."""
    return editor.run(tasks, partial(edits.move, target=target, force=force))


def prioritise(editor: TaskEditor, tasks: Selection, priority: QueuePriority) -> EditReport:
    """Give waiting tasks another priority."""
    return editor.run(tasks, partial(edits.prioritise, priority=priority))
