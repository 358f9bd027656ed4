"""What happened in a run, written to a file as it happens: sends, faults, commands, and the exits of processes."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any


@dataclass(slots=True)
class Hit:
    """A fault and what it hit: a worker (None: all of them), one process of its pool (None: all), and when (epoch)."""

    fault: str
    worker: str | None
    began: float
    ended: float = field(default=float("inf"))
    pid: int | None = None


@dataclass(slots=True)
class Send:
    """An attempt to send a task. `ended` and `is_acknowledged` are set when the answer arrives."""

    task: str
    began: float
    ended: float = field(default=float("inf"))
    is_acknowledged: bool = False


class History:
    """Thread-safe. `parents`: the tasks whose end sends a task. `targets`: tasks whose cancel was not refused."""

    def __init__(self, path: Path) -> None:
        self._file, self._lock = open(path, "a", buffering=1, encoding="utf-8"), Lock()  # noqa: SIM115 - see `close`
        self.hits: list[Hit] = []
        self.sends: list[Send] = []
        self.parents: dict[str, tuple[str, ...]] = {}
        self.targets: set[str] = set()
        self.problems: list[str] = []

    def note(self, event: str, **fields: Any) -> None:
        with self._lock:
            self._file.write(json.dumps({"at": time.time(), "event": event, **fields}) + "\n")

    def problem(self, text: str) -> None:
        """What is wrong whatever the account says; it makes the run fail."""
        self.note("problem", text=text)
        self.problems.append(text)

    def hit(self, fault: str, worker: str | None = None, *, pid: int | None = None, seconds: float | None = 0) -> Hit:
        """Note a fault that lasts so long; None: until `end`."""
        began = time.time()
        found = Hit(fault, worker, began, float("inf") if seconds is None else began + seconds, pid)
        self.hits.append(found)
        self.note("fault", fault=fault, worker=worker, pid=pid, seconds=seconds)
        return found

    def end(self, fault: str, worker: str | None = None) -> None:
        """Note that a fault has ended."""
        for hit in self.hits:
            if (hit.fault, hit.worker, hit.ended) == (fault, worker, float("inf")):
                hit.ended = time.time()
                self.note("fault-ended", fault=fault, worker=worker)

    @contextmanager
    def sending(self, *tasks: str) -> Iterator[None]:
        """Note an attempt to send; it is acknowledged unless the block raises."""
        sends = [Send(task, time.time()) for task in tasks]
        self.sends += sends
        self.note("send", tasks=tasks)
        is_acknowledged = False
        try:
            yield
            is_acknowledged = True
        finally:
            for send in sends:
                send.ended, send.is_acknowledged = time.time(), is_acknowledged
            self.note("sent" if is_acknowledged else "send-failed", tasks=tasks)

    @property
    def attempted(self) -> set[str]:
        return {send.task for send in self.sends} | self.parents.keys()

    @property
    def acknowledged(self) -> set[str]:
        """Also the tasks that are sent by the ends of acknowledged ones."""
        found = {send.task for send in self.sends if send.is_acknowledged}
        for child, parents in self.parents.items():  # in the order of a chain
            if found.issuperset(parents):
                found.add(child)
        return found

    def close(self) -> None:
        self._file.close()
