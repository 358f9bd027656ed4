"""Celery's remote control: questions and orders to workers. It is the only way to control a worker without the agent.

A missing answer proves nothing: a busy solo pool and a stopped process are as silent as a dead one. Celery is imported
on first use, because its import takes most of the start-up time of a command.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from morag_queue.settings import Settings

from .codec.fields import number, word

if TYPE_CHECKING:
    from celery import Celery

REFRESH_CORDON = "morag_queue_look"
"""The agent's own control command: read the worker's cordon now instead of at the next heartbeat."""

ANSWER_SECONDS = 1.0
"""How long to wait for answers unless all expected ones have arrived before; Celery's default."""

_NEVER_SECONDS = 10 * 365 * 86400

_TASK_LISTS = ("active", "reserved", "scheduled")


@dataclass(frozen=True, slots=True)
class TaskCounts:
    """The tasks that a node reports. Tasks that wait for their rate limit are in none of these counts."""

    active: int
    reserved: int
    scheduled: int

    @property
    def total(self) -> int:
        return self.active + self.reserved + self.scheduled


@dataclass(frozen=True, slots=True)
class ReportedTask:
    """A task that a node holds. `started_at` is seconds since the epoch by the node's clock, None before its start."""

    task_id: str
    name: str
    lane: str
    started_at: float | None


class CeleryControl:
    """Remote control of the workers of one fleet, by node name (`worker@host`).

    Orders are not confirmed. Questions return the answers that arrive within `ANSWER_SECONDS`, and return early when
    each node asked, or as many as `expected`, have answered.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def app(self) -> "Celery":
        """A Celery app on the broker of the fleet."""
        from celery import Celery

        broker, url = self._settings.broker, self._settings.redis_url
        app = Celery("morag_queue", set_as_current=False, broker=_kombu_url(url))
        # `sep` must be the fleet's: with another one the workers fail to answer.
        app.conf.broker_transport_options = {
            "global_keyprefix": broker.global_keyprefix,
            "sep": broker.sep,
            "master_name": broker.master_name,
            "sentinel_kwargs": broker.sentinel_kwargs,
            "socket_connect_timeout": broker.connect_timeout_seconds,
            # kombu has none: a half-open connection would stop the command for ever.
            "socket_timeout": broker.read_timeout_seconds,
            "client_name": "mq.cli",
            # kombu restores what is unacked for longer while it waits for answers; the workers' timeout is not known.
            "visibility_timeout": _NEVER_SECONDS,
        }
        return app

    # -- questions

    def ping(self, nodes: Sequence[str] | None = None) -> list[str]:
        """The nodes that answer. Without `nodes`, ask all nodes, which always takes the whole second."""
        limit = {} if nodes is None else {"limit": len(nodes)}
        answers = self.app.control.ping(destination=nodes, timeout=ANSWER_SECONDS, **limit)
        return [node for answer in answers for node in answer]

    def queues(self, node: str) -> list[str] | None:
        """The queues that a node consumes; None without an answer."""
        return self.queues_by_node([node]).get(node)

    def queues_by_node(self, nodes: Collection[str], expected: int | None = None) -> dict[str, list[str]]:
        """The queues that each node consumes, for the nodes that answer."""
        answers = self._ask("active_queues", nodes, expected)
        return {node: [str(queue.get("name", "")) for queue in queues or ()] for node, queues in answers.items()}

    def conf_by_node(self, nodes: Collection[str]) -> dict[str, Mapping[str, Any]]:
        """The Celery configuration of each node as far as it differs from the defaults, for the nodes that answer."""
        return {node: conf or {} for node, conf in self._ask("conf", nodes).items()}

    def task_counts(self, node: str) -> TaskCounts | None:
        """The tasks that a node holds; None unless it answers all three questions."""
        answers = [self._ask(question, [node]) for question in _TASK_LISTS]
        if not all(node in answer for answer in answers):
            return None
        return TaskCounts(*(len(answer[node] or ()) for answer in answers))

    def task_ids(self, nodes: Collection[str]) -> set[str]:
        """The ids of the active, reserved and scheduled tasks of the nodes that answer."""
        return {task.task_id for tasks in self.tasks_by_node(nodes).values() for task in tasks}

    def tasks_by_node(self, nodes: Collection[str]) -> dict[str, list[ReportedTask]]:
        """The active, reserved and scheduled tasks of each node that answers."""
        found: dict[str, list[ReportedTask]] = {}
        for question in _TASK_LISTS:
            for node, tasks in self._ask(question, nodes).items():
                known = found.setdefault(node, [])
                known += filter(None, map(_reported, tasks if isinstance(tasks, list) else ()))
        return found

    # -- orders

    def refresh_cordon(self, nodes: Sequence[str]) -> None:
        """Make workers with the agent read their cordon now."""
        self.app.control.broadcast(REFRESH_CORDON, destination=list(nodes))

    def shut_down(self, nodes: Sequence[str]) -> None:
        """Shut down warmly: running tasks finish first."""
        self.app.control.shutdown(destination=list(nodes))

    def revoke(self, node: str, task_id: str, *, terminate: bool) -> None:
        """Discard a task before it starts; with `terminate`, also kill the process that runs it.

        The worker keeps the revocation in memory only: a restart forgets it.
        """
        self.app.control.revoke(task_id, destination=[node], terminate=terminate)

    def cancel_consumer(self, node: str, queues: Iterable[str]) -> None:
        """Stop consuming the queues, until the worker restarts."""
        for queue in queues:
            self.app.control.cancel_consumer(queue, destination=[node])

    def add_consumer(self, node: str, queues: Iterable[str]) -> None:
        """Consume the queues (again)."""
        for queue in queues:
            self.app.control.add_consumer(queue, destination=[node])

    def enable_events(self, nodes: Collection[str]) -> None:
        """Send task events, as with `celery worker -E`."""
        self.app.control.enable_events(destination=list(nodes))

    def _ask(self, question: str, nodes: Collection[str], expected: int | None = None) -> dict[str, Any]:
        """The answers by node to one of Celery's inspection commands."""
        from celery.exceptions import CeleryWarning

        limit = len(nodes) if expected is None else min(expected, len(nodes))
        inspect = self.app.control.inspect(destination=sorted(nodes), timeout=ANSWER_SECONDS, limit=limit)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CeleryWarning)  # about two nodes of one name; `doctor` reports them
            return dict(getattr(inspect, question)() or {})


def _reported(task: Any) -> ReportedTask | None:
    """Read a task of an answer; None for another form."""
    request = task.get("request", task) if isinstance(task, dict) else None
    if not isinstance(request, dict) or not (task_id := word(request.get("id"))):
        return None
    info = request.get("delivery_info")
    lane = word(info.get("routing_key")) if isinstance(info, dict) else ""
    return ReportedTask(task_id, word(request.get("name")), lane, number(request.get("time_start")))


def _kombu_url(url: str) -> str:
    """The URL with kombu's own scheme for a Unix socket."""
    if not url.startswith("unix://"):
        return url
    return "redis+socket://" + url.removeprefix("unix://").replace("?db=", "?virtual_host=", 1)
