"""What a worker has in its hands: kombu's QoS, with an owner beside each message and an ending that cannot tear.

The claim has already written `unacked`, so taking a message over needs no round trip. An acknowledgement is one script
that also closes the ledger and counts (`broker/lua/settle.lua`).

kombu has one QoS a channel, and a reconnect makes a new channel. What a pool process is running does not stop for that:
it stays in hand (`Identity.in_flight`), and its end is written down whichever channel it came by.
"""

import logging
from collections.abc import Callable, Iterable
from time import time
from typing import Any

from kombu.transport import redis as stock
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads

from morag_queue.broker.codec import HEADER
from morag_queue.broker.ledger import TaskEnd
from morag_queue.core import lanes
from morag_queue.core.failure import Blame, FailureKind, blame, kind_of

from .identity import Claim, Identity, TaskOutcome

logger = logging.getLogger("morag_queue.agent")


ACCEPTED = TaskOutcome("accepted")
"""Early acknowledgement: the message is given up, the task goes on without protection."""


_UNREAD = TaskOutcome("failed", error="acknowledged before it ran: the worker could not read it")


_REJECTED = TaskOutcome("failed", error="rejected by the worker")


def readable(text: bytes, decode_body: Callable[[str, Any], Any]) -> dict[str, Any] | None:
    """A message that kombu can read; None for another, which would end the worker: the script's JSON is a lax one."""
    try:
        message: dict[str, Any] = loads(bytes_to_str(text))
        decode_body(message["body"], message["properties"].get("body_encoding"))
    except Exception:  # noqa: BLE001 - whatever a stranger's message may raise
        return None
    return message if isinstance(message["headers"], dict) else None


def claim_of(message: dict[str, Any], lane: str, claimed_at: float) -> Claim:
    """What is to be remembered of a message that was taken."""
    headers, priority = message["headers"], message["properties"].get("priority")
    entry = headers.get(HEADER)
    return Claim(
        tag=message["properties"]["delivery_tag"],
        task_id=str(headers.get("id") or ""),
        task=str(headers.get("task") or ""),
        lane=lane,
        level=priority if isinstance(priority, int) else 0,
        claimed_at=claimed_at,
        entry=entry if isinstance(entry, dict) else {},
    )


def ending(claim: Claim, outcome: TaskOutcome, worker: str) -> TaskEnd:
    """What the ledger keeps of a task that has ended, and what its end adds to the figures."""
    enqueued_at = claim.entry.get("enqueued_at")
    ran = outcome.run_seconds is not None
    started_at = claim.claimed_at + outcome.held_seconds
    wait = started_at - enqueued_at if ran and isinstance(enqueued_at, int | float) else None
    queue = lanes.queue_of(claim.lane)
    return TaskEnd(
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
        blame=blame(kind_of(outcome.error)) if outcome.error else Blame.NONE,
    )  # fmt: skip


def _is_lost(claim: Claim) -> bool:
    """Whether a process of the pool died over it."""
    return claim.outcome is not None and kind_of(claim.outcome.error) is FailureKind.WORKER_OFFLINE


class ClaimQoS(stock.QoS):
    """kombu's bookkeeping of unacknowledged messages, plus who owns them and how they ended."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._identity: Identity = self.channel.morag_queue
        self._hands = self._identity.in_flight

    # -- what the claim and the requests say

    def claimed(self, claim: Claim) -> None:
        """The claim script has written this message's records."""
        self._hands[claim.tag] = claim

    def runs(self, tag: str, running: bool) -> None:
        """A pool process has begun with it; or has been told to stop, because the connection was lost."""
        if (claim := self._hands.get(tag)) is not None:
            claim.running = running

    def ends(self, tag: str, outcome: TaskOutcome) -> None:
        """How the task ended; the acknowledgement that follows writes it down."""
        if (claim := self._hands.get(tag)) is not None:
            claim.outcome = outcome

    def finish(self, tag: str) -> None:
        """Writes down the end of a task whose message was acknowledged before it ran.

        Nothing to do for any other: Celery acknowledges or rejects it a moment later, and that writes it.
        """
        claim = self._hands.get(tag)
        if claim is not None and claim.accepted and claim.outcome is not None:
            try:
                self.settle(claim)
            except self.channel.connection_errors as error:
                logger.warning("the end of %s could not be written down yet: %s", claim.task_id, error)

    # -- what Celery and kombu ask

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag not in self._hands:
            # kombu's own way (`agent.claim = false`): the owner is written a moment later
            super().append(message, delivery_tag)
            claim = claim_of(message._raw, message.delivery_info["routing_key"], time())
            self._hands[delivery_tag] = claim
            self.channel.hold(claim)
            return
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        claim = self._hands.get(delivery_tag)
        if claim is None:
            super().ack(delivery_tag)
            return
        if claim.outcome is None and claim.running:
            self.channel.settle(claim, ACCEPTED)
            claim.accepted = True
            self.finish(delivery_tag)  # in a pool of threads it may have ended meanwhile
        else:
            claim.outcome = claim.outcome or _UNREAD
            self._end(claim)
            return
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        claim = self._hands.get(delivery_tag)
        if claim is not None and requeue and _is_lost(claim):
            self._hands.pop(delivery_tag)
            self.channel.give_back([claim], max_deaths=self._identity.max_retries)
            virtual.QoS.ack(self, delivery_tag)
            return
        if claim is None or requeue:
            if claim is not None:
                claim.running, claim.outcome = False, None
            super().reject(delivery_tag, requeue=requeue)
            return
        claim.outcome = claim.outcome or _REJECTED
        self._end(claim)

    def _end(self, claim: Claim) -> None:
        try:
            self.settle(claim)
        finally:  # also where it is to be written later: the place in the hands is free
            virtual.QoS.ack(self, claim.tag)

    def give_back(self, tags: Iterable[str]) -> int:
        """Gives back what was not begun to the shared lanes, the first that was taken as the first again."""
        given = set(tags)
        claims = [self._hands.pop(tag) for tag in list(self._hands) if tag in given]  # in the order in which they came
        self.channel.give_back(claims[::-1], shared=True)
        for claim in claims:
            virtual.QoS.ack(self, claim.tag)
        return len(claims)

    def settle(self, claim: Claim) -> None:
        """Writes down how it ended. Where that fails it stays in hand, to be written at a beat or at the reconnect."""
        assert claim.outcome is not None, claim.tag
        claim.unwritten = True
        self.channel.settle(claim, claim.outcome)
        self._hands.pop(claim.tag, None)

    def restore_unacked(self, client: Any = None) -> None:
        """Gives back what waits in hand, at the end of a channel: the first that was taken is again the first.

        What runs is still in this worker's hands, and what has ended must not run again.
        """
        for tag in reversed(list(self._delivered)):
            claim = self._hands.get(tag)
            if claim is None or not (claim.running or claim.outcome):
                self.restore_by_tag(tag, client)
        self._delivered.clear()

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:
        """As kombu's, and nobody holds it any more. The pipeline adds the key prefix itself."""
        self._hands.pop(delivery_tag, None)
        return super()._remove_from_indices(delivery_tag, pipe).hdel(f"{self._identity.namespace}:held", delivery_tag)
