"""Send single messages to idle workers at random gaps, and look whether one is left lying."""

import time
from dataclasses import dataclass
from random import Random

from morag_queue.local.waiting import until

from .fleet import Fleet

LEFT_SECONDS = 5.0
"""A message that has not been claimed after this time was left lying: an idle worker claims within milliseconds."""

RARELY = "1000"
"""Seconds after which an idle worker would look for work by itself, and hide that it was not woken."""

_LANE = "cpu_standard"


@dataclass(slots=True)
class Soak:
    """`left`: messages that no worker claimed in time. `seconds`: from each push to its claim, seen by the sender."""

    left: int
    seconds: list[float]


def start_workers(fleet: Fleet, workers: int, processes: int = 4) -> None:
    """Start idle workers, several in each process."""
    names = [f"channels-{number}" for number in range(processes)]
    for name in names:
        arguments = [fleet.url, str(workers // processes), "agent", name, RARELY]
        fleet.sandbox.fork(name, "tests.support.channel_workers", arguments, fleet.env)
    until(lambda: all("ready" in fleet.log(name) for name in names), 60, lambda: fleet.log(names[0]))


def soak(fleet: Fleet, messages: int, seed: int) -> Soak:
    """Send messages, one or a few at a time, the next as soon as the last was claimed or after a random gap.

    So most are pushed while a worker is just appointed to be woken next.
    """
    random, result = Random(seed), Soak(0, [])
    fleet.send("unread", level=0)
    text = fleet.redis.lindex("unread", 0) or ""
    sent = 0
    while sent < messages:
        batch = random.choice((1, 1, 1, 1, 2, 5))
        began = time.monotonic()
        fleet.redis.lpush(_LANE, *[text] * batch)
        sent += batch
        while fleet.redis.llen(_LANE):
            if time.monotonic() - began > LEFT_SECONDS:
                result.left += fleet.redis.llen(_LANE)
                fleet.redis.delete(_LANE)
        result.seconds.append(time.monotonic() - began)
        time.sleep(random.choice((0.0, 0.0, 0.0005, 0.002, 0.01)) * random.random())
    return result
