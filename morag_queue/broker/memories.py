"""What the balancing loop keeps in mind, on the broker: a new leader, and every run from cron, goes on from there."""

from typing import Any

from pydantic import ValidationError
from redis import Redis

from morag_queue.core.memory import Memory

from . import scripts
from .client import fenced
from .keys import Keys


class Memories:
    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = scripts.script(client, "remember")

    def load(self) -> Memory:
        """What the last turn has left. Another version's, which cannot be read, is as if nothing was remembered."""
        text: Any = self._client.get(self._keys.memory)
        try:
            return Memory() if text is None else Memory.model_validate_json(text)
        except ValidationError:
            return Memory()

    def save(self, memory: Memory, *, term: str = "") -> None:
        with fenced():
            self._script(keys=[self._keys.memory, self._keys.lease], args=[memory.model_dump_json(), term])
