"""cordon and uncordon of a worker without the agent: it is told by remote control what to consume.

It keeps that in memory, so after a restart it consumes again, whatever the cordon says.
"""

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.lanes import split
from morag_queue.core.model import Cordon, WorkerStatus
from morag_queue.errors import NotFound

from .cordon import Standing, cordon, uncordon
from .drain_stock import NOT_KNOWN, stock_node

_LOOKED_THROUGH = 1000
"""Entries of the journal in which the queues are looked for that it was told to leave."""


def cordon_stock(broker: RedisBroker, given: str, *, who: str, reason: str, dry_run: bool) -> Standing:
    """It is told to consume nothing but its own lanes. Raises NotFound where none of that name answers."""
    node = stock_node(broker, given)
    worker = node.partition("@")[0]
    shared = [queue for queue in broker.control.queues(node) or () if split(queue)[1] != worker]
    placed = Cordon(state=WorkerStatus.CORDONED, reason=reason, who=who, at=broker.now())
    if shared and not dry_run:
        with broker.translated():
            broker.cordons.put(worker, placed, (None, *WorkerStatus))
        broker.control.cancel_consumer(node, shared)
        _note(broker, worker, who, "cordon", reason, "cordoned", node, shared)
    return _standing(worker, placed.state, who, reason, changed=bool(shared), dry_run=dry_run)


def uncordon_stock(broker: RedisBroker, given: str, *, who: str, reason: str, dry_run: bool) -> Standing:
    """It is told to consume again what a cordon or a drain has told it to leave. Raises NotFound."""
    try:
        node = stock_node(broker, given)
    except NotFound:
        with broker.translated():
            if broker.cordons.get(given) is None:
                raise
        node = ""  # it is away: whoever starts under this name consumes anyway
    worker = node.partition("@")[0] or given
    left = _left(broker, worker)
    with broker.translated():
        before = broker.cordons.get(worker)
    if before is not None and not dry_run:
        if node:
            broker.control.add_consumer(node, left)
        with broker.translated():
            broker.cordons.put(worker, None, (None, *WorkerStatus))
        _note(broker, worker, who, "uncordon", reason, "in service", node, left)
    return _standing(worker, WorkerStatus.ONLINE, who, reason, changed=before is not None, dry_run=dry_run)


def cordon_any(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> Standing:
    """Of a worker with the agent, or without. Raises NotFound, UsageError, Refused."""
    try:
        return cordon(broker, given, who=who, reason=reason, dry_run=dry_run)
    except NotFound:
        return cordon_stock(broker, given, who=who, reason=reason, dry_run=dry_run)


def uncordon_any(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> Standing:
    """As `cordon_any`."""
    try:
        return uncordon(broker, given, who=who, reason=reason, dry_run=dry_run)
    except NotFound:
        return uncordon_stock(broker, given, who=who, reason=reason, dry_run=dry_run)


def _left(broker: RedisBroker, worker: str) -> list[str]:
    with broker.translated():
        entries = broker.journal.latest(_LOOKED_THROUGH)
    told = (one.changes.get("queues") for one in entries if one.subject == worker and one.verb in ("cordon", "drain"))
    return [str(queue) for queue in next((queues for queues in told if queues), ())]


def _note(
    broker: RedisBroker, worker: str, who: str, verb: str, reason: str, state: str, node: str, queues: list[str]
) -> None:
    with broker.translated():
        changes = {"state": state, "node": node, "queues": queues}
        broker.journal.write(who, verb, worker, reason=reason, changes=changes)


def _standing(worker: str, state: WorkerStatus, who: str, reason: str, *, changed: bool, dry_run: bool) -> Standing:
    return Standing(
        worker=worker, state=state, changed=changed, reason=reason, who=who, dry_run=dry_run,
        warnings=(f"{worker}: {NOT_KNOWN}",),
    )  # fmt: skip
