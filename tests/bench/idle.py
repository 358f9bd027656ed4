"""One message while many workers are idle: what it costs the server."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

from .server_use import ServerUse
from .table import Measured, Row, Subject

MESSAGES, GAP_SECONDS, PROCESSES = 90, 0.03, 4
SECONDS = MESSAGES * GAP_SECONDS * 1.2


def pairs(workers: int) -> Iterator[Measured]:
    """The workers are kombu's channels alone, see `tests.support.channel_workers`."""
    with ExitStack() as stack:
        fleets = {}
        for kind in ("agent", "plain"):
            fleets[kind] = fleet = stack.enter_context(Fleet(agent=False))
            start_workers(fleet, workers, kind)
            cost_of_messages(fleet)
        while True:
            (idle, ours), (plain_idle, plain) = (cost_of_messages(fleets[kind]) for kind in ("agent", "plain"))
            yield {
                f"idle-server-{workers}": (100 * idle.cpu / SECONDS, 100 * plain_idle.cpu / SECONDS),
                f"idle-{workers}": (1000 * ours.cpu / MESSAGES, 1000 * plain.cpu / MESSAGES),
                f"idle-scripts-{workers}": (ours.scripts / MESSAGES, 1.0),
            }


def start_workers(fleet: Fleet, workers: int, kind: str) -> None:
    names = [f"channels-{number}" for number in range(PROCESSES)]
    for name in names:
        arguments = [fleet.url, str(workers // PROCESSES), kind, name]
        fleet.sandbox.fork(name, "tests.support.channel_workers", arguments, fleet.env)
    until(lambda: all("ready" in fleet.log(name) for name in names), 60, lambda: fleet.log(names[0]))


def cost_of_messages(fleet: Fleet) -> tuple[ServerUse, ServerUse]:
    """What the server does in some seconds without messages; and what single messages add to that."""
    first = ServerUse.of(fleet.redis)
    time.sleep(SECONDS)
    second = ServerUse.of(fleet.redis)
    end = time.monotonic() + SECONDS
    for _ in range(MESSAGES):
        fleet.send("cpu_standard", level=0)
        time.sleep(GAP_SECONDS)
    time.sleep(max(0.0, end - time.monotonic()))
    until(lambda: not fleet.redis.llen("cpu_standard") + fleet.redis.hlen("unacked"), 30, lambda: str(fleet.where()))
    idle = second - first
    return idle, ServerUse.of(fleet.redis) - second - idle


def subject(workers: int) -> Subject:
    return Subject(
        (
            Row(
                f"idle-{workers}", f"server CPU of one message, {workers} idle workers on its lane",
                "plain Celery (BRPOP)", "ms", bar=3.0,
            ),
            Row(
                f"idle-scripts-{workers}", f"scripts that one message causes, {workers} idle workers on its lane",
                "", "", bar=4.0, is_absolute=True,
            ),
            Row(
                f"idle-server-{workers}", f"server CPU while {workers} workers are idle, of one core",
                "plain Celery (BRPOP)", "%", bar=5.0, is_absolute=True,
            ),
        ),
        partial(pairs, workers),
    )  # fmt: skip


SUBJECTS = (subject(16), subject(200))
