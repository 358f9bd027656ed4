"""`cordon` and `uncordon`, and the answer that they share with `drain`."""

from typing import TYPE_CHECKING

from .context import CliContext
from .options import verb
from .parameters import WorkerArgument

if TYPE_CHECKING:
    from morag_queue.operations.cordon import CordonResult


@verb(changes=True)
def cordon(ctx: CliContext, worker: WorkerArgument) -> None:
    """Stop a worker from taking work from shared lanes; it still runs the tasks in its own lanes.

    The cordon survives restarts of the worker and ends with `uncordon`. Use `drain` to empty the worker as well.
    """
    from morag_queue.operations.agentless import cordon_any

    emit_result(ctx, cordon_any(ctx.quick_broker, worker, **ctx.change), "cordoned")


@verb(changes=True)
def uncordon(ctx: CliContext, worker: WorkerArgument) -> None:
    """Return a worker to service after a cordon, a drain or an open circuit breaker."""
    from morag_queue.operations.agentless import uncordon_any

    emit_result(ctx, uncordon_any(ctx.quick_broker, worker, **ctx.change), "in service")


def emit_result(ctx: CliContext, result: "CordonResult", state: str) -> None:
    """Print the answer; `state` is the state of the worker in words."""
    for warning in result.warnings:
        ctx.warn(f"warning: {warning}")
    ctx.emit(result, lambda: _sentence(result, state))


def _sentence(result: "CordonResult", state: str) -> str:
    from morag_queue.view.plans import step_lines
    from morag_queue.view.text import safe

    worker = safe(result.worker, 80)
    if result.dry_run:
        sentence = f"{worker} would be {state}" if result.changed else f"{worker} is already {state}"
        return "\n".join([sentence, *step_lines(result.steps)])
    counts = {
        "moved": result.moved_tasks,
        "requeued": result.taken_back_tasks,
        "still running": result.running_tasks,
        "in its own lanes": result.waiting_tasks,
    }
    details = ", ".join(f"{count} {label}" for label, count in counts.items() if count)
    sentence = f"{worker} is {'' if result.changed else 'already '}{state}"
    return f"{sentence} ({details})" if details else sentence
