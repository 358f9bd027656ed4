"""The figures of one simulated policy."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from math import isnan

from pydantic import Field

from morag_queue.core.model import Frozen, QueuePriority

from .engine import Outcome
from .model import SimTask, SimWorker


class PriorityResult(Frozen):
    """The tasks of one priority. Times are seconds, from arrival to the first start (wait) and to the end (flow)."""

    tasks: int
    mean_flow_s: float
    mean_wait_s: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float


class PolicyResult(Frozen):
    """One policy on one workload. Times are seconds; shares are 0..1."""

    policy: str
    tasks: int
    weighted_mean_flow_s: float = Field(description="Σ weight × flow ÷ Σ weight; the weights are 10, 8, 5, 3, 1")
    mean_flow_s: float
    wait_p50_s: float
    wait_p95_s: float
    wait_p99_s: float
    by_priority: Mapping[str, PriorityResult]
    makespan_s: float
    lower_bound_s: float = Field(description="of weighted_mean_flow_s, under any policy")
    makespan_bound_s: float = Field(description="of makespan_s, for work that is all there at the start")
    jain_by_capability: Mapping[str, float] = Field(description="evenness of busy time per slot; 1 is even")
    utilisation: float = Field(description="busy slot-seconds ÷ slot-seconds until the last end")
    utilisation_by_worker: Mapping[str, float]
    moves_per_task: float
    lost: int = Field(description="tasks that never ended")
    started_twice: int = Field(description="tasks started again without an outage of their worker")
    restarted: int = Field(description="tasks started again because of an outage of their worker")


class SimulationResult(Frozen):
    """The answer of `simulate`."""

    tasks: int
    workers: int
    slots: int
    order: str
    seed: int | None = Field(description="of a generated workload")
    policies: tuple[PolicyResult, ...]


def result(
    policy: str,
    workload: Sequence[SimTask],
    fleet: Sequence[SimWorker],
    outcome: Outcome,
    *,
    lower_bound_s: float,
    makespan_bound_s: float,
) -> PolicyResult:
    """Sum up a run. Tasks that never ended are counted in `lost`, and in no time."""
    ended = [task for task in workload if not isnan(outcome.end[task.number])]
    flows = {task.number: outcome.end[task.number] - task.arrival_s for task in ended}
    waits = {task.number: outcome.first_start[task.number] - task.arrival_s for task in ended}
    weights = sum(int(task.priority) for task in ended)
    by_priority = {
        priority.name: _of_priority([task.number for task in ended if task.priority is priority], flows, waits)
        for priority in QueuePriority
    }
    used = {
        worker.worker: busy / (worker.slots * outcome.makespan_s) if outcome.makespan_s else 0.0
        for worker, busy in zip(fleet, outcome.busy_s, strict=True)
    }
    slots = sum(worker.slots for worker in fleet)
    p50, p95, p99 = _percentiles(list(waits.values()))
    return PolicyResult(
        policy=policy,
        tasks=len(workload),
        weighted_mean_flow_s=_rounded(sum(int(task.priority) * flows[task.number] for task in ended) / max(weights, 1)),
        mean_flow_s=_mean(list(flows.values())),
        wait_p50_s=p50,
        wait_p95_s=p95,
        wait_p99_s=p99,
        by_priority={name: figures for name, figures in by_priority.items() if figures.tasks},
        makespan_s=_rounded(outcome.makespan_s),
        lower_bound_s=_rounded(lower_bound_s),
        makespan_bound_s=_rounded(makespan_bound_s),
        jain_by_capability=_evenness(fleet, used),
        utilisation=_rounded(sum(outcome.busy_s) / (slots * outcome.makespan_s) if outcome.makespan_s else 0.0),
        utilisation_by_worker={name: _rounded(share) for name, share in used.items()},
        moves_per_task=_rounded(outcome.moves / len(workload)),
        lost=len(workload) - len(ended),
        started_twice=sum(max(starts - 1 - down, 0) for starts, down in _pairs(outcome)),
        restarted=sum(min(max(starts - 1, 0), down) for starts, down in _pairs(outcome)),
    )


def _pairs(outcome: Outcome) -> "zip[tuple[int, int]]":
    return zip(outcome.starts, outcome.interrupted, strict=True)


def _of_priority(numbers: Sequence[int], flows: Mapping[int, float], waits: Mapping[int, float]) -> PriorityResult:
    own = [waits[number] for number in numbers]
    p50, p95, p99 = _percentiles(own)
    return PriorityResult(
        tasks=len(numbers), mean_flow_s=_mean([flows[number] for number in numbers]), mean_wait_s=_mean(own),
        wait_p50_s=p50, wait_p95_s=p95, wait_p99_s=p99,
    )  # fmt: skip


def _percentiles(values: Sequence[float]) -> tuple[float, float, float]:
    """The 50th, 95th and 99th: the smallest value that so many of a hundred do not exceed."""
    ordered = sorted(values) or [0.0]
    return tuple(  # type: ignore[return-value]
        _rounded(ordered[-(-share * len(ordered) // 100) - 1]) for share in (50, 95, 99)
    )


def _evenness(fleet: Sequence[SimWorker], used: Mapping[str, float]) -> dict[str, float]:
    """Jain's index of the workers of each capability: (Σx)² ÷ (n Σx²)."""
    shares: dict[str, list[float]] = defaultdict(list)
    for worker in fleet:
        shares[worker.capability.value].append(used[worker.worker])
    return {
        capability: _rounded(sum(row) ** 2 / (len(row) * sum(x * x for x in row)) if any(row) else 1.0)
        for capability, row in shares.items()
    }


def _mean(values: Sequence[float]) -> float:
    return _rounded(sum(values) / len(values)) if values else 0.0


def _rounded(value: float) -> float:
    """Round to a thousandth, so that the last bits of a machine's mathematics do not show."""
    return round(value, 3)
