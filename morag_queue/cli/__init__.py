"""The command line. One verb a file; this one holds the table of verbs and the door that all of them go through.

To add a verb: write `cli/<verb>.py` with a function `command` under `@verb()`, and add its row to `VERBS`. A verb with
words of its own (`config show`) has `commands`, a mapping of word to function, instead. A verb's module is imported
when it is invoked, never for `--help`: start-up time is part of the contract.
"""

import gc
import sys
from collections.abc import Sequence

VERBS = {
    "submit": ("morag_queue.cli.submit", "Send files and URLs to the fleet"),
    "classify": ("morag_queue.cli.classify", "Show what a file or URL would need and where it would go"),
    "rebalance": ("morag_queue.cli.rebalance", "Put work where it is done soonest, once; made for cron"),
    "journal": ("morag_queue.cli.journal", "Show who changed what, when and why"),
    "cordon": ("morag_queue.cli.cordon", "Let a worker take no new work"),
    "uncordon": ("morag_queue.cli.uncordon", "Put a worker back into service"),
    "drain": ("morag_queue.cli.drain", "Take a worker out of service, empty"),
    "failover": ("morag_queue.cli.failover", "Give what dead workers left behind to the others"),
    "stats": ("morag_queue.cli.stats", "Show queues and workers"),
    "tasks": ("morag_queue.cli.tasks", "List what runs and what waits"),
    "task": ("morag_queue.cli.task", "Look at one task, explain it, or change where and when it runs"),
    "pause": ("morag_queue.cli.pause", "Let a queue hand out nothing for a while"),
    "resume": ("morag_queue.cli.resume", "Let a paused queue go on"),
    "dead": ("morag_queue.cli.dead", "Look after failed and quarantined tasks"),
    "watch": ("morag_queue.cli.watch", "Look after the fleet, all the time"),
    "dashboard": ("morag_queue.cli.dashboard", "Print a Grafana dashboard of the metrics"),
    "doctor": ("morag_queue.cli.doctor", "Show what is wrong with the fleet and what to do about it"),
    "worker": ("morag_queue.cli.worker", "Run a Celery worker with the agent"),
    "demo": ("morag_queue.cli.demo", "Show it all on a fleet of its own, with real workers"),
    "config": ("morag_queue.cli.config", "Show each setting and where it came from"),
    "exit-codes": ("morag_queue.cli.exit_codes", "Show what the exit codes mean"),
    "completion": ("morag_queue.cli.completion", "Print the completion script of a shell"),
}
"""name -> (module, what it does in one line), in the order of `--help`"""


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status. Never raises, whatever the verb does."""
    gc.set_threshold(100_000)  # what imports create lives to the end: looking for garbage in it costs 15 ms,
    from .context import World
    from .run import run

    status = run(VERBS, sys.argv[1:] if args is None else list(args), World.real())
    gc.freeze()  # and looking once more, at the interpreter's end, 35 ms
    return status
