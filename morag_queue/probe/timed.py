"""A limit for parsers that compute without end, as MediaInfo does on a few files in ten thousand that are damaged."""

import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

SECONDS = 10.0  # more than the 5 after which a parser sees the end of its file


def in_time(read: Callable[[], T]) -> T:
    """The result, or what it raised. Raises TimeoutError after `SECONDS`.

    A native library cannot be interrupted: its thread is left alone then, and ends with the process at the latest.
    """
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(read())
        except BaseException as error:  # noqa: BLE001  Raised again below, in the thread that asked.
            outcome.append(error)

    thread = threading.Thread(target=run, name="probe", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if not outcome:
        raise TimeoutError(f"no end after {SECONDS:g} s")
    if isinstance(outcome[0], BaseException):
        raise outcome[0]
    return outcome[0]
