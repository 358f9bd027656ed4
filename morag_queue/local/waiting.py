"""Waiting for something to become true."""

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

LOOK_SECONDS = 0.02


class DeadlineError(AssertionError):
    """What was waited for did not come."""


def until(condition: Callable[[], T], seconds: float, why: str | Callable[[], str]) -> T:
    """The first true value of `condition`. Raises DeadlineError, which says `why`, when none came within `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() >= deadline:
            raise DeadlineError(f"{why() if callable(why) else why} (waited {seconds:g} s)")
        time.sleep(LOOK_SECONDS)
    return value
