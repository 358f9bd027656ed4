"""The lease in Redis, see `lua/lease.lua`."""

from typing import Any

from pydantic import ValidationError
from redis import Redis

from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.model import Lease

from . import scripts
from .connection import fenced
from .keys import Keys


class Leases:
    """Who leads one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = scripts.script(client, "lease")

    def take(self, holder: str, who: str, verb: str, seconds: float) -> Lease:
        """The lease that stands after the call: the caller's, with a new term, or that of who has it.

        Whoever has it already and takes it again renews it.
        """
        return Lease.model_validate_json(self._call("take", holder, "", seconds, who, verb))

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """The same lease for `seconds` from now; None when it is no longer the caller's."""
        text = self._call("renew", lease.holder, lease.term, seconds)
        return None if text is None else Lease.model_validate_json(text)

    def give_up(self, lease: Lease) -> bool:
        """False when it was no longer the caller's."""
        return bool(self._call("give_up", lease.holder, lease.term))

    def current(self) -> Lease | None:
        """Who leads now."""
        text: Any = self._client.get(self._keys.lease)
        return None if text is None else Lease.model_validate_json(text)

    def was_led(self) -> bool:
        """Whether a `watch` has led within the last day: then somebody counts on it."""
        return bool(self._client.exists(self._keys.watched))

    def _call(
        self, does: str, holder: str, term: int | str, seconds: float = 0.0, who: str = "", verb: str = ""
    ) -> Any:
        arguments = [does, holder, term, max(1, round(seconds * 1000)), who, verb]
        return self._script(keys=[self._keys.lease, self._keys.terms, self._keys.watched], args=arguments)


class StateStore:
    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = scripts.script(client, "remember")

    def load(self) -> BalancerState:
        """What the last turn has left. Another version's, which cannot be read, is as if nothing was remembered."""
        text: Any = self._client.get(self._keys.memory)
        try:
            return BalancerState() if text is None else BalancerState.model_validate_json(text)
        except ValidationError:
            return BalancerState()

    def save(self, state: BalancerState, *, term: str = "") -> None:
        with fenced():
            self._script(keys=[self._keys.memory, self._keys.lease], args=[state.model_dump_json(), term])
