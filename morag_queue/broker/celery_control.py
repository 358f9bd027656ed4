"""Celery's remote control: questions and orders to workers, the only way to those without the agent.

No answer means nothing: a busy solo pool and a stopped process are as silent as a dead one. Celery is imported when
something is asked, not before.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from morag_queue.settings import Settings

if TYPE_CHECKING:
    from celery import Celery

LOOK = "morag_queue_look"
"""The agent's own command: look at your cordon now."""


ANSWER_SECONDS = 1.0
"""How long is waited for nodes of which it is not known how many there are; Celery's default."""


@dataclass(frozen=True, slots=True)
class NodeTasks:
    """What a node says it has in hand. Tasks that wait for their rate limit are in none of these figures."""

    active: int
    reserved: int
    scheduled: int

    @property
    def total(self) -> int:
        return self.active + self.reserved + self.scheduled


class CeleryControl:
    """Orders are not confirmed; questions give what answered in time."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def app(self) -> "Celery":
        """A Celery app that speaks to this fleet as its workers do."""
        from celery import Celery

        broker, url = self._settings.broker, self._settings.redis_url
        app = Celery("morag_queue", set_as_current=False, broker=_as_kombu_writes(url))
        # With another separator than theirs the workers could not answer.
        app.conf.broker_transport_options = {
            "global_keyprefix": broker.global_keyprefix,
            "sep": broker.sep,
            "master_name": broker.master_name,
            "sentinel_kwargs": broker.sentinel_kwargs,
            "socket_connect_timeout": broker.connect_timeout_seconds,
            "client_name": "mq.cli",
        }
        return app

    def ping(self, nodes: Sequence[str] | None = None) -> list[str]:
        """The nodes that answer; of all nodes where none are named, which takes a whole second."""
        limit = {} if nodes is None else {"limit": len(nodes)}
        answers = self.app.control.ping(destination=nodes, timeout=ANSWER_SECONDS, **limit)
        return [node for answer in answers for node in answer]

    def look(self, nodes: Sequence[str]) -> None:
        """Tells workers with the agent to look at their cordons."""
        self.app.control.broadcast(LOOK, destination=list(nodes))

    def shut_down(self, nodes: Sequence[str]) -> None:
        """A warm shutdown: what runs is finished first."""
        self.app.control.shutdown(destination=list(nodes))

    def revoke(self, node: str, task_id: str, *, terminate: bool) -> None:
        """It is dropped when its turn comes; with `terminate` the process that runs it is killed as well.

        A worker keeps this in memory: one that restarts has forgotten it.
        """
        self.app.control.revoke(task_id, destination=[node], terminate=terminate)

    def queues(self, node: str) -> list[str] | None:
        """The queues that a node reads; None without an answer."""
        answer: Any = self._ask(node).active_queues()
        return [queue["name"] for queue in answer[node]] if answer and node in answer else None

    def cancel_consumer(self, node: str, queues: Iterable[str]) -> None:
        for queue in queues:
            self.app.control.cancel_consumer(queue, destination=[node])

    def add_consumer(self, node: str, queues: Iterable[str]) -> None:
        for queue in queues:
            self.app.control.add_consumer(queue, destination=[node])

    def busy(self, node: str) -> NodeTasks | None:
        """What a node has in hand; None where it does not answer to each of the questions."""
        ask = self._ask(node)
        answers: list[Any] = [ask.active(), ask.reserved(), ask.scheduled()]
        if not all(answer and node in answer for answer in answers):
            return None
        return NodeTasks(*(len(answer[node]) for answer in answers))

    def _ask(self, node: str) -> Any:
        return self.app.control.inspect(destination=[node], timeout=ANSWER_SECONDS, limit=1)


def _as_kombu_writes(url: str) -> str:
    """kombu has its own scheme for a socket in the file system."""
    if not url.startswith("unix://"):
        return url
    return "redis+socket://" + url.removeprefix("unix://").replace("?db=", "?virtual_host=", 1)
