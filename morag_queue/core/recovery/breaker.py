"""Which restarts of a worker are the fault of tasks: of those that were quarantined because workers died over them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QuarantinedTask:
    """A quarantined task with (seconds since the epoch, worker) of each death that it caused."""

    task_id: str
    deaths: Sequence[tuple[float, str]]


@dataclass(frozen=True, slots=True)
class Blame:
    """The tasks that killed a worker, and how often together."""

    task_ids: tuple[str, ...] = ()
    deaths: int = 0


def blame_tasks(tasks: Iterable[QuarantinedTask], worker: str, since: float, until: float) -> Blame:
    """Return the quarantined tasks over which the worker died in this time (seconds since the epoch)."""
    counts = {task.task_id: sum(since <= at <= until and name == worker for at, name in task.deaths) for task in tasks}
    guilty = {task_id: count for task_id, count in counts.items() if count}
    return Blame(tuple(sorted(guilty)), sum(guilty.values()))
