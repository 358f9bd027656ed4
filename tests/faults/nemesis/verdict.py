"""The account of a run, the cause of each second start, and what the logs hold that they should not."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .history import History, Hit

_INSIDE = (" ", "\t", '"""', "|", "+", "billiard.einfo.ExceptionWithTraceback")

Events = Sequence[Mapping[str, Any]]

GRACE_SECONDS = 2.0
"""How long after a task's end its acknowledgement may still be lost."""

_ON_PURPOSE = re.compile(
    r"ValueError: on purpose|WorkerLostError|ConnectionError|ConnectionResetError|BrokenPipeError|TimeoutError"
    r"|OperationalError|OutOfMemoryError|OOM command|ExecAbortError|BusyLoadingError"
    r"|celery\.exceptions\.(Retry|ChordError)|ConnectionRefusedError|Terminated"
)
"""Last lines of tracebacks that Celery logs for tasks that fail on purpose, and for faults of the server."""


@dataclass(slots=True)
class Verdict:
    """Task ids by what is wrong with them; `causes` counts explained second starts by fault."""

    counts: dict[str, int]
    causes: Counter[str]
    bad: dict[str, list[str]] = field(default_factory=dict)

    @property
    def is_kept(self) -> bool:
        return not any(self.bad.values())

    def __str__(self) -> str:
        lines = ["  ".join(f"{word} {count}" for word, count in self.counts.items())]
        if self.causes:
            lines.append("second starts: " + ", ".join(f"{name} {count}" for name, count in self.causes.most_common()))
        lines += [f"BROKEN: {word} {len(items)}: {', '.join(items[:5])}" for word, items in self.bad.items() if items]
        return "\n".join(lines)


def judge(
    history: History,
    events: Events,
    *,
    states: Mapping[str, str],
    dead: Mapping[str, str],
    stuck: Sequence[str],
    remains: Mapping[str, list[str]],
    tracebacks: Sequence[str],
) -> Verdict:
    """Account for a fleet at rest. `states`: the states of the ledger, of acknowledged tasks that did not end."""
    executed = Counter(str(event["task"]) for event in events if event["event"] == "end")
    acknowledged, attempted = history.acknowledged, history.attempted
    cancelled = {task for task in history.targets if states.get(task, "cancelled") == "cancelled"}
    ended_early = cancelled | {task for task, letter in dead.items() if _failed_after_its_run(task, letter)}
    while grown := {task for task, parents in history.parents.items() if ended_early & {*parents}} - ended_early:
        ended_early |= grown
    causes, unexplained = second_starts(history, events)
    lost = acknowledged - executed.keys() - ended_early
    bad = {
        "lost": sorted(lost),
        "second starts without cause": unexplained,
        "unexpected": sorted(executed.keys() - attempted),
        "stuck": list(stuck),
        **{f"left over, {what}": items for what, items in remains.items()},
        "dead letters of good tasks": [
            task
            for task, letter in dead.items()
            if not task.startswith("fail-") and not _failed_after_its_run(task, letter)
        ],
        "tracebacks": list(tracebacks),
        "problems": history.problems,
    }
    counts = {
        "attempted": len(attempted), "acknowledged": len(acknowledged), "executed": len(executed),
        "cancelled": len(ended_early - executed.keys()), "lost": len(lost),
        "duplicated": sum(count > 1 for count in executed.values()),
        "unexplained": len(unexplained), "recovered": len((attempted - acknowledged) & executed.keys()),
        "unexpected": len(bad["unexpected"]), "stuck": len(stuck), "left over": sum(map(len, remains.values())),
        "dead letters": len(dead),
    }  # fmt: skip
    return Verdict(counts, causes, bad)


def _failed_after_its_run(task: str, letter: str) -> bool:
    """Whether Celery failed a part of a canvas because the server refused its result or the next part.

    It is a dead letter, and `dead requeue` continues the canvas.
    """
    is_part = task.startswith(("chain-", "chord-"))
    return is_part and any(word in letter for word in ("OutOfMemory", "OperationalError", "Connection", "ChordError"))


@dataclass(slots=True)
class Start:
    """One start of a task: on which worker, in which process, from when to when (None: it did not end)."""

    task: str
    retries: int
    worker: str
    pid: int
    began: float
    ended: float | None = None


def starts_of(events: Events) -> list[Start]:
    """All starts, in the order of time. Some tasks record only their end."""
    found, running = list[Start](), dict[tuple[Any, ...], Start]()
    for event in sorted(events, key=lambda event: float(event["at"])):
        run = (event["task"], event["retries"], event["worker"], event["pid"])
        if event["event"] == "start" or run not in running:
            worker = str(event["worker"]).partition("@")[0]
            running[run] = Start(str(event["task"]), int(event["retries"]), worker, int(event["pid"]), event["at"])
            found.append(running[run])
        if event["event"] == "end":
            running.pop(run).ended = event["at"]
    return found


def second_starts(history: History, events: Events) -> tuple[Counter[str], list[str]]:
    """Count the causes of second starts of one attempt; and list those without a cause."""
    runs = defaultdict[tuple[str, int], list[Start]](list)
    for start in starts_of(events):
        runs[start.task, start.retries].append(start)
    causes, unexplained = Counter[str](), list[str]()
    for (task, retries), starts in runs.items():
        for number, second in enumerate(starts[1:], 1):
            earlier = starts[:number]
            cause = next(_causes(history, runs, earlier, second), None)
            if cause is None:
                unexplained.append(f"{task} (attempt {retries})")
            else:
                causes[cause] += 1
    return causes, unexplained


def _causes(
    history: History, runs: Mapping[tuple[str, int], list[Start]], earlier: list[Start], second: Start
) -> Iterator[str]:
    for start in reversed(earlier):
        yield from (hit.fault for hit in _hits(history, start, second.began))
    for hit in history.hits:  # its worker held the message first, and lost it to the earlier start
        if (hit.worker, hit.pid) == (second.worker, None) and _is_within(
            hit, earlier[0].began - GRACE_SECONDS, second.began
        ):
            yield f"taken over, ran all the same: {hit.fault}"
    sends = [send for send in history.sends if send.task == second.task] if not second.retries else []
    if len(sends) > 1:
        yield "sent again, not acknowledged"
    for send in sends:
        yield from (f"sending: {hit.fault}" for hit in history.hits if _is_within(hit, send.began, send.ended))
    before = [(second.task, second.retries - 1)] if second.retries else []
    parents = [key for key in runs if key[0] in history.parents.get(second.task, ())]
    for key in [*before, *parents]:
        if len(runs.get(key, ())) > 1:
            yield "sent twice by a task that ran twice"
        for start in runs.get(key, ()):
            yield from (f"sending: {hit.fault}" for hit in _hits(history, start, second.began))


def _hits(history: History, start: Start, until: float) -> Iterator[Hit]:
    """The faults that hit a run before its acknowledgement was safe, and before `until`."""
    end = until if start.ended is None else min(until, start.ended + GRACE_SECONDS)
    for hit in history.hits:
        if hit.worker in (None, start.worker) and hit.pid in (None, start.pid) and _is_within(hit, start.began, end):
            yield hit


def _is_within(hit: Hit, began: float, ended: float) -> bool:
    return hit.began <= ended and hit.ended >= began


def tracebacks_of(directory: Path) -> list[str]:
    """The last lines of tracebacks in the logs and error texts of a run, with the name of the file."""
    found = []
    for path in sorted([*directory.glob("*.log"), *directory.glob("command-*.err")]):
        lines = path.read_text("utf-8", "replace").splitlines()
        found += [f"{path.name}: {last}" for last in _last_lines(lines)]
    return found


def unexpected_tracebacks(directory: Path) -> list[str]:
    """Those that are neither of tasks that fail on purpose nor of Celery's own on a lost connection."""
    return [
        last for last in tracebacks_of(directory)
        if not last.startswith("worker-") or not _ON_PURPOSE.search(last)
    ]  # fmt: skip


def _last_lines(lines: Sequence[str]) -> Iterator[str]:
    """The last line of each traceback; of a chain of them, that of the last."""
    is_inside, last = False, ""
    for line in lines:
        if line.lstrip().startswith("Traceback (most recent call last)"):
            if last:
                yield last
            is_inside, last = True, ""
        elif line.startswith(("The above exception was", "During handling of the above")):
            last = ""
        elif is_inside and line and not line.startswith(_INSIDE):
            is_inside, last = False, line[:300]
    if last:
        yield last
