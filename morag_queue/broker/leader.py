"""The lease of a fleet's leader, and the state that it keeps between turns."""

from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ValidationError
from redis import Redis

from morag_queue.core.balancing.state import BalancerState
from morag_queue.core.model import Lease
from morag_queue.errors import BrokerError

from .codec import read_lease
from .keys import Keys
from .scripts import Call, Script
from .translated import fenced

WATCHED_SECONDS = 86_400.0
"""How long the key of the last `watch` is kept, see hold_lease.lua."""

_NO_KEY = -2  # TTL of a key that does not exist


@dataclass(frozen=True)
class HoldLeaseCall(Call):
    """`action`: take, renew or give_up."""

    SCRIPT: ClassVar = "hold_lease"
    KEYS: ClassVar = ("lease", "terms", "watched")

    action: str
    holder: str
    term: int | None = None
    ttl_ms: int = 1
    who: str = ""
    verb: str = ""


class Leases:
    """One lease per fleet, by the server's clock."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = Script(client, keys, HoldLeaseCall)

    def take(self, holder: str, who: str, verb: str, seconds: float) -> Lease:
        """Take the lease, or renew it where the caller holds it. Return the lease in force, which may be another's.

        A lease that cannot be read is nobody's. Raises BrokerError if the script can read it and this version cannot.
        """
        call = HoldLeaseCall("take", holder, ttl_ms=_milliseconds(seconds), who=who, verb=verb)
        lease = read_lease(self._script(call))
        if lease is None:
            raise BrokerError(f"the lease {self._keys.lease} cannot be read; delete it: DEL {self._keys.lease}")
        return lease

    def renew(self, lease: Lease, seconds: float) -> Lease | None:
        """The same lease for `seconds` from now; None when the caller no longer holds it."""
        text = self._script(HoldLeaseCall("renew", lease.holder, lease.term, _milliseconds(seconds)))
        return read_lease(text)

    def give_up(self, lease: Lease) -> bool:
        """False when the caller no longer held it."""
        return bool(self._script(HoldLeaseCall("give_up", lease.holder, lease.term)))

    def current(self) -> Lease | None:
        """The lease in force; None without a leader."""
        text: Any = self._client.get(self._keys.lease)
        return read_lease(text)

    def last_led_at(self) -> float | None:
        """When a `watch` last led, in seconds since the epoch; None if none has led within the last day.

        The key of the last `watch` expires a day after that `watch` last renewed its lease.
        """
        pipe = self._client.pipeline(transaction=True)
        pipe.ttl(self._keys.watched)
        pipe.time()
        remaining, (seconds, micros) = pipe.execute()
        if remaining == _NO_KEY:
            return None
        now = float(seconds) + float(micros) / 1e6
        return now - (WATCHED_SECONDS - max(float(remaining), 0.0))


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


@dataclass(frozen=True)
class SaveStateCall(Call):
    SCRIPT: ClassVar = "save_state"
    KEYS: ClassVar = ("memory", "lease")

    state: str
    term: str


class StateStore:
    """The balancing loop's state between two turns."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = Script(client, keys, SaveStateCall)

    def load(self) -> BalancerState:
        """The state that the last turn saved; an empty one where there is none, or another version's."""
        text: Any = self._client.get(self._keys.memory)
        try:
            return BalancerState() if text is None else BalancerState.model_validate_json(text)
        except ValidationError:
            return BalancerState()

    def save(self, state: BalancerState, *, term: str = "") -> None:
        """Raises LeaseLost on a stale term."""
        with fenced():
            self._script(SaveStateCall(state.model_dump_json(), term))
