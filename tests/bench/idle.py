"""One message while many workers are idle: what it costs the server."""

import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

from morag_queue.local.waiting import until
from tests.support.fleet import Fleet

from .server_use import ServerUse
from .table import Measured, Row, Subject

MESSAGES, GAP_SECONDS = 60, 0.03


def pairs(workers: int) -> Iterator[Measured]:
    """The workers are kombu's channels alone, see `tests.support.channel_workers`."""
    with ExitStack() as stack:
        fleets = {}
        for kind in ("agent", "plain"):
            fleets[kind] = fleet = stack.enter_context(Fleet(agent=False))
            fleet.sandbox.fork("workers", "tests.support.channel_workers", [fleet.url, str(workers), kind], fleet.env)
            until(lambda fleet=fleet: "ready" in fleet.log("workers"), 60, lambda fleet=fleet: fleet.log("workers"))  # type: ignore[misc]
            cost_of_messages(fleet)
        while True:
            ours, plain = (cost_of_messages(fleets[kind]) for kind in ("agent", "plain"))
            yield {
                f"idle-{workers}": (1000 * ours.cpu / MESSAGES, 1000 * plain.cpu / MESSAGES),
                f"idle-scripts-{workers}": (ours.scripts / MESSAGES, 1.0),
            }


def cost_of_messages(fleet: Fleet) -> ServerUse:
    """What single messages cost, without what the server does in the same time without them."""
    seconds = MESSAGES * GAP_SECONDS * 1.2
    first = ServerUse.of(fleet.redis)
    time.sleep(seconds)
    second = ServerUse.of(fleet.redis)
    end = time.monotonic() + seconds
    for _ in range(MESSAGES):
        fleet.send("cpu_standard", level=0)
        time.sleep(GAP_SECONDS)
    time.sleep(max(0.0, end - time.monotonic()))
    until(lambda: not fleet.redis.llen("cpu_standard") + fleet.redis.hlen("unacked"), 30, lambda: str(fleet.where()))
    return ServerUse.of(fleet.redis) - second - (second - first)


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
        ),
        partial(pairs, workers),
    )  # fmt: skip


SUBJECTS = (subject(16), subject(200))
