"""Edits of tasks: cancel, move, change the priority, run again; and the end of a task that a service reports.

Each edit runs one rule of `core.edits` on the selected tasks.
"""

from collections.abc import Sequence
from functools import partial

from morag_queue.broker.agentless import AgentlessWorkers
from morag_queue.broker.lanes import LaneEdits
from morag_queue.broker.ledger import ExternalCompletion, ExternalCompletions
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_hit import TaskHit
from morag_queue.broker.task_lookup import TaskLookup
from morag_queue.core.edits import rules
from morag_queue.core.edits.rules import MoveTarget
from morag_queue.core.model import QueuePriority, TaskState

from .apply_edits import withdrawal
from .task_editor import EditReport, TaskEditor

Selection = Sequence[str] | Sequence[TaskHit]
"""Tasks by id or id prefix, or as `TaskEditor.choose` found them."""


def cancel(editor: TaskEditor, tasks: Selection, *, terminate: bool) -> EditReport:
    """Remove waiting tasks from their lanes; revoke held ones, as far as Celery's revoke reaches.

    `terminate` also kills the processes of running tasks.
    """
    return editor.run(tasks, partial(rules.cancel, reason=editor.reason, terminate=terminate))


def move(
    editor: TaskEditor, tasks: Selection, target: MoveTarget, *, force: bool, allow_cpu: bool = False
) -> EditReport:
    """Move waiting tasks to another queue, worker or lane.

    `force` allows a worker that cannot take them now; only `allow_cpu` allows one without the GPU that they require.
    """
    if allow_cpu:
        editor.note(allow_cpu=True)
    return editor.run(tasks, partial(rules.move, target=target, force=force, allow_cpu=allow_cpu))


def prioritise(editor: TaskEditor, tasks: Selection, priority: QueuePriority) -> EditReport:
    """Give waiting tasks another priority."""
    return editor.run(tasks, partial(rules.prioritise, priority=priority))


def retry(editor: TaskEditor, tasks: Selection, *, reset: bool) -> EditReport:
    """Queue ended tasks again under their ids. `reset` forgets their retries and the workers that died over them."""
    return editor.run(tasks, partial(rules.retry, reset=reset))


_ATTEMPTS = 3
"""Lookups of a task that is taken from its lane or put back between its lookup and its end."""

_READ_WHOLE = 20_000
"""Waiting tasks that are read from end to end to find one that is not in its place: 40 ms of the server's time."""


def complete(broker: RedisBroker, task_id: str, success: bool) -> bool:
    """End a task that a service ran. Return False if it is unknown, has ended, or is held by a worker with the agent.

    A worker with the agent records the end of its tasks itself. A task that still waits is taken out of its lane in the
    same step, so that it does not run afterwards; a failed one keeps its message in `dead`.
    """
    state = TaskState.COMPLETED if success else TaskState.FAILED
    retention = broker.settings.ledger.retention_seconds
    agentless = AgentlessWorkers(broker.client, broker.keys, broker.control)
    for _ in range(_ATTEMPTS):
        snapshot, _ = broker.observe()
        with broker.translated():
            lookup = TaskLookup(broker.client, broker.keys, snapshot, broker.broken)
            record = broker.records([task_id]).get(task_id)
            if record is None:
                return False
            hit = None if agentless.holds(task_id) else lookup.task(task_id, known_only=True, most=_READ_WHOLE)
            if hit is None or not hit.task.is_on_broker:
                completions = ExternalCompletions(broker.client, broker.keys, retention)
                return completions.end(ExternalCompletion(task_id, state), record)
            if hit.task.has_ended or hit.tag is not None:
                return False
            reason = "" if success else _REPORTED
            edit = withdrawal(hit, state, reason, snapshot.taken_at)
            if all(LaneEdits(broker.client, broker.keys, retention).apply([edit])):
                return True
    return False


_REPORTED = "reported as failed while it waited"
