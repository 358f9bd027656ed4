"""`classify`: show how sources would be classified and routed, without submitting them."""

from typing import TYPE_CHECKING

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext
from .options import verb
from .sources import (
    Options,
    Priority,
    Queue,
    Recursive,
    Sources,
    Type,
    Worker,
    failures_as_json,
    row_fields,
    source_rows,
    warn_failures,
)

if TYPE_CHECKING:
    from rich.console import RenderableType


@verb()
def classify(
    ctx: CliContext,
    sources: Sources = None,
    recursive: Recursive = False,
    content_type: Type = None,
    priority: Priority = None,
    option: Options = None,
    queue: Queue = None,
    worker: Worker = None,
) -> ExitStatus:
    """Show the requirements, the routing decision and the worker scores of files and URLs, without submitting."""
    from morag_queue.operations.submit import Submitter
    from morag_queue.operations.submit_report import SubmitReport
    from morag_queue.operations.submit_rows import PreparedTask, RowFailure

    if not sources:
        raise UsageError("nothing to classify: pass files or URLs, as in `morag-queue classify PATH|URL…`")
    fields = row_fields(content_type=content_type, priority=priority, options=option, queue=queue, worker=worker)
    rows = source_rows(sources, recursive, fields)
    prepared = list(Submitter(ctx.quick_broker, ctx.settings, partial=True).prepare(rows, explain=True))
    tasks = [task for task in prepared if isinstance(task, PreparedTask)]
    failures = [failure for failure in prepared if isinstance(failure, RowFailure)]

    def human() -> "RenderableType":
        from morag_queue.view.submit import classify_view

        return classify_view([(task.classification, task.routed) for task in tasks])

    classified = [
        {
            "source": task.row.source,
            "classification": task.classification,
            "decision": task.routed.decision,
            "queue": task.routed.queue,
            "lane": task.routed.lane,
            "level": task.routed.level,
            "scores": task.routed.scores,
        }
        for task in tasks
    ]
    if tasks or ctx.json:
        ctx.emit({"classified": classified, "failed": failures_as_json(failures)}, human)
    warn_failures(ctx, failures)
    return SubmitReport(submitted=len(tasks), failed=failures).exit_status
