"""`classify`: what a source would need and where it would go, submitting nothing."""

from typing import TYPE_CHECKING

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext
from .options import verb
from .sources import Options, Priority, Queue, Recursive, Sources, Type, Worker, failures, rows, said, tell_failures

if TYPE_CHECKING:
    from rich.console import RenderableType


@verb()
def command(
    ctx: CliContext,
    sources: Sources = None,
    recursive: Recursive = False,
    content_type: Type = None,
    priority: Priority = None,
    option: Options = None,
    queue: Queue = None,
    worker: Worker = None,
) -> ExitStatus:
    """Show what files and URLs would need, where they would go, and how every worker scores. Nothing is submitted."""
    from morag_queue.operations.submit import SubmitReport, Submitter
    from morag_queue.operations.submit_rows import PreparedTask, RowFailure

    if not sources:
        raise UsageError("nothing to classify: morag-queue classify PATH|URL…")
    fields = said(content_type=content_type, priority=priority, options=option, queue=queue, worker=worker)
    prepared = list(Submitter(ctx.broker, ctx.settings).prepare(rows(sources, recursive, fields), explain=True))
    found = [one for one in prepared if isinstance(one, PreparedTask)]
    failed = [one for one in prepared if isinstance(one, RowFailure)]

    def human() -> "RenderableType":
        from morag_queue.view.submit import classified_view

        return classified_view([(one.classification, one.routed) for one in found])

    answer = [
        {
            "source": one.row.source,
            "classification": one.classification,
            "decision": one.routed.decision,
            "queue": one.routed.queue,
            "lane": one.routed.lane,
            "level": one.routed.level,
            "scores": one.routed.scores,
        }
        for one in found
    ]
    if found or ctx.json:
        ctx.emit({"classified": answer, "failed": failures(failed)}, human)
    tell_failures(ctx, failed)
    return SubmitReport(submitted=len(found), failed=failed).exit_status
