"""The ledger record of a task that waits. Its form is short: the server's memory holds one for each waiting task."""

import json
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any

from morag_queue.core.enums import Requires

if TYPE_CHECKING:
    from morag_queue.core.model import LoadBalancingDecision, TaskQueueEntry


def open_record(entry: "TaskQueueEntry", args: str, kwargs: str, attempt: str) -> str:
    """Open a record for a new task. `args` and `kwargs` are JSON; `attempt` differs for each attempt at submitting.

    It is short, because every waiting task has one: `expand` adds what is left out. The fields that scripts search
    for come before the arguments, which may have fields of the same names. Joined from texts that are JSON already:
    encoding them again would cost a fifth of a bulk submit.
    """
    first = entry.args[0] if entry.args and isinstance(entry.args[0], str) else ""
    optional = "".join(
        f'"{name}":{quoted(value)},'
        for name, value, default in (
            ("requires", entry.requires, Requires.CPU),
            ("content_type", entry.content_type, None),
            ("worker", entry.worker, None),
            ("submission", entry.submission, None),
            ("source", entry.source, first),
        )
        if value is not None and value != default
    )
    keyword_arguments = f'"kwargs":{kwargs},' if entry.kwargs else ""
    return (
        f'{{"state":"queued","priority":"{entry.priority.name}","enqueued_at":{round(entry.enqueued_at, 3)},'
        f'"queue":"{entry.queue}","lane":{quoted(entry.lane)},"level":{entry.level},'
        f'"estimated_minutes":{round(entry.estimated_duration, 4)},"task":{quoted(entry.task)},'
        f'{optional}"args":{args},{keyword_arguments}"attempt":"{attempt}"}}'
    )


def expand(fields: dict[str, Any]) -> None:
    """Add what `open_record` and `with_decision` left out."""
    args = fields.get("args")
    if "source" not in fields and isinstance(args, list) and args and isinstance(args[0], str):
        fields["source"] = args[0]
    match fields.get("decision"):
        case [action, confidence, reason, *worker]:
            fields["decision"] = {
                "action": action, "target_queue": fields.get("queue"), "worker_id": worker[0] if worker else None,
                "reason": reason, "confidence": confidence,
            }  # fmt: skip


def with_decision(record: str, decision: "LoadBalancingDecision") -> str:
    """Add the routing decision to a new record, whose queue is the one decided on.

    Joins text: decoding it would slow a bulk submit down by a fifth.
    """
    return f'{record[:-1]},"decision":{_decision(decision)}}}'


@lru_cache(maxsize=1024)
def _decision(decision: "LoadBalancingDecision") -> str:
    fields = [decision.action, round(decision.confidence, 3), decision.reason]
    return json.dumps([*fields, decision.worker_id] if decision.worker_id else fields, separators=(",", ":"))
