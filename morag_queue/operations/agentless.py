"""cordon, uncordon and drain of workers without the agent, by Celery's remote control.

Such a worker stops or resumes consuming queues on command, and forgets the command when it restarts: then it consumes
again despite its cordon. It has no registration, so its cordon is written without a check of its state.
"""

from uuid import uuid4

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.lanes import split
from morag_queue.core.model import Cordon, WorkerStatus
from morag_queue.core.plan import Applied
from morag_queue.core.recovery.drain import plan_drain
from morag_queue.core.words import count_of, some
from morag_queue.errors import NotFound

from .apply import apply
from .cordon import CordonResult, cordon, order_shutdown, uncordon
from .drain_options import DrainOptions, DrainProgress
from .names import NAMES_LISTED, resolve

BRPOP_SECONDS = 1.0
"""Seconds that one pop of kombu waits by default."""

NOT_KNOWN = (
    "it runs without the agent: tasks that wait for their rate limit are not visible, "
    "and after a restart it consumes again"
)
"""Warning of every answer about such a worker."""

_NO_ANSWER = "it does not answer: it is busy, stopped or gone"

_JOURNAL_ENTRIES = 1000
"""Journal entries searched for the queues that a worker was ordered to stop consuming."""


def cordon_any(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """Cordon a worker with or without the agent. Raises NotFound, UsageError, Refused."""
    try:
        return cordon(broker, given, who=who, reason=reason, dry_run=dry_run)
    except NotFound:
        return cordon_agentless(broker, given, who=who, reason=reason, dry_run=dry_run)


def uncordon_any(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """Uncordon a worker with or without the agent. Raises NotFound, UsageError, Refused."""
    try:
        return uncordon(broker, given, who=who, reason=reason, dry_run=dry_run)
    except NotFound:
        return uncordon_agentless(broker, given, who=who, reason=reason, dry_run=dry_run)


def cordon_agentless(broker: RedisBroker, given: str, *, who: str, reason: str, dry_run: bool) -> CordonResult:
    """Stop the worker from consuming any lane but its own. Raises NotFound when no worker of that name answers."""
    node = agentless_node(broker, given)
    worker = node.partition("@")[0]
    shared = [queue for queue in broker.control.queues(node) or () if split(queue)[1] != worker]
    placed = Cordon(state=WorkerStatus.CORDONED, reason=reason, who=who, at=broker.now())
    if shared and not dry_run:
        _put(broker, worker, placed)
        broker.control.cancel_consumer(node, shared)
        _write_journal(broker, worker, who, "cordon", reason, "cordoned", node, shared)
    return _result(worker, placed.state, who, reason, changed=bool(shared), dry_run=dry_run)


def uncordon_agentless(broker: RedisBroker, given: str, *, who: str, reason: str, dry_run: bool) -> CordonResult:
    """Make the worker consume again what a cordon or a drain has stopped. Raises NotFound."""
    try:
        node = agentless_node(broker, given)
    except NotFound:
        with broker.translated():
            if broker.cordons.get(given) is None:
                raise
        node = ""  # it is gone; a worker that starts under this name consumes anyway
    worker = node.partition("@")[0] or given
    stopped = _stopped_queues(broker, worker)
    with broker.translated():
        before = broker.cordons.get(worker)
    if before is not None and not dry_run:
        if node:
            broker.control.add_consumer(node, stopped)
        _put(broker, worker, None)
        _write_journal(broker, worker, who, "uncordon", reason, "in service", node, stopped)
    return _result(worker, WorkerStatus.ONLINE, who, reason, changed=before is not None, dry_run=dry_run)


def agentless_node(broker: RedisBroker, given: str) -> str:
    """Return the node name of an unregistered worker that answers. Raises NotFound, UsageError."""
    nodes = {node.partition("@")[0]: node for node in broker.control.ping()}
    try:
        return nodes[resolve("worker", given, nodes)]
    except NotFound:
        known = {*broker.observe()[0].worker_by_id, *nodes}
        existing = f"; there are {some(known, NAMES_LISTED)}" if known else ""
        raise NotFound(f"no worker {given!r} is registered, and none of that name answers{existing}") from None


class AgentlessDrain:
    """One drain of an unregistered worker."""

    def __init__(self, broker: RedisBroker, node: str, options: DrainOptions, progress: DrainProgress) -> None:
        self._broker, self._node, self._options, self._progress = broker, node, options, progress
        self.worker = node.partition("@")[0]
        self._applied = Applied(plan_id=str(uuid4()))
        self._reported = ""

    def run(self) -> CordonResult:
        """Drain the worker: it is empty when it twice reports no task, more than one pop apart."""
        began = now = self._broker.now()
        options = self._options
        deadline = options.deadline(began)
        changed = self._stop_consuming(began, deadline)
        running: int | None = None
        empty_since: float | None = None
        while empty_since is None or now - empty_since <= BRPOP_SECONDS:
            moved, running, now = self._move_waiting()
            empty_since = None if moved or running != 0 else empty_since or now
            self._progress.remaining(running or 0)
            if options.detach or (deadline is not None and now >= deadline):
                return self._answer(WorkerStatus.DRAINING, running, now - began, changed)
            if empty_since is None:
                progress = _NO_ANSWER if running is None else f"{count_of(running, 'task')} still running"
                self._progress.report(f"{self.worker}: {progress}")
            self._progress.pause(BRPOP_SECONDS / 2)
        self._mark_drained(now)
        return self._answer(WorkerStatus.DRAINED, running, now - began, changed)

    def preview(self) -> CordonResult:
        """Return the answer of a dry run: whether it consumes anything, and how many tasks it runs."""
        busy = self._broker.control.task_counts(self._node)
        changed = self._broker.control.queues(self._node) != []
        running = None if busy is None else busy.total
        return self._answer(WorkerStatus.DRAINED, running, 0.0, changed).model_copy(update={"dry_run": True})

    def _stop_consuming(self, now: float, deadline: float | None) -> bool:
        """Place the cordon and order it to stop consuming. Return False if it consumed nothing before."""
        queues = self._broker.control.queues(self._node)
        if queues == []:
            return False
        options = self._options
        cordon = Cordon(state=WorkerStatus.DRAINING, reason=options.reason, who=options.who, at=now, deadline=deadline)
        _put(self._broker, self.worker, cordon)
        self._broker.control.cancel_consumer(self._node, queues or ())
        order = f"ordered to stop consuming {', '.join(queues)}" if queues else _NO_ANSWER
        self._progress.report(f"{self.worker}: {order}")
        _write_journal(self._broker, self.worker, options.who, "drain", options.reason, "draining", self._node, queues)
        return True

    def _move_waiting(self) -> tuple[int, int | None, float]:
        """Move what waits in its lanes. Return (messages moved, tasks it runs or None without an answer, time).

        The time is that of the snapshot, by the server's clock.
        """
        snapshot, _ = self._broker.observe()
        plan = plan_drain(snapshot, self._broker.queues, self.worker, plan_id=self._applied.plan_id)
        done = apply(self._broker, plan)
        self._applied += done
        busy = self._broker.control.task_counts(self._node)
        if busy is not None and busy.total:
            self._report_tasks()
        return done.moved, None if busy is None else busy.total, snapshot.taken_at

    def _report_tasks(self) -> None:
        """Report the tasks that it holds where they have changed."""
        found = self._broker.control.tasks_by_node([self._node]).get(self._node, ())
        holds = f"{self.worker} holds {some((task.task_id for task in found), NAMES_LISTED)}"
        if found and holds != self._reported:
            self._reported = holds
            self._progress.report(holds)

    def _mark_drained(self, now: float) -> None:
        options = self._options
        drained = Cordon(state=WorkerStatus.DRAINED, reason=options.reason, who=options.who, at=now)
        _put(self._broker, self.worker, drained)
        if options.shutdown:
            order_shutdown(self._broker, self.worker, self._node, who=options.who, reason=options.reason)
            self._progress.report(f"{self.worker} was ordered to shut down")

    def _answer(self, state: WorkerStatus, running: int | None, waited: float, changed: bool) -> CordonResult:
        options = self._options
        return _result(self.worker, state, options.who, options.reason, changed=changed, dry_run=False).model_copy(
            update={
                "moved_tasks": self._applied.moved, "running_tasks": running or 0, "waited_seconds": round(waited, 3),
            }
        )  # fmt: skip


def _put(broker: RedisBroker, worker: str, cordon: Cordon | None) -> None:
    with broker.translated():
        broker.cordons.put(worker, cordon, (None, *WorkerStatus))


def _stopped_queues(broker: RedisBroker, worker: str) -> list[str]:
    """Return the queues that the last cordon or drain ordered it to stop consuming, from the journal."""
    with broker.translated():
        entries = broker.journal.latest(_JOURNAL_ENTRIES)
    stopped = (
        entry.changes.get("queues")
        for entry in entries
        if entry.subject == worker and entry.verb in ("cordon", "drain")
    )
    return [str(queue) for queue in next((queues for queues in stopped if queues), ())]


def _write_journal(
    broker: RedisBroker, worker: str, who: str, verb: str, reason: str, state: str, node: str, queues: list[str] | None
) -> None:
    with broker.translated():
        changes = {"state": state, "node": node, "queues": queues}
        broker.journal.write(who, verb, worker, reason=reason, changes=changes)


def _result(worker: str, state: WorkerStatus, who: str, reason: str, *, changed: bool, dry_run: bool) -> CordonResult:
    return CordonResult(
        worker=worker, state=state, changed=changed, reason=reason, who=who, dry_run=dry_run,
        agentless=True, warnings=(f"{worker}: {NOT_KNOWN}",),
    )  # fmt: skip
