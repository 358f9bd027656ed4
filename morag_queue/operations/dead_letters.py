"""dead: list, show and drop the tasks that are not run again automatically."""

from collections.abc import Sequence

from morag_queue.broker.redis import RedisBroker
from morag_queue.core.model import Frozen
from morag_queue.core.task import Task, TaskFilter
from morag_queue.errors import NotFound, UsageError
from morag_queue.settings import Settings

from .names import resolve
from .task import TaskDetails, TaskExplainer, task_details
from .task_editor import JOURNALED_TASKS
from .tasks import dead_tasks

_VERB = "dead drop"


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
    """Remove tasks from `dead` for good, with their messages. A task that was dropped before is not an error."""
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
        with broker.translated():
            count = broker.dead.drop(wanted)
            changes = {
                "count": count,
                "unnamed": max(len(wanted) - JOURNALED_TASKS, 0),
                "dropped": wanted[:JOURNALED_TASKS],
            }
            subject = wanted[0] if len(wanted) == 1 else f"{len(wanted)} tasks"
            entry_id = broker.journal.write(who, _VERB, subject, reason=reason, changes=changes)
    return DropResult(
        dropped=count, tasks=tuple(wanted), unchanged=tuple(unchanged), dry_run=dry_run, journal=entry_id,
        failed=tuple((name, str(error)) for name, error in problems.items() if name not in unchanged),
    )  # fmt: skip


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
