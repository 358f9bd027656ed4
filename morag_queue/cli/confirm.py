"""Ask for confirmation before a dangerous change."""

from collections.abc import Sequence

from morag_queue.core.words import count_of
from morag_queue.errors import Refused

from .context import CliContext


def confirm_force(ctx: CliContext, consequence: str) -> None:
    """Ask on a terminal before --force; scripts have already decided. Raises Refused if the user declines."""
    if ctx.options.dry_run or ctx.options.yes or not ctx.environment.stdin.isatty():
        return
    if not ctx.confirm(f"{consequence} Continue?"):
        raise Refused("nothing was changed; to skip the question, add --yes")


def confirm_tasks(ctx: CliContext, change: str, rows: Sequence[str], number: int, lasting: str = "") -> bool:
    """Preview the tasks that a filter selected, one row for each of the first, and ask: it may match unexpected ones.

    `number` counts all of them; `lasting` says what cannot be undone. Without a terminal only --yes confirms. Return
    whether a question was asked. Raises Refused.
    """
    if not number or ctx.options.dry_run or ctx.options.yes:
        return False
    for row in rows:
        ctx.warn(f"  {row}")
    if number > len(rows):
        ctx.warn(f"  … and {number - len(rows)} more")
    count = count_of(number, "task")
    if not ctx.confirm(f"{change}: {count}. {f'{lasting}. ' if lasting else ''}Continue?"):
        raise Refused(f"{change}: {count} not confirmed, so nothing was changed; add --yes, or preview with --dry-run")
    return True
