"""Counters of all time, which only grow (the source of the metrics), and corrections of the estimates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from redis import Redis

from morag_queue.core.estimate import Correction, learn_many
from morag_queue.core.model import QueueType

from .codec import read_corrections, read_work_kind, write_corrections
from .connection import fenced
from .keys import Keys
from .scripts import Call, Script


@dataclass(frozen=True, slots=True)
class QueueCounters:
    """Of one queue: ended tasks by outcome, and histograms by `core.histogram.bucket` with their sums in seconds."""

    ended: Mapping[str, int] = field(default_factory=dict)
    waits: Mapping[int, int] = field(default_factory=dict)
    runs: Mapping[int, int] = field(default_factory=dict)
    wait_seconds: float = 0.0
    run_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class FleetCounters:
    """`unowned`: unacked messages that no worker with the agent holds. `dead`: dead letters."""

    queues: Mapping[QueueType, QueueCounters]
    unowned: int
    dead: int


def fleet_counters(client: Redis, keys: Keys) -> FleetCounters:
    """Read all counters in one round trip. The cost grows with the number of histogram buckets, not of tasks."""
    pipe = client.pipeline(transaction=False)
    pipe.hgetall(keys.figures)
    pipe.hlen(keys.unacked)
    pipe.hlen(keys.held)
    pipe.hlen(keys.dead)
    figures, unacked, held, dead = pipe.execute()
    return FleetCounters(_by_queue(figures), max(unacked - held, 0), dead)


def _by_queue(figures: Mapping[bytes, bytes]) -> Mapping[QueueType, QueueCounters]:
    found: dict[str, dict[str, Any]] = {queue.value: {"ended": {}, "wait": {}, "run": {}} for queue in QueueType}
    for name, count in figures.items():
        queue, figure, *bucket = name.decode().split("|")
        if queue not in found:
            continue
        if bucket:
            found[queue][figure][int(bucket[0])] = int(count)
        elif figure.endswith("_ms"):
            found[queue][figure] = int(count) / 1000
        else:
            found[queue]["ended"][figure] = int(count)
    return {
        queue: QueueCounters(
            counts["ended"], counts["wait"], counts["run"], counts.get("wait_ms", 0.0), counts.get("run_ms", 0.0)
        )
        for queue in QueueType
        for counts in [found[queue.value]]
    }


@dataclass(frozen=True)
class LearnedSum:
    """Runs of one kind of work and worker that were learned from, and the sum of their log errors."""

    field: str
    runs: int
    log_error: float


@dataclass(frozen=True)
class FoldCorrectionsCall(Call):
    SCRIPT: ClassVar = "fold_corrections"
    KEYS: ClassVar = ("surprises", "corrections", "lease")

    text: str
    term: str
    sums: Sequence[LearnedSum]


class CorrectionStore:
    """Corrections of the estimates on one fleet."""

    def __init__(self, client: Redis, keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = Script(client, keys, FoldCorrectionsCall)

    def fold(self, *, term: str = "") -> tuple[int, int]:
        """Learn from the runs that ended since the last call. Return the numbers of runs and of kinds of work.

        Runs that end meanwhile count at the next call. Raises LeaseLost on a stale term.
        """
        found: Any = self._client.hgetall(self._keys.surprises)
        sums = {name.decode(): float(value) for name, value in found.items()}
        known = read_corrections(self._client.get(self._keys.corrections) or b"")
        learned: list[LearnedSum] = []
        for name, count in sums.items():
            field, _, figure = name.rpartition("|")
            kind = read_work_kind(field)
            if figure != "n" or not count or kind is None:
                continue
            log_error = sums.get(f"{field}|x", 0.0)
            known[kind] = learn_many(known.get(kind, Correction()), int(count), log_error)
            learned.append(LearnedSum(field, int(count), log_error))
        if learned:
            with fenced():
                self._script(FoldCorrectionsCall(write_corrections(known), term, learned))
        return sum(part.runs for part in learned), len(learned)
