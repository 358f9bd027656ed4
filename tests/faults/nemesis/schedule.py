"""The schedule of a run: what is sent, injected and commanded, and when. A pure function of its seed and length."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random

WORKERS: Mapping[str, tuple[str, str, int]] = {
    "worker-cpu-1": ("cpu", "prefork", 2),
    "worker-cpu-2": ("cpu", "prefork", 2),
    "worker-cpu-3": ("cpu", "threads", 3),
    "worker-cpu-4": ("cpu", "solo", 1),
    "worker-gpu-1": ("gpu", "prefork", 2),
    "worker-gpu-2": ("gpu", "threads", 2),
}
"""Capability, pool and concurrency by worker."""

LANES = ("cpu_standard", "cpu_batch", "gpu_priority", "gpu_fallback")
OPERATORS = ("ann", "bob")
PRIORITIES = ("URGENT", "HIGH", "NORMAL", "LOW", "BATCH")

LOAD = {
    "nap": 8, "long": 1, "eta": 3, "retry": 2, "limited": 3, "fail": 1, "chain": 2, "chord": 1, "explicit": 4,
    "command": 1,
}  # fmt: skip
"""The kinds of load, and how many of each are in a deck."""

FAULTS = {
    "kill-worker": 4, "stop-worker": 2, "term-worker": 3, "kill-child": 3, "kill-watch": 1, "kill-command": 2,
    "kill-clients": 2, "kill-all-clients": 1, "pause-clients": 1, "flush-scripts": 1, "kill-server": 1,
    "fill-server": 1,
}  # fmt: skip

COMMANDS = {
    "drain": 2, "failover": 1, "failover-forced": 2, "rebalance": 2, "pause": 1, "cordon": 1, "cancel": 3, "prio": 3,
    "move": 1, "stats": 1,
}  # fmt: skip

LOAD_GAP, FAULT_GAP, COMMAND_GAP = 0.25, 1.5, 2.0
"""Mean seconds between two steps; of commands, for each operator."""


@dataclass(frozen=True, slots=True)
class Step:
    """`at`: seconds since the begin. `who`: "load", "faults" or an operator."""

    at: float
    who: str
    what: str
    args: tuple[str | int | float, ...] = ()

    def __str__(self) -> str:
        return f"{self.at:7.2f}  {self.who:6}  {' '.join(map(str, (self.what, *self.args)))}"


def schedule(seed: int, seconds: float) -> list[Step]:
    """All steps, in the order of their times."""
    load = list(_load(Random(f"{seed}/load"), seconds))
    steps = [*load, *_faults(Random(f"{seed}/faults"), seconds)]
    for who in OPERATORS:
        steps += _commands(Random(f"{seed}/{who}"), who, seconds, load)
    return sorted(steps, key=lambda step: (step.at, step.who, step.what))


def _load(chance: Random, seconds: float) -> Iterator[Step]:
    for number, (at, kind) in enumerate(_times(chance, LOAD, LOAD_GAP, seconds)):
        nap = round(chance.uniform(3, 8) if kind == "long" else chance.uniform(0, 0.8), 2)
        delay = round(chance.uniform(0.5, 15), 1)
        lane, level = chance.choice(LANES), chance.randrange(10)
        yield Step(at, "load", kind, (f"{kind}-{number:05d}", lane, level, nap, delay))


def _faults(chance: Random, seconds: float) -> Iterator[Step]:
    for at, kind in _times(chance, FAULTS, FAULT_GAP, seconds):
        worker = chance.choice(list(WORKERS))
        match kind:
            case "kill-worker" | "term-worker" | "kill-clients":
                yield Step(at, "faults", kind, (worker,))
            case "stop-worker":
                yield Step(at, "faults", kind, (worker,))
                yield Step(min(seconds, at + chance.uniform(3, 8)), "faults", "continue-worker", (worker,))
            case "kill-child":
                prefork = [name for name, (_, pool, _) in WORKERS.items() if pool == "prefork"]
                yield Step(at, "faults", kind, (chance.choice(prefork), chance.randrange(2)))
            case "kill-watch" | "kill-command":
                yield Step(at, "faults", kind, (chance.randrange(2),))
            case "pause-clients":
                yield Step(at, "faults", kind, (chance.randrange(300, 4000),))
            case "kill-server":
                yield Step(at, "faults", kind)
                yield Step(min(seconds, at + chance.uniform(0.1, 3)), "faults", "start-server")
            case "fill-server":
                yield Step(at, "faults", kind)
                yield Step(min(seconds, at + chance.uniform(2, 5)), "faults", "empty-server")
            case _:
                yield Step(at, "faults", kind)


def _commands(chance: Random, who: str, seconds: float, load: Sequence[Step]) -> Iterator[Step]:
    for at, kind in _times(chance, COMMANDS, COMMAND_GAP, seconds):
        worker, lane = chance.choice(list(WORKERS)), chance.choice(LANES)
        task = _recent(chance, load, at)
        later = min(seconds, round(at + chance.uniform(1, 4), 2))
        match kind:
            case "drain":
                force = ("--force",) if chance.random() < 0.3 else ()
                yield Step(at, who, "drain", (worker, "--deadline", "3s", "--allow-last", "--allow-pinned", *force))
                yield Step(later, who, "uncordon", (worker,))
            case "cordon":
                yield Step(at, who, "cordon", (worker,))
                yield Step(later, who, "uncordon", (worker,))
            case "failover":
                yield Step(at, who, "failover", ("--dead",))
            case "failover-forced":
                yield Step(at, who, "failover", (worker, "--force"))
            case "pause":
                yield Step(at, who, "pause", (lane,))
                yield Step(later, who, "resume", (lane,))
            case "cancel":
                yield Step(at, who, "task cancel", (task,))
            case "prio":
                yield Step(at, who, "task prio", (task, chance.choice(PRIORITIES)))
            case "move":
                yield Step(at, who, "task move", (task, "--to-queue", lane))
            case _:
                yield Step(at, who, kind)


def _recent(chance: Random, load: Sequence[Step], at: float) -> str:
    """A task that was sent a short time before; most likely it waits."""
    sent = [str(step.args[0]) for step in load if at - 4 <= step.at <= at and step.what not in ("chain", "chord")]
    return chance.choice(sent or ["nothing-00000"])


def _times(chance: Random, weights: Mapping[str, int], gap: float, seconds: float) -> Iterator[tuple[float, str]]:
    """Deal shuffled decks, so that each kind has its turn soon: times in seconds, at a mean distance of `gap`."""
    at, deck = chance.uniform(0, gap), list[str]()
    while at < seconds:
        if not deck:
            deck = [kind for kind, weight in weights.items() for _ in range(weight)]
            chance.shuffle(deck)
        yield round(at, 2), deck.pop()
        at += chance.uniform(0.2, 1.8) * gap
