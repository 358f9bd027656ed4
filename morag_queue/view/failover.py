"""What a failover found and did: each worker with its evidence, then the counts."""

from typing import TYPE_CHECKING

from .steps import step_lines
from .text import safe

if TYPE_CHECKING:
    from morag_queue.operations.failover import FailoverResult


def failover_view(done: "FailoverResult") -> str:
    lines = [
        f"{safe(one.worker)}: {one.verdict.value}, {one.done} ({safe('; '.join(one.evidence))})" for one in done.workers
    ]
    lines += [f"not done: {safe(one.subject)}: {safe(one.reason)}" for one in done.declined]
    lines += step_lines(done.steps)
    counts = {
        "taken back": done.requeued_tasks,
        "moved": done.moved_tasks,
        "sent again": done.recovered_tasks,
        "quarantined": done.quarantined_tasks,
    }
    told = ", ".join(f"{count} {word}" for word, count in counts.items() if count) or "nothing was left to take over"
    return "\n".join([*lines, f"{'would be ' if done.dry_run and done.has_changed else ''}{told}"])
