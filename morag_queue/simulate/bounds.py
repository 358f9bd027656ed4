"""Lower bounds of what any policy can reach, by fluid relaxations.

A worker of capability t has a price y_t ≥ 0 for each second of a slot, and all slots of the fleet together cost 1 a
second: Σ slots_t · y_t = 1. Running a task takes at least v = min_t p_t · y_t, where p_t is its run time on t. So all
work together takes at least Σ v seconds, whatever the policy: the dual of the linear program that divides the work
among the capabilities.
"""

from collections.abc import Iterable, Mapping, Sequence
from heapq import heappop, heappush
from itertools import combinations
from math import inf

from morag_queue.core.model import Capability, Requires

from .model import FACTORS, SimTask, SimWorker, shortest_seconds, takes

Prices = Mapping[Capability, float]

_CAPABILITIES = (Capability.GPU, Capability.HYBRID, Capability.CPU)


def slots_of(fleet: Iterable[SimWorker]) -> dict[Capability, int]:
    """The slots of each capability in the fleet."""
    slots = dict.fromkeys(_CAPABILITIES, 0)
    for worker in fleet:
        slots[worker.capability] += worker.slots
    return slots


def fluid_seconds(fleet: Sequence[SimWorker], work: Mapping[Requires, float]) -> float:
    """The least time in which the fleet does this work if it can be divided at will: the value of the linear program.

    `work` is in any unit at factor 1, and so is the result. Infinite where the fleet cannot do some of it.
    """
    slots = slots_of(fleet)
    present = [capability for capability in _CAPABILITIES if slots[capability]]
    if any(amount and not any(takes(one, requires) for one in present) for requires, amount in work.items()):
        return inf
    return _value(best_prices(slots, work), work, present)


def best_prices(slots: Mapping[Capability, int], work: Mapping[Requires, float]) -> Prices:
    """The prices at which the work takes longest: the optimum of the dual program.

    The value is concave and piecewise linear in the prices, so it is largest where planes of the pieces meet: all such
    points are tried.
    """
    present = [capability for capability in _CAPABILITIES if slots[capability]]
    points = [prices for prices in _vertices(slots, present) if min(prices.values()) >= -1e-12]
    return max(points, key=lambda prices: _value(prices, work, present))


def makespan_bound(fleet: Sequence[SimWorker], workload: Iterable[SimTask]) -> float:
    """The least time in seconds for a batch: the fluid bound, or the longest task on its best worker."""
    capabilities = frozenset(worker.capability for worker in fleet)
    work, longest = dict.fromkeys(Requires, 0.0), 0.0
    for task in workload:
        work[task.requires] += 60.0 * task.true_minutes
        longest = max(longest, shortest_seconds(task, capabilities))
    return max(fluid_seconds(fleet, work), longest)


def flow_bound(fleet: Sequence[SimWorker], workload: Sequence[SimTask]) -> float:
    """The least weighted mean flow time in seconds: Σ w F ÷ Σ w, F from arrival to end."""
    capabilities = frozenset(worker.capability for worker in fleet)
    slots = slots_of(fleet)
    shortest = [shortest_seconds(task, capabilities) for task in workload]
    alone = sum(int(task.priority) * seconds for task, seconds in zip(workload, shortest, strict=True))
    total = max([alone, *(_priced_bound(workload, shortest, *one) for one in _price_sets(slots, workload))])
    return total / sum(int(task.priority) for task in workload)


def _price_sets(
    slots: Mapping[Capability, int], workload: Sequence[SimTask]
) -> Iterable[tuple[Prices, frozenset[Requires]]]:
    """Prices to bound by, each with the classes of work to count; the others take their shortest run time."""
    work = dict.fromkeys(Requires, 0.0)
    for task in workload:
        work[task.requires] += task.true_minutes
    gpu = frozenset({Requires.GPU, Requires.GPU_PREFERRED})
    for classes in (frozenset(Requires), gpu, frozenset({Requires.CPU})):
        counted = {requires: amount if requires in classes else 0.0 for requires, amount in work.items()}
        if any(counted.values()):
            yield best_prices(slots, counted), classes
    for row, classes in (((1.0, 1.0, 0.1), gpu), ((0.0, 1.0, 1.0), frozenset({Requires.CPU}))):
        prices = {one: price for one, price in zip(_CAPABILITIES, row, strict=True) if slots[one]}
        cost = sum(slots[capability] * price for capability, price in prices.items())
        if cost:
            yield {capability: price / cost for capability, price in prices.items()}, classes


def _priced_bound(
    workload: Sequence[SimTask], shortest: Sequence[float], prices: Prices, classes: frozenset[Requires]
) -> float:
    """Σ w F ≥ Σ w (M − r + p/2): M is the mean busy time of the task on one machine that takes v for it.

    The machine runs the task with the largest w ÷ v first and may interrupt it, which minimises Σ w M. r is the
    arrival, p the shortest run time.
    """
    price = {requires: _least(requires, prices) for requires in Requires}
    bound, jobs = 0.0, []
    for task, seconds in zip(workload, shortest, strict=True):
        weight, value = int(task.priority), 60.0 * task.true_minutes * price[task.requires]
        if task.requires not in classes or value <= 0:
            bound += weight * seconds
        else:
            bound += weight * (seconds / 2 - task.arrival_s)
            jobs.append((task.arrival_s, weight, value))
    return bound + _weighted_busy_time(jobs)


def _weighted_busy_time(jobs: Sequence[tuple[float, int, float]]) -> float:
    """Σ w M of jobs (arrival, weight, length) on one machine that runs the largest weight ÷ length first."""
    total, now = 0.0, 0.0
    waiting: list[tuple[float, int, float, int, float]] = []  # (−w/v, n, left, weight, length)
    arrivals = sorted(jobs)
    for n, (arrival, weight, length) in enumerate([*arrivals, (inf, 0, 0.0)]):
        while waiting and now < arrival:
            rank, order, left, job_weight, job_length = heappop(waiting)
            ran = min(left, arrival - now)
            total += job_weight * (now + ran / 2) * ran / job_length
            now += ran
            if left - ran > 0:
                heappush(waiting, (rank, order, left - ran, job_weight, job_length))
        if length:
            now = max(now, arrival)
            heappush(waiting, (-weight / length, n, length, weight, length))
    return total


def _value(prices: Prices, work: Mapping[Requires, float], present: Sequence[Capability]) -> float:
    return sum(
        amount * min((FACTORS[requires, one] * prices[one] for one in present if takes(one, requires)), default=inf)
        for requires, amount in work.items()
        if amount
    )


def _least(requires: Requires, prices: Prices) -> float:
    return min((FACTORS[requires, one] * price for one, price in prices.items() if takes(one, requires)), default=0.0)


def _vertices(slots: Mapping[Capability, int], present: Sequence[Capability]) -> Iterable[dict[Capability, float]]:
    """All prices at which as many planes meet as there are prices to choose."""
    planes = [{one: 1.0} for one in present]
    for requires in Requires:
        able = [one for one in present if takes(one, requires)]
        planes += [
            {first: FACTORS[requires, first], second: -FACTORS[requires, second]}
            for first, second in combinations(able, 2)
        ]
    total = {one: float(slots[one]) for one in present}
    for chosen in combinations(planes, len(present) - 1):
        found = _solved(
            [[*(row.get(one, 0.0) for one in present), 0.0] for row in chosen]
            + [[*(total[one] for one in present), 1.0]]
        )
        if found is not None:
            yield dict(zip(present, found, strict=True))


def _solved(rows: list[list[float]]) -> list[float] | None:
    """Solve linear equations by Gauss's method; None where there is no single solution."""
    size = len(rows)
    for column in range(size):
        pivot = max(range(column, size), key=lambda n: abs(rows[n][column]))
        if abs(rows[pivot][column]) < 1e-12:
            return None
        rows[column], rows[pivot] = rows[pivot], rows[column]
        for n in range(size):
            if n != column:
                share = rows[n][column] / rows[column][column]
                rows[n] = [one - share * two for one, two in zip(rows[n], rows[column], strict=True)]
    return [rows[n][-1] / rows[n][n] for n in range(size)]
