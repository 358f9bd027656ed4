"""Run policies on one workload."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum

from morag_queue.core.policy import Binding, Order
from morag_queue.settings import Settings

from .balanced import Balanced
from .bounds import flow_bound, makespan_bound
from .engine import Engine, Outcome, Scheduler
from .model import Outage, SimTask, SimWorker
from .result import PolicyResult, result
from .seed import Seed
from .static import Static


class PolicyName(StrEnum):
    STATIC = "static"
    SEED = "seed"
    BALANCED = "balanced"


Progress = Callable[[PolicyName, float, int], None]
"""Called at each tick with the policy, the time in seconds and the number of open tasks."""


def simulate(
    policies: Sequence[PolicyName],
    workload: Sequence[SimTask],
    fleet: Sequence[SimWorker],
    outages: Sequence[Outage] = (),
    *,
    settings: Settings,
    order: Order | None = None,
    binding: Binding | None = None,
    on_progress: Progress = lambda _policy, _now, _open: None,
) -> list[PolicyResult]:
    """Run each policy on the same input. `order` and `binding` replace those of the settings."""
    lower, batch = flow_bound(fleet, workload), makespan_bound(fleet, workload)
    return [
        result(
            policy, workload, fleet,
            run(policy, workload, fleet, outages, settings=settings, order=order, binding=binding,
                on_progress=on_progress),
            lower_bound_s=lower, makespan_bound_s=batch,
        )
        for policy in policies
    ]  # fmt: skip


def run(
    policy: PolicyName,
    workload: Sequence[SimTask],
    fleet: Sequence[SimWorker],
    outages: Sequence[Outage] = (),
    *,
    settings: Settings,
    order: Order | None = None,
    binding: Binding | None = None,
    on_progress: Progress = lambda _policy, _now, _open: None,
) -> Outcome:
    """Run one policy. The workload is in the order of arrival, and numbered from 0."""
    policy_of = settings.policy
    chosen = replace(
        settings, policy=replace(policy_of, order=order or policy_of.order, binding=binding or policy_of.binding)
    )
    engine = Engine(workload, fleet, outages)
    scheduler: Scheduler
    match policy:
        case PolicyName.STATIC:
            scheduler = Static(engine, workload)
        case PolicyName.SEED:
            scheduler = Seed(engine, workload, fleet)
        case PolicyName.BALANCED:
            scheduler = Balanced(engine, workload, fleet, chosen)
    return engine.run(scheduler, lambda now, left: on_progress(policy, now, left))
