"""task retry and dead requeue: queue ended tasks again under their ids."""

from collections.abc import Sequence
from functools import partial

from morag_queue.core import edits

from .task_editor import EditReport, TaskEditor


def retry(editor: TaskEditor, task_ids: Sequence[str], *, reset: bool) -> EditReport:
    """Queue tasks again with the arguments that they had. `reset` forgets their retries and lost workers."""
    return editor.run(task_ids, partial(edits.retry, reset=reset))
