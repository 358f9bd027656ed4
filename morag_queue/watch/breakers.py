"""Circuit breakers of workers that keep restarting: a cordon for a limited time.

A worker is not to blame for restarts that a task has caused. Once such a task is quarantined, its deaths no longer
count: a breaker is not opened for them, and one that they opened is closed. Any other breaker closes by itself when its
time is over, and the worker is tried again.
"""

from collections.abc import Iterator, Mapping

from morag_queue.broker.contract import JournalNote
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Cordon, WorkerStatus
from morag_queue.core.recovery.breaker import Blame, blame_tasks
from morag_queue.core.snapshot import Snapshot
from morag_queue.core.words import count_of, is_are, some

BREAKER = "circuit breaker"
"""Who places the cordon of a circuit breaker."""


def open_breakers(
    broker: RedisBroker, snapshot: Snapshot, flapping: Mapping[str, int], *, term: str, who: str
) -> Iterator[str]:
    """Cordon workers that keep restarting, and yield them. `flapping` has their starts. An existing cordon is kept."""
    recovery = broker.settings.policy.recovery
    for worker, starts in flapping.items():
        now = snapshot.taken_at
        if worker not in snapshot.worker_by_id or _is_excused(broker, starts, _blame(broker, worker, now)):
            continue
        reason = f"it has started {count_of(starts, 'time')} within {recovery.breaker_seconds:.0f} s"
        cordon = Cordon(
            state=WorkerStatus.CORDONED, reason=reason, who=BREAKER, at=now, until=now + recovery.breaker_seconds,
            restarts=starts,
        )  # fmt: skip
        with broker.translated():
            note = JournalNote(who, "cordon", worker, reason, changes={"until": cordon.until})
            is_open = broker.cordons.put(worker, cordon, (None,), term=term, note=note)
        if is_open:
            yield worker


def close_breakers(broker: RedisBroker, snapshot: Snapshot, *, term: str, who: str) -> None:
    """Close the breakers that were opened by restarts for which quarantined tasks are to blame."""
    for view in snapshot.workers:
        cordon = view.cordon
        if cordon is None or cordon.who != BREAKER or cordon.restarts is None:
            continue
        blame = _blame(broker, view.worker, cordon.at)
        if not _is_excused(broker, cordon.restarts, blame):
            continue
        reason = f"{some(blame.task_ids)} caused its restarts and {is_are(len(blame.task_ids))} quarantined"
        with broker.translated():
            is_present = broker.cordons.get(view.worker) == cordon  # an operator may have replaced it meanwhile
            if is_present:
                note = JournalNote(who, "uncordon", view.worker, reason, changes={"tasks": blame.task_ids})
                broker.cordons.put(view.worker, None, (WorkerStatus.CORDONED,), term=term, note=note)


def _blame(broker: RedisBroker, worker: str, until: float) -> Blame:
    """Return the quarantined tasks that killed the worker in the time for which a breaker counts its starts."""
    since = until - broker.settings.policy.recovery.breaker_seconds
    with broker.translated():
        return blame_tasks(broker.dead.quarantined_since(since), worker, since, until)


def _is_excused(broker: RedisBroker, starts: int, blame: Blame) -> bool:
    return starts - blame.deaths < broker.settings.policy.recovery.breaker_failures
