"""The levels that work is queued at: as configured, or by the workers that are connected."""

from collections.abc import Callable, Set
from time import monotonic
from typing import TYPE_CHECKING

from morag_queue.core.levels import DEFAULT_STEPS, LEVELS
from morag_queue.settings import Settings

from .client_list import client_list

if TYPE_CHECKING:
    from redis import Redis

_CHECK_SECONDS = 10.0
"""How long an answer of CLIENT LIST counts: a producer and `stats --live` take a snapshot every other second."""


class QueueSteps:
    """The levels of one fleet, by its settings."""

    def __init__(self, client: "Redis", settings: Settings) -> None:
        self._client, self._setting = client, settings.broker.priority_steps
        self._is_mixed, self._checked_at = False, float("-inf")

    def of(self, nodes: frozenset[str], agents: Callable[[], Set[str]]) -> tuple[int, ...]:
        """Return all ten levels, or kombu's default steps while a worker without the agent is connected.

        `nodes` are those with a mailbox, `agents` returns those with the agent.

        Such a worker has a mailbox, but a mailbox outlives a worker that was killed. So where there is one, CLIENT LIST
        tells whether a connection without the name of an agent listens to remote control.
        """
        if self._setting != "auto":
            return self._setting
        if monotonic() - self._checked_at > _CHECK_SECONDS:
            candidates = nodes - agents()
            self._is_mixed, self._checked_at = bool(candidates) and self._has_listener(), monotonic()
        return DEFAULT_STEPS if self._is_mixed else LEVELS

    def _has_listener(self) -> bool:
        from redis.exceptions import NoPermissionError

        try:
            return client_list(self._client).agentless_workers > 0
        except NoPermissionError:
            return True  # all readers poll the default steps
