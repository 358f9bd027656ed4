"""Read and write the files of a simulation: workload, fleet, outages.

Every reader raises UsageError, with the file, the line and what to write instead; nothing is simulated then.
"""

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar

from morag_queue.core.levels import parse_priority
from morag_queue.core.model import Capability, ContentType, Requires
from morag_queue.errors import UsageError

from .model import Outage, SimTask, SimWorker, obstacle

WORKLOAD_COLUMNS = ("arrival_s", "content_type", "requires", "priority", "true_minutes", "estimated_minutes")
OUTAGE_COLUMNS = ("worker", "down_s", "up_s")

E = TypeVar("E", bound=StrEnum)


def read_workload(path: Path) -> list[SimTask]:
    """Read arrivals from a CSV file with the columns of `WORKLOAD_COLUMNS`, in the order of their times."""
    tasks: list[SimTask] = []
    for line, row in _rows(path, WORKLOAD_COLUMNS):
        with _At(path, line):
            task = SimTask(
                number=len(tasks),
                arrival_s=_number(row, "arrival_s"),
                content_type=_member(ContentType, row, "content_type"),
                requires=_member(Requires, row, "requires"),
                priority=parse_priority(row["priority"]),
                true_minutes=_number(row, "true_minutes"),
                estimated_minutes=_number(row, "estimated_minutes"),
            )
            if tasks and task.arrival_s < tasks[-1].arrival_s:
                raise ValueError(f"arrival_s {task.arrival_s:g} is before that of the line above: sort the file by it")
        tasks.append(task)
    return tasks


def write_workload(path: Path, tasks: Iterable[SimTask]) -> None:
    """Write a workload that `read_workload` reads."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(WORKLOAD_COLUMNS)
        for task in tasks:
            writer.writerow(
                (task.arrival_s, task.content_type, task.requires, task.priority.name, task.true_minutes,
                 task.estimated_minutes)
            )  # fmt: skip


def read_fleet(path: Path) -> list[SimWorker]:
    """Read workers from a JSON file: `[{"worker": "gpu-1", "capability": "gpu", "slots": 2}, …]`."""
    try:
        rows = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path}: not JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise UsageError(f'{path}: write a list of workers: [{{"worker": "gpu-1", "capability": "gpu", "slots": 2}}]')
    workers: dict[str, SimWorker] = {}
    for number, row in enumerate(rows, 1):
        with _At(path, number, "worker"):
            worker = _worker(row)
            if worker.worker in workers:
                raise ValueError(f"{worker.worker} is there twice")
            workers[worker.worker] = worker
    return list(workers.values())


def read_outages(path: Path, fleet: Sequence[SimWorker]) -> list[Outage]:
    """Read outages from a CSV file with the columns of `OUTAGE_COLUMNS`."""
    known, found = {worker.worker for worker in fleet}, []
    for line, row in _rows(path, OUTAGE_COLUMNS):
        with _At(path, line):
            outage = Outage(row["worker"], _number(row, "down_s"), _number(row, "up_s"))
            if outage.worker not in known:
                raise ValueError(f"{outage.worker!r} is not a worker of the fleet")
            if outage.up_s < outage.down_s:
                raise ValueError(f"up_s {outage.up_s:g} is before down_s {outage.down_s:g}")
        found.append(outage)
    return sorted(found, key=lambda outage: (outage.down_s, outage.worker))


def check_runnable(workload: Iterable[SimTask], fleet: Sequence[SimWorker], name: str) -> None:
    """Raise UsageError for work that no worker of the fleet can run."""
    closed = {requires: why for requires in Requires if (why := obstacle(requires, fleet))}
    for task in workload:
        if task.requires in closed:
            raise UsageError(f"{name}: task {task.number + 1} {closed[task.requires]}")


class _At:
    """Raises a ValueError as a UsageError that names the place in the file."""

    def __init__(self, path: Path, number: int, unit: str = "line") -> None:
        self._place = f"{path}, {unit} {number}"

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ValueError):
            raise UsageError(f"{self._place}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read {path}: {getattr(error, 'strerror', None) or 'it is not text in UTF-8'}"
        ) from error


def _rows(path: Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield (line, row) of a CSV file with a header; other columns are ignored."""
    reader = csv.DictReader(_text(path).splitlines())
    missing = [name for name in columns if name not in (reader.fieldnames or ())]
    if missing:
        raise UsageError(f"{path}, line 1: no column {missing[0]}; the header is {','.join(columns)}")
    is_empty = True
    try:
        for row in reader:
            is_empty = False
            if any(row[name] is None for name in columns):
                raise UsageError(f"{path}, line {reader.line_num}: fewer fields than columns")
            yield reader.line_num, row
    except csv.Error as error:
        raise UsageError(f"{path}, line {reader.line_num}: {error}") from error
    if is_empty:
        raise UsageError(f"{path}: no line after the header")


def _number(row: dict[str, str], column: str) -> float:
    try:
        value = float(row[column])
    except ValueError:
        value = -1.0
    if not (isfinite(value) and value >= 0):
        raise ValueError(f"{column} is {row[column]!r}: write a number from 0")
    return value


def _member(kind: type[E], row: dict[str, str], column: str) -> E:
    try:
        return kind(row[column].strip())
    except ValueError:
        raise ValueError(f"unknown {column} {row[column]!r}: use one of {', '.join(kind)}") from None


def _worker(row: Any) -> SimWorker:
    if not isinstance(row, dict) or not isinstance(row.get("worker"), str) or not row["worker"]:
        raise ValueError('write an object with "worker", "capability" and "slots"')
    slots = row.get("slots")
    if not isinstance(slots, int) or isinstance(slots, bool) or slots < 1:
        raise ValueError(f"slots is {slots!r}: write a whole number from 1")
    return SimWorker(
        row["worker"], _member(Capability, {"capability": str(row.get("capability"))}, "capability"), slots
    )
