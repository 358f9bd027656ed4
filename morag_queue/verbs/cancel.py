"""task cancel: out of its lane at once; out of a worker's hands as far as Celery's revoke reaches."""

import json

from morag_queue.broker.locate import Found
from morag_queue.broker.steering import Change
from morag_queue.core.explain import ReasonCode
from morag_queue.core.model import TaskState

from .look import Look
from .steer import Decide, Leave, Put, Refuse, Revoke, Step


def cancelling(reason: str, *, terminate: bool) -> Decide:
    """`terminate` kills the process that runs it; without it, what already runs goes on to its end."""

    def decide(look: Look, found: Found) -> Step:
        task = found.task
        if task.state is TaskState.CANCELLED:
            return Leave("is cancelled already")
        if task.state in (TaskState.COMPLETED, TaskState.FAILED, TaskState.QUARANTINED):
            hint = f": morag-queue dead drop {task.task_id} forgets it" if found.grave else ""
            return Leave(f"has ended already ({task.state}){hint}")
        if task.claimed_at is not None:
            return _in_hands(look, found, terminate)
        if not task.is_on_broker:
            return Refuse("is nowhere on the broker: a sweep would send it again, and then it can be cancelled")
        return _waiting(look, found, reason)

    return decide


def _waiting(look: Look, found: Found, reason: str) -> Step:
    task = found.task
    assert found.raw is not None
    assert task.level is not None
    entry = found.record or {}
    record = {
        **{name: entry[name] for name in _KEPT if name in entry},
        "state": TaskState.CANCELLED,
        "task": task.task,
        "lane": task.lane,
        "level": task.level,
        "ended_at": round(look.picture.taken_at, 3),
        "error": reason,
        "entry": entry or {"message": found.raw},
    }
    change = Change(
        task_id=task.task_id, lane=task.lane, level=task.level, depth=task.depth or 1, raw=found.raw, text=None,
        record=json.dumps(record), queue=task.queue.value if task.queue else "",
    )  # fmt: skip
    return Put(change, "cancelled", f"out of {task.lane}", {"lane": task.lane, "level": task.level}, {})


_KEPT = ("priority", "enqueued_at", "queue", "requires", "estimated_minutes", "content_type", "worker", "source")


def _in_hands(look: Look, found: Found, terminate: bool) -> Step:
    """What a revoke can do depends on how far the worker is with it; nobody answers to a revoke."""
    task = found.task
    view = look.picture.worker_by_id.get(str(task.worker))
    explained = look.explain(task)
    if found.is_revoked and not (terminate and explained.code is ReasonCode.RUNNING):
        return Leave(f"is cancelled already: {task.worker} was told to drop it")
    if view is None or explained.code is ReasonCode.HOLDER_OFFLINE:
        return Refuse(f"{explained.reason}; then it can be cancelled")
    node = view.info.node or f"{view.info.worker}@{view.info.host}"
    if explained.code is not ReasonCode.RUNNING:
        detail = f"{task.worker} was told to drop it: it will not run, there or elsewhere"
        return Revoke(node, view.worker, terminate, detail)
    if terminate:
        if view.info.pool != "prefork":
            return Refuse(f"{task.worker} runs it in a {view.info.pool} pool, where a running task cannot be killed")
        detail = f"{task.worker} was told to kill the process that runs it; what the task did so far is not undone"
        return Revoke(node, view.worker, True, detail)
    return Refuse(f"{task.worker} runs it: to stop it in the middle, kill its process with --terminate")
