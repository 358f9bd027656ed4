"""The pause of a worker before it connects again."""

import pytest
from celery.exceptions import WorkerShutdown
from celery.worker import state

from morag_queue.agent.reconnect import LONGEST_SECONDS, STEADY_SECONDS, ReconnectPause


class Clock:
    """Passes only while the worker sleeps."""

    now = 1000.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def __call__(self) -> float:
        return self.now


def paused(pause: ReconnectPause, clock: Clock) -> float:
    before = clock.now
    pause.step()
    return clock.now - before


def test_a_worker_reconnects_at_once_and_ever_later_while_its_connections_are_short():
    clock = Clock()
    pause = ReconnectPause(clock, clock.sleep)

    pauses = [paused(pause, clock) for _ in range(7)]

    assert pauses == pytest.approx([0, 0.5, 1, 2, 4, LONGEST_SECONDS, LONGEST_SECONDS], abs=0.11)
    clock.sleep(STEADY_SECONDS)
    assert paused(pause, clock) == 0


def test_a_pausing_worker_shuts_down_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch):
    clock = Clock()
    pause = ReconnectPause(clock, clock.sleep)
    pause.step()
    monkeypatch.setattr(state, "should_stop", 0)

    with pytest.raises(WorkerShutdown):
        pause.step()
