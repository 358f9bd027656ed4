"""Answer of `simulate`: one line for each policy, and its waits by priority."""

from rich.console import Group, RenderableType
from rich.text import Text

from morag_queue.core.words import count_of
from morag_queue.simulate.result import PolicyResult, SimulationResult

from .table import Column, FittedTable, cell
from .text import format_duration


def simulation_view(answer: SimulationResult) -> RenderableType:
    """Show the policies beside the lower bound, and the waits of each priority under each policy."""
    policies = answer.policies
    size = f"{count_of(answer.tasks, 'task')} on {count_of(answer.workers, 'worker')} with {answer.slots} slots"
    made = "" if answer.seed is None else f", seed {answer.seed}"
    return Group(
        Text(f"{size}, order {answer.order}{made}", "bold"),
        Text(),
        FittedTable(_figures(policies)),
        Text(),
        Text("Median and 95th percentile of the wait", "bold"),
        Text(),
        FittedTable(_waits(policies)),
        Text(),
        Text(
            "FLOW is the mean time from arrival to end, weighted by priority; ×BOUND compares it with a lower bound "
            "for every policy.",
            "dim",
        ),
    )


def _figures(policies: tuple[PolicyResult, ...]) -> list[Column]:
    def right(title: str, values: list[str], rank: int = 0, style: str = "") -> Column:
        return Column(title, [cell(value, style) for value in values], right=True, rank=rank)

    lost = [str(one.lost) for one in policies]
    return [
        Column("POLICY", [cell(one.policy, "bold") for one in policies]),
        right("FLOW", [format_duration(one.weighted_mean_flow_s) for one in policies]),
        right("×BOUND", [f"{one.weighted_mean_flow_s / one.lower_bound_s:.2f}" for one in policies]),
        right("WAIT P50", [format_duration(one.wait_p50_s) for one in policies], 3),
        right("P95", [format_duration(one.wait_p95_s) for one in policies], 2),
        right("MAKESPAN", [format_duration(one.makespan_s) for one in policies], 4),
        right("BUSY", [f"{one.utilisation:.0%}" for one in policies], 5),
        right("MOVES/TASK", [f"{one.moves_per_task:.3f}" for one in policies], 7),
        right("RESTARTED", [str(one.restarted) for one in policies], 6),
        right("LOST", lost, 1, "bold red" if any(one.lost for one in policies) else ""),
    ]


def _waits(policies: tuple[PolicyResult, ...]) -> list[Column]:
    priorities = list(dict.fromkeys(name for one in policies for name in one.by_priority))
    return [
        Column("PRIORITY", [cell(name, "bold") for name in priorities]),
        *(
            Column(
                one.policy.upper(),
                [
                    cell(f"{format_duration(row.wait_p50_s)} {format_duration(row.wait_p95_s):>7}")
                    for name in priorities
                    for row in [one.by_priority[name]]
                ],
                right=True,
            )
            for one in policies
        ),
    ]
