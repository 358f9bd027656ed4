"""Commands that read the fleet."""

import time
from collections.abc import Iterator
from contextlib import ExitStack

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet
from tests.support.simulated_fleet import SimulatedFleet, connected

from .process import CELERY, MORAG_QUEUE, seconds
from .server_use import ServerUse
from .table import Measured, Row, Subject

WORKERS, WATCHED_SECONDS = 8, 10.0


def stats() -> Iterator[Measured]:
    with Fleet() as fleet:
        fleet.start_worker("worker-cpu-1")
        inspect = [CELERY, "-A", "tests.support.app", "inspect", "active"]
        while True:
            ours = seconds([MORAG_QUEUE, "stats", "--json"], fleet.env, fleet.dir)
            yield {"stats": (1000 * ours, 1000 * seconds(inspect, fleet.env, fleet.dir))}


def watch() -> Iterator[Measured]:
    """The connected workers send no heartbeats, whose commands would be counted."""
    with Fleet() as fleet, ExitStack() as stack:
        sim_fleet = SimulatedFleet(fleet.url)
        for number in range(WORKERS):
            name = f"worker-{number}"
            sim_fleet.join(name, slots=2, client_name=f"mq.{name}", beat_seconds=3600.0)
            stack.enter_context(connected(fleet.url, f"mq.{name}"))
        fleet.start_watch("--json")
        until(lambda: '"leading"' in fleet.log("watch"), 30, lambda: fleet.log("watch"))
        while True:
            time.sleep(1)
            before = ServerUse.of(fleet.redis)
            time.sleep(WATCHED_SECONDS)
            yield {"watch": ((ServerUse.of(fleet.redis) - before).commands / WATCHED_SECONDS, 1.0)}


SUBJECTS = (
    Subject((Row("stats", "`stats --json`, the whole command", "`celery inspect active`", "ms", bar=0.17),), stats),
    Subject(
        (
            Row(
                "watch", f"commands a second of `watch`, idle fleet of {WORKERS} workers", "", "", bar=20.0,
                is_absolute=True,
            ),
        ),
        watch,
        count=3,
    ),
)  # fmt: skip
