"""Counters of ended tasks: by the minute, by the hour and of all time; and corrections of the estimates.

`lua/lib/counters.lua` writes them. The counts of the current minute are folded into the others later, so that every
reading adds them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from morag_queue.core.enums import QueueType
from morag_queue.core.estimate import Correction, learn_many
from morag_queue.core.histogram import LAST_BUCKET, Window
from morag_queue.core.worker_records import LARGEST

from .broken import BrokenValues
from .codec import read_corrections, read_work_kind, text_of, whole_number, write_corrections
from .keys import Keys
from .scripts import Call, Script
from .translated import fenced

if TYPE_CHECKING:
    from redis import Redis

_Counts = Mapping[bytes, bytes]

_Read = tuple[str, _Counts]
"""A key, and its fields."""

ReadCounters = Mapping[str, Sequence[_Counts]]
"""Minutes and hours by their keys, each with the current counts where they are part of it."""

_MINUTE = b"minute"
"""The field of `Keys.current` that is no count, but the number of its minute."""

_BUCKETS = {str(index): index for index in range(LAST_BUCKET + 1)}

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


def fleet_counters(client: "Redis", keys: Keys, broken: BrokenValues) -> FleetCounters:
    """Read the counters of all time, which only grow (the source of the metrics), in one round trip.

    The cost grows with the number of histogram buckets, not of tasks.
    """
    pipe = client.pipeline(transaction=True)  # a count may move from `current` to `figures` between two commands
    pipe.hgetall(keys.figures)
    pipe.hgetall(keys.current)
    pipe.hlen(keys.unacked)
    pipe.hlen(keys.held)
    pipe.hlen(keys.dead)
    names = (keys.figures, keys.current, keys.unacked, keys.held, keys.dead)
    answers = pipe.execute(raise_on_error=False)
    figures, current = (broken.part(answer, key, {}) for answer, key in zip(answers[:2], names[:2], strict=True))
    unacked, held, dead = (broken.part(answer, key, 0) for answer, key in zip(answers[2:], names[2:], strict=True))
    counts, histograms = _sums([(keys.figures, figures), (keys.current, current)], broken)
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


def window_keys(keys: Keys, now: float, seconds: float) -> list[str]:
    """The keys of the minutes, or beyond six hours of the hours, that a window of the last `seconds` covers."""
    step, name = (60, keys.minute) if seconds <= _COARSE else (3600, keys.hour)
    return [name(number * step) for number in range(int(now - seconds) // step + 1, int(now) // step + 1)]


def window(
    keys: Keys, now: float, seconds: float, read: ReadCounters, broken: BrokenValues
) -> Mapping[QueueType, Window]:
    """The counts of each queue in the last `seconds`, to a minute (beyond six hours: to an hour).

    They cover whole minutes and the part of the current one that has passed, at most `seconds`: the length of the
    windows is exactly that time.
    """
    step = 60 if seconds <= _COARSE else 3600
    found = [(key, counts) for key in window_keys(keys, now, seconds) for counts in read[key]]
    return counts_by_queue(found, now - (int(now - seconds) // step + 1) * step, broken)


def read_counters(client: "Redis", keys: Keys, wanted: Iterable[str], broken: BrokenValues) -> ReadCounters:
    """Read these minutes and hours, in one round trip."""
    names = list(wanted)
    while True:
        pipe = client.pipeline(transaction=False)  # a transaction would hold the server for up to 360 hashes
        request_counters(pipe, keys, names)
        read = answered_counters(keys, names, pipe.execute(raise_on_error=False), broken)
        if read is not None:
            return read


def request_counters(pipe: Any, keys: Keys, names: Iterable[str]) -> None:
    """Add the commands of a reading to a pipeline."""
    pipe.hgetall(keys.current)
    for name in names:
        pipe.hgetall(name)
    pipe.hget(keys.current, _MINUTE)


def answered_counters(
    keys: Keys, names: Sequence[str], answers: Sequence[Any], broken: BrokenValues
) -> ReadCounters | None:
    """The answers to those commands; None where a minute was folded meanwhile, so that its counts may be in two."""
    *tables, last = answers
    current, *found = (broken.part(one, key, {}) for one, key in zip(tables, (keys.current, *names), strict=True))
    minute = broken.part(last, keys.current, None)
    if current.get(_MINUTE) != minute:
        return None
    read = {name: [counts] for name, counts in zip(names, found, strict=True)}
    if minute and (number := whole_number(minute)) is not None:
        for name in (keys.minute(number * 60), keys.hour(number * 60)):
            read.get(name, []).append(current)
    return read


def _sums(
    found: Iterable[_Read], broken: BrokenValues
) -> tuple[defaultdict[str, defaultdict[str, int]], defaultdict[tuple[str, str], defaultdict[int, int]]]:
    """Counts by queue and figure, and histograms by queue and figure. What is no counter is left out."""
    counts: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    histograms: defaultdict[tuple[str, str], defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
    for key, fields in found:
        for name, text in fields.items():
            if name == _MINUTE:
                continue
            queue, _, figure = text_of(name).partition("|")
            figure, is_histogram, bucket = figure.partition("|")
            index, count = _BUCKETS.get(bucket), whole_number(text)
            if not figure or count is None or (is_histogram and index is None):
                broken.value("totals", name, key)
            elif index is not None:
                histograms[queue, figure][index] += count
            else:
                counts[queue][figure] += count
    return counts, histograms


def counts_by_queue(found: Iterable[_Read], seconds: float, broken: BrokenValues) -> Mapping[QueueType, Window]:
    """The sums of these counts, as windows of that length."""
    counts, histograms = _sums(found, broken)
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


def _numbers(found: Mapping[bytes, bytes]) -> Iterator[tuple[str, float]]:
    """The fields that are finite numbers."""
    for name, text in found.items():
        with suppress(ValueError):
            if -LARGEST < (number := float(text)) < LARGEST:  # not for NaN
                yield text_of(name), number


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

    def __init__(self, client: "Redis", keys: Keys) -> None:
        self._client, self._keys = client, keys
        self._script = Script(client, keys, FoldCorrectionsCall)

    def fold(self, *, term: str = "") -> tuple[int, int]:
        """Learn from the runs that ended since the last call. Return the numbers of runs and of kinds of work.

        Runs that end meanwhile count at the next call. Raises LeaseLost on a stale term.
        """
        found: Any = self._client.hgetall(self._keys.surprises)
        sums = dict(_numbers(found))
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
