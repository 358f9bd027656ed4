"""Ending a worker's process in good order, through Celery's remote control."""

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.snapshot import WorkerView


def order_shutdown(broker: RedisBroker, view: WorkerView, who: str, reason: str) -> None:
    """A warm shutdown: Celery lets what runs end first. The order is not confirmed."""
    broker.control.shut_down([view.info.node])
    with broker.translated():
        broker.journal.write(who, "shutdown", view.worker, reason=reason, changes={"node": view.info.node})


def is_gone(broker: RedisBroker, view: WorkerView) -> bool:
    """Whether the process has said goodbye and closed its connections, or was never there in this run."""
    with broker.translated():
        return not broker.registry.is_connected(view.info.client_name)
