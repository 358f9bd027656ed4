"""Counters of ended tasks: by the minute, by the hour and of all time; and corrections of the estimates.

`lua/lib/counters.lua` writes them. The counts of the current minute are folded into the others later, so that every
reading adds them.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, ClassVar

from redis import Redis

from morag_queue.core.estimate import Correction, learn_many
from morag_queue.core.histogram import Window
from morag_queue.core.model import QueueType

from .codec import read_corrections, read_work_kind, write_corrections
from .connection import fenced
from .keys import Keys
from .scripts import Call, Script

_Counts = Mapping[bytes, bytes]

_MINUTE = b"minute"
"""The field of `Keys.current` that is no count, but the number of its minute."""

_COARSE = 6 * 3600.0
"""Longer windows are summed from hours instead of minutes, so that at most 360 hashes are read."""


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
    """Read the counters of all time, which only grow (the source of the metrics), in one round trip.

    The cost grows with the number of histogram buckets, not of tasks.
    """
    pipe = client.pipeline(transaction=True)  # a count may move from `current` to `figures` between two commands
    pipe.hgetall(keys.figures)
    pipe.hgetall(keys.current)
    pipe.hlen(keys.unacked)
    pipe.hlen(keys.held)
    pipe.hlen(keys.dead)
    figures, current, unacked, held, dead = pipe.execute()
    counts, histograms = _sums([figures, current])
    by_queue = {
        queue: QueueCounters(
            ended={name: n for name, n in counts[queue].items() if name not in ("arrived", "wait_ms", "run_ms")},
            waits=dict(histograms[queue, "wait"]),
            runs=dict(histograms[queue, "run"]),
            wait_seconds=counts[queue]["wait_ms"] / 1000,
            run_seconds=counts[queue]["run_ms"] / 1000,
        )
        for queue in QueueType
    }
    return FleetCounters(by_queue, max(unacked - held, 0), dead)


def read_windows(client: Redis, keys: Keys, now: float, seconds: float) -> Mapping[QueueType, Window]:
    """The counts of each queue in the last `seconds`, to a minute (beyond six hours: to an hour).

    They cover whole minutes and the part of the current one that has passed, at most `seconds`: the length of the
    windows is exactly that time.
    """
    step = 60 if seconds <= _COARSE else 3600
    first, last = int(now - seconds) // step + 1, int(now) // step
    found = _read(client, keys, step, range(first, last + 1))
    return _windows(chain.from_iterable(found.values()), now - first * step)


def read_minutes(client: Redis, keys: Keys, numbers: Sequence[int]) -> list[Mapping[QueueType, Window]]:
    """The counts of each queue in single minutes, numbered from the epoch. A day of them is kept."""
    found = _read(client, keys, 60, numbers)
    return [_windows(found[number], 60.0) for number in numbers]


def _read(client: Redis, keys: Keys, step: int, numbers: Iterable[int]) -> dict[int, list[_Counts]]:
    """The counts of minutes (a `step` of 60) or hours (3600), numbered from the epoch, in one round trip."""
    name = keys.minute if step == 60 else keys.hour
    while True:
        pipe = client.pipeline(transaction=False)  # a transaction would hold the server for up to 360 hashes
        pipe.hgetall(keys.current)
        for number in numbers:
            pipe.hgetall(name(number * step))
        pipe.hget(keys.current, "minute")
        current, *counts, minute = pipe.execute()
        if current.get(_MINUTE) == minute:  # else its counts may be in two of them
            break
    found = {number: [one] for number, one in zip(numbers, counts, strict=True)}
    if minute is not None and minute.isdigit():
        found.get(int(minute) * 60 // step, []).append(current)
    return found


def _sums(
    found: Iterable[_Counts],
) -> tuple[defaultdict[str, defaultdict[str, int]], defaultdict[tuple[str, str], defaultdict[int, int]]]:
    """Counts by queue and figure, and histograms by queue and figure."""
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    histograms: defaultdict[tuple[str, str], defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for fields in found:
        for name, count in fields.items():
            if name == _MINUTE:
                continue
            queue, figure, *bucket = name.decode().split("|")
            if bucket:
                histograms[queue, figure][int(bucket[0])] += int(count)
            else:
                counts[queue][figure] += int(count)
    return counts, histograms


def _windows(found: Iterable[_Counts], seconds: float) -> Mapping[QueueType, Window]:
    counts, histograms = _sums(found)
    return {
        queue: Window(
            seconds=seconds,
            arrivals=counts[queue]["arrived"],
            completed=counts[queue]["completed"],
            failed=counts[queue]["failed"],
            wait_seconds=counts[queue]["wait_ms"] / 1000,
            run_seconds=counts[queue]["run_ms"] / 1000,
            waits=dict(histograms[queue, "wait"]),
            runs=dict(histograms[queue, "run"]),
        )
        for queue in QueueType
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
