"""Wait for a condition."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

POLL_SECONDS = 0.02


class DeadlineError(AssertionError):
    """The condition did not hold in time."""


def until(condition: Callable[[], T], seconds: float, why: str | Callable[[], str]) -> T:
    """Return the first true value of `condition`. Raises DeadlineError with `why` after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise DeadlineError(f"{why() if callable(why) else why} (waited {seconds:g} s)")
        time.sleep(POLL_SECONDS)
    return value
