"""cordon, uncordon: take a worker out of service, and put it back.

There is no plan: each is one write, and the broker compares the present state in the same step. A second run changes
nothing and reports that.
"""

from collections.abc import Iterable
from dataclasses import replace

from pydantic import Field

from morag_queue.broker.contract import JournalNote
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Cordon, Frozen, WorkerStatus
from morag_queue.core.plan import Step
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import status_in
from morag_queue.errors import Refused

from .names import resolve


class CordonResult(Frozen):
    """The worker after the command; scripts rely on the first five fields."""

    worker: str
    state: WorkerStatus
    moved_tasks: int = 0
    running_tasks: int = 0
    waited_seconds: float = 0.0
    changed: bool = True
    reason: str = ""
    who: str = ""
    at: float = 0.0
    deadline: float | None = None
    waiting_tasks: int = 0
    taken_back_tasks: int = 0
    shut_down: bool | None = Field(None, description="whether its process has ended; None without --shutdown")
    agentless: bool = Field(False, description="it runs without the agent, so less is known, see `warnings`")
    dry_run: bool = False
    steps: tuple[Step, ...] = Field((), description="of a dry run: what would be moved where")
    warnings: tuple[str, ...] = ()


def worker_named(snapshot: Snapshot, given: str) -> WorkerView:
    """Return the registered worker with this id or unique prefix. Raises NotFound, UsageError."""
    return snapshot.worker_by_id[resolve("worker", given, snapshot.worker_by_id)]


def cordon(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """Stop the worker from claiming from shared lanes; it finishes its own. Raises NotFound, UsageError, Refused."""
    snapshot, _ = broker.observe()
    view = worker_named(snapshot, given)
    if view.cordon is not None and view.cordon.until is None:
        if view.cordon.state is not WorkerStatus.CORDONED:
            raise Refused(
                f"{view.worker} is {view.cordon.state}, which is more than cordoned; "
                f"`morag-queue uncordon {view.worker}` first"
            )
        return cordon_result(snapshot, view, changed=False)
    placed = Cordon(state=WorkerStatus.CORDONED, reason=reason, who=who, at=snapshot.taken_at)
    if not dry_run:
        # It replaces a cordon of the circuit breaker, which would expire.
        _put(broker, view.worker, placed, (None, WorkerStatus.CORDONED), note(view, who, "cordon", reason, "cordoned"))
    return cordon_result(snapshot, view, placed, dry_run=dry_run)


def uncordon(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """Put the worker back into service, from any state. Raises NotFound, UsageError, Refused."""
    snapshot, _ = broker.observe()
    view = worker_named(snapshot, given)
    before = view.cordon
    if before is not None and not dry_run:
        _put(broker, view.worker, None, (None, before.state), note(view, who, "uncordon", reason, "in service"))
        if before.state is not WorkerStatus.CORDONED and not view.info.claims:
            broker.control.refresh_cordon([view.info.node])  # it stopped consuming, and must start again
    after = replace(view, cordon=None)
    status, _ = status_in(snapshot, after, broker.settings.policy)
    return cordon_result(snapshot, after, changed=before is not None, state=status, dry_run=dry_run)


def cordon_result(
    snapshot: Snapshot,
    view: WorkerView,
    placed: Cordon | None = None,
    *,
    changed: bool = True,
    state: WorkerStatus | None = None,
    dry_run: bool = False,
) -> CordonResult:
    """Return the answer for a worker with the cordon that was placed, else with its present one."""
    shown = placed or view.cordon or Cordon(state=state or WorkerStatus.ONLINE)
    return CordonResult(
        worker=view.worker, state=shown.state, running_tasks=len(snapshot.held_by_worker.get(view.worker, ())),
        waiting_tasks=snapshot.waiting_count(view.worker), changed=changed, reason=shown.reason, who=shown.who,
        at=shown.at, deadline=shown.deadline, dry_run=dry_run,
    )  # fmt: skip


def note(view: WorkerView, who: str, verb: str, reason: str, state: str, **more: object) -> JournalNote:
    """Return the journal entry of a change to a worker's service."""
    before = view.cordon.model_dump(mode="json") if view.cordon else None
    return JournalNote(who, verb, view.worker, reason, changes={"state": state, "before": before, **more})


def order_shutdown(broker: RedisBroker, worker: str, node: str, *, who: str, reason: str) -> None:
    """Order a warm shutdown of a Celery node: it lets running tasks end first, and does not confirm the order."""
    broker.control.shut_down([node])
    with broker.translated():
        broker.journal.write(who, "shutdown", worker, reason=reason, changes={"node": node})


def _put(
    broker: RedisBroker, worker: str, cordon: Cordon | None, over: Iterable[WorkerStatus | None], note: JournalNote
) -> None:
    with broker.translated():
        if not broker.cordons.put(worker, cordon, over, note=note):
            raise Refused(f"{worker}: another command changed its state; check `morag-queue stats` and try again")
