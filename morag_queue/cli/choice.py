"""The options by which `tasks` and the verbs that change tasks say which ones are meant."""

from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.core.levels import parse_priority
from morag_queue.core.model import QueuePriority, TaskState
from morag_queue.errors import UsageError

if TYPE_CHECKING:
    from morag_queue.core.snapshot import Snapshot
    from morag_queue.core.task import TaskFilter


def _priorities() -> list[str]:
    return [one.name for one in QueuePriority]


InQueue = Annotated[str | None, typer.Option("--queue", metavar="Q", help="In the lanes of this queue.")]
InLane = Annotated[str | None, typer.Option("--lane", metavar="L", help="In this lane.")]
OfWorker = Annotated[str | None, typer.Option("--worker", metavar="W", help="In its hands, in its lanes, or pinned.")]
InState = Annotated[TaskState | None, typer.Option("--state", case_sensitive=False, help="In this state.")]
OfPriority = Annotated[
    str | None,
    typer.Option("--priority", metavar="P", autocompletion=_priorities, help=f"One of {', '.join(_priorities())}."),
]
OfAge = Annotated[str | None, typer.Option("--age", metavar="DURATION", help="Waiting or running at least so long.")]
OfName = Annotated[
    str | None, typer.Option("--name", metavar="TEXT", help="With this in the task's name or in what it works on.")
]


def chosen(
    picture: "Snapshot",
    queue: str | None,
    lane: str | None,
    worker: str | None,
    state: TaskState | None,
    priority: str | None,
    age: str | None,
    name: str | None,
) -> "TaskFilter":
    """The filter that the options make. Names may be given by their beginnings. Raises UsageError, NotFound."""
    from morag_queue.core.task import TaskFilter
    from morag_queue.operations.names import resolve, resolve_queue
    from morag_queue.view.text import parse_duration

    lanes = [view.lane for view in picture.lanes]
    known = {view.info.worker for view in picture.workers} | {view.worker for view in picture.lanes if view.worker}
    return TaskFilter(
        queue=None if queue is None else resolve_queue(queue),
        lane=None if lane is None else resolve("lane", lane, lanes),
        worker=None if worker is None else resolve("worker", worker, known),
        state=state,
        priority=None if priority is None else priority_of(priority),
        older_than_seconds=None if age is None else parse_duration(age, "--age"),
        name=name,
    )


def priority_of(word: str) -> QueuePriority:
    """A priority by its word. Raises UsageError."""
    try:
        return parse_priority(word)
    except ValueError as error:
        raise UsageError(f"{error}") from None
