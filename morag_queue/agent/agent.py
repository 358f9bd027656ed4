"""The agent of one worker process: registration, heartbeat, and the reactions to cordons and fencing."""

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from threading import Event, Thread
from typing import Any

import redis
from celery import Celery
from celery.worker import state
from kombu.exceptions import OperationalError

from morag_queue.broker.keys import Keys
from morag_queue.broker.workers import Registry
from morag_queue.core import lanes
from morag_queue.core.enums import Capability
from morag_queue.core.worker_records import WorkerInfo
from morag_queue.settings import Settings

from . import drain, hardware
from .identity import Identity, new_incarnation
from .registration import beat_seconds, is_dead, name_taken, worker_info
from .unacked import ClaimQoS

logger = logging.getLogger("morag_queue.agent")

_CONNECTION_ERRORS = (redis.ConnectionError, redis.TimeoutError, OperationalError, OSError)


class Agent:
    """The agent of one worker process. `version` is morag-queue's; `doctor` compares it with that of the command."""

    def __init__(
        self, app: Celery, settings: Settings, identity: Identity, capability: Capability, version: str
    ) -> None:
        self.app, self.settings, self.identity, self.capability = app, settings, identity, capability
        self._version = version
        self._described: WorkerInfo | None = None
        self._stopping = Event()
        self._thread: Thread | None = None
        self._consumer: Any = None
        self._last_error = ""

    @cached_property
    def _connection(self) -> Any:
        return self.app.connection_for_read()

    @cached_property
    def _registry(self) -> Registry:
        channel = self._connection.channel()
        client = redis.Redis(connection_pool=channel.pool)
        keys = Keys(self.settings.namespace, channel.global_keyprefix, channel.sep)
        return Registry(client, keys, self.settings.ledger.retention_seconds, self.settings.queues)

    # -- registration

    def describe(self, node: str, queues: tuple[str, ...], *, slots: int, prefetch_multiplier: int, pool: str) -> None:
        """Set the worker's record for the registry. Call this before `register`."""
        self._described = worker_info(
            self.app, self.settings, self.identity, self.capability,
            node=node, queues=queues, slots=slots, prefetch_multiplier=prefetch_multiplier, pool=pool,
            version=self._version,
        )  # fmt: skip

    @property
    def _info(self) -> WorkerInfo:
        assert self._described is not None, "describe() must be called first"
        return self._described

    def register_at_start(self) -> None:
        """Register before the pool starts if the broker is reachable; else `attach` registers after Celery connects."""
        try:
            self.register()
        except _CONNECTION_ERRORS as error:
            logger.warning(
                "cannot reach the broker (%s); %s will register once it is connected", error, self.identity.worker
            )

    def register(self) -> None:
        """Register under the worker's name and requeue the messages of a dead predecessor.

        Raises SystemExit if a live worker has the name.
        """
        registry, info = self._registry, self._info
        predecessor = registry.acting(info.worker)
        if predecessor is not None and not is_dead(registry, predecessor, self.identity):
            raise SystemExit(name_taken(info.worker, predecessor))
        replaces = predecessor.incarnation if predecessor else ""
        winner = registry.register(info, replaces)
        if winner:
            raise SystemExit(
                f"{info.worker}: {winner} registered under this name at the same moment; "
                "start one of them under another name (-n)"
            )
        self.identity.registered = True
        logger.info("registered %s (%s) for %s", info.worker, info.capability, ", ".join(info.queues))
        max_deaths = self.settings.policy.max_retries
        if replaces and (count := registry.take_back(info.worker, replaces, max_deaths=max_deaths)):
            logger.warning("requeued %d messages of the dead worker %s", count, replaces)

    # -- connection

    def attach(self, consumer: Any) -> None:
        """Called each time Celery's consumer has (re)connected, before it consumes."""
        self._consumer = consumer
        self.identity.slots = lambda: consumer.pool.num_processes
        self.identity.discard_unstarted = getattr(consumer.pool, "flush", None) or (lambda: None)
        previous = self.identity.incarnation
        if not self.identity.registered:
            self.identity.incarnation = new_incarnation()
            self._described = replace(self._info, incarnation=self.identity.incarnation)
            self.register()
        if self._thread is None:
            self._thread = Thread(target=self._beat_forever, name="morag-queue-heartbeat", daemon=True)
            self._thread.start()
        else:
            self._reconcile(previous)

    def _reconcile(self, incarnation: str) -> None:
        """After a reconnect, record the outcomes and requeue the messages that the lost connection left behind."""
        qos, in_flight = self._qos(), self.identity.in_flight
        for claim in list(in_flight.values()):
            if claim.unwritten or claim.outcome is not None:
                qos.settle(claim)
            elif not claim.running:
                del in_flight[claim.tag]
        # This includes a message whose claim succeeded on the server while its answer was lost.
        count = self._registry.take_back(self.identity.worker, incarnation, keep=in_flight)
        if count:
            logger.info("requeued %d messages that were in flight when the connection was lost", count)

    def stop(self) -> None:
        """Stop the heartbeat and mark the worker as stopped, so that its death needs no other proof."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * self.settings.agent.heartbeat_seconds)
        if self.identity.registered:
            self.identity.registered = False
            try:
                self._beat(stopped=True)
                # A cold shutdown leaves the messages of the tasks that it has killed.
                self._registry.take_back(self.identity.worker, self.identity.incarnation)
            except (*_CONNECTION_ERRORS, redis.ResponseError) as error:
                logger.warning("cannot record the shutdown of %s: %s", self.identity.worker, error)
        # The identity outlives the pool.
        self.identity.slots, self.identity.discard_unstarted = lambda: 0, lambda: None
        self._connection.close()

    def _qos(self) -> ClaimQoS:
        qos: ClaimQoS = self._consumer.task_consumer.channel.qos
        return qos

    # -- heartbeat

    def _beat_forever(self) -> None:
        while not self._stopping.is_set():
            try:
                self._beat()
            except _CONNECTION_ERRORS as error:
                self._log_once("cannot reach the broker (%s); trying again", error)
            except redis.ResponseError as error:
                self._log_once("the broker refused it (%s); trying again", error)
            except Exception:  # without a heartbeat the worker would look dead and its messages would be requeued
                logger.exception("heartbeat: an unexpected error; trying again")
            else:
                self._last_error = ""
            self._stopping.wait(beat_seconds(self.app, self.settings))

    def _log_once(self, message: str, error: Exception) -> None:
        """Log a kind of error once until a heartbeat succeeds."""
        if message != self._last_error:
            self._last_error = message
            logger.error(f"heartbeat: {message}", error)

    def _beat(self, stopped: bool = False) -> None:
        if not self.identity.registered and not stopped:
            return
        active = len(state.active_requests)
        metrics = {
            **hardware.load(self.capability.has_gpu),
            "active": active,
            "reserved": max(len(state.reserved_requests) - active, 0),
            "stopped": stopped,
            "clock": time.time(),
        }
        tags = list(self.identity.in_flight)
        pulse = self._registry.beat(self.identity.worker, self.identity.incarnation, metrics, tags)
        if pulse == "unknown" and self._described is not None:
            logger.warning("the registry was lost; registering %s again", self.identity.worker)
            self._registry.register(self._described, self.identity.incarnation)
        if not stopped:
            self._react(pulse)

    def _react(self, pulse: str) -> None:
        """Schedule what the answer to a heartbeat requires."""
        if pulse == "fenced":
            self.identity.registered = False
            logger.error(
                "%s was fenced: its name was taken over; dropping its messages in flight", self.identity.worker
            )
            self._in_event_loop(self.identity.raise_if_unregistered)
            return
        if pulse == "draining":
            self._in_event_loop(self._drain)
        elif pulse == "ok" and self.identity.draining:
            self._in_event_loop(self._resume)
        if any(claim.unwritten for claim in list(self.identity.in_flight.values())):
            self._in_event_loop(self._settle_unwritten)

    def refresh_cordon(self) -> None:
        """Send a heartbeat now: its answer contains the worker's cordon."""
        try:
            self._beat()
        except (*_CONNECTION_ERRORS, redis.ResponseError) as error:
            logger.warning("cannot read the cordon of %s: %s", self.identity.worker, error)

    # -- reactions, in the worker's event loop

    def _in_event_loop(self, function: Callable[[], None]) -> None:
        self._consumer.timer.call_after(0, function)

    def _settle_unwritten(self) -> None:
        """Record the outcomes and returns that the broker refused earlier, for example because it was a replica."""
        if self._consumer.task_consumer is not None:
            qos = self._qos()
            for claim in [claim for claim in self.identity.in_flight.values() if claim.unwritten]:
                if qos.channel.is_writing(claim):
                    continue
                try:
                    qos.settle(claim)
                except redis.ReadOnlyError:
                    raise  # a new connection may lead to the primary
                except redis.ResponseError as error:  # the next heartbeat schedules this again
                    self._log_once("the broker refused the end of a task (%s); trying again", error)

    def _drain(self) -> None:
        """Take no more tasks and return those that have not started."""
        if self._consumer.task_consumer is None:
            return  # reconnecting; the next heartbeat schedules this again
        if not self.identity.draining:
            logger.info("draining %s: it takes no more tasks", self.identity.worker)
        self.identity.draining = True
        if not self.identity.claims:
            drain.stop_consuming(self._consumer, self._lanes())
        if self.identity.no_claim_reason:
            return  # the worker runs kombu's own transport, which knows no holders
        if count := drain.return_unstarted(self._consumer, self._qos()):
            logger.info("returned %d tasks that had not started", count)

    def _resume(self) -> None:
        self.identity.draining = False
        logger.info("%s is back in service", self.identity.worker)
        if not self.identity.claims:
            drain.resume_consuming(self._consumer, self._lanes())

    def _lanes(self) -> list[str]:
        return [name for queue in self._info.queues for name in (queue, lanes.lane(queue, self.identity.worker))]
