"""Workers without the agent: found by their control mailboxes, asked what they have, kept from running it twice.

What they answer is less than an agent says. A task that waits for its rate limit is in no answer, so its message is not
kept alive; and no answer means nothing at all.
"""

import json
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redis import Redis

from morag_queue.core.doctor.facts import AgentlessWorker
from morag_queue.settings import Settings

from .celery_control import ANSWER_SECONDS, CeleryControl
from .client_list import client_list
from .keys import Keys
from .scripts import Call, Script

VISIBILITY_S = 3600.0
"""kombu's default visibility timeout."""


_A_CALL = 500


@dataclass(frozen=True)
class TouchCall(Call):
    SCRIPT: ClassVar = "touch"
    KEYS: ClassVar = ("unacked", "unacked_index")

    tags: Sequence[str]


class AgentlessWorkers:
    """Of one fleet. Each question waits for its answers, a second at most."""

    def __init__(self, client: Redis, keys: Keys, control: CeleryControl) -> None:
        self._client, self._keys, self._control = client, keys, control
        self._touch = Script(client, keys, TouchCall)

    def nodes(self, registered: Collection[str]) -> list[str]:
        """Node names that answer and are not `registered` with an agent."""
        bound: Any = self._client.smembers(f"{self._keys.prefix}_kombu.binding.celery.pidbox")
        known = {one.decode(errors="replace").rpartition(self._keys.sep)[2] for one in bound}
        asked = sorted({one.removesuffix(".celery.pidbox") for one in known} - set(registered))
        return sorted(self._control.ping(asked)) if asked else []

    def visibility_seconds(self, nodes: Sequence[str]) -> float:
        """The shortest visibility timeout of these."""
        found = [VISIBILITY_S]
        for conf in self._ask(nodes, "conf").values():
            options = (conf or {}).get("broker_transport_options") or {}
            found.append(float(options.get("visibility_timeout", VISIBILITY_S)))
        return min(found)

    def in_hand(self, nodes: Sequence[str]) -> set[str]:
        """The ids of the tasks that they say they have: running, prefetched, and with an eta."""
        ids = set()
        for question in ("active", "reserved", "scheduled"):
            for tasks in self._ask(nodes, question).values():
                ids |= {str((one.get("request") or one).get("id")) for one in tasks or ()}
        return ids

    def running(self, registered: Collection[str]) -> tuple[set[str], int]:
        """The ids of what they have, and how many of them did not answer and may have anything."""
        nodes = self.nodes(registered)
        ids = self.in_hand(nodes) if nodes else set()
        return ids, max(client_list(self._client).agentless_listeners - len(nodes), 0)

    def keep_alive(self, task_ids: Collection[str]) -> int:
        """Touches the messages of these tasks; how many. What a worker with the agent has, it touches itself."""
        tags = [tag for tag, task_id in self._taken() if task_id in task_ids]
        parts = (tags[start : start + _A_CALL] for start in range(0, len(tags), _A_CALL))
        return sum(int(self._touch(TouchCall(part))) for part in parts)

    def enable_events(self, nodes: Iterable[str]) -> None:
        """Tells them to send task events, as with -E."""
        self._control.app.control.enable_events(destination=list(nodes))

    def _taken(self) -> Iterator[tuple[str, str]]:
        """Delivery tags and task ids of the messages in `unacked` that have no owner."""
        owned: Any = set(self._client.hkeys(self._keys.held))
        for tag, record in self._client.hscan_iter(self._keys.unacked, count=_A_CALL):
            if tag not in owned:
                try:
                    yield tag.decode(), str(json.loads(record)[0]["headers"]["id"])
                except (ValueError, TypeError, KeyError, IndexError):
                    continue  # foreign

    def _ask(self, nodes: Sequence[str], question: str) -> dict[str, Any]:
        from celery.exceptions import CeleryWarning

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CeleryWarning)  # two of one name: `doctor` says it better
            asked = self._control.app.control.inspect(destination=list(nodes), timeout=ANSWER_SECONDS, limit=len(nodes))
            return dict(getattr(asked, question)() or {})


_CONF = (
    "task_acks_late",
    "task_reject_on_worker_lost",
    "worker_cancel_long_running_tasks_on_connection_loss",
    "worker_prefetch_multiplier",
    "worker_disable_prefetch",
    "broker_transport_options",
)


def agentless_workers(
    client: Redis, settings: Settings, expected: int, registered: frozenset[str]
) -> tuple[AgentlessWorker, ...]:
    """The workers that answer and are not `registered` (Celery node names). `expected` answers end the waiting."""
    if not expected:
        return ()
    from celery import Celery
    from celery.exceptions import CeleryWarning

    prefix = settings.broker.global_keyprefix
    bound: Any = client.smembers(f"{prefix}_kombu.binding.celery.pidbox")
    nodes = {
        member.decode(errors="replace").rpartition(settings.broker.sep)[2].removesuffix(".celery.pidbox")
        for member in bound
    } - registered
    if not nodes:
        return ()
    app = Celery(broker=settings.redis_url, set_as_current=False)
    app.conf.broker_transport_options = {"global_keyprefix": prefix, "sep": settings.broker.sep}
    app.conf.broker_connection_timeout = settings.broker.connect_timeout_seconds
    if settings.redis_url.startswith("sentinel://"):
        app.conf.broker_transport_options |= {
            "master_name": settings.broker.master_name, "sentinel_kwargs": settings.broker.sentinel_kwargs,
        }  # fmt: skip
    limit = min(expected, len(nodes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CeleryWarning)  # two of one name: `check_names` says it better
            ask = app.control.inspect(destination=sorted(nodes), timeout=ANSWER_SECONDS, limit=limit)
            queues = ask.active_queues() or {}
            ask = app.control.inspect(destination=sorted(queues), timeout=ANSWER_SECONDS, limit=len(queues))
            conf = (ask.conf() or {}) if queues else {}
    finally:
        app.close()
    return tuple(
        AgentlessWorker(
            node=node,
            queues=tuple(str(queue.get("name", "")) for queue in answered or ()),
            conf={name: value for name, value in (conf.get(node) or {}).items() if name in _CONF},
        )
        for node, answered in sorted(queues.items())
    )
