"""complete: a service reports that a task has ended. A worker with the agent reports the end of its tasks itself."""

from morag_queue.broker.ledger import ExternalCompletion, ExternalCompletions
from morag_queue.broker.redis import RedisBroker


def complete(broker: RedisBroker, task_id: str, success: bool) -> bool:
    """End a task; False for one that is unknown, has ended already, or is held by a worker with the agent."""
    with broker.translated():
        record = broker.records([task_id]).get(task_id)
        if record is None:
            return False
        snapshot, _ = broker.observe()
        if any(held.task_id == task_id for held in snapshot.held):
            return False
        completions = ExternalCompletions(broker.client, broker.keys, broker.settings.ledger.retention_seconds)
        return completions.end(ExternalCompletion(task_id, "completed" if success else "failed"), record)
