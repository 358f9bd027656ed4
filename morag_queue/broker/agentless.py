"""Workers without the agent: find them, ask for the tasks they hold, and keep those tasks from running twice.

Their answers are incomplete: a task that waits for its rate limit is in none of them, so its message is not kept alive.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from redis import Redis

from morag_queue.core.doctor.facts import AgentlessWorker

from .celery_control import CeleryControl
from .client_list import client_list
from .codec import UnackedMessage, read_unacked, text_of, unacked_task_id
from .keys import Keys
from .scripts import Call, Script
from .snapshot import node_names

VISIBILITY_S = 3600.0
"""kombu's default visibility timeout in seconds."""

_BATCH = 500

_SAFETY_SETTINGS = (
    "task_acks_late",
    "task_reject_on_worker_lost",
    "worker_cancel_long_running_tasks_on_connection_loss",
    "worker_prefetch_multiplier",
    "worker_disable_prefetch",
    "broker_transport_options",
)


@dataclass(frozen=True)
class TouchCall(Call):
    SCRIPT: ClassVar = "touch"
    KEYS: ClassVar = ("unacked", "unacked_index")

    tags: Sequence[str]


class AgentlessWorkers:
    """The workers of one fleet that run without the agent. `registered` are the node names of those with the agent."""

    def __init__(self, client: Redis, keys: Keys, control: CeleryControl) -> None:
        self._client, self._keys, self._control = client, keys, control
        self._touch = Script(client, keys, TouchCall)

    def nodes(self, registered: Collection[str]) -> list[str]:
        """The node names that answer a ping."""
        candidates = self._candidates(registered)
        return sorted(self._control.ping(candidates)) if candidates else []

    def describe(self, registered: Collection[str], expected: int) -> tuple[AgentlessWorker, ...]:
        """The queues and the settings of each worker that answers; returns early after `expected` answers."""
        candidates = self._candidates(registered) if expected else []
        if not candidates:
            return ()
        queues = self._control.queues_by_node(candidates, expected)
        conf = self._control.conf_by_node(queues) if queues else {}
        return tuple(
            AgentlessWorker(
                node=node,
                queues=tuple(names),
                conf={name: value for name, value in conf.get(node, {}).items() if name in _SAFETY_SETTINGS},
            )
            for node, names in sorted(queues.items())
        )

    def visibility_seconds(self, nodes: Collection[str]) -> float:
        """The shortest visibility timeout of these nodes; kombu's default if it is shorter, or without an answer."""
        options = (conf.get("broker_transport_options") or {} for conf in self._control.conf_by_node(nodes).values())
        return min([VISIBILITY_S, *(float(option.get("visibility_timeout", VISIBILITY_S)) for option in options)])

    def in_flight(self, nodes: Collection[str]) -> set[str]:
        """The ids of the tasks that these nodes report: running, prefetched, and waiting for their ETA."""
        return self._control.task_ids(nodes)

    def in_flight_and_silent(self, registered: Collection[str]) -> tuple[set[str], int]:
        """The ids of all reported tasks, and the number of workers that did not answer and may hold any task."""
        nodes = self.nodes(registered)
        task_ids = self.in_flight(nodes) if nodes else set()
        return task_ids, max(client_list(self._client).agentless_workers - len(nodes), 0)

    def holds(self, task_id: str) -> bool:
        """Whether the message of a task is in `unacked` without an owner record."""
        return any(held == task_id for _, held in self._unowned_messages())

    def keep_alive(self, task_ids: Collection[str]) -> int:
        """Restart the visibility timeout of the messages of these tasks; return how many there were.

        Skips messages with an owner record: workers with the agent keep their own messages alive.
        """
        tags = [tag for tag, task_id in self._unowned_messages() if task_id in task_ids]
        batches = (tags[start : start + _BATCH] for start in range(0, len(tags), _BATCH))
        return sum(int(self._touch(TouchCall(batch))) for batch in batches)

    def unowned_messages(self) -> dict[str, UnackedMessage]:
        """The messages in `unacked` without an owner record, by task id."""
        owned: Any = set(self._client.hkeys(self._keys.held))
        found = {}
        for tag, record in self._client.hscan_iter(self._keys.unacked, count=_BATCH):
            message, task_id = read_unacked(record), unacked_task_id(record)
            if tag not in owned and message is not None and task_id is not None:
                found[task_id] = message
        return found

    def enable_events(self, nodes: Collection[str]) -> None:
        """Make these nodes send task events."""
        self._control.enable_events(nodes)

    def _candidates(self, registered: Collection[str]) -> list[str]:
        """The nodes with a control mailbox, which outlives the node, except those with the agent."""
        mailboxes: Any = self._client.smembers(f"{self._keys.prefix}_kombu.binding.celery.pidbox")
        return sorted(node_names(mailboxes, self._keys.sep) - set(registered))

    def _unowned_messages(self) -> Iterator[tuple[str, str]]:
        """Delivery tag and task id of each message in `unacked` without an owner record."""
        owned: Any = set(self._client.hkeys(self._keys.held))
        for tag, record in self._client.hscan_iter(self._keys.unacked, count=_BATCH):
            if tag not in owned and (task_id := unacked_task_id(record)) is not None:
                yield text_of(tag), task_id
