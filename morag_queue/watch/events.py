"""The events of the loop: name, severity, meaning and fields of each. A name keeps its meaning.

`log.py` writes them; a service may pass its own `EventSink`. A turn that changes something emits one line; while
nothing changes, `fleet_looked_at` is the heartbeat. Durations carry their unit in the field's name.
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
    says: str
    fields: tuple[str, ...] = ()


EVENTS: Mapping[Event, EventSpec] = {
    Event.STARTED: EventSpec(
        "info", "watch started", ("fleet", "who", "interval_seconds", "monitor_seconds", "dry_run")
    ),
    Event.STOPPED: EventSpec("info", "watch stopped; its state is stored on the broker", ("turns",)),
    Event.LEADING: EventSpec("info", "this one leads the fleet from now on", ("term",)),
    Event.STANDING_BY: EventSpec("info", "another process leads; this one stands by", ("leader", "verb", "term")),
    Event.LEASE_LOST: EventSpec("warning", "the lease expired; nothing more was changed", ("term",)),
    Event.LEASE_GIVEN_UP: EventSpec("info", "another one may lead at once", ("term",)),
    Event.TURN: EventSpec(
        "info", "a turn that changed something",
        ("trigger", "plan_id", "moved", "taken_back", "resent", "quarantined", "refused", "rules", "seconds"),
    ),
    Event.PLANNED: EventSpec("info", "what a turn would do (dry run)", ("trigger", "plan_id", "decisions", "seconds")),
    Event.REFUSED: EventSpec("warning", "a step no longer fitted; it is data, not an error", ("task_id", "reason")),
    Event.FLEET: EventSpec(
        "info", "the heartbeat of the loop, once a monitoring interval",
        ("pending", "processing", "workers", "serving", "backlog_minutes", "oldest_minutes", "turns", "leader"),
    ),
    Event.JOINED: EventSpec("info", "a worker has registered", ("worker",)),
    Event.RETURNED: EventSpec("info", "a worker that was away acts in its name again", ("worker",)),
    Event.LEFT: EventSpec("info", "a worker has shut down in good order", ("worker",)),
    Event.GONE: EventSpec("warning", "a worker has no connection any more, and said no goodbye", ("worker",)),
    Event.FAILED_OVER: EventSpec(
        "warning", "what dead workers held goes elsewhere",
        ("workers", "evidence", "taken_back", "moved", "quarantined", "seconds"),
    ),
    Event.SILENT: EventSpec("warning", "a worker is connected and has not beaten for too long", ("worker", "seconds")),
    Event.OUT_OF_SERVICE: EventSpec("info", "a worker was cordoned or drained", ("worker", "state")),
    Event.IN_SERVICE: EventSpec("info", "a worker's cordon was lifted, or is over", ("worker",)),
    Event.STALLED: EventSpec(
        "warning", "a worker beats and takes nothing while work waits for it: restart it",
        ("worker", "queues", "waiting", "seconds"),
    ),
    Event.MOVING_AGAIN: EventSpec("info", "a worker that had stalled takes work again", ("worker",)),
    Event.FLAPPING: EventSpec(
        "warning", "a worker starts again and again: its circuit breaker is open", ("worker", "starts", "seconds")
    ),
    Event.LANE_STALLED: EventSpec(
        "warning", "work waits in a lane, and of those who read it nobody takes it", ("lane", "waiting", "reason")
    ),
    Event.FOREIGN: EventSpec("warning", "messages in the lanes are not Celery's; they stay there", ("count",)),
    Event.BROKER_LOST: EventSpec("error", "the broker cannot be reached; trying again", ("error",)),
    Event.BROKER_BACK: EventSpec("info", "the broker answers again", ("seconds",)),
    Event.TURN_FAILED: EventSpec("error", "a turn ended with an error; the next one goes on", ("error", "where")),
    Event.TURN_WORKS_AGAIN: EventSpec("info", "a turn has ended well after some that did not", ("failed_turns",)),
    Event.LEARNED: EventSpec("debug", "measured run times were learned from", ("runs", "estimates")),
    Event.AGENTLESS: EventSpec(
        "info", "plain Celery workers: they are asked by remote control, so figures about them are less exact",
        ("nodes",),
    ),
    Event.KEPT_ALIVE: EventSpec("debug", "messages of workers without the agent: else they run twice", ("count",)),
    Event.EVENTS_ENABLED: EventSpec("info", "these workers were told to send task events (-E)", ("nodes",)),
    Event.METRICS: EventSpec("info", "Prometheus metrics are served", ("url",)),
}  # fmt: skip
"""The table. A test holds each line that is written against it."""


class EventSink(Protocol):
    """Where events go."""

    def __call__(self, event: Event, /, **fields: Any) -> None: ...
