"""Write the ledger record of a new task, in the compact form that `broker.compact_record` reads."""

import json
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING

from morag_queue.broker.compact_record import NUMBERS, short_decision, usual_args
from morag_queue.core.enums import QueuePriority, Requires

if TYPE_CHECKING:
    from morag_queue.core.model import LoadBalancingDecision, TaskQueueEntry

_NORMAL = QueuePriority.NORMAL.name


def open_record(entry: "TaskQueueEntry", args: str, kwargs: str, attempt: int) -> str:
    """Open a record for a new task. `args` and `kwargs` are JSON; `attempt` differs for each attempt at submitting.

    Joined from texts that are JSON already: encoding them again would cost a fifth of a bulk submit.
    """
    first = entry.args[0] if entry.args and isinstance(entry.args[0], str) else ""
    named = "".join(
        f'"{name}":{quoted(value)},'
        for name, value, default in (
            ("lane", entry.lane, entry.queue),
            ("priority", entry.priority.name, _NORMAL),
            ("requires", entry.requires, Requires.CPU),
            ("worker", entry.worker, None),
            ("source", entry.source, first),
        )
        if value is not None and value != default
    )
    task, source, kind = NUMBERS.get(entry.task), quoted(first), entry.content_type
    call = source if task and args == usual_args(entry.task, source, kind) else args
    return (
        f'{{"state":"queued",{named}"open":[{round(entry.enqueued_at, 3)},"{entry.queue}",{entry.level},'
        f"{round(entry.estimated_duration, 4):.15g},{task or quoted(entry.task)},{_json(kind)},"
        f"{_json(entry.submission)},{attempt},{call},{kwargs}]}}"
    )


def with_decision(record: str, decision: "LoadBalancingDecision") -> str:
    """Add the routing decision to a new record, whose queue is the one decided on.

    Joins text: decoding it would slow a bulk submit down by a fifth.
    """
    return f"{record[:-2]},{_decision(decision)}]}}"


def _json(text: str | None) -> str:
    return "null" if text is None else quoted(text)


@lru_cache(maxsize=1024)
def _decision(decision: "LoadBalancingDecision") -> str:
    fields = {
        "action": decision.action, "worker_id": decision.worker_id, "reason": decision.reason,
        "confidence": round(decision.confidence, 3),
    }  # fmt: skip
    return json.dumps(short_decision(fields, decision.target_queue), separators=(",", ":"))
