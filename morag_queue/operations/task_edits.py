"""Edits of tasks: cancel, move, change the priority, run again; and the end of a task that a service reports.

Each edit runs one rule of `core.edits` on the selected tasks.
"""

from collections.abc import Sequence
from functools import partial

from morag_queue.broker.ledger import ExternalCompletion, ExternalCompletions
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_lookup import TaskHit
from morag_queue.core.edits import rules
from morag_queue.core.edits.rules import MoveTarget
from morag_queue.core.model import QueuePriority

from .task_editor import EditReport, TaskEditor

Selection = Sequence[str] | Sequence[TaskHit]
"""Tasks by id or id prefix, or as `TaskEditor.select` found them."""


def cancel(editor: TaskEditor, tasks: Selection, *, terminate: bool) -> EditReport:
    """Remove waiting tasks from their lanes; revoke held ones, as far as Celery's revoke reaches.

    `terminate` also kills the processes of running tasks.
    """
    return editor.run(tasks, partial(rules.cancel, reason=editor.reason, terminate=terminate))


def move(editor: TaskEditor, tasks: Selection, target: MoveTarget, *, force: bool) -> EditReport:
    """Move waiting tasks to another queue, worker or lane. `force` allows a worker that cannot take them now."""
    return editor.run(tasks, partial(rules.move, target=target, force=force))


def prioritise(editor: TaskEditor, tasks: Selection, priority: QueuePriority) -> EditReport:
    """Give waiting tasks another priority."""
    return editor.run(tasks, partial(rules.prioritise, priority=priority))


def retry(editor: TaskEditor, tasks: Selection, *, reset: bool) -> EditReport:
    """Queue ended tasks again under their ids. `reset` forgets their retries and the workers that died over them."""
    return editor.run(tasks, partial(rules.retry, reset=reset))


def complete(broker: RedisBroker, task_id: str, success: bool) -> bool:
    """End a task that a service ran. Return False if it is unknown, has ended, or is held by a worker with the agent.

    A worker with the agent records the end of its tasks itself.
    """
    with broker.translated():
        record = broker.records([task_id]).get(task_id)
        if record is None:
            return False
        snapshot, _ = broker.observe()
        if any(held.task_id == task_id for held in snapshot.held):
            return False
        completions = ExternalCompletions(broker.client, broker.keys, broker.settings.ledger.retention_seconds)
        return completions.end(ExternalCompletion(task_id, "completed" if success else "failed"), record)
