"""The input of a simulation: tasks, workers and outages. Times are seconds since the start of the simulation."""

from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from morag_queue.core.estimate import estimate
from morag_queue.core.model import Capability, ContentType, QueuePriority, Requires


class SimTask(NamedTuple):
    """One arrival. Minutes are at factor 1; `true_minutes` is hidden from the policies."""

    number: int
    arrival_s: float
    content_type: ContentType
    requires: Requires
    priority: QueuePriority
    true_minutes: float
    estimated_minutes: float

    def seconds_on(self, capability: Capability) -> float:
        """The run time on a worker of this capability, in seconds; infinite where it cannot run."""
        return 60.0 * self.true_minutes * FACTORS[self.requires, capability]


class SimWorker(NamedTuple):
    """A worker that runs `slots` tasks at once. Its slots do not slow one another."""

    worker: str
    capability: Capability
    slots: int


class Outage(NamedTuple):
    """A worker is down in this interval. What it runs then starts again from zero elsewhere."""

    worker: str
    down_s: float
    up_s: float


FACTORS = {
    (requires, capability): estimate(1.0, requires, capability) for requires in Requires for capability in Capability
}
"""Minutes on a worker of this capability for each minute at factor 1."""

RUNS_CPU_WORK = (Capability.CPU, Capability.HYBRID)
"""The capabilities whose workers read CPU queues."""


def shortest_seconds(task: SimTask, capabilities: frozenset[Capability]) -> float:
    """The run time on the fastest of the capabilities that take the task; infinite where none does."""
    return min((task.seconds_on(one) for one in capabilities if takes(one, task.requires)), default=inf)


def obstacle(requires: Requires, fleet: Iterable[SimWorker]) -> str:
    """Return why the fleet cannot run such work, or ""."""
    if any(takes(worker.capability, requires) for worker in fleet):
        return ""
    needed = "CPU or hybrid" if requires is Requires.CPU else "GPU"
    return f"requires {requires}, and the fleet has no {needed} worker: add one"


def takes(capability: Capability, requires: Requires) -> bool:
    """Whether workers of this capability read a queue with such work, under any policy."""
    if requires is Requires.CPU:
        return capability in RUNS_CPU_WORK
    return FACTORS[requires, capability] < inf
