"""Cordons: workers out of service. A hash that outlives the workers, which look at it with every claim."""

from collections.abc import Iterable

from redis import Redis

from morag_queue.core.model import Cordon, WorkerStatus

from . import scripts
from .client import fenced
from .keys import Keys


class Cordons:
    """Each change looks at what is there and writes in one step: two operators may act at once."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = scripts.script(client, "cordon")

    def get(self, worker: str) -> Cordon | None:
        """The cordon of a worker; None where it is in service."""
        text = self._client.hget(self._keys.cordons, worker)
        return Cordon.model_validate_json(text) if text else None

    def put(self, worker: str, cordon: Cordon | None, over: Iterable[WorkerStatus | None], *, term: str = "") -> bool:
        """Writes a cordon (None lifts it) where the present state is one of `over`; None there is "in service".

        Raises LeaseLost on a stale term.
        """
        states = [state.value if state else "" for state in over]
        text = cordon.model_dump_json() if cordon else ""
        with fenced():
            return bool(self._script(keys=[self._keys.cordons, self._keys.lease], args=[worker, text, term, *states]))
