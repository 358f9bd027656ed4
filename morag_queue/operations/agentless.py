"""cordon and uncordon of a worker without the agent: it is told by remote control what to consume.

It keeps that in memory, so after a restart it consumes again, whatever the cordon says.
"""

from uuid import uuid4

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.lanes import split
from morag_queue.core.model import Cordon, WorkerStatus
from morag_queue.core.recovery.drain import plan_drain
from morag_queue.errors import NotFound

from .apply import apply
from .cordon import CordonResult, cordon, uncordon
from .drain import DrainOptions, DrainProgress, tasks
from .names import resolve

_LOOKED_THROUGH = 1000
"""Entries of the journal in which the queues are looked for that it was told to leave."""


def cordon_agentless(broker: RedisBroker, given: str, *, who: str, reason: str, dry_run: bool) -> CordonResult:
    """It is told to consume nothing but its own lanes. Raises NotFound where none of that name answers."""
    node = agentless_node(broker, given)
    worker = node.partition("@")[0]
    shared = [queue for queue in broker.control.queues(node) or () if split(queue)[1] != worker]
    placed = Cordon(state=WorkerStatus.CORDONED, reason=reason, who=who, at=broker.now())
    if shared and not dry_run:
        with broker.translated():
            broker.cordons.put(worker, placed, (None, *WorkerStatus))
        broker.control.cancel_consumer(node, shared)
        _note(broker, worker, who, "cordon", reason, "cordoned", node, shared)
    return _standing(worker, placed.state, who, reason, changed=bool(shared), dry_run=dry_run)


def uncordon_agentless(broker: RedisBroker, given: str, *, who: str, reason: str, dry_run: bool) -> CordonResult:
    """It is told to consume again what a cordon or a drain has told it to leave. Raises NotFound."""
    try:
        node = agentless_node(broker, given)
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


def cordon_any(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """Of a worker with the agent, or without. Raises NotFound, UsageError, Refused."""
    try:
        return cordon(broker, given, who=who, reason=reason, dry_run=dry_run)
    except NotFound:
        return cordon_agentless(broker, given, who=who, reason=reason, dry_run=dry_run)


def uncordon_any(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """As `cordon_any`."""
    try:
        return uncordon(broker, given, who=who, reason=reason, dry_run=dry_run)
    except NotFound:
        return uncordon_agentless(broker, given, who=who, reason=reason, dry_run=dry_run)


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


def _standing(worker: str, state: WorkerStatus, who: str, reason: str, *, changed: bool, dry_run: bool) -> CordonResult:
    return CordonResult(
        worker=worker, state=state, changed=changed, reason=reason, who=who, dry_run=dry_run,
        warnings=(f"{worker}: {NOT_KNOWN}",),
    )  # fmt: skip


BRPOP_SECONDS = 1.0
"""How long one pop of kombu's waits by default."""


NOT_KNOWN = (
    "it runs without the agent: tasks that wait for their rate limit are not seen, "
    "and after a restart it consumes again"
)


_SILENT = "it does not answer: busy, stopped or gone"


def agentless_node(broker: RedisBroker, given: str) -> str:
    """The node name of a worker that is not registered and answers. Raises NotFound, UsageError."""
    nodes = {node.partition("@")[0]: node for node in broker.control.ping()}
    try:
        return nodes[resolve("worker", given, nodes)]
    except NotFound:
        known = sorted({*broker.observe()[0].worker_by_id, *nodes})
        there = f"; there are {', '.join(known[:10])}" if known else ""
        raise NotFound(f"no worker {given!r} is registered, and none of that name answers{there}") from None


class AgentlessDrain:
    """One drain of a worker that is not registered."""

    def __init__(self, broker: RedisBroker, node: str, wish: DrainOptions, ears: DrainProgress) -> None:
        self._broker, self._node, self._wish, self._ears = broker, node, wish, ears
        self.worker = node.partition("@")[0]
        self._moved = 0

    def run(self) -> CordonResult:
        """Waits until it says twice, a pop apart, that it has nothing in hand."""
        began = now = self._broker.now()
        deadline = None if self._wish.deadline_seconds is None else began + self._wish.deadline_seconds
        changed = self._stop_consuming(began, deadline)
        running: int | None = None
        calm_since: float | None = None
        while calm_since is None or now - calm_since <= BRPOP_SECONDS:
            moved, running, now = self._look()
            calm_since = None if moved or running != 0 else calm_since or now
            self._ears.left(running or 0)
            if self._wish.detach or (deadline is not None and now >= deadline):
                return self._answer(WorkerStatus.DRAINING, running, now - began, changed)
            if calm_since is None:
                self._ears.say(f"{self.worker}: {_SILENT if running is None else f'{tasks(running)} left'}")
            self._ears.pause(BRPOP_SECONDS / 2)
        self._write(Cordon(state=WorkerStatus.DRAINED, reason=self._wish.reason, who=self._wish.who, at=now))
        if self._wish.shutdown:
            self._broker.control.shut_down([self._node])
            self._ears.say(f"{self.worker}: told to end its process")
        return self._answer(WorkerStatus.DRAINED, running, now - began, changed)

    def preview(self) -> CordonResult:
        """What it would do: whether it consumes anything, and what it has in hand."""
        busy = self._broker.control.task_counts(self._node)
        changed = self._broker.control.queues(self._node) != []
        running = None if busy is None else busy.total
        return self._answer(WorkerStatus.DRAINED, running, 0.0, changed).model_copy(update={"dry_run": True})

    def _stop_consuming(self, now: float, deadline: float | None) -> bool:
        queues = self._broker.control.queues(self._node)
        if queues == []:
            return False
        wish = self._wish
        self._write(Cordon(state=WorkerStatus.DRAINING, reason=wish.reason, who=wish.who, at=now, deadline=deadline))
        self._broker.control.cancel_consumer(self._node, queues or ())
        self._ears.say(f"{self.worker}: {'told to stop consuming ' + ', '.join(queues) if queues else _SILENT}")
        changes = {"state": "draining", "node": self._node, "queues": queues}
        self._broker.journal.write(wish.who, "drain", self.worker, reason=wish.reason, changes=changes)
        return True

    def _look(self) -> tuple[int, int | None, float]:
        """Moves what waits in its lanes. How many, what it has in hand (None: no answer), and when that was."""
        snapshot, _ = self._broker.observe()
        plan = plan_drain(snapshot, self.worker, self._broker.settings.queues, plan_id=str(uuid4()))
        moved = apply(self._broker, plan).moved if plan.steps else 0
        self._moved += moved
        busy = self._broker.control.task_counts(self._node)
        return moved, None if busy is None else busy.total, snapshot.taken_at

    def _write(self, cordon: Cordon) -> None:
        with self._broker.translated():
            self._broker.cordons.put(self.worker, cordon, (None, *WorkerStatus))

    def _answer(self, state: WorkerStatus, running: int | None, waited: float, changed: bool) -> CordonResult:
        return CordonResult(
            worker=self.worker, state=state, moved_tasks=self._moved, running_tasks=running or 0,
            waited_seconds=round(waited, 3), changed=changed, reason=self._wish.reason, who=self._wish.who,
            warnings=(f"{self.worker}: {NOT_KNOWN}",),
        )  # fmt: skip
