"""Options, progress and refusal of a drain, for workers with and without the agent."""

from collections.abc import Callable
from dataclasses import dataclass

from morag_queue.core.plan import Blocker
from morag_queue.core.recovery.drain import FORCE

DEADLINE_SECONDS = 3600.0
"""Default deadline of a drain; nomad's default."""


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """Options of a drain. `deadline_seconds` None waits without limit; `deadline_given`: the user chose the deadline.

    `overrides` are the flags of the blockers to ignore, such as `--allow-last`.
    """

    who: str
    reason: str = ""
    deadline_seconds: float | None = DEADLINE_SECONDS
    deadline_given: bool = False
    force: bool = False
    detach: bool = False
    shutdown: bool = False
    overrides: frozenset[str] = frozenset()

    def deadline(self, began: float) -> float | None:
        """Return when a drain that began at this time gives up, in seconds since the epoch; None without a limit."""
        return None if self.deadline_seconds is None else began + self.deadline_seconds


@dataclass(frozen=True, slots=True)
class DrainProgress:
    """`pause` waits the given seconds, `report` gets a line per event, `remaining` the number of running tasks."""

    pause: Callable[[float], None]
    report: Callable[[str], None] = lambda line: None
    remaining: Callable[[int], None] = lambda count: None


def refusal(blockers: tuple[Blocker, ...]) -> list[str]:
    """Return each blocker in words, with the command that resolves it and the flag that overrides it."""
    names_force = any(blocker.overridden_by == FORCE for blocker in blockers)
    override = "" if names_force else f"; {FORCE} overrides all of this, and requeues running tasks"
    return [*map(str, blockers), f"nothing was changed{override}"]
