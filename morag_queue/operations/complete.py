"""complete: a service says that a task has ended. What a worker with the agent has is left to that worker to say."""

from morag_queue.broker.ledger import ExternalCompletion, ExternalCompletions
from morag_queue.broker.redis import RedisBroker


def complete(broker: RedisBroker, task_id: str, success: bool) -> bool:
    """Whether this ended it: False for a task that is not known, has ended already, or is in a worker's hands."""
    with broker.translated():
        seen = broker.lost.records([task_id]).get(task_id)
        if seen is None:
            return False
        snapshot, _ = broker.observe()
        if any(one.task_id == task_id for one in snapshot.held):
            return False
        outside = ExternalCompletions(broker.client, broker.keys, broker.settings.ledger.retention_seconds)
        return outside.end(ExternalCompletion(task_id, "completed" if success else "failed"), seen)
