"""Compare the policies on fleets that do not exist, and the ratios with their bars.

`python -m tests.bench.policies [--fleets 4 32 1000] [--loads 0.5 0.8 0.95 1.2] [--seeds 5] [--arrivals bursts]`

Each row is the median of the seeds. wF is the weighted mean flow time of `balanced`, as a ratio to that of static and
seed and to the lower bound. The exit status is 1 if a bar is missed, or if a run lost a task or started one twice.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from statistics import median

from morag_queue.core.policy import Order
from morag_queue.settings import Settings
from morag_queue.simulate.generate import Arrivals, fleet_of, generate, outages
from morag_queue.simulate.result import PolicyResult
from morag_queue.simulate.run import PolicyName, simulate

FLEETS = {4: fleet_of(1, 1, 2), 32: fleet_of(8, 8, 16), 1000: fleet_of(250, 250, 500)}
TASKS = {4: 400, 32: 3_200, 1000: 60_000}
NOISE, MTBF_SECONDS, REPAIR_SECONDS = 0.5, 4 * 3600.0, 600.0

Results = dict[str, PolicyResult]
Ratio = Callable[[Results], float]


def flow_over(policy: str) -> Ratio:
    return lambda found: found["balanced"].weighted_mean_flow_s / found[policy].weighted_mean_flow_s


RATIOS: dict[str, Ratio] = {
    "÷ static": flow_over("static"),
    "÷ seed": flow_over("seed"),
    "÷ bound": lambda found: found["balanced"].weighted_mean_flow_s / found["balanced"].lower_bound_s,
    "Jain": lambda found: min(found["balanced"].jain_by_capability.values()),
    "moves": lambda found: found["balanced"].moves_per_task,
}
WEIGHTED, STRICT = Order.WEIGHTED, Order.STRICT
BARS: dict[tuple[str, Order, float, bool], tuple[float, float, float]] = {
    ("÷ static", WEIGHTED, 0.8, False): (0.50, 0.60, 0.65),
    ("÷ static", STRICT, 0.8, False): (0.62, 0.65, 0.70),
    ("÷ seed", WEIGHTED, 0.8, False): (0.45, 0.42, 0.75),
    ("÷ seed", STRICT, 0.8, False): (0.55, 0.45, 0.80),
    ("÷ bound", WEIGHTED, 0.8, False): (1.85, 1.30, 1.02),
    ("÷ bound", STRICT, 0.8, False): (2.50, 1.40, 1.10),
    ("÷ static", WEIGHTED, 0.95, False): (0.36, 0.46, 0.66),
    ("÷ static", WEIGHTED, 0.8, True): (0.40, 0.55, 0.65),
    ("Jain", WEIGHTED, 0.8, False): (0.97, 0.97, 0.97),
    ("Jain", STRICT, 0.8, False): (0.97, 0.97, 0.97),
    ("moves", WEIGHTED, 0.8, False): (0.10, 0.02, 0.01),
    ("moves", STRICT, 0.8, False): (0.10, 0.02, 0.01),
}
"""By figure, order, load and "with outages": the bar for 4, 32 and 1,000 workers. Jain is a minimum."""


def run(size: int, load: float, order: Order, seed: int, arrivals: Arrivals, *, failing: bool) -> Results:
    fleet = FLEETS[size]
    arriving = generate(fleet, tasks=TASKS[size], load=load, noise=NOISE, arrivals=arrivals, seed=seed)
    last = arriving[-1].arrival_s
    falls = outages(fleet, until_s=last, mtbf_s=MTBF_SECONDS, repair_s=REPAIR_SECONDS, seed=seed) if failing else []
    found = simulate(list(PolicyName), arriving, fleet, falls, settings=Settings(), order=order)
    return {one.policy: one for one in found}


def line(size: int, load: float, order: Order, runs: Sequence[Results], *, failing: bool) -> tuple[str, bool]:
    """Return a row of the table, and whether all its bars are met."""
    cells, is_met = [], True
    for name, ratio in RATIOS.items():
        value = median(map(ratio, runs))
        bar = BARS.get((name, order, load, failing))
        limit = bar[list(FLEETS).index(size)] if bar else None
        met = limit is None or (value >= limit if name == "Jain" else value <= limit)
        is_met &= met
        sign = "≥" if name == "Jain" else "≤"
        shown = f" ({sign} {limit:.2f}{'' if met else ' NOT MET'})" if limit is not None else ""
        cells.append(f"{value:.2f}{shown}")
    wrong = sum(one.lost + one.started_twice for found in runs for one in found.values())
    words = (f"{size:,}", f"{load:g}", order.value, "yes" if failing else "no", *cells, str(wrong))
    return f"| {' | '.join(words)} |", is_met and not wrong


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.policies", description=__doc__)
    parser.add_argument("--fleets", nargs="+", type=int, choices=FLEETS, default=[4, 32, 1000])
    parser.add_argument("--loads", nargs="+", type=float, default=[0.5, 0.8, 0.95, 1.2])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--arrivals", type=Arrivals, choices=list(Arrivals), default=Arrivals.BURSTS)
    chosen = parser.parse_args(arguments)
    print("| workers | load | order | outages | ÷ static | ÷ seed | ÷ bound | Jain | moves a task | lost, twice |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    all_met = True
    for size in chosen.fleets:
        for load in chosen.loads:
            for order in Order:
                for failing in (False, True) if load == 0.8 else (False,):
                    runs = [
                        run(size, load, order, seed, chosen.arrivals, failing=failing)
                        for seed in range(1, chosen.seeds + 1)
                    ]
                    text, is_met = line(size, load, order, runs, failing=failing)
                    print(text, flush=True)
                    all_met &= is_met
    return 0 if all_met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
