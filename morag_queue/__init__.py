"""morag-queue: route, balance, drain, fail over and explain the tasks of a Celery-on-Redis fleet.

Two flows; each arrow is one file::

    submit → probe → classify → route → lane → (claim) → worker → complete
    observe() → Snapshot   →   plan_*(snapshot, policy) → Plan   →   apply(plan) → Applied   → (again)

The map; a row imports only from rows below it (import-linter checks this)::

    cli/            one file a noun: reads options, calls an operation, passes its model to view
    view/  local/   models → Rich renderables or JSON, pure; the embedded fleet of `demo` and the tests
    service/        the Python API: PriorityQueueManager, WorkerRegistry, IntelligentTaskClassifier, `route_task`
    watch/          the loop: leads, polls, takes turns, sweeps; its events, log and metrics
    agent/          the worker's side: install, claim, heartbeat, keep-alive, completion
    operations/     one file a subject: observe → plan → apply
    broker/ probe/  the only code that knows Redis, kombu and Celery's wire format; reads facts from files and URLs
    settings/       every setting, its default and the origin of its value
    errors.py       errors for users, each with its exit code
    core/           PURE: models and policy; routing, balancing, recovery, explain, doctor

Glossary::

    account      attempted, executed, lost, duplicated and stuck tasks of a run; every reliability test prints one
    agent        the code that `install(app)` adds to a Celery worker; a worker without it is *agentless*
    applied      what became of a plan: counts, and the steps that were rejected
    capability   cpu, gpu or hybrid
    claim        taking the next message and recording its owner in one script
    cordon       takes a worker out of service; *cordoned*: no new shared work; *drained*: no work at all
    dead letter  a failed or quarantined task, kept with its message until a person requeues or drops it
    entry        one waiting task as its message header describes it
    evidence     facts that prove whether a worker is alive: connections, heartbeat, incarnation
    fence        replacing a worker's incarnation so that its old process can change nothing more
    held         a message that a worker has claimed and not acknowledged; it is in kombu's `unacked`
    incarnation  one run of one worker process; at most one may act under a worker's name
    journal      the log of changes: who, when, why, what; the source of `undo`
    lane         one Celery queue name: the shared lane of a queue, or a worker's own lane in it
    lease        the right to lead the fleet, with a *term* that grows; a stale term changes nothing
    ledger       one record per task from submit until its retention ends
    level        kombu's priority 0..9; level 0 is claimed first
    load         what a worker runs and holds, against its limits
    pin          a task submitted or moved to one worker's lane
    plan         steps chosen from a snapshot; applying it checks each step again
    policy       the numbers that planning uses, all of them settings
    poll         a cheap reading several times a second; it detects changes that trigger a turn
    probe        reading facts (duration, pages, pixels) from a file or URL, without judgement
    settle       ending a message: acknowledgement, ledger entry and counters in one script
    snapshot     the fleet at one moment: workers, lanes by level with their ends, held messages; never the backlog
    spill        moving gpu_preferred work to idle CPU workers
    sweep        finding and recovering lost work: unowned messages, abandoned lanes, ledger entries without a message
    turn         one pass of the loop: observe, plan, apply, report
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "route_task": "service.producer",
    "PriorityQueueManager": "service.manager",
    "WorkerRegistry": "service.registry",
    "IntelligentTaskClassifier": "service.classifier",
}
"""What users import from the package itself, and where it lives."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Lazily: the command's start must not pay for what a producer imports.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
