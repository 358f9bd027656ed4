"""`exit-codes`: what each exit status means."""

from morag_queue.errors import ExitStatus

from .context import CliContext
from .options import verb

MEANING = {
    ExitStatus.OK: "done, or nothing to do",
    ExitStatus.FAILED: "failed",
    ExitStatus.USAGE: "wrong usage",
    ExitStatus.PARTIAL: "partly done: some inputs failed, or some workers did not answer",
    ExitStatus.CHANGES: "with --exit-code: the plan has changes",
    ExitStatus.REFUSED: "refused: a safety check, or the plan no longer fits; the message names the overriding flag",
    ExitStatus.DEADLINE: "the deadline passed with work left",
    ExitStatus.LEASE_HELD: "someone else holds the lease",
    ExitStatus.NOT_FOUND: "no such worker, task or queue",
    ExitStatus.UNREACHABLE: "the broker cannot be reached",
    ExitStatus.INTERRUPTED: "interrupted",
}


@verb(fleet=False)
def command(ctx: CliContext) -> None:
    """Show what the exit codes mean. Every verb uses the same ones."""
    rows = [{"exit": int(status), "name": status.name.lower(), "meaning": MEANING[status]} for status in ExitStatus]
    ctx.emit({"exit_codes": rows}, lambda: "\n".join(f"{row['exit']:>3}  {row['meaning']}" for row in rows))
