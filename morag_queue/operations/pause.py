"""pause, resume: stop the workers from taking tasks of a queue, and let them continue. Running tasks are not affected.

There is no plan: each is one atomic write. A queue that is paused already keeps the record of its first pause.
"""

from morag_queue.broker.contract import JournalNote
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.lanes import queue_of
from morag_queue.core.model import Frozen, Pause, QueueType
from morag_queue.core.words import some

from .names import resolve_queue


class PauseResult(Frozen):
    """The queue after the command. `warnings` name workers that ignore a pause."""

    queue: QueueType
    paused: bool
    changed: bool
    pending_tasks: int
    processing_tasks: int
    dry_run: bool = False
    warnings: tuple[str, ...] = ()


def pause(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> PauseResult:
    """Pause a queue. Raises NotFound, and UsageError for an ambiguous name."""
    return _set(broker, given, True, who, reason, dry_run)


def resume(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> PauseResult:
    """Resume a queue. Raises NotFound, and UsageError for an ambiguous name."""
    return _set(broker, given, False, who, reason, dry_run)


def _set(broker: RedisBroker, given: str, paused: bool, who: str, reason: str, dry_run: bool) -> PauseResult:
    queue = resolve_queue(given)
    snapshot, _ = broker.observe()
    with broker.translated():
        placed = Pause(who=who, at=snapshot.taken_at, reason=reason) if paused else None
        note = JournalNote(who, "pause" if paused else "resume", queue.value, reason, changes={"paused": paused})
        changed = (queue in snapshot.paused) is not paused if dry_run else broker.pauses.put(queue, placed, note)
    readers = [view for view in snapshot.workers if queue.value in view.info.queues]
    names = some(view.worker for view in readers if not view.info.claims)
    warning = f"workers that do not use the claim script ignore the pause ({names}): cordon or drain them"
    return PauseResult(
        queue=queue,
        paused=paused,
        changed=changed,
        pending_tasks=snapshot.pending[queue],
        processing_tasks=sum(queue_of(message.lane) is queue for message in snapshot.held),
        dry_run=dry_run,
        warnings=(warning,) if names and paused else (),
    )
