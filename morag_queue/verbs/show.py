"""task show: everything there is of one task, in one answer."""

import json
from base64 import b64decode
from typing import Any

from morag_queue.broker.client import translated
from morag_queue.broker.message import decoded
from morag_queue.broker.redis import RedisBroker
from morag_queue.core.explain import ReasonCode
from morag_queue.core.model import Frozen
from morag_queue.core.task import Task
from morag_queue.settings import Settings

from .look import Decided, Look


class Shown(Frozen):
    """`args` and `kwargs` are None where nothing tells them (a serializer other than JSON, without a ledger entry).

    `result` is what Celery's result backend has, where that is the broker's own database; `message` the text on the
    broker, decoded; `story` how workers died over the task or failed it, `[at, worker, why]` each.
    """

    now_at: float
    task: Task
    reason_code: ReasonCode
    reason: str
    args: Any = None
    kwargs: Any = None
    decisions: tuple[Decided, ...] = ()
    story: tuple[tuple[float | None, str, str], ...] = ()
    result: dict[str, Any] | None = None
    message: dict[str, Any] | None = None


def shown(broker: RedisBroker, settings: Settings, name: str) -> Shown:
    """By an id or its beginning. Raises NotFound, or UsageError for an ambiguous one."""
    look = Look(broker, settings)
    found = look.find(name)
    explanation = look.explain(found.task)
    message = decoded(found.raw) if found.raw is not None else None
    args, kwargs = _arguments(found.record, message)
    with translated(settings.redis_url):
        result: Any = broker.client.get(f"celery-task-meta-{found.task.task_id}")
        known: Any = broker.client.hget(broker.keys.attempts, f"story|{found.task.task_id}")
    story = (found.grave or {}).get("story") or (json.loads(known) if known else [])
    return Shown(
        now_at=look.picture.taken_at,
        task=found.task,
        reason_code=explanation.code,
        reason=explanation.reason,
        args=args,
        kwargs=kwargs,
        decisions=look.decisions(found),
        story=tuple((at, str(worker or ""), str(why or "")) for at, worker, why in story),
        result=_result(result),
        message=message,
    )


def _arguments(record: dict[str, Any] | None, message: dict[str, Any] | None) -> tuple[Any, Any]:
    """As the ledger has them, else out of the message's body."""
    for known in (record or {}, (record or {}).get("entry") or {}):
        if "args" in known:
            return known["args"], known.get("kwargs")
    try:
        if message is None or message.get("content-type") != "application/json":
            return None, None
        args, kwargs, _ = json.loads(b64decode(message["body"]))
    except (ValueError, TypeError):
        return None, None
    return args, kwargs


def _result(text: bytes | None) -> dict[str, Any] | None:
    try:
        found = json.loads(text) if text else None
    except ValueError:
        return None
    return {name: found.get(name) for name in ("status", "result", "date_done")} if isinstance(found, dict) else None
