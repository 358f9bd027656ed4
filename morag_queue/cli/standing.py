"""How `cordon`, `uncordon` and `drain` answer."""

from typing import TYPE_CHECKING

from .context import CliContext

if TYPE_CHECKING:
    from morag_queue.operations.cordon import CordonResult


def show(ctx: CliContext, answer: "CordonResult", word: str) -> None:
    """The answer; a second run, which changes nothing, says `already`."""
    for warning in answer.warnings:
        ctx.warn(f"warning: {warning}")
    ctx.emit(answer, lambda: sentence(answer, word))


def sentence(answer: "CordonResult", word: str) -> str:
    """One line for a person."""
    from morag_queue.view.plans import step_lines
    from morag_queue.view.text import safe

    worker = safe(answer.worker, 80)
    if answer.dry_run:
        told = f"{worker} would be {word}" if answer.changed else f"{worker} is {word} already"
        return "\n".join([told, *step_lines(answer.steps)])
    told = f"{worker} {'is' if answer.changed else 'is already'} {word}"
    details = [f"{answer.moved_tasks} moved"] if answer.moved_tasks else []
    details += [f"{answer.taken_back_tasks} taken back"] if answer.taken_back_tasks else []
    details += [f"{answer.running_tasks} still running"] if answer.running_tasks else []
    details += [f"{answer.waiting_tasks} in its own lanes"] if answer.waiting_tasks else []
    return told + (f" ({', '.join(details)})" if details else "")
