"""A waiting task in a new form: its message and its ledger entry, which have to agree."""

import json
from typing import Any

from morag_queue.broker.locate import Found
from morag_queue.broker.message import rewritten
from morag_queue.broker.steering import Change
from morag_queue.core.lanes import split

from .steer import Put


def rewriting(found: Found, outcome: str, detail: str, *, lane: str, level: int, **entry: Any) -> Put:
    """To `lane` and `level`; `entry` are fields of our header, which the ledger has too (None: taken out)."""
    task = found.task
    assert found.raw is not None
    assert task.level is not None
    record = ""
    if found.record is not None:
        fields = {**found.record, "lane": lane, "level": level, **entry}
        record = json.dumps({name: value for name, value in fields.items() if value is not None})
    change = Change(
        task_id=task.task_id, lane=task.lane, level=task.level, depth=task.depth or 1, raw=found.raw,
        text=rewritten(found.raw, lane=lane, level=level, **entry), record=record, to_lane=lane, to_level=level,
        to_worker_lane=split(lane)[1] is not None,
    )  # fmt: skip
    before = {"lane": task.lane, "level": task.level, "priority": task.priority.name, "worker": task.pinned_to}
    after = {**before, "lane": lane, "level": level, **{k: v for k, v in entry.items() if k in before}}
    return Put(change, outcome, detail, before, after)
