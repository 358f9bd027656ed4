"""Each fault once, on a fleet with the agent: its promise is kept. `python -m tests.faults` compares plain Celery."""

import pytest

from tests.faults.fault import Fault, run
from tests.faults.faults import FAULTS


@pytest.mark.parametrize("fault", [pytest.param(fault, id=fault.__name__) for fault in FAULTS])
def test_the_promise_is_kept(fault: type[Fault], make_fleet: object) -> None:
    outcome = run(fault, is_plain=False, rounds=fault.quick_rounds, is_timed=False)

    print(f"account: {outcome.account}")
    assert outcome.broken == []


def test_an_account_shows_what_plain_celery_loses() -> None:
    """The suite can fail: a worker that is stopped, is sent a message, and is killed has destroyed it."""
    stopped = next(fault for fault in FAULTS if fault.__name__ == "KilledStoppedWorkers")

    outcome = run(stopped, is_plain=True, rounds=1)

    assert len(outcome.account.lost) == 1
    assert outcome.broken[0].startswith("lost 1: ")
