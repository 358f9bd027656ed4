"""One worker's life: takes its name, subscribes to its lanes, beats, gives the name back."""

import logging
import time
from threading import Event, Thread
from typing import Any

import redis
from celery import Celery
from celery.worker import state
from kombu.entity import Exchange, Queue
from kombu.exceptions import OperationalError

from morag_queue.broker.keys import Keys
from morag_queue.broker.workers import Registry
from morag_queue.core import lanes
from morag_queue.core.model import Capability, QueueType, WorkerInfo
from morag_queue.settings import Settings

from . import handover, hardware
from .identity import Identity, is_dead, name_taken, new_incarnation
from .unacked import ClaimQoS

logger = logging.getLogger("morag_queue.agent")

_LOST = (redis.ConnectionError, redis.TimeoutError, OperationalError, OSError)


class Agent:
    """The agent of one worker process. `version` is what `doctor` compares with the command's own."""

    def __init__(
        self, app: Celery, settings: Settings, identity: Identity, capability: Capability, version: str
    ) -> None:
        self.app, self.settings, self.identity, self.capability = app, settings, identity, capability
        self._version = version
        self._registry: Registry | None = None
        self._info: WorkerInfo | None = None
        self._stop = Event()
        self._thread: Thread | None = None
        self._consumer: Any = None
        self._complaint = ""

    # -- lanes

    def subscribe(self, names: list[str] | None) -> tuple[str, ...]:
        """Adds the worker's lanes: of what `-Q` names (`names`), else of all that its capability serves.

        Raises SystemExit where `-Q` asks for a queue that this kind of worker does not serve.
        """
        served = self.settings.queues.served_by(self.capability)
        known = {queue.value for queue in QueueType}
        refused = sorted(set(names or ()) & known - set(served))
        if refused:
            raise SystemExit(
                f"{self.identity.worker} is a {self.capability} worker and does not serve {', '.join(refused)}: "
                f"take it out of -Q, or set MORAG_WORKER_TYPE"
            )
        queues = served if names is None else [queue for queue in served if queue.value in names]
        for queue in queues:
            for name in (queue.value, lanes.lane(queue, self.identity.worker)):
                added = self.app.amqp.queues.select_add(Queue(name, routing_key=name))
                # Celery put in its default exchange. A message of a named exchange is destroyed when a process restores
                # it that does not know the exchange; the anonymous one is known to all.
                added.exchange = Exchange("")
        return tuple(queue.value for queue in queues)

    # -- the name

    def describe(self, node: str, queues: tuple[str, ...], slots: int, pool: str) -> None:
        """Notes what the worker says of itself when it registers."""
        conf, options = self.app.conf, self.app.conf.broker_transport_options
        self._info = WorkerInfo(
            worker=self.identity.worker,
            incarnation=self.identity.incarnation,
            host=self.identity.host,
            pid=self.identity.pid,
            capability=self.capability,
            queues=queues,
            slots=slots,
            pool=pool,
            **hardware.describe(),
            location=self.settings.agent.location,
            tags=self.settings.agent.tags,
            content_types=self.settings.agent.content_types,
            priority_steps=tuple(options["priority_steps"]),
            client_name=self.identity.client_name,
            node=node,
            beat_seconds=self._beat_seconds,
            claims=self.identity.claims,
            version=self._version,
            settings={
                "acks_late": bool(conf.task_acks_late),
                "reject_on_worker_lost": bool(conf.task_reject_on_worker_lost),
                "cancel_on_connection_loss": bool(conf.worker_cancel_long_running_tasks_on_connection_loss),
                "prefetch_multiplier": conf.worker_prefetch_multiplier,
                "disable_prefetch": bool(conf.worker_disable_prefetch),
                "visibility_timeout": options.get("visibility_timeout", 3600),
                "sep": options.get("sep", ""),
            },
            started_at=time.time(),
        )

    def register_at_start(self) -> None:
        """Registers before the pool starts, where the broker can be reached; Celery waits for it and tells the user."""
        try:
            self.register()
        except _LOST as error:
            logger.warning("cannot reach the broker (%s): %s registers when it can", error, self.identity.worker)

    def register(self) -> None:
        """Takes the name and what a dead predecessor held. Raises SystemExit where a live worker has it."""
        registry, info = self._connect(), self._info
        assert info is not None, "describe() comes first"
        predecessor = registry.acting(info.worker)
        if predecessor is not None and not is_dead(registry, predecessor, self.identity):
            raise SystemExit(name_taken(info.worker, predecessor))
        replaces = predecessor.incarnation if predecessor else ""
        taken_by = registry.register(info, replaces)
        if taken_by:
            raise SystemExit(
                f"{info.worker}: {taken_by} took this name at the same moment; give one of them another -n"
            )
        self.identity.registered = True
        logger.info("registered %s (%s) for %s", info.worker, info.capability, ", ".join(info.queues))
        max_deaths = self.settings.policy.max_retries
        if replaces and (back := registry.take_back(info.worker, replaces, max_deaths=max_deaths)):
            logger.warning("took back %d messages that the dead %s held", back, replaces)

    def _connect(self) -> Registry:
        if self._registry is None:
            channel = self.app.connection_for_read().channel()
            client = redis.Redis(connection_pool=channel.pool)
            keys = Keys(self.settings.namespace, channel.global_keyprefix, channel.sep)
            self._registry = Registry(client, keys, self.settings.ledger.retention_seconds)
        return self._registry

    # -- the beat

    def attach(self, consumer: Any) -> None:
        """Called whenever Celery's consumer has (re)connected, before it consumes."""
        self._consumer = consumer
        incarnation = self.identity.incarnation
        if not self.identity.registered:
            self._register_again()
        if self._thread is None:
            self._thread = Thread(target=self._beat_forever, name="morag-queue-heartbeat", daemon=True)
            self._thread.start()
        else:
            self._tidy(consumer.task_consumer.channel.qos, incarnation)

    def _tidy(self, qos: ClaimQoS, incarnation: str) -> None:
        """After a reconnect: what could not be written down or given back when the connection broke."""
        hands = self.identity.hands
        for claim in list(hands.values()):
            if claim.outcome is not None:
                qos.settle(claim)
            elif not claim.running:
                del hands[claim.tag]
        # What is taken but in no hand: also a claim whose answer was lost on the way.
        back = self._connect().take_back(self.identity.worker, incarnation, keep=hands)
        if back:
            logger.info("put back %d messages that were in hand when the connection was lost", back)

    def goodbye(self) -> None:
        """A clean shutdown: nobody has to wait for proof that this worker is gone."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=2 * self.settings.agent.heartbeat_seconds)
        if self.identity.registered:
            self.identity.registered = False
            try:
                self._beat(stopped=True)
                # A task that a cold shutdown has ended.
                self._connect().take_back(self.identity.worker, self.identity.incarnation)
            except (*_LOST, redis.ResponseError) as error:
                logger.warning("could not say goodbye to the broker: %s", error)

    def _register_again(self) -> None:
        assert self._info is not None, "describe() comes first"
        self.identity.incarnation = new_incarnation()
        self._info = self._info.model_copy(update={"incarnation": self.identity.incarnation})
        self.register()

    @property
    def _beat_seconds(self) -> float:
        # A message must be touched well before kombu hands it out again.
        visibility: float = self.app.conf.broker_transport_options.get("visibility_timeout", 3600)
        return min(self.settings.agent.heartbeat_seconds, visibility / 4)

    def _beat_forever(self) -> None:
        while not self._stop.is_set():
            try:
                self._beat()
            except _LOST as error:
                self._complain("the broker cannot be reached (%s); trying again", error)
            except redis.ResponseError as error:
                self._complain("the broker refuses it (%s); trying again", error)
            except Exception:  # a worker that went on without a beat would look dead, and its messages would go stale
                logger.exception("heartbeat: an unexpected error; trying again")
            else:
                self._complaint = ""
            self._stop.wait(self._beat_seconds)

    def _complain(self, what: str, error: Exception) -> None:
        """Once, not at every beat."""
        if what != self._complaint:
            self._complaint = what
            logger.error(f"heartbeat: {what}", error)

    def _beat(self, stopped: bool = False) -> None:
        if not self.identity.registered and not stopped:
            return
        figures = {
            **hardware.load(self.capability.has_gpu),
            "active": len(state.active_requests),
            "reserved": max(len(state.reserved_requests) - len(state.active_requests), 0),
            "stopped": stopped,
            "clock": time.time(),
        }
        tags = list(self.identity.hands)
        pulse = self._connect().beat(self.identity.worker, self.identity.incarnation, figures, tags)
        if pulse == "unknown" and self._info is not None:
            logger.warning("the registry was lost; registering %s again", self.identity.worker)
            self._connect().register(self._info, self.identity.incarnation)
        elif pulse == "fenced" and not stopped:
            self.identity.registered = False
            logger.error("%s was fenced: another acts in its name; giving up what it has in hand", self.identity.worker)
            self._consumer.timer.call_after(0, self.identity.raise_if_unregistered)
        elif pulse == "draining" and not stopped:
            self._consumer.timer.call_after(0, self._withdraw)
        elif pulse == "ok" and self.identity.draining:
            self._consumer.timer.call_after(0, self._serve_again)
        if pulse != "fenced" and not stopped and any(one.unwritten for one in list(self.identity.hands.values())):
            self._consumer.timer.call_after(0, self._write_late)

    # -- what the beat calls for, in the worker's event loop

    def look(self) -> None:
        """Someone has changed this worker's cordon and does not want to wait for the next beat."""
        try:
            self._beat()
        except (*_LOST, redis.ResponseError) as error:
            logger.warning("told to look at its cordon, but could not: %s", error)

    def _write_late(self) -> None:
        """The ends of tasks that the broker refused a while ago, as a replica for example."""
        if self._consumer.task_consumer is not None:
            qos = self._consumer.task_consumer.channel.qos
            for claim in [one for one in self.identity.hands.values() if one.unwritten]:
                qos.settle(claim)

    def _withdraw(self) -> None:
        """Takes nothing any more and gives back what it has not begun."""
        if self._consumer.task_consumer is None:
            return  # reconnecting: the next beat tells it again
        if not self.identity.draining:
            logger.info("%s is being drained: it takes no more tasks", self.identity.worker)
        self.identity.draining = True
        if not self.identity.claims:
            handover.stop_consuming(self._consumer, self._lanes())
        if given := handover.hand_over(self._consumer, self._consumer.task_consumer.channel.qos):
            logger.info("gave back %d tasks that were not begun", given)

    def _serve_again(self) -> None:
        self.identity.draining = False
        logger.info("%s is in service again", self.identity.worker)
        if not self.identity.claims:
            handover.consume_again(self._consumer, self._lanes())

    def _lanes(self) -> list[str]:
        assert self._info is not None, "describe() comes first"
        worker = self.identity.worker
        return [name for queue in self._info.queues for name in (queue, lanes.lane(queue, worker))]
