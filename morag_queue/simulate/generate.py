"""Workloads and outages made from a seed."""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from math import exp, log
from random import Random
from typing import NamedTuple

from morag_queue.core.model import Capability, ContentType, QueuePriority, Requires
from morag_queue.errors import UsageError

from .bounds import fluid_seconds
from .model import Outage, SimTask, SimWorker, obstacle


class Arrivals(StrEnum):
    """`poisson`: at random. `bursts`: of 60 tasks, at four times the rate for a tenth of the time."""

    POISSON = "poisson"
    BURSTS = "bursts"


class _Kind(NamedTuple):
    """A content type of the mix: its share, its mean minutes at factor 1, and the sigma of their logarithm."""

    content_type: ContentType
    share: float
    minutes: float
    sigma: float
    requires: Requires


MIX = (
    _Kind(ContentType.AUDIO, 0.20, 4.0, 0.8, Requires.GPU_PREFERRED),
    _Kind(ContentType.VIDEO, 0.05, 6.0, 1.0, Requires.GPU),
    _Kind(ContentType.VIDEO, 0.05, 6.0, 1.0, Requires.GPU_PREFERRED),
    _Kind(ContentType.IMAGE, 0.15, 1.0, 0.6, Requires.GPU_PREFERRED),
    _Kind(ContentType.DOCUMENT, 0.30, 1.5, 0.8, Requires.CPU),
    _Kind(ContentType.WEB, 0.15, 0.5, 0.6, Requires.CPU),
    _Kind(ContentType.YOUTUBE, 0.10, 8.0, 0.8, Requires.GPU_PREFERRED),
)
"""The mix of MoRAG's content, half of the video requiring a GPU."""

PRIORITIES: Mapping[QueuePriority, float] = {
    QueuePriority.URGENT: 0.05, QueuePriority.HIGH: 0.15, QueuePriority.NORMAL: 0.50, QueuePriority.LOW: 0.20,
    QueuePriority.BATCH: 0.10,
}  # fmt: skip

MAX_MINUTES = 240.0
BURST_RATE, BURST_SHARE, BURST_TASKS = 4.0, 0.1, 60


def generate(
    fleet: Sequence[SimWorker],
    *,
    tasks: int,
    load: float,
    noise: float,
    arrivals: Arrivals,
    seed: int,
    mix: Sequence[_Kind] = MIX,
) -> list[SimTask]:
    """Make `tasks` arrivals at `load` times the throughput of the fleet.

    The throughput is that of the fluid bound for the mean of the mix. Estimates are the true minutes times exp(x), x
    normal with standard deviation `noise`. The same arguments make the same workload.
    Raises UsageError for a fleet that cannot run some of the mix.
    """
    for kind in mix:
        if why := obstacle(kind.requires, fleet):
            raise UsageError(f"the generated workload has {kind.content_type} that {why}")
    random = Random(seed)
    seconds = 60.0 * fluid_seconds(fleet, _mean_minutes(mix))
    times = _times(random, load / seconds, tasks, arrivals)
    return [_task(random, number, next(times), noise, mix) for number in range(tasks)]


def outages(fleet: Sequence[SimWorker], *, until_s: float, mtbf_s: float, repair_s: float, seed: int) -> list[Outage]:
    """Outages of each worker at random until a time, with these mean times between failures and to repair."""
    random, found = Random(seed), []
    for worker in fleet:
        now = random.expovariate(1 / mtbf_s)
        while now < until_s:
            up = now + random.expovariate(1 / repair_s)
            found.append(Outage(worker.worker, round(now, 3), round(up, 3)))
            now = up + random.expovariate(1 / mtbf_s)
    return sorted(found, key=lambda outage: (outage.down_s, outage.worker))


def fleet_of(gpu: int, hybrid: int, cpu: int) -> list[SimWorker]:
    """A fleet with the usual slots: 2 of a GPU worker, 3 of a hybrid, 4 of a CPU worker."""
    counts = {Capability.GPU: (gpu, 2), Capability.HYBRID: (hybrid, 3), Capability.CPU: (cpu, 4)}
    return [
        SimWorker(f"{capability}-{n}", capability, slots)
        for capability, (number, slots) in counts.items()
        for n in range(1, number + 1)
    ]


def _mean_minutes(mix: Sequence[_Kind]) -> dict[Requires, float]:
    minutes: dict[Requires, float] = {}
    for kind in mix:
        minutes[kind.requires] = minutes.get(kind.requires, 0.0) + kind.share * kind.minutes
    return minutes


def _times(random: Random, rate: float, tasks: int, arrivals: Arrivals) -> Iterator[float]:
    """Arrival times at a mean `rate` per second.

    Bursts alternate with quiet times: a burst has the rate times four and lasts for 60 tasks, and the quiet time has
    the rest of the tasks in nine times its length.
    """
    now, in_burst, left = 0.0, False, 0
    quiet_rate = rate * (1 - BURST_RATE * BURST_SHARE) / (1 - BURST_SHARE)
    quiet_tasks = max(round(BURST_TASKS * (1 - BURST_RATE * BURST_SHARE) / (BURST_RATE * BURST_SHARE)), 1)
    while True:
        if arrivals is Arrivals.BURSTS:
            if left == 0:
                in_burst = not in_burst
                left = BURST_TASKS if in_burst else quiet_tasks
            left -= 1
            now += random.expovariate(rate * BURST_RATE if in_burst else quiet_rate)
        else:
            now += random.expovariate(rate)
        yield round(now, 3)


def _task(random: Random, number: int, at: float, noise: float, mix: Sequence[_Kind]) -> SimTask:
    kind = random.choices(mix, [kind.share for kind in mix])[0]
    priority = random.choices(list(PRIORITIES), list(PRIORITIES.values()))[0]
    mean = log(kind.minutes) - kind.sigma**2 / 2
    minutes = min(exp(random.gauss(mean, kind.sigma)), MAX_MINUTES)
    estimate = minutes * exp(random.gauss(0.0, noise)) if noise else minutes
    return SimTask(number, at, kind.content_type, kind.requires, priority, round(minutes, 6), round(estimate, 6))
