"""The compact form of an open ledger record, which every waiting task has in the server's memory.

    {"state":"queued", … ,"open":[enqueued at, queue, level, …]}

Before `open` are the strings that differ from their defaults: `priority`, `requires`, `worker`, `source`, and `lane`,
which is the queue's name by default. The items of `open` are named by `ITEMS`. A name of a field outside of `open`
counts before the item: scripts and other versions write the place of a moved task there. `lua/lib/open_record.lua`
reads the same form. Nothing here imports pydantic: a completion reads records, too.

Records stay on a server when the version changes: the tables here may only grow.
"""

import re
from collections.abc import Mapping
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, Final

ITEMS: Final = (
    "enqueued_at", "queue", "level", "estimated_minutes", "task", "content_type", "submission", "attempt", "args",
    "kwargs", "decision",
)  # fmt: skip

TASKS: Final = (
    "morag.worker.process_file_task",
    "morag.worker.process_url_task",
    "morag.worker.process_web_page_task",
    "morag.worker.process_youtube_video_task",
)
"""Names that are written as a number, which counts from 1."""

NUMBERS: Final[Mapping[str, int]] = {name: number for number, name in enumerate(TASKS, 1)}

_TYPED = TASKS[:2]
"""The tasks whose second argument is the content type."""

_PHRASES = {
    "a": " could take it, all full or suspect: it waits in ",
    "b": " is expected to take it, with ",
    "c": " fits best, with ",
    "d": " of at most ",
    "e": " slots in use",
    "f": " tasks assigned",
    "g": ": it waits in ",
    "h": " slot in use",
}
"""Phrases of the router's reasons. Each starts with a sign that is no code."""


def usual_args(task: str, source: str, content_type: str | None) -> str:
    """The arguments of one of `TASKS` without options, as JSON; `source` is JSON."""
    kind = f"{quoted(content_type)}, " if content_type and task in _TYPED else ""
    return f"[{source}, {kind}{{}}]"


def short_decision(decision: Mapping[str, Any], queue: str) -> list[Any]:
    """[confidence, reason, worker, action], without the last ones that follow from the others.

    `queue` is that of the record.
    """
    action, worker = decision["action"], decision["worker_id"]
    reason = decision["reason"].replace("~", "~~")
    for code, phrase in _words(queue, worker):
        reason = reason.replace(phrase, f"~{code}")
    found = [decision["confidence"], reason]
    if action != _usual_action(worker):
        return [*found, worker, action]
    return [*found, worker] if worker else found


def expand(fields: dict[str, Any]) -> None:
    """Give an open record the names and the values that its form leaves out. Also of earlier versions."""
    decided_on = fields.get("queue")
    if isinstance(items := fields.get("open"), list):
        del fields["open"]
        for name, item in zip(ITEMS, items, strict=False):
            if item is not None and name not in fields:
                fields[name] = item
        decided_on = items[1] if len(items) > 1 else None
        fields.setdefault("priority", "NORMAL")
        fields.setdefault("lane", fields.get("queue"))
        _expand_call(fields)
    args = fields.get("args")
    if "source" not in fields and isinstance(args, list) and args and isinstance(args[0], str):
        fields["source"] = args[0]
    if isinstance(decision := fields.get("decision"), list):
        fields["decision"] = _decision(decision, decided_on)


def _expand_call(fields: dict[str, Any]) -> None:
    task, args = fields.get("task"), fields.get("args")
    if isinstance(task, int) and 1 <= task <= len(TASKS):
        fields["task"] = task = TASKS[task - 1]
    if isinstance(args, str):
        kind = [fields["content_type"]] if task in _TYPED and "content_type" in fields else []
        fields["args"] = [args, *kind, {}]
    if fields.get("kwargs") == {}:
        del fields["kwargs"]


def _decision(items: list[Any], queue: Any) -> dict[str, Any] | None:
    match items:
        case [str(action), confidence, reason, *more]:  # of the version before the compact form
            worker = more[0] if more else None
        case [confidence, str(reason), *more]:
            worker, action = [*more, None, None][:2]
            action, reason = action or _usual_action(worker), _full(reason, queue, worker)
        case _:
            return None
    return {
        "action": action, "target_queue": queue, "worker_id": worker, "reason": reason, "confidence": confidence,
    }  # fmt: skip


def _usual_action(worker: str | None) -> str:
    return "assign" if worker else "hold"


def _words(queue: Any, worker: Any) -> list[tuple[str, str]]:
    """Codes and what they stand for, in the order in which they are replaced."""
    names = [("w", worker), ("q", queue)]
    known = [(code, name) for code, name in names if isinstance(name, str) and name and "~" not in name]
    return [*known, *_PHRASES.items()]


def _full(reason: str, queue: Any, worker: Any) -> str:
    words = {"~": "~", "w": f"{worker}", "q": f"{queue}", **_PHRASES}
    return _CODE.sub(lambda code: words.get(code[1], code[0]), reason)


_CODE = re.compile("~(.)")
