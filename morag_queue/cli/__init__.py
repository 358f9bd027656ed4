"""The command line: the table of verbs and the entry point.

To add a verb, write a function with the `@verb()` decorator in the file of its subject and add a row to `VERBS`. A verb
with subcommands (`task show`) names a mapping of subcommand to function instead. A module is imported only when one of
its verbs runs, never for `--help`, because start-up time is part of the contract.
"""

import gc
import sys
from collections.abc import Sequence

VERBS = {
    "submit": ("morag_queue.cli.submit:submit", "Submit files and URLs"),
    "classify": ("morag_queue.cli.classify:classify", "Show how files and URLs would be routed, without submitting"),
    "rebalance": ("morag_queue.cli.rebalance:rebalance", "Balance the fleet once, for use in cron"),
    "journal": ("morag_queue.cli.journal:SUBCOMMANDS", "Show the change journal and undo changes"),
    "cordon": ("morag_queue.cli.cordon:cordon", "Stop a worker from taking new work"),
    "uncordon": ("morag_queue.cli.cordon:uncordon", "Return a worker to service"),
    "drain": ("morag_queue.cli.drain:drain", "Empty a worker and take it out of service"),
    "failover": ("morag_queue.cli.failover:failover", "Recover the work of dead workers"),
    "stats": ("morag_queue.cli.stats:stats", "Show queues and workers"),
    "tasks": ("morag_queue.cli.tasks:tasks", "List running and waiting tasks"),
    "task": ("morag_queue.cli.task:SUBCOMMANDS", "Show, explain and change tasks"),
    "pause": ("morag_queue.cli.pause:pause", "Pause a queue"),
    "resume": ("morag_queue.cli.pause:resume", "Resume a paused queue"),
    "dead": ("morag_queue.cli.dead:SUBCOMMANDS", "Manage failed and quarantined tasks"),
    "watch": ("morag_queue.cli.watch:watch", "Supervise and balance the fleet continuously"),
    "dashboard": ("morag_queue.cli.reference:dashboard", "Print a Grafana dashboard for the metrics of watch"),
    "doctor": ("morag_queue.cli.doctor:doctor", "Diagnose the fleet and suggest remedies"),
    "acl": ("morag_queue.cli.acl:acl", "Print the rights of a login for each role"),
    "simulate": ("morag_queue.cli.simulate:simulate", "Compare policies on a fleet that does not exist"),
    "worker": ("morag_queue.cli.worker:worker", "Run a Celery worker with the agent"),
    "demo": ("morag_queue.cli.demo:demo", "Run a self-contained demo with real workers"),
    "config": ("morag_queue.cli.config:SUBCOMMANDS", "Write, check and show the settings"),
    "exit-codes": ("morag_queue.cli.reference:exit_codes", "List the exit codes and their meanings"),
    "completion": ("morag_queue.cli.reference:completion", "Print a shell completion script"),
}
"""Verb name → (module:attribute, summary), in the order of `--help`."""


def main(args: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status. Never raises."""
    # Objects created by imports live until exit: collecting them would cost 15 ms here and 35 ms at exit.
    gc.set_threshold(100_000)
    from .context import Environment

    environment, words = Environment.of_process(), sys.argv[1:] if args is None else list(args)
    if shell := environment.variables.get("_MORAG_QUEUE_COMPLETE"):
        from .completion import main as complete

        return complete(shell, words, environment)
    try:
        from .run import run
    except ModuleNotFoundError as error:  # installed without the `cli` extra
        from .failure import report

        return report(error, words, environment)
    status = run(VERBS, words, environment)
    gc.freeze()
    return status
