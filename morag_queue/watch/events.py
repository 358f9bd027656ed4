"""The events of `watch`: name, level, description and fields. The meaning of a name never changes.

`log.py` writes events as lines; a service may pass its own `EventSink`. A turn that changes something emits one event;
while nothing changes, `fleet_looked_at` is the heartbeat of the loop. Names of duration fields include the unit.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Literal, Protocol

Level = Literal["debug", "info", "warning", "error"]


class Event(StrEnum):
    STARTED = "watch_started"
    STOPPED = "watch_stopped"
    LEADING = "leading"
    STANDING_BY = "standing_by"
    LEASE_LOST = "lease_lost"
    LEASE_GIVEN_UP = "lease_given_up"
    SCRIPTS_LOADED = "scripts_loaded"
    TURN = "turn"
    PLANNED = "turn_planned"
    REFUSED = "move_refused"
    FLEET = "fleet_looked_at"
    JOINED = "worker_joined"
    RETURNED = "worker_returned"
    LEFT = "worker_left"
    GONE = "worker_gone"
    FAILED_OVER = "worker_failed_over"
    SILENT = "worker_silent"
    OUT_OF_SERVICE = "worker_out_of_service"
    IN_SERVICE = "worker_in_service"
    STALLED = "worker_stalled"
    MOVING_AGAIN = "worker_moving_again"
    FLAPPING = "worker_flapping"
    LANE_STALLED = "lane_stalled"
    FOREIGN = "foreign_messages"
    BROKEN_VALUE = "broken_value"
    BROKER_LOST = "broker_lost"
    BROKER_BACK = "broker_back"
    TURN_FAILED = "turn_failed"
    TURN_WORKS_AGAIN = "turn_works_again"
    LEARNED = "estimates_learned"
    AGENTLESS = "workers_without_agent"
    KEPT_ALIVE = "messages_kept_alive"
    EVENTS_ENABLED = "task_events_enabled"
    METRICS = "metrics_served"


@dataclass(frozen=True, slots=True)
class EventSpec:
    level: Level
    description: str
    fields: tuple[str, ...] = ()


class EventSink(Protocol):
    """Receives events: a log, a counter, a service."""

    def __call__(self, event: Event, /, **fields: Any) -> None: ...


EVENTS: Mapping[Event, EventSpec] = {
    Event.STARTED: EventSpec(
        "info", "watch started", ("fleet", "who", "interval_seconds", "monitor_seconds", "dry_run")
    ),
    Event.STOPPED: EventSpec("info", "watch stopped; its state is stored on the broker", ("turns",)),
    Event.LEADING: EventSpec("info", "this process acquired the lease and leads the fleet", ("term",)),
    Event.STANDING_BY: EventSpec("info", "another process leads; this one stands by", ("leader", "verb", "term")),
    Event.LEASE_LOST: EventSpec("warning", "the lease expired; no further changes were made", ("term",)),
    Event.LEASE_GIVEN_UP: EventSpec("info", "the lease was released; another process may lead at once", ("term",)),
    Event.SCRIPTS_LOADED: EventSpec("info", "scripts were loaded that the server did not have", ("count",)),
    Event.TURN: EventSpec(
        "info", "a turn changed something",
        ("trigger", "plan_id", "moved", "taken_back", "resent", "quarantined", "refused", "rules", "seconds"),
    ),
    Event.PLANNED: EventSpec(
        "info", "a dry run: the changes that a turn would make", ("trigger", "plan_id", "decisions", "seconds")
    ),
    Event.REFUSED: EventSpec(
        "warning", "a planned step was rejected because the fleet had changed", ("task_id", "reason")
    ),
    Event.FLEET: EventSpec(
        "info", "state of the fleet, once per monitoring interval",
        ("pending", "processing", "workers", "serving", "backlog_minutes", "oldest_minutes", "turns", "leader"),
    ),
    Event.JOINED: EventSpec("info", "a worker registered", ("worker",)),
    Event.RETURNED: EventSpec("info", "a worker that was gone registered again", ("worker",)),
    Event.LEFT: EventSpec("info", "a worker shut down cleanly", ("worker",)),
    Event.GONE: EventSpec("warning", "a worker lost its connections without a clean shutdown", ("worker",)),
    Event.FAILED_OVER: EventSpec(
        "warning", "tasks of dead workers were requeued, moved or quarantined",
        ("workers", "evidence", "taken_back", "moved", "quarantined", "seconds"),
    ),
    Event.SILENT: EventSpec(
        "warning", "a worker is connected but sent no heartbeat within the timeout", ("worker", "seconds")
    ),
    Event.OUT_OF_SERVICE: EventSpec("info", "a worker was cordoned or drained", ("worker", "state")),
    Event.IN_SERVICE: EventSpec("info", "the cordon of a worker was lifted or expired", ("worker",)),
    Event.STALLED: EventSpec(
        "warning", "a worker sends heartbeats but takes no tasks although some are waiting for it; restart it",
        ("worker", "queues", "waiting", "seconds"),
    ),
    Event.MOVING_AGAIN: EventSpec("info", "a stalled worker takes tasks again, or none is waiting for it", ("worker",)),
    Event.FLAPPING: EventSpec(
        "warning", "a worker keeps restarting, so its circuit breaker opened", ("worker", "starts", "seconds")
    ),
    Event.LANE_STALLED: EventSpec(
        "warning", "tasks are waiting in a lane that no worker in service reads", ("lane", "waiting", "reason")
    ),
    Event.FOREIGN: EventSpec(
        "warning", "the lanes contain messages that Celery did not write; they were left in place", ("count",)
    ),
    Event.BROKEN_VALUE: EventSpec(
        "warning", "a value cannot be read; the loop continues without it", ("key", "field", "reason", "remedy")
    ),
    Event.BROKER_LOST: EventSpec("error", "the broker is unreachable; retrying", ("error",)),
    Event.BROKER_BACK: EventSpec("info", "the broker is reachable again", ("seconds",)),
    Event.TURN_FAILED: EventSpec("error", "a turn failed; the next one runs as usual", ("error", "where")),
    Event.TURN_WORKS_AGAIN: EventSpec("info", "a turn succeeded after failures", ("failed_turns",)),
    Event.LEARNED: EventSpec("debug", "run time estimates were updated from measured runs", ("runs", "estimates")),
    Event.AGENTLESS: EventSpec(
        "info", "agentless workers are polled by remote control, so their statistics are less exact", ("nodes",)
    ),
    Event.KEPT_ALIVE: EventSpec(
        "debug", "messages held by agentless workers were protected from redelivery", ("count",)
    ),
    Event.EVENTS_ENABLED: EventSpec("info", "task events (-E) were enabled on agentless workers", ("nodes",)),
    Event.METRICS: EventSpec("info", "serving Prometheus metrics", ("url",)),
}  # fmt: skip
"""A test checks every emitted event against this table."""
