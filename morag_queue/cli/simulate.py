"""`simulate`: compare policies on a workload and a fleet from files, or of its own making."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from morag_queue.errors import ExitStatus, UsageError

from .context import CliContext
from .options import verb

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from morag_queue.core.policy import Order
    from morag_queue.simulate.model import SimTask, SimWorker
    from morag_queue.simulate.run import PolicyName

_POLICIES = "static,seed,balanced"
_FLEET = "gpu=2,hybrid=2,cpu=4"
_PROGRESS_STEP = 100
"""Ended tasks between two updates of the progress bar."""


@verb()
def simulate(
    ctx: CliContext,
    workload: Annotated[
        str | None, typer.Option("--workload", metavar="FILE", help="Read the arrivals from this CSV file.")
    ] = None,
    fleet: Annotated[
        str, typer.Option("--fleet", metavar="FILE|KIND=N,…", help="Workers: a JSON file, or counts by capability.")
    ] = _FLEET,
    failures: Annotated[
        str | None, typer.Option("--failures", metavar="FILE", help="Read the outages of workers from this CSV file.")
    ] = None,
    policy: Annotated[
        str, typer.Option("--policy", metavar="NAME,…", help="Policies to compare: static, seed, balanced.")
    ] = _POLICIES,
    order: Annotated[
        str | None, typer.Option("--order", metavar="ORDER", help="Order of `balanced`: strict or weighted.")
    ] = None,
    tasks: Annotated[
        int | None, typer.Option("--tasks", metavar="N", min=1, help="Tasks to generate.  [default: 1000]")
    ] = None,
    load: Annotated[
        float | None,
        typer.Option("--load", metavar="SHARE", help="Arriving work as a share of the throughput.  [default: 0.8]"),
    ] = None,
    arrivals: Annotated[
        str | None, typer.Option("--arrivals", metavar="KIND", help="bursts or poisson.  [default: bursts]")
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option("--noise", metavar="SIGMA", help="Error of the estimates: sigma of its log.  [default: 0.5]"),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed of the generated workload.  [default: 1]")
    ] = None,
    write_workload: Annotated[
        str | None, typer.Option("--write-workload", metavar="FILE", help="Also write the workload to this CSV file.")
    ] = None,
) -> ExitStatus:
    """Run a workload on a fleet that does not exist, once under each policy, and compare the waits.

    `static` is plain Celery with a queue for each content type, `seed` the first design of this project, and
    `balanced` its routing and balancing as they run in production, by the settings in force. Nothing is read from
    the broker. The same input gives the same figures on every machine.

    A workload has the columns arrival_s, content_type, requires, priority, true_minutes, estimated_minutes; outages
    have worker, down_s, up_s; a fleet is [{"worker": "gpu-1", "capability": "gpu", "slots": 2}, …].
    """
    from morag_queue.simulate.files import check_runnable, read_outages
    from morag_queue.simulate.files import write_workload as write
    from morag_queue.simulate.result import SimulationResult
    from morag_queue.simulate.run import simulate as run_policies

    directory = ctx.environment.cwd
    names, chosen_order = _policies(policy), _order(order)
    workers = _workers(fleet, directory)
    arriving, used_seed = _workload(workload, workers, directory, tasks, load, arrivals, noise, seed)
    check_runnable(arriving, workers, workload or "the generated workload")
    outages = read_outages(directory / failures, workers) if failures is not None else []
    if write_workload is not None:
        write(directory / write_workload, arriving)
    with ctx.progress("simulating", len(names) * len(arriving)) as advance:
        shown = 0

        def on_progress(name: "PolicyName", _now: float, left: int) -> None:
            nonlocal shown
            ended = names.index(name) * len(arriving) + len(arriving) - left
            if ended - shown >= _PROGRESS_STEP:
                advance(ended - shown)
                shown = ended

        found = run_policies(
            names, arriving, workers, outages, settings=ctx.settings, order=chosen_order, on_progress=on_progress
        )
        advance(len(names) * len(arriving) - shown)
    answer = SimulationResult(
        tasks=len(arriving),
        workers=len(workers),
        slots=sum(worker.slots for worker in workers),
        order=(chosen_order or ctx.settings.policy.order).value,
        seed=used_seed,
        policies=tuple(found),
    )

    def human() -> "RenderableType":
        from morag_queue.view.simulate import simulation_view

        return simulation_view(answer)

    ctx.emit(answer, human)
    return ExitStatus.FAILED if any(one.lost for one in answer.policies) else ExitStatus.OK


def _policies(words: str) -> "list[PolicyName]":
    from morag_queue.simulate.run import PolicyName

    found = [word.strip() for word in words.split(",") if word.strip()]
    unknown = [word for word in found if word not in set(PolicyName)]
    if unknown or not found:
        raise UsageError(f"unknown policy {', '.join(unknown) or repr(words)}: use some of {', '.join(PolicyName)}")
    return [PolicyName(word) for word in dict.fromkeys(found)]


def _order(word: str | None) -> "Order | None":
    from morag_queue.core.policy import Order

    if word is None:
        return None
    if word not in set(Order):
        raise UsageError(f"unknown order {word!r}: use {' or '.join(Order)}")
    return Order(word)


def _workers(words: str, directory: Path) -> "list[SimWorker]":
    """Read a fleet from a file, or from counts: gpu=2,cpu=4."""
    from morag_queue.core.model import Capability
    from morag_queue.simulate.files import read_fleet
    from morag_queue.simulate.generate import fleet_of

    if "=" not in words:
        return read_fleet(directory / words)
    counts = dict.fromkeys(Capability, 0)
    for part in words.split(","):
        name, _, number = part.partition("=")
        if name.strip() not in set(Capability) or not number.strip().isdecimal():
            raise UsageError(f"--fleet {part.strip()!r}: write counts as in {_FLEET}, or the name of a JSON file")
        counts[Capability(name.strip())] += int(number)
    if not sum(counts.values()):
        raise UsageError("--fleet has no worker: write counts as in " + _FLEET)
    return fleet_of(counts[Capability.GPU], counts[Capability.HYBRID], counts[Capability.CPU])


def _workload(
    file: str | None,
    fleet: "Sequence[SimWorker]",
    directory: Path,
    tasks: int | None,
    load: float | None,
    arrivals: str | None,
    noise: float | None,
    seed: int | None,
) -> "tuple[list[SimTask], int | None]":
    """Return the arrivals, and the seed if they are generated."""
    from morag_queue.simulate.files import read_workload
    from morag_queue.simulate.generate import Arrivals, generate

    given = {"--tasks": tasks, "--load": load, "--arrivals": arrivals, "--noise": noise, "--seed": seed}
    if file is not None:
        if unused := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"{', '.join(unused)} shape a generated workload; with --workload leave them out")
        return read_workload(directory / file), None
    if load is not None and not 0 < load <= 10:
        raise UsageError(f"--load {load:g}: write a share above 0, up to 10")
    if noise is not None and not 0 <= noise <= 3:
        raise UsageError(f"--noise {noise:g}: write a number from 0 to 3")
    if arrivals is not None and arrivals not in set(Arrivals):
        raise UsageError(f"unknown arrivals {arrivals!r}: use {' or '.join(Arrivals)}")
    used = 1 if seed is None else seed
    made = generate(
        fleet, tasks=tasks or 1000, load=load or 0.8, noise=0.5 if noise is None else noise,
        arrivals=Arrivals(arrivals or Arrivals.BURSTS), seed=used,
    )  # fmt: skip
    return made, used
