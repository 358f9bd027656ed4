"""The unacknowledged messages of a worker: kombu's QoS, with a holder for each message and an atomic end.

The claim has already written `unacked`, so a claimed message needs no further round trip. An acknowledgement is one
script that also closes the ledger entry and counts the end (`broker/lua/settle.lua`).

kombu has one QoS per channel, and a reconnect makes a new channel. Tasks that a pool process runs continue meanwhile:
their claims stay in `Identity.in_flight`, and their ends are written through whatever channel exists then.
"""

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import time
from typing import Any

from kombu.transport import redis as kombu_redis
from kombu.transport import virtual
from kombu.utils.encoding import bytes_to_str
from kombu.utils.json import loads
from redis.exceptions import OutOfMemoryError, ReadOnlyError, ResponseError

from morag_queue.broker.codec import ended_record, header_of, level_of, task_id_of, task_of
from morag_queue.broker.ledger import TaskEnd
from morag_queue.broker.requeue import RequeueRequest, ReturnLanes
from morag_queue.core import lanes
from morag_queue.core.enums import Requires
from morag_queue.core.failure import Blame, FailureKind, blame, kind_of

from .identity import Claim, Identity, TaskOutcome

logger = logging.getLogger("morag_queue.agent")


ACCEPTED = TaskOutcome("accepted")
"""Early acknowledgement: the message is gone, the task runs on without protection."""


_UNREAD = TaskOutcome("failed", error="acknowledged before it ran: the worker could not read it")


_REJECTED = TaskOutcome("failed", error="rejected by the worker")


def readable(text: bytes, decode_body: Callable[[str, Any], Any]) -> dict[str, Any] | None:
    """The message; None where kombu cannot read it, which would end the worker: the script's parser accepts more."""
    try:
        message: dict[str, Any] = loads(bytes_to_str(text))
        decode_body(message["body"], message["properties"].get("body_encoding"))
    except Exception:  # noqa: BLE001 - a foreign message may raise anything
        return None
    return message if isinstance(message["headers"], dict) else None


def claim_of(message: dict[str, Any], lane: str, level: int, claimed_at: float) -> Claim:
    """The claim of a message that was taken from that list."""
    return Claim(
        tag=message["properties"]["delivery_tag"],
        task_id=task_id_of(message),
        task=task_of(message),
        lane=lane,
        level=level,
        claimed_at=claimed_at,
        entry=header_of(message),
    )


def ending(claim: Claim, worker: str, outcome: TaskOutcome | None = None) -> TaskEnd:
    """The end of a task by the outcome, or its own one, as the ledger records and counts it."""
    outcome = outcome or claim.outcome
    assert outcome is not None, claim.tag
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
        record=ended_record(
            claim.entry, state=outcome.state, task=claim.task, lane=claim.lane, worker=worker,
            started_at=started_at if ran else None, wait_seconds=wait, run_seconds=outcome.run_seconds,
            error=outcome.error,
        ),
        blame=blame(kind_of(outcome.error)) if outcome.error else Blame.NONE,
    )  # fmt: skip


def return_request(
    claim: Claim, incarnation: str, return_lanes: ReturnLanes | None, max_deaths: int | None
) -> RequeueRequest:
    """Requeue the message of a claim in its lane, or in the one of `return_lanes`."""
    lane = claim.lane
    if return_lanes is not None:
        lane = return_lanes.lane(lane, needs_gpu=claim.entry.get("requires") == Requires.GPU)
    return RequeueRequest(
        claim.tag, incarnation, claim.task_id, lane, claim.level,
        why=claim.outcome.error if claim.outcome else "given back", max_deaths=max_deaths,
    )  # fmt: skip


def _is_lost(claim: Claim) -> bool:
    """Whether a pool process died over it."""
    return claim.outcome is not None and kind_of(claim.outcome.error) is FailureKind.WORKER_OFFLINE


class ClaimQoS(kombu_redis.QoS):
    """kombu's bookkeeping of unacknowledged messages, with their holders and outcomes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._identity: Identity = self.channel.morag_queue
        self._claims = self._identity.in_flight

    # -- called by the claim and by requests

    def claimed(self, claim: Claim) -> None:
        """Add a message that the claim script has recorded."""
        self._claims[claim.tag] = claim

    def runs(self, tag: str, running: bool) -> None:
        """Note that a pool process runs it, or was stopped because the connection was lost."""
        if (claim := self._claims.get(tag)) is not None:
            claim.running = running

    def ends(self, tag: str, outcome: TaskOutcome) -> None:
        """Note how the task ended; the acknowledgement that follows writes it.

        The first end counts: a terminated task is cancelled at once, and its process reports a failure later.
        """
        claim = self._claims.get(tag)
        if claim is not None and not claim.unwritten:
            claim.outcome = outcome

    def finish(self, tag: str) -> None:
        """Write the end of a task whose message was acknowledged before it ran.

        Any other task is acknowledged or rejected by Celery a moment later, which writes its end.
        """
        claim = self._claims.get(tag)
        if claim is not None and claim.accepted and claim.outcome is not None:
            try:
                self.settle(claim)
            except self.channel.connection_errors as error:
                logger.warning("the end of %s could not be written yet: %s", claim.task_id, error)

    def end_later(self, tag: str, returns: bool) -> None:
        """Have a heartbeat write the end of a task that Celery could not report; its prefetch slot is free."""
        claim = self._claims.get(tag)
        if claim is not None and claim.outcome is not None and not claim.unwritten:
            claim.unwritten, claim.returns = True, returns
            virtual.QoS.ack(self, tag)

    # -- called by Celery and kombu

    def append(self, message: Any, delivery_tag: str) -> None:
        if delivery_tag not in self._claims:
            # kombu took it by BRPOP (`agent.claim = false`): its holder is recorded afterwards
            super().append(message, delivery_tag)
            raw = message._raw
            claim = claim_of(raw, message.delivery_info["routing_key"], level_of(raw), time())
            self._claims[delivery_tag] = claim
            self.channel.hold(claim)
            return
        virtual.QoS.append(self, message, delivery_tag)

    def ack(self, delivery_tag: str) -> None:
        claim = self._claims.get(delivery_tag)
        if claim is None:
            super().ack(delivery_tag)
            return
        if claim.outcome is None and claim.running:
            self.channel.settle(claim, ACCEPTED)
            claim.accepted = True
            self.finish(delivery_tag)  # in a thread pool it may have ended meanwhile
        else:
            claim.outcome = claim.outcome or _UNREAD
            self._end(claim)
            return
        virtual.QoS.ack(self, delivery_tag)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        claim = self._claims.get(delivery_tag)
        if claim is None:
            super().reject(delivery_tag, requeue=requeue)
            return
        if requeue:
            claim.returns, claim.running = True, False
        else:
            claim.outcome = claim.outcome or _REJECTED
        self._end(claim)

    def _end(self, claim: Claim) -> None:
        claim.unwritten = True
        try:
            if claim.returns or not self.channel.end_later(claim):
                self.settle(claim)
        except ReadOnlyError:
            raise  # a new connection may lead to the primary
        except ResponseError as error:  # out of memory, or a key of another type: it would end the worker
            logger.error("the broker refuses the end of %s: %s; trying again", claim.task_id, error)
        finally:  # also where the end is written later: the prefetch slot is free
            virtual.QoS.ack(self, claim.tag)

    def give_back(self, tags: Iterable[str]) -> int:
        """Return messages that have not started to the shared lanes, in the order in which they were taken."""
        given = set(tags)
        claims = [self._claims.pop(tag) for tag in list(self._claims) if tag in given]
        self.channel.give_back(claims[::-1], shared=True)
        for claim in claims:
            virtual.QoS.ack(self, claim.tag)
        return len(claims)

    def settle(self, claim: Claim) -> None:
        """Write how the task ended, or return its message. On an error the claim is kept: see `Agent`, which retries.

        A message of a lost process goes to the front of its lane, one that its task has rejected to the end.
        """
        claim.unwritten = True
        if not claim.returns:
            self.channel.settle(claim)
        elif _is_lost(claim):
            self.channel.give_back([claim], max_deaths=self._identity.max_retries)
        else:
            super().restore_by_tag(claim.tag, leftmost=True)
        self.written(claim)

    def written(self, claim: Claim) -> None:
        """The broker has recorded how the task ended, or has its message back."""
        self._claims.pop(claim.tag, None)

    def restore_unacked(self, client: Any = None) -> None:
        """Restore prefetched messages at the end of a channel, in the order in which they were taken.

        Tasks that run stay with this worker, and tasks that have ended must not run again.
        """
        for tag in reversed(list(self._delivered)):
            claim = self._claims.get(tag)
            if claim is None or not (claim.running or claim.unwritten or claim.outcome):
                self.restore_by_tag(tag, client)
        self._delivered.clear()

    def restore_visible(self, *args: Any, **kwargs: Any) -> None:
        """kombu's sweep, which runs at every connection too: a full server would refuse each of them."""
        with suppress(OutOfMemoryError):
            super().restore_visible(*args, **kwargs)

    def restore_by_tag(self, tag: str, client: Any = None, leftmost: bool = False) -> None:
        super().restore_by_tag(tag, client, leftmost)
        self._claims.pop(tag, None)

    def _remove_from_indices(self, delivery_tag: str, pipe: Any = None) -> Any:
        """As kombu's, and drop the record of the holder. The pipeline adds the key prefix."""
        return super()._remove_from_indices(delivery_tag, pipe).hdel(f"{self._identity.namespace}:held", delivery_tag)
