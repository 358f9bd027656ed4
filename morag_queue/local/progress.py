"""How far the tasks are, from the notes of the local app; reads only what is new at each look."""

import json
from collections import Counter, defaultdict
from pathlib import Path


class Progress:
    """`ended` counts ends by task, `first_start` is when each began first, `running` what each worker has begun."""

    def __init__(self, path: Path) -> None:
        self._path, self._offset = path, 0
        self.ended: Counter[str] = Counter()
        self.first_start: dict[str, float] = {}
        self.running: defaultdict[str, set[str]] = defaultdict(set)

    def look(self) -> None:
        """Reads on. A line that is still being written is left for the next look."""
        if not self._path.exists():
            return
        with open(self._path, "rb") as notes:
            notes.seek(self._offset)
            fresh = notes.read()
        whole = fresh[: fresh.rfind(b"\n") + 1]
        self._offset += len(whole)
        for line in whole.splitlines():
            one = json.loads(line)
            task, worker = one["task"], one["worker"]
            if one["event"] == "start":
                self.first_start.setdefault(task, one["at"])
                self.running[worker].add(task)
            else:
                self.ended[task] += one["event"] == "end"
                self.running[worker].discard(task)
