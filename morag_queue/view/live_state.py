"""The state of the live screen, and what each key changes. Pure."""

from dataclasses import dataclass, replace
from enum import StrEnum


class Sort(StrEnum):
    NAME = "name"
    STATUS = "status"
    LOAD = "load"
    AGE = "age"
    BEAT = "beat"

    @property
    def next(self) -> "Sort":
        orders = list(Sort)
        return orders[(orders.index(self) + 1) % len(orders)]


@dataclass(frozen=True, slots=True)
class LiveState:
    """`offset` workers are scrolled past. `age_s` is the age of the frame, `error` the reason why it is not newer."""

    paused: bool = False
    sort: Sort = Sort.NAME
    filter: str = ""
    typing: bool = False
    help: bool = False
    offset: int = 0
    quit: bool = False
    age_s: float = 0.0
    error: str = ""


_PAGE = 10
_SCROLL = {
    "up": -1, "k": -1, "down": 1, "j": 1, "page up": -_PAGE, "page down": _PAGE, "home": -1_000_000, "g": -1_000_000,
}  # fmt: skip
HELP = (
    ("q", "quit"),
    ("p or space", "pause or resume refreshing"),
    ("s", "sort workers by name, status, load, task age or last heartbeat"),
    ("/", "filter workers by text in any field; Enter applies, Esc clears"),
    ("↑ ↓ PgUp PgDn", "scroll the workers"),
    ("?", "show this help"),
)
"""Keys and their effects."""
COLUMN_HELP = (
    ("IN/M, OUT/M", "tasks queued and ended per minute, in the last five minutes"),
    ("OLDEST", "how long the task that waits longest has waited"),
    ("BACKLOG", "run time of the waiting tasks, divided by the serving slots"),
    ("WAIT, P95", "mean and 95th percentile of the waits, over --window"),
    ("BEAT", "time since the worker's last heartbeat"),
)
"""Columns and their meanings."""


def on_key(state: LiveState, key: str) -> LiveState:
    """Return the state after a key: a character, or a name such as `enter` or `page down`."""
    if state.typing:
        return _typed(state, key)
    if state.help:
        return replace(state, help=False, quit=key == "q")
    match key:
        case "q":
            return replace(state, quit=True)
        case "p" | " ":
            return replace(state, paused=not state.paused)
        case "s":
            return replace(state, sort=state.sort.next, offset=0)
        case "/":
            return replace(state, typing=True)
        case "escape":
            return replace(state, filter="", offset=0)
        case "?" | "h":
            return replace(state, help=True)
    return replace(state, offset=max(state.offset + _SCROLL.get(key, 0), 0))


def _typed(state: LiveState, key: str) -> LiveState:
    match key:
        case "enter":
            return replace(state, typing=False)
        case "escape":
            return replace(state, typing=False, filter="", offset=0)
        case "backspace":
            return replace(state, filter=state.filter[:-1], offset=0)
    return replace(state, filter=state.filter + key, offset=0) if len(key) == 1 and key.isprintable() else state
