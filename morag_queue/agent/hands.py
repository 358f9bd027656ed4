"""What a worker has in its hands: kombu's QoS, with an owner beside each message and an ending that cannot tear.

The claim has already written `unacked`, so taking a message over needs no round trip. An acknowledgement is one script
that also closes the ledger and counts (`broker/lua/settle.lua`).
"""

from dataclasses import dataclass, field
from time import time
from typing import Any

from kombu.transport import redis as stock
from kombu.transport import virtual

from morag_queue.broker.header import HEADER
from morag_queue.broker.ledger import Ending
from morag_queue.core import lanes
from morag_queue.core.model import Held

from .identity import Identity


@dataclass(slots=True)
class Claim:
    """One message taken by the claim. `claimed_at` is the server's clock, in seconds."""

    tag: str
    task_id: str
    task: str
    lane: str
    level: int
    claimed_at: float
    entry: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, message: dict[str, Any], lane: str, claimed_at: float) -> "Claim":
        headers = message["headers"]
        entry = headers.get(HEADER)
        return cls(
            tag=message["properties"]["delivery_tag"],
            task_id=str(headers.get("id") or ""),
            task=str(headers.get("task") or ""),
            lane=lane,
            level=int(message["properties"].get("priority") or 0),
            claimed_at=claimed_at,
            entry=entry if isinstance(entry, dict) else {},
        )

    def held(self, worker: str, incarnation: str) -> Held:
        """The record of who has it."""
        return Held(
            tag=self.tag, worker=worker, incarnation=incarnation, task_id=self.task_id, lane=self.lane,
            level=self.level, claimed_at=self.claimed_at,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a task ended. `run_seconds`: None if it did not run; `held_seconds`: in hand before it ran."""

    state: str
    run_seconds: float | None = None
    held_seconds: float = 0.0
    error: str = ""


ACCEPTED = Outcome("accepted")
"""Early acknowledgement: the message is given up, the task goes on without protection."""


def ending(claim: Claim, outcome: Outcome, worker: str) -> Ending:
    """What the ledger keeps of a task that has ended, and what its end adds to the figures."""
    enqueued_at = claim.entry.get("enqueued_at")
    ran = outcome.run_seconds is not None
    started_at = claim.claimed_at + outcome.held_seconds
    wait = started_at - enqueued_at if ran and isinstance(enqueued_at, int | float) else None
    queue = lanes.queue_of(claim.lane)
    return Ending(
        tag=claim.tag,
        task_id=claim.task_id,
        worker=worker,
        queue=queue.value if queue else "",
        outcome=outcome.state,
        wait_seconds=max(wait, 0.0) if wait is not None else None,
        run_seconds=outcome.run_seconds,
        record={
            **claim.entry, "state": outcome.state, "task": claim.task, "lane": claim.lane, "worker": worker,
            "started_at": round(started_at, 3) if ran else None,
            "wait_seconds": wait, "run_seconds": outcome.run_seconds, "error": outcome.error,
        },
    )  # fmt: skip


class HandsQoS(stock.QoS):
    """kombu's bookkeeping of unacknowledged messages, plus who owns them and how they ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._claims: dict[str, Claim] = {}
        self._outcomes: dict[str, Outcome] = {}

    def claimed(self, claim: Claim) -> None:
        """Says that the claim script has written this message's records."""
        self._claims[claim.tag] = claim

    def ends(self, tag: str, outcome: Outcome) -> None:
        """Says how the task of this message ended; the acknowledgement that follows writes it down."""
        self._outcomes[tag] = outcome

    def tags(self) -> list[str]:
        """The delivery tags in hand: what must not be handed out again while this worker lives."""
        return list(self._claims)

    def append(self, message: Any, delivery_tag: str) -> None:
        if (
            delivery_tag not in self._claims
        ):  # kombu's own way (`agent.claim = false`): the owner is written a moment later
            super().append(message, delivery_tag)
            self._claims[delivery_tag] = claim = Claim.of(message._raw, message.delivery_info["routing_key"], time())
            self.channel.hold(claim)
            return
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        claim = self._claims.get(delivery_tag)
        if claim is None:
            super().ack(delivery_tag)
            return
        outcome = self._outcomes.pop(delivery_tag, ACCEPTED)
        self._settle(claim, outcome)
        virtual.QoS.ack(self, delivery_tag)

    def finish(self, tag: str) -> None:
        """Writes down the end of a task whose message was acknowledged before it ran. Nothing to do for any other."""
        claim, outcome = self._claims.get(tag), self._outcomes.pop(tag, None)
        if claim is not None and outcome is not None:
            self._settle(claim, outcome)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        claim = self._claims.get(delivery_tag)
        if claim is not None and not requeue:
            self._settle(claim, self._outcomes.pop(delivery_tag, Outcome("failed", error="rejected by the worker")))
            virtual.QoS.ack(self, delivery_tag)
            return
        self._outcomes.pop(delivery_tag, None)
        super().reject(delivery_tag, requeue=requeue)

    def _settle(self, claim: Claim, outcome: Outcome) -> None:
        if outcome is not ACCEPTED:
            self._claims.pop(claim.tag, None)
        self.channel.settle(claim, outcome)

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:
        """As kombu's, and nobody holds it any more. The pipeline adds the key prefix itself."""
        self._claims.pop(delivery_tag, None)
        identity: Identity = self.channel.morag_queue
        return super()._remove_from_indices(delivery_tag, pipe).hdel(f"{identity.namespace}:held", delivery_tag)
