"""dead: list, show and drop the tasks that are not run again automatically."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Frozen
from morag_queue.core.task import Task, TaskFilter
from morag_queue.errors import NotFound, UsageError
from morag_queue.settings import Settings

from .change import Change
from .names import resolve
from .task import TaskDetails, TaskExplainer, task_details
from .task_editor import JOURNALED_TASKS
from .tasks import dead_tasks

_VERB = "dead drop"

L = TypeVar("L", str, tuple[str, str, str])


class DeadPage(Frozen):
    """Dead letters, the latest first. `total` counts all that match."""

    dead: tuple[Task, ...]
    total: int
    has_more: bool


class DropResult(Frozen):
    """`unchanged` are tasks that were dropped before; `failed` has (name, reason) of each name that matches no task."""

    dropped: int
    tasks: tuple[str, ...]
    unchanged: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False
    journal: str | None = None


def select(broker: RedisBroker, wanted: TaskFilter) -> list[Task]:
    """Return the matching dead letters, the latest first."""
    return dead_tasks(broker, wanted, broker.now())


def page(broker: RedisBroker, wanted: TaskFilter, limit: int | None) -> DeadPage:
    """Return up to `limit` matching dead letters."""
    found = select(broker, wanted)
    return DeadPage(dead=tuple(found[:limit]), total=len(found), has_more=limit is not None and len(found) > limit)


def show(broker: RedisBroker, settings: Settings, name: str) -> TaskDetails:
    """Answer `dead show`. Raises NotFound, UsageError."""
    return task_details(broker, settings, _resolve(name, _task_ids(broker)))


def drop(
    broker: RedisBroker, settings: Settings, names: Sequence[str], *, who: str, reason: str = "", dry_run: bool = False
) -> DropResult:
    """Remove tasks from `dead`, with their messages. A task that was dropped before is not an error.

    The undo of the change has the letters until the retention time ends.
    """
    task_ids = _task_ids(broker)
    wanted: list[str] = []
    problems: dict[str, NotFound | UsageError] = {}
    for name in dict.fromkeys(names):
        try:
            wanted.append(_resolve(name, task_ids))
        except (NotFound, UsageError) as error:
            problems[name] = error
    missing = [name for name, error in problems.items() if isinstance(error, NotFound)]
    unchanged = _dropped_before(broker, settings, missing)
    entry_id, count = None, len(wanted)
    if wanted and not dry_run:
        dropped, entry_id = drop_letters(broker, wanted, _VERB, who=who, reason=reason)
        count = len(dropped)
    return DropResult(
        dropped=count, tasks=tuple(wanted), unchanged=tuple(unchanged), dry_run=dry_run, journal=entry_id,
        failed=tuple((name, str(error)) for name, error in problems.items() if name not in unchanged),
    )  # fmt: skip


def drop_letters(
    broker: RedisBroker, wanted: Sequence[str], verb: str, *, who: str, reason: str = "", **facts: Any
) -> tuple[list[str], str | None]:
    """Drop dead letters. Return the ids of those that were there, and the id of the journal entry."""
    return _change_letters(broker, wanted, verb, "dropped", broker.dead.drop, who, reason, facts)


def restore_letters(
    broker: RedisBroker, wanted: Sequence[tuple[str, str, str]], verb: str, *, who: str, reason: str = "", **facts: Any
) -> tuple[list[str], str | None]:
    """Put letters back: (task id, since when it was dead, text). Return as `drop_letters`."""
    return _change_letters(broker, wanted, verb, "restored", broker.dead.restore, who, reason, facts)


def _change_letters(
    broker: RedisBroker,
    wanted: Sequence[L],
    verb: str,
    what: str,
    apply: Callable[[Sequence[L], str], list[bool]],
    who: str,
    reason: str,
    facts: Mapping[str, Any],
) -> tuple[list[str], str | None]:
    change = Change(broker, verb, who=who, reason=reason)
    ids = [one if isinstance(one, str) else one[0] for one in wanted]
    change.begin(ids[0] if len(ids) == 1 else f"{len(ids)} tasks", facts)
    with broker.translated():
        done = [task_id for task_id, is_done in zip(ids, apply(wanted, change.change_id), strict=True) if is_done]
    if not done:
        change.withdraw()
        return [], None
    changes = {
        "count": len(done), "unnamed": max(len(done) - JOURNALED_TASKS, 0), what: done[:JOURNALED_TASKS], **facts,
    }  # fmt: skip
    return done, change.finish(done[0] if len(done) == 1 else f"{len(done)} tasks", changes)


def _task_ids(broker: RedisBroker) -> list[str]:
    with broker.translated():
        return [dead.task_id for dead in broker.dead.all()]


def _resolve(name: str, task_ids: Sequence[str]) -> str:
    return resolve("task in dead", name, task_ids)


def _dropped_before(broker: RedisBroker, settings: Settings, names: Sequence[str]) -> list[str]:
    """Return those names that the ledger still has as ended, or whose drop is in the journal."""
    if not names:
        return []
    explainer = TaskExplainer(broker, settings)
    return [name for name in names if _was_dropped(broker, explainer, name)]


def _was_dropped(broker: RedisBroker, explainer: TaskExplainer, name: str) -> bool:
    try:
        return explainer.find(name).task.has_ended
    except (NotFound, UsageError):
        with broker.translated():
            return any(entry.verb == _VERB for entry in broker.journal.about(name))
