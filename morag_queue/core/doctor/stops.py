"""Checks of what people have stopped, and may have forgotten: paused queues, workers out of service."""

from collections.abc import Iterator

from morag_queue.core.model import QueueType
from morag_queue.core.pauses import paused_words, resume_command
from morag_queue.core.words import count_of, span
from morag_queue.core.worker_status import status_in

from .facts import FleetFacts
from .finding import Code, Finding, info, warning


def check_pauses(facts: FleetFacts) -> Iterator[Finding]:
    """Report every paused queue: a warning once the pause is old, or if its age is not known."""
    snapshot = facts.snapshot
    for queue in QueueType:
        pause = snapshot.pause_of(queue)
        if pause is None:
            continue
        is_old = snapshot.taken_at - pause.at > facts.policy.forgotten_after_seconds
        waiting = snapshot.pending[queue]
        yield (warning if is_old else info)(
            Code.QUEUE_PAUSED, queue.value,
            f"{queue} {paused_words(pause, snapshot.taken_at)}; {count_of(waiting, 'task')} "
            f"{'waits' if waiting == 1 else 'wait'} in it",
            resume_command(queue),
        )  # fmt: skip


def check_cordons(facts: FleetFacts) -> Iterator[Finding]:
    """Find workers that have long been out of service. The cordon of a circuit breaker ends by itself."""
    snapshot = facts.snapshot
    for view in sorted(snapshot.workers, key=lambda view: view.worker):
        cordon = view.cordon
        if cordon is None or cordon.until is not None:
            continue
        age = snapshot.taken_at - cordon.at
        if age > facts.policy.forgotten_after_seconds:
            since = f", for {span(age)}" if cordon.at else ""
            yield warning(
                Code.WORKER_OUT_OF_SERVICE, view.worker,
                f"{view.worker} is out of service{since}: {status_in(snapshot, view, facts.policy)[1]}",
                f"if it is needed again: morag-queue uncordon {view.worker}",
            )  # fmt: skip
