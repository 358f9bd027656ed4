"""cordon, uncordon: a worker out of service, and back. Both look at what is there, and say so the second time."""

from collections.abc import Iterable

from pydantic import Field

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Cordon, Frozen, WorkerStatus
from morag_queue.core.plan import Step
from morag_queue.core.snapshot import Snapshot, WorkerView
from morag_queue.core.worker_status import status_in
from morag_queue.errors import Refused

from .names import resolve


class CordonResult(Frozen):
    """How a worker stands after the command; the first five fields are what scripts rely on."""

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
    shut_down: bool | None = Field(None, description="whether its process has ended; None where nobody asked for it")
    dry_run: bool = False
    steps: tuple[Step, ...] = Field((), description="of a dry run: which tasks would go where")
    warnings: tuple[str, ...] = ()


def worker_named(snapshot: Snapshot, given: str) -> WorkerView:
    """The registered worker of that name, or whose id begins so. Raises NotFound, UsageError."""
    return snapshot.worker_by_id[resolve("worker", given, snapshot.worker_by_id)]


def cordon(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """It takes nothing from shared lanes any more and finishes what is in its own. Raises Refused."""
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
        # Over the circuit breaker's own as well: what a person says does not end by itself.
        _put(broker, view.worker, placed, (None, WorkerStatus.CORDONED))
        note(broker, view, who, "cordon", reason, "cordoned")
    return cordon_result(snapshot, view, placed, dry_run=dry_run)


def uncordon(broker: RedisBroker, given: str, *, who: str, reason: str = "", dry_run: bool = False) -> CordonResult:
    """Back into service, from whatever state. Raises Refused."""
    snapshot, _ = broker.observe()
    view = worker_named(snapshot, given)
    before = view.cordon
    if before is not None and not dry_run:
        _put(broker, view.worker, None, (None, before.state))
        note(broker, view, who, "uncordon", reason, "in service")
        if before.state is not WorkerStatus.CORDONED and not view.info.claims:
            broker.control.refresh_cordon([view.info.node])  # it has stopped to consume, and has to begin again
    after = WorkerView(view.info, view.beat, None, view.totals, view.fenced)
    word, _ = status_in(snapshot, after, broker.settings.policy)
    return cordon_result(snapshot, after, changed=before is not None, state=word, dry_run=dry_run)


def cordon_result(
    snapshot: Snapshot,
    view: WorkerView,
    placed: Cordon | None = None,
    *,
    changed: bool = True,
    state: WorkerStatus | None = None,
    dry_run: bool = False,
) -> CordonResult:
    """The answer for a worker with this cordon (its present one, where none is given)."""
    one = placed or view.cordon or Cordon(state=state or WorkerStatus.ONLINE)
    return CordonResult(
        worker=view.worker, state=one.state, running_tasks=len(snapshot.held_by_worker.get(view.worker, ())),
        waiting_tasks=snapshot.waiting_count(view.worker), changed=changed, reason=one.reason, who=one.who, at=one.at,
        deadline=one.deadline, dry_run=dry_run,
    )  # fmt: skip


def note(broker: RedisBroker, view: WorkerView, who: str, verb: str, reason: str, state: str, **more: object) -> None:
    """The journal's entry of a change to a worker's service."""
    with broker.translated():
        before = view.cordon.model_dump(mode="json") if view.cordon else None
        broker.journal.write(who, verb, view.worker, reason=reason, changes={"state": state, "before": before, **more})


def _put(broker: RedisBroker, worker: str, cordon: Cordon | None, over: Iterable[WorkerStatus | None]) -> None:
    with broker.translated():
        if not broker.cordons.put(worker, cordon, over):
            raise Refused(f"{worker}: someone else has just changed its state; `morag-queue stats` shows it, try again")
