"""Failures of the loop: each is reported once and delays the next round."""

from collections.abc import Callable
from traceback import extract_tb

from .events import Event, EventSink

MAX_BACKOFF_S = 5.0
_FIRST_BACKOFF_S = 0.5


class Failures:
    """The failures since the last success. `clock` returns seconds of this process's clock."""

    def __init__(self, emit: EventSink, clock: Callable[[], float]) -> None:
        self._emit, self._clock = emit, clock
        self.count = 0
        self._lost_at: float | None = None
        self._reported: set[str] = set()
        self._failed_turn = 0

    def broker_lost(self, error: Exception) -> float:
        """Report that the broker is unreachable. Return the seconds until the next attempt."""
        if self._lost_at is None:
            self._lost_at = self._clock()
            self._emit(Event.BROKER_LOST, error=str(error))
        return self._backoff()

    def turn_failed(self, error: Exception, turns: int) -> float:
        """Report an error that was not reported since the last success. Return the seconds until the next attempt.

        `turns` is the number of turns that the loop has completed.
        """
        message, self._failed_turn = str(error) or type(error).__name__, turns
        if message not in self._reported:
            self._reported.add(message)
            frame = extract_tb(error.__traceback__)[-1]
            where = f"{frame.name} in {frame.filename}:{frame.lineno}"
            self._emit(Event.TURN_FAILED, error=f"{type(error).__name__}: {message}", where=where)
        return self._backoff()

    def succeeded(self, turns: int) -> None:
        """Report the recovery after a successful round, and reset the delay.

        A round that only polled does not end a series of failed turns: no turn has been retried.
        """
        if self._lost_at is not None:
            self._emit(Event.BROKER_BACK, seconds=self._clock() - self._lost_at)
        elif self.count and turns == self._failed_turn:
            return
        elif self.count:
            self._emit(Event.TURN_WORKS_AGAIN, failed_turns=self.count)
        self._lost_at, self.count, self._reported = None, 0, set()

    def _backoff(self) -> float:
        self.count += 1
        return min(_FIRST_BACKOFF_S * 2.0 ** (self.count - 1), MAX_BACKOFF_S)
