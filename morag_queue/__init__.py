"""morag-queue: route, balance, drain, fail over and explain the tasks of a Celery-on-Redis fleet.

Two flows::

    submit → probe → classify → route → lane → (claim) → worker → complete
    observe() → Snapshot   →   plan_*(snapshot, policy) → Plan   →   apply(plan) → Applied   → (again)

The map; a row imports only from rows below it (import-linter checks this)::

    cli/            one file per noun: reads options, calls an operation, passes its result to view
    view/  local/   results → Rich renderables or JSON, pure; the temporary fleet of `demo` and the tests
    service/        the Python API: PriorityQueueManager, WorkerRegistry, IntelligentTaskClassifier, `route_task`
    simulate/       a fleet that does not exist: the same routing and balancing under a virtual clock
    watch/          the loop: lead, poll, turn, sweep; its events, log and metrics
    agent/          the worker side: install, claim, heartbeat, keep-alive, completion
    operations/     one file per subject: observe → plan → apply
    broker/ probe/  the only code that uses Redis, kombu and Celery's message format; facts from files and URLs
    settings/       every setting, its default and the origin of its value
    errors.py       errors for users, each with its exit code
    core/           PURE: models and policy; routing, balancing, recovery, explain, doctor

Glossary::

    account      attempted, executed, lost, duplicated and stuck tasks of a run; every reliability test prints one
    agent        the code that `install(app)` adds to a Celery worker; a worker without it is *agentless*
    applied      the result of a plan: counts, and the steps that were rejected
    bell         a key by which one idle worker is woken: to claim, or to become the tracker
    capability   cpu, gpu or hybrid
    claim        takes the next message and records its owner in one script
    cordon       takes a worker out of service; *cordoned*: no work from shared lanes; *drained*: no work at all
    dead letter  a failed or quarantined task, kept with its message until someone requeues or drops it
    entry        one waiting task as its message header describes it
    evidence     facts that prove whether a worker is alive: connections, heartbeat, incarnation
    fence        replaces a worker's incarnation, so that its old process can change nothing more
    held         claimed by a worker and not acknowledged: the message is in kombu's `unacked`
    incarnation  one run of one worker process; at most one may act under a worker's name
    journal      the log of changes: who, when, why, what; the source of `undo`
    lane         one Celery queue name: the shared lane of a queue, or a worker's own lane in it
    lease        the right to lead the fleet, with an increasing *term*; a stale term changes nothing
    ledger       one record per task from submit until its retention ends
    level        kombu's priority 0..9; level 0 is claimed first
    load         the tasks assigned to a worker, against its limits
    pin          puts a task in one worker's lane, at submit or by `task move`
    plan         steps chosen from a snapshot; applying it checks each step again
    policy       the numbers that planning uses, all of them settings
    poll         a cheap reading, several times a second, that detects changes; some trigger a turn
    probe        reads facts (duration, pages, pixels) from a file or URL, without interpreting them
    resend       queues a new message for a task whose message is lost
    requeue      takes a held message back from a worker and queues it ahead of waiting tasks
    reserved     held and not started; a worker *runs* the rest of what it holds
    settle       ends a message: acknowledgement, ledger entry and counters in one script
    snapshot     the fleet at one moment: workers, lanes by level with their ends, held messages; never the backlog
    submission   the tasks of one `submit`; its id is in their messages and ledger entries
    spill        moves gpu_preferred work to idle CPU workers
    sweep        finds and recovers lost work: unowned messages, abandoned lanes, ledger entries without a message
    tracker      of the idle workers that read the same shared lanes the one that a push to them wakes
    turn         one pass of the loop: observe, plan, apply, report
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "route_task": "service.producer",
    "PriorityQueueManager": "service.manager",
    "WorkerRegistry": "service.registry",
    "RegisteredWorker": "service.registry",
    "IntelligentTaskClassifier": "service.classifier",
    "TaskClassification": "service.classifier",
    "QueueStats": "core.stats",
    "QueuePolicy": "core.policy",
    **dict.fromkeys(
        (
            "Capability",
            "Classification",
            "ContentType",
            "DecisionAction",
            "LoadBalancingDecision",
            "QueuePriority",
            "QueueType",
            "Requires",
            "ResourceRequirement",
            "TaskComplexity",
            "TaskQueueEntry",
            "WorkerInfo",
            "WorkerStatus",
        ),
        "core.model",
    ),
}
"""Names that users import from the package, and the modules that define them."""

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    # Import lazily, so that commands do not pay for what a producer imports.
    if name in _HOMES:
        return getattr(import_module(f".{_HOMES[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
