"""Every text that morag-queue reads from the broker or writes to it: formats in one place, as typed values.

The formats are shared with other versions and with plain Celery, so that the readers never raise: a text of another
form reads as None (or as `FOREIGN`, where None is a Celery message without our header).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .corrections import WorkKind, read_corrections, read_work_kind, write_corrections
from .dead_letters import DeadLetter, Story, read_dead_letter, read_story, write_story
from .fields import escaped, text_of, whole_number
from .messages import (
    FOREIGN,
    HEADER,
    Read,
    UnackedMessage,
    header_fields,
    header_of,
    lane_entry,
    level_of,
    read_arguments,
    read_message,
    read_unacked,
    renew_message,
    requires_gpu,
    rewrite_message,
    task_id_in,
    task_id_of,
    task_of,
    text_filter,
    unacked_task_id,
)
from .open_records import open_record, with_decision
from .records import (
    LastBeat,
    LedgerRecord,
    TaskResult,
    WorkerProcess,
    completed_record,
    ended_record,
    minimal_record,
    read_held,
    read_last_beat,
    read_process,
    read_record,
    read_result,
    withdrawn_record,
    write_held,
    write_worker,
)

if TYPE_CHECKING:
    from .states import (
        BROKEN_CORDON,
        cordon_in_force,
        read_cordon,
        read_heartbeat,
        read_lease,
        read_pauses,
        read_worker,
        unreadable_worker,
    )
    from .tasks import (
        dead_task,
        ended_task,
        held_task,
        lost_task,
        submitted_entry,
        unread_task,
        waiting_entry,
        waiting_task,
        with_record,
        with_run_times,
    )

__all__ = [
    "BROKEN_CORDON",
    "FOREIGN",
    "HEADER",
    "DeadLetter",
    "LastBeat",
    "LedgerRecord",
    "Read",
    "Story",
    "TaskResult",
    "UnackedMessage",
    "WorkKind",
    "WorkerProcess",
    "completed_record",
    "cordon_in_force",
    "dead_task",
    "ended_record",
    "ended_task",
    "escaped",
    "header_fields",
    "header_of",
    "held_task",
    "lane_entry",
    "level_of",
    "lost_task",
    "minimal_record",
    "open_record",
    "read_arguments",
    "read_cordon",
    "read_corrections",
    "read_dead_letter",
    "read_heartbeat",
    "read_held",
    "read_last_beat",
    "read_lease",
    "read_message",
    "read_pauses",
    "read_process",
    "read_record",
    "read_result",
    "read_story",
    "read_unacked",
    "read_work_kind",
    "read_worker",
    "renew_message",
    "requires_gpu",
    "rewrite_message",
    "submitted_entry",
    "task_id_in",
    "task_id_of",
    "task_of",
    "text_filter",
    "text_of",
    "unacked_task_id",
    "unread_task",
    "unreadable_worker",
    "waiting_entry",
    "waiting_task",
    "whole_number",
    "with_decision",
    "with_record",
    "with_run_times",
    "withdrawn_record",
    "write_corrections",
    "write_held",
    "write_story",
    "write_worker",
]

_STATES = (
    *("BROKEN_CORDON", "cordon_in_force", "read_cordon", "read_heartbeat", "read_lease", "read_pauses", "read_worker"),
    "unreadable_worker",
)


def __getattr__(name: str) -> Any:
    # Import lazily: these need pydantic, and a worker that starts needs none of them.
    if name in __all__:
        return getattr(import_module(".states" if name in _STATES else ".tasks", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
