"""dead: the tasks that are not run again unasked, and what a person decides about them."""

from collections.abc import Sequence

from morag_queue.broker.connection import translated
from morag_queue.broker.redis import RedisBroker
from morag_queue.broker.task_lookup import buried_task
from morag_queue.core.model import Frozen
from morag_queue.core.task import Task, TaskFilter
from morag_queue.errors import MoragQueueError, NotFound, UsageError
from morag_queue.settings import Settings

from .names import resolve
from .task import TaskDetails, TaskExplainer, task_details
from .task_editor import NOTED

_VERB = "dead drop"


class DeadPage(Frozen):
    """The latest first."""

    dead: tuple[Task, ...]
    total: int
    has_more: bool


class DropResult(Frozen):
    """`unchanged` were no longer in `dead`; `failed` are not known at all, and why."""

    dropped: int
    tasks: tuple[str, ...]
    unchanged: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    dry_run: bool = False
    journal: str | None = None


def dead_tasks(broker: RedisBroker, wanted: TaskFilter) -> list[Task]:
    """All that are meant, the latest first."""
    now = broker.now()
    with translated(broker.settings.redis_url):
        tasks = [buried_task(grave.task_id, grave.fields) for grave in broker.dead.all()]
    return [task for task in tasks if wanted.matches(task, now)]


def page(broker: RedisBroker, wanted: TaskFilter, limit: int | None) -> DeadPage:
    found = dead_tasks(broker, wanted)
    shown_ones = found[:limit]
    return DeadPage(dead=tuple(shown_ones), total=len(found), has_more=len(found) > len(shown_ones))


def named(broker: RedisBroker, name: str) -> str:
    """The one in `dead` of that id, or whose id begins so. Raises NotFound, UsageError."""
    with translated(broker.settings.redis_url):
        return resolve("task in dead", name, (grave.task_id for grave in broker.dead.all()))


def show(broker: RedisBroker, settings: Settings, name: str) -> TaskDetails:
    """Its whole story. Raises NotFound, UsageError."""
    return task_details(broker, settings, named(broker, name))


def drop(
    broker: RedisBroker, settings: Settings, names: Sequence[str], *, who: str, reason: str = "", dry_run: bool = False
) -> DropResult:
    """Forgets them for good, messages and all. One that was dropped before is left alone, an unknown one told."""
    wanted, unchanged, failed = list[str](), list[str](), list[tuple[str, str]]()
    for name in dict.fromkeys(names):
        try:
            wanted.append(named(broker, name))
        except (NotFound, UsageError) as error:
            if isinstance(error, NotFound) and _was_known(broker, settings, name):
                unchanged.append(name)
            else:
                failed.append((name, str(error)))
    entry_id, count = None, len(wanted)
    if wanted and not dry_run:
        with translated(settings.redis_url):
            count = broker.dead.drop(wanted)
            changes = {"count": count, "unnamed": max(len(wanted) - NOTED, 0), "dropped": wanted[:NOTED]}
            subject = wanted[0] if len(wanted) == 1 else f"{len(wanted)} tasks"
            entry_id = broker.journal.write(who, _VERB, subject, reason=reason, changes=changes)
    return DropResult(
        dropped=count, tasks=tuple(wanted), unchanged=tuple(unchanged), failed=tuple(failed), dry_run=dry_run,
        journal=entry_id,
    )  # fmt: skip


def _was_known(broker: RedisBroker, settings: Settings, name: str) -> bool:
    """A second drop is quiet: the ledger still has the task as ended, or the journal knows of the first one."""
    try:
        return TaskExplainer(broker, settings).find(name).task.has_ended
    except MoragQueueError:
        with translated(settings.redis_url):
            return any(entry.verb == _VERB for entry in broker.journal.about(name))
