"""morag-queue: route, watch, drain, rebalance, fail over and explain a Celery-on-Redis fleet.

How a task flows, and how the loop flows; one arrow, one file::

    submit → probe → classify → route → lane → (claim) → worker → complete
    observe() → Snapshot   →   plan_*(snapshot, policy) → Plan   →   apply(plan) → Applied   → (again)

The map; a row imports from rows below it only (import-linter holds the rule)::

    cli/            one verb a file: reads the command line, calls a verb, hands its model to view
    view/  local/   models → Rich renderables or JSON, pure;  the embedded cluster of `demo` and the tests
    manager.py      PriorityQueueManager for asyncio services, over registry.py and classifier.py
    loop.py         `step`, one turn; `Watch`, turns under the lease (narrate.py tells of it, stock.py cares for plain
                    Celery workers, metrics.py counts)
    verbs/          one verb a file: observe → decide → apply
    agent/          the worker's side: install, claim, heartbeat, keep-alive, figures
    producer.py     the producer's side: `route_task` sends `.delay()` calls through the same routing core
    broker/ probe/  the only place that knows Redis, kombu and Celery's wire format;  reads files: facts, no judgement
    log.py          events as lines;  events.py  the table of all that the loop tells
    settings/       what can be configured, where each value came from
    errors.py       what a user is told, and the exit code that goes with it
    core/           PURE: model, policy, classify, estimate, levels, route, figures, status

A new verb is a file in `cli/` and one in `verbs/`; a new rule is a function in `core/`; a new Redis script is a file
in `broker/lua/` with its caller in `broker/`.
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
